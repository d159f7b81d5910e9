"""Files in D4RL's layout (flat arrays over time, in HDF5 or npz), and D4RL's table of files and reference scores.

`next_observations` holds the last observation of each trajectory, and a trajectory is cut where it is not the
observation of the row after it. Without that array, the last row of a trajectory serves as its last observation only:
the action, reward and flag of that row are dropped, because nobody recorded what they led to, and a trajectory of a
single row has no step. A trajectory that ends without a flag is truncated. Goals (`infos/goal`) are kept in both cases,
`infos/qpos` and `infos/qvel` only without `next_observations`.

AntMaze and Kitchen by their ids are single tasks, whose environments `gentraj.envs.tasks.d4rl` registers as D4RL/ID.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .d3rlpy import is_d3rlpy, read_d3rlpy
from .episodes import Episodes
from .hdf5 import check_numbers, open_hdf5
from .spaces import spec_as_json
from .splitting import split_at_terminations
from .validation import BLOCK_ROWS, DataError, Rounding, as_flags, as_whole

ROWS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations",
        "infos/goal", "infos/qpos", "infos/qvel")  # each has one row per step
SINGLE = ("rewards", "terminals", "timeouts")  # each is one number per step
SUFFIXES = (".hdf5", ".h5")


@cache
def d4rl_table() -> dict[str, dict[str, Any]]:
    """D4RL's datasets by id, each with its "min" and "max" reference returns and the name of its "file"."""
    return json.loads(Path(__file__).with_name("d4rl_scores.json").read_text())


def d4rl_reference(dataset_id: str) -> tuple[float, float]:
    """The reference returns (min, max) of D4RL's normalised score, 100 * (return - min) / (max - min).

    Raises `DataError` for an id without reference returns.
    """
    if dataset_id not in d4rl_table():
        raise DataError(f"'{dataset_id}' is no D4RL id with reference scores; ids such as hopper-medium-v2 or "
                        "pen-human-v1 are expected")
    row = d4rl_table()[dataset_id]
    return row["min"], row["max"]


@dataclass(frozen=True)
class SingleTask:
    """What D4RL and Minari have data of, but no goal that a policy of D4RL is told."""

    steps: int
    """The steps of an episode in D4RL."""
    minari_version: int
    """The version of Minari's data, D4RL/antmaze/medium-play-v1 for antmaze-medium-play-v2."""
    goes_on: bool = False
    """Whether a trajectory of D4RL's files goes on after a terminal step."""
    critic_rewards: str | None = None
    """The `rewards` of the policies whose critic learns from the data, as published; None for those of the preset."""
    evaluated_elsewhere: bool = False
    """Whether agents are evaluated in the environment that Minari's data name for it, which has other goals."""


def _antmaze(steps: int) -> SingleTask:
    return SingleTask(steps, minari_version=1, goes_on=True, critic_rewards="minus-one", evaluated_elsewhere=True)


SINGLE_TASKS = {"antmaze-umaze": _antmaze(700), "antmaze-medium": _antmaze(1000), "antmaze-large": _antmaze(1000),
                "kitchen": SingleTask(280, minari_version=2)}
"""The tasks by what the D4RL ids of their data begin with."""


class Maze(NamedTuple):
    """An environment of maze2d, with the steps of an episode in D4RL, and the rows and columns of the map."""

    env_id: str
    steps: int
    rows: int
    columns: int


MAZES = {"open": Maze("PointMaze_Open-v3", 150, 5, 7), "umaze": Maze("PointMaze_UMaze-v3", 300, 5, 5),
         "medium": Maze("PointMaze_Medium-v3", 600, 8, 8), "large": Maze("PointMaze_Large-v3", 800, 9, 12)}
"""The environments of maze2d by the sizes in D4RL's ids."""


def single_task(dataset: str) -> SingleTask | None:
    """The single task of the data with this id, in D4RL or Minari, or in this file, if its name tells; else None."""
    if dataset.startswith("D4RL/"):
        name = dataset.removeprefix("D4RL/").replace("/", "-")
    elif (name := dataset_name(dataset)) not in d4rl_table():
        return None
    return next((task for start, task in SINGLE_TASKS.items() if name.startswith(f"{start}-")), None)


def dataset_name(source: str | Path) -> str:
    """The name of the data: their id, or of a file D4RL's id, if D4RL's file has this name, or else its stem."""
    if (path := Path(source)).suffix not in SUFFIXES:
        return str(source)
    return next((name for name, row in d4rl_table().items() if row["file"] == path.name), path.stem)


def spec_json(env_id: str, max_episode_steps: int, **kwargs: str) -> str:
    """Gymnasium's EnvSpec of an environment as JSON, which is a name with arguments only and so needs no Gymnasium."""
    return json.dumps({"id": env_id, "max_episode_steps": max_episode_steps, "kwargs": kwargs,
                       "additional_wrappers": [], "vector_entry_point": None})


def load_d4rl(source: str | Path, lengths: Sequence[int] | None = None) -> Episodes:
    """Loads a file in D4RL's layout, or the dataset of a D4RL id from D4RL's folder ($D4RL_DATASET_DIR or
    ~/.d4rl/datasets).

    AntMaze and Kitchen, by their ids or as files with the names that D4RL gives them, name D4RL's environment and have
    no goals, as D4RL's policies are not told the goal. A trajectory of AntMaze goes on after a terminal step, and what
    follows becomes an episode of its own. maze2d, by its ids or file names too, names Gymnasium-Robotics' PointMaze;
    positions, velocities, actions and goals are turned into the frame of that environment.

    `lengths` are the numbers of rows of the trajectories, for files without `timeouts`. Raises `DataError`, naming the
    file, where it cannot be read or does not have D4RL's layout.
    """
    return Episodes(**read_d4rl(source, lengths))


def read_d4rl(source: str | Path, lengths: Sequence[int] | None = None) -> dict[str, Any]:
    """Reads the fields of `Episodes`, not yet validated."""
    path, name = Path(os.path.expanduser(source)), dataset_name(source)
    if str(source) in d4rl_table():
        folder = Path(os.environ.get("D4RL_DATASET_DIR") or Path.home() / ".d4rl" / "datasets")
        path = folder / d4rl_table()[name]["file"]
        if not path.is_file():
            raise DataError(f"{source}: {path} does not exist; put D4RL's file there or set D4RL_DATASET_DIR")
    if lengths is not None:
        lengths = as_whole(lengths, name, "lengths").tolist()
    task = single_task(str(source))
    goes_on = task is not None and task.goes_on
    with open_hdf5(path) as file:
        if is_d3rlpy(file):
            return read_d3rlpy(file, name)
        fields = d4rl_fields(_arrays(file), name, lengths, goes_on=goes_on)
        fields["env"] = _environment(file)
    if name in d4rl_table() and name.startswith("maze2d-"):
        return _in_pointmaze(fields, name)
    if task is not None:
        extras = {key: value for key, value in fields["extras"].items() if key != "goal"}
        fields |= {"goal_dims": (), "env": spec_json(f"D4RL/{name}", task.steps), "extras": extras}
    if goes_on:
        whole = split_at_terminations(Episodes(**fields, validate=False))
        return {key: getattr(whole, key) for key in fields}
    return fields


def _in_pointmaze(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The fields of maze2d in the frame of PointMaze, whose origin is the middle of the map. There, x grows with the
    columns and y against the rows; a position in D4RL is row and column, both less 0.2 in the centre of a cell."""
    obs_NO, act_SA = fields["obs"], fields["act"]
    if obs_NO.shape[1:] != (4,) or act_SA.shape[1:] != (2,):
        raise DataError(f"{name}: observations have shape {obs_NO.shape} and actions {act_SA.shape}; (N, 4) and (N, 2) "
                        "are expected of maze2d; give a file that is none of D4RL's another name")
    maze = MAZES[name.split("-")[1]]

    def turned(x_N2: np.ndarray) -> np.ndarray:
        return np.stack([x_N2[:, 1], -x_N2[:, 0]], 1)

    def placed(x_N2: np.ndarray) -> np.ndarray:
        return turned(x_N2) + np.array([0.7 - maze.columns / 2, maze.rows / 2 - 0.7], np.float32)

    return {**fields, "obs": np.concatenate([placed(obs_NO[:, :2]), turned(obs_NO[:, 2:])], 1), "act": turned(act_SA),
            "extras": {"goal": placed(fields["extras"]["goal"])} if "goal" in fields["extras"] else {},
            "obs_keys": ("observation",),
            "env": spec_json(maze.env_id, maze.steps, reward_type="dense" if "-dense-" in name else "sparse")}


def d4rl_fields(source: Mapping[str, Any], name: str, lengths: Sequence[int] | None = None, *,
                ends_in_observation: bool = False, goes_on: bool = False) -> dict[str, Any]:
    """Converts arrays under D4RL's names, which may be anything that slices, to the fields of `Episodes`.

    Warns of steps that are lost because the data have no next_observations, unless every trajectory
    `ends_in_observation`, which means that its last row never was a step. With `goes_on`, terminal rows end no
    trajectory, and the fields may have terminal steps within episodes. Raises `DataError` for another layout.
    """
    _check_rows(source, name)
    following = "next_observations" in source
    terminal_N = _flags(source, name, "terminals")
    last_N = _last_rows(source, name, np.zeros_like(terminal_N) if goes_on else terminal_N, lengths)
    if following:
        _cut(source, name, last_N)
    rows_E = np.diff(np.flatnonzero(last_N), prepend=-1)  # rows of each trajectory in the file
    step_N, obs_N = ~last_N | following, np.repeat((rows_E > 1) | following, rows_E)
    lengths_E = rows_E[(rows_E > 1) | following] - (not following)
    if not following:
        _warn_of_lost_steps(name, rows_E, terminal_N[last_N], ends_in_observation)

    # at_N and obs_at_N are the new positions of the rows. With next_observations every trajectory gets one more
    # observation, right after its last.
    S, ends_E = int(lengths_E.sum()), np.cumsum(lengths_E) - 1
    at_N, obs_at_N = np.cumsum(step_N) - 1, np.cumsum(obs_N) - 1 + following * (np.cumsum(last_N) - last_N)
    obs = _scatter(source, name, "observations", obs_N, obs_at_N, S + len(lengths_E))
    kept = ("goal",) if following else ("goal", "qpos", "qvel")
    extras = {key: _scatter(source, name, f"infos/{key}", obs_N, obs_at_N, len(obs)) for key in kept
              if f"infos/{key}" in source}
    if following:
        _scatter(source, name, "next_observations", last_N, obs_at_N + 1, len(obs), obs)
        for goal in extras.values():  # the goal of a step is that of the observation after it, too
            _scatter(source, name, "infos/goal", last_N, obs_at_N + 1, len(obs), goal)
    terminated, truncated = terminal_N[step_N], np.zeros(S, dtype=bool)
    truncated[ends_E] = ~terminated[ends_E]
    return {"obs": obs, "act": _scatter(source, name, "actions", step_N, at_N, S),
            "reward": _scatter(source, name, "rewards", step_N, at_N, S).reshape(-1), "terminated": terminated,
            "truncated": truncated, "lengths": lengths_E, "extras": extras, "name": name,
            "goal_dims": (0, 1) if name.lower().startswith(("maze2d", "antmaze", "ant_maze")) else ()}


def _warn_of_lost_steps(name: str, rows_E: np.ndarray, terminal_E: np.ndarray, ends_in_observation: bool) -> None:
    """Warns of the steps that a file without next_observations loses. Raises `DataError` where no step is left."""
    short = np.count_nonzero(rows_E == 1)
    lost = np.count_nonzero(rows_E > 1)
    ends = np.count_nonzero(terminal_E & (rows_E > 1))
    if short == len(rows_E):
        raise DataError(f"{name}: no trajectory has two rows, and without next_observations the last row of a "
                        "trajectory is only its last observation; give next_observations")
    if lost and not ends_in_observation:
        which = ""
        if ends:
            which = f", and for {ends} of them it is the terminal step"
        warnings.warn(f"{name} has no next_observations: the last step of {lost} trajectories is dropped with its "
                      f"reward{which}; give next_observations to keep it", stacklevel=3)
    if short:
        warnings.warn(f"{name} has no next_observations: {short} trajectories of a single row are dropped; give "
                      "next_observations to keep them", stacklevel=3)


def _check_rows(source: Mapping[str, Any], name: str) -> None:
    missing = {"observations", "actions", "rewards", "terminals"} - source.keys()
    if missing:
        raise DataError(f"{name}: not in D4RL's layout; it lacks {', '.join(sorted(missing))}")
    for key in source:
        if key in ROWS and not np.ndim(source[key]):
            raise DataError(f"{name}: {key} is a single number; an array with a row for each step is expected")
    N = len(source["observations"])
    if N == 0:
        raise DataError(f"{name}: observations has no rows; at least one is expected")
    for key in ROWS:
        if key not in source:
            continue
        if (dtype := source[key].dtype).kind not in "fiub":
            raise DataError(f"{name}: {key} has dtype {dtype}; numbers are expected")
        if len(source[key]) != N:
            raise DataError(f"{name}: {key} has {len(source[key])} rows and observations {N}; the same number is "
                            "expected")
        if key in SINGLE and (shape := source[key].shape) not in ((N,), (N, 1)):
            raise DataError(f"{name}: {key} has shape {shape}; one number for each of {N} steps is expected")
    shapes = [source[key].shape for key in ("observations", "next_observations") if key in source]
    if len(set(shapes)) > 1:
        raise DataError(f"{name}: next_observations have shape {shapes[1]} and observations {shapes[0]}; the same "
                        "shape is expected")


def _last_rows(source: Mapping[str, Any], name: str, terminal_N: np.ndarray,
               lengths: Sequence[int] | None) -> np.ndarray:
    """(N,) true at the last row of each trajectory."""
    last_N = terminal_N.copy()
    if lengths is not None:
        ends = np.cumsum(lengths)
        if min(lengths, default=0) < 1 or ends[-1] != len(last_N):
            raise DataError(f"{name}: the lengths given sum to {sum(lengths)}, and the smallest is "
                            f"{min(lengths, default=0)}; positive lengths that sum to the {len(last_N)} rows of the "
                            "file are expected")
        last_N[:] = False
        last_N[ends - 1] = True
    elif "timeouts" in source:
        last_N |= _flags(source, name, "timeouts")
    elif source["terminals"].dtype.kind != "f":  # the float terminals of the kitchen data also mark time limits
        raise DataError(f"{name}: no 'timeouts', so the ends of trajectories are unknown; add 'timeouts', true in the "
                        "last row of each that was cut off, or give their lengths in rows to load_d4rl")
    last_N[-1] = True
    return last_N


def _cut(source: Mapping[str, Any], name: str, last_N: np.ndarray) -> None:
    """Marks the rows as last whose next observation is not the observation of the row after them, with a warning."""
    jumps_N = np.zeros_like(last_N)
    for a in range(0, len(last_N) - 1, BLOCK_ROWS):
        b = min(a + BLOCK_ROWS, len(last_N) - 1)
        same = np.isclose(source["next_observations"][a:b], source["observations"][a + 1 : b + 1], rtol=1e-3, atol=1e-5)
        jumps_N[a:b] = ~same.reshape(b - a, -1).all(1) & ~last_N[a:b]
    if number := np.count_nonzero(jumps_N):
        warnings.warn(f"{name}: in {number} rows next_observations is not the observation of the row after them, so "
                      "their trajectories are cut there; if rows were shuffled, give them in their order",
                      stacklevel=4)
        last_N |= jumps_N


def _flags(source: Mapping[str, Any], name: str, key: str) -> np.ndarray:
    return as_flags(source[key][:].reshape(-1), name, key)


def _scatter(source: Mapping[str, Any], name: str, key: str, keep_N: np.ndarray, at_N: np.ndarray, rows: int,
             out: np.ndarray | None = None) -> np.ndarray:
    """Sets out[at_N] to the rows of source[key] that `keep_N` selects, as float32, block by block."""
    array, rounding = source[key], Rounding(name, key)
    if out is None:
        out = np.empty((rows, *array.shape[1:]), np.float32)
    for a in range(0, len(keep_N), BLOCK_ROWS):
        keep = keep_N[a : a + BLOCK_ROWS]
        if keep.any():
            block = array[a : a + BLOCK_ROWS][keep]
            rounded = np.empty(block.shape, np.float32)
            rounding.write(block, rounded)
            out[at_N[a : a + BLOCK_ROWS][keep]] = rounded
    rounding.warn()
    return out


def _arrays(file: Any) -> dict[str, Any]:
    """The arrays of an HDF5 file by name, including `infos/...`; slicing an array reads it."""
    arrays = {key: file[key] for key in ROWS if key in file}
    for key, array in arrays.items():
        check_numbers(array, file, key)
    return arrays


def _environment(file: Any) -> str | None:
    """The specification, as JSON, of the environment that the file names, if one of that name is registered; D4RL's own
    files name none."""
    if "metadata/env_id" not in file:
        return None
    import gymnasium

    env_id = file["metadata/env_id"].asstr()[()]
    spec = gymnasium.registry.get(env_id)  # only a look-up: gymnasium.make may import a module that the name asks for
    return spec_as_json(spec) if spec else None
