"""OGBench's npz files: flat arrays without rewards, in which `terminals` (or a 0 in `valids`) marks the last row of a
trajectory."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .d4rl import d4rl_fields, spec_json
from .episodes import DataError, Episodes, Fields, as_flags, open_npz
from .minari_io import read_minari
from .splitting import split_at_terminations

OWN, RECORDED = "gentraj/ogbench/", ("cube-single", "scene", "puzzle-3x3")  # what gentraj records itself


def ogbench_fields(members: Mapping[str, np.ndarray], path: Path) -> Fields:
    """Converts the members of an npz in OGBench's layout to the fields of `Episodes`, not yet validated.

    The last row of a trajectory is only its last observation. OGBench's data are reward-free: rewards are 0 unless the
    file has some, and every episode is truncated. Raises `DataError`, naming the file, for another layout and for
    images.
    """
    missing = {"observations", "actions", "terminals"} - members.keys()
    if missing:
        raise DataError(f"{path}: its arrays ({', '.join(sorted(members)[:8])}) are in no known layout; OGBench's and "
                        f"D4RL's have {', '.join(sorted(missing))}, and save_npz(Episodes(...), FILE) writes gentraj's")
    if members["observations"].ndim != 2:
        raise DataError(f"{path}: observations have shape {members['observations'].shape}; images are not supported, "
                        "only vectors (use the state version of the dataset)")
    N = len(members["observations"])
    if "valids" in members:
        last_N = ~as_flags(members["valids"], path.stem, "valids")
    else:
        last_N = as_flags(members["terminals"], path.stem, "terminals")
    flat = {"observations": members["observations"], "actions": members["actions"], "timeouts": last_N,
            "terminals": np.zeros(N, dtype=bool), "rewards": members.get("rewards", np.zeros(N, np.float32))}
    flat |= {f"infos/{key}": members[key] for key in ("qpos", "qvel") if key in members}
    return d4rl_fields(flat, path.stem, ends_in_observation=True) | {"goal_dims": (0, 1) if "maze" in path.stem else ()}


@cache
def ogbench_tasks() -> dict[str, dict[str, Any]]:
    """OGBench's environments of states by name, each with the five goals of its tasks.

    "steps" is the length of an episode, "default" the task without a number, and "goals" the values of the entries of
    the observation that the "parts" name, in their order. A part, such as a cube, is at its goal if its entries are at
    most "tolerance" away.
    """
    return json.loads(Path(__file__).with_name("ogbench_tasks.json").read_text())


def kinds(env: str) -> tuple[str, ...]:
    """The kinds of data of an environment of OGBench; some mazes lack "explore"."""
    if env.startswith(("cube", "scene", "puzzle")):
        return "play", "noisy"
    return "navigate", "stitch", "explore"


@dataclass(frozen=True)
class OGBenchName:
    """The name of an OGBench dataset, taken apart, such as cube-single-play-v0, cube-single-play-singletask-task2-v0
    or, of gentraj's own recording, gentraj/ogbench/cube-single-singletask-task2-v0."""

    source: str
    """The dataset without rewards: the name of OGBench's own file, or the Minari id of gentraj's recording."""
    env: str
    """A key of `ogbench_tasks`."""
    task: int | None
    """The number of the single task, from 1; None for the goal-conditioned dataset."""
    env_id: str
    """Gymnasium's id of the environment, as gentraj registers it."""

    @classmethod
    def of(cls, text: str) -> OGBenchName | None:
        """Returns None for a text that is no such name, as gentraj's recording without a task is a Minari id."""
        found = re.fullmatch(rf"(?P<own>{OWN})?(?P<env>{'|'.join(ogbench_tasks())})(?:-(?P<kind>[a-z]+))??"
                             r"(?P<single>-singletask(?:-task(?P<task>[1-5]))?)?-v0", text)
        if found is None:
            return None
        env, is_single = found["env"], found["single"] is not None
        if found["own"]:
            is_name, source = is_single and not found["kind"], f"{OWN}{env}-v0"
        else:
            is_name, source = found["kind"] in kinds(env), f"{env}-{found['kind']}-v0"
        if not is_name:
            return None
        task = None
        if is_single:
            task = int(found["task"] or ogbench_tasks()[env]["default"])
        return cls(source, env, task, f"OGBench/{env}{found['single'] or ''}-v0")

    @property
    def spec_json(self) -> str:
        """Gymnasium's EnvSpec of the environment as JSON."""
        return spec_json(self.env_id, ogbench_tasks()[self.env]["steps"])


def is_ogbench(source: str) -> bool:
    """Whether the text is the name of an OGBench dataset."""
    return OGBenchName.of(source) is not None


def read_ogbench(source: str) -> Fields:
    """Reads the fields of an OGBench dataset by its name, with the rewards of the task that it names, not yet
    validated, from OGBENCH_DATASET_DIR or the folder into which OGBench's package downloads."""
    name = OGBenchName.of(source)
    if name is None:
        raise DataError(f"'{source}' is no OGBench name; a name such as cube-single-play-v0 is expected")
    path = Path(os.environ.get("OGBENCH_DATASET_DIR") or Path.home() / ".ogbench" / "data") / f"{name.source}.npz"
    if name.source.startswith(OWN):
        fields = read_minari(name.source)
    elif path.is_file():
        fields = ogbench_fields(open_npz(path), path)
    else:
        own = ""
        if name.task and name.env in RECORDED:
            own = f", or take gentraj's own recording, {OWN}{name.env}-singletask-task{name.task}-v0"
        elif not name.task and name.env.startswith("pointmaze"):
            own = f", or take gentraj's own recording, {OWN}{name.source}"
        raise DataError(f"{source}: {path} does not exist; put OGBench's file there or set OGBENCH_DATASET_DIR{own}")
    fields |= {"name": source}
    if name.task is not None:
        labelled = relabel(Episodes(**fields), name.env, name.task)
        return {field: getattr(labelled, field) for field in fields} | {
            "goal_dims": (), "obs_keys": (), "env": name.spec_json}
    dims = tuple(entry for part in ogbench_tasks()[name.env]["parts"] for entry in part["entries"])
    return fields | {"goal_dims": dims, "obs_keys": ("observation",), "env": name.spec_json}


def relabel(episodes: Episodes, env: str, task: int) -> Episodes:
    """Gives the episodes the rewards of a single task of OGBench: minus the number of parts that are not at the goal.

    As in OGBench, the reward of a step is that of the observation before it, a step taken at the goal has reward 0 and
    is terminal, and the steps after it are kept, here as an episode of their own. What belonged to other goals is
    dropped. Raises `DataError` for observations that are too short.
    """
    known, E = ogbench_tasks()[env], len(episodes)
    goal, entries = np.array(known["goals"][task - 1]), [part["entries"] for part in known["parts"]]
    if (least := max(max(each) for each in entries) + 1) > episodes.obs_dim:
        raise DataError(f"{episodes.name}: observations have {episodes.obs_dim} entries; those of {env} have at least "
                        f"{least}; give data of this environment")
    episode_S = np.repeat(np.arange(E), episodes.lengths)
    obs_SO = episodes.obs[np.arange(episodes.num_steps) + episode_S]
    goals = np.split(goal, np.cumsum([len(each) for each in entries])[:-1])
    is_met_SP = np.stack([np.linalg.norm(obs_SO[:, part["entries"]] - wanted, axis=1) <= part["tolerance"]
                          for part, wanted in zip(known["parts"], goals, strict=True)], axis=1)
    success_S = np.asarray(is_met_SP.all(axis=1))
    return split_at_terminations(replace(
        episodes, validate=False, extras={}, goal_dims=(), obs_keys=(), terminated=success_S,
        reward=(is_met_SP.sum(1) - len(entries)).astype(np.float32)))
