"""Files in D4RL's layout (flat arrays over time, in HDF5 or npz), and D4RL's table of files and reference scores.

`next_observations` holds the last observation of each trajectory, and a trajectory is cut where it is not the
observation of the row after it. Without that array, nobody recorded what the last step of a trajectory led to. Where it
is terminal, the state after it is never valued, and the last observation is repeated for it. Where it is not, the last
row serves as the last observation only: its action and reward are dropped, and a trajectory of a single row has no
step. A warning counts both. A trajectory that ends without a flag is truncated. Goals (`infos/goal`) are kept in both
cases, `infos/qpos` and `infos/qvel` only without `next_observations`. `save_d4rl` writes such a file, with the
environment and the layout of observations and goals in `metadata/gentraj`.

AntMaze and Kitchen by their ids name no environment: D4RL's own need MuJoCo 2.1 and the old gym.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files import write_file
from ..progress import one_line
from .episodes import WORDS, DataError, Episodes, Fields, as_flags, as_numbers, last_steps, named
from .robomimic import is_robomimic, read_robomimic
from .splitting import split_at_terminations

ROWS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations",
        "infos/goal", "infos/qpos", "infos/qvel")  # each has one row per step
SINGLE = ("rewards", "terminals", "timeouts")  # each is one number per step
SUFFIXES = (".hdf5", ".h5")
NOTES = "metadata/gentraj"  # in a file of `save_d4rl`, JSON of the fields NOTED
NOTED = ("env", "goal_dims", *WORDS)


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


class PointMaze(NamedTuple):
    """An environment of maze2d, with the steps of an episode in D4RL, and the rows and columns of the map."""

    env_id: str
    steps: int
    rows: int
    columns: int


MAZES = {"open": PointMaze("PointMaze_Open-v3", 150, 5, 7), "umaze": PointMaze("PointMaze_UMaze-v3", 300, 5, 5),
         "medium": PointMaze("PointMaze_Medium-v3", 600, 8, 8), "large": PointMaze("PointMaze_Large-v3", 800, 9, 12)}
"""The environments of maze2d by the sizes in D4RL's ids."""


def is_antmaze(dataset: str) -> bool:
    """Whether the data with this id, in D4RL or Minari, or in this file, if its name tells, are those of AntMaze."""
    name = dataset_name(dataset)
    return name.startswith("D4RL/antmaze/") or (name in d4rl_table() and name.startswith("antmaze-"))


def dataset_name(source: str | Path) -> str:
    """The name of the data: their id, or of a file D4RL's id, if D4RL's file has this name, or else its stem."""
    if (path := Path(source)).suffix not in SUFFIXES:
        return str(source)
    return next((name for name, row in d4rl_table().items() if row["file"] == path.name), path.stem)


def spec_json(env_id: str, max_episode_steps: int, **kwargs: str) -> str:
    """Gymnasium's EnvSpec of an environment as JSON, which is a name with arguments only and so needs no Gymnasium."""
    return json.dumps({"id": env_id, "max_episode_steps": max_episode_steps, "kwargs": kwargs,
                       "additional_wrappers": [], "vector_entry_point": None})


def read_d4rl(source: str | Path) -> Fields:
    """Reads the fields of `Episodes`, not yet validated, from an HDF5 file in D4RL's or robomimic's layout, or from the
    file of a D4RL id in D4RL's folder ($D4RL_DATASET_DIR or ~/.d4rl/datasets).

    AntMaze, by its ids or as files with the names that D4RL gives them, has no goals, as D4RL's policies are not told
    the goal. A trajectory of it goes on after a terminal step, and what follows becomes an episode of its own. maze2d,
    by its ids or file names too, names Gymnasium-Robotics' PointMaze; positions, velocities, actions and goals are
    turned into the frame of that environment.

    Raises `DataError`, naming the file, where it cannot be read or does not have D4RL's layout.
    """
    path, name = Path(os.path.expanduser(source)), dataset_name(source)
    if str(source) in d4rl_table():
        folder = Path(os.environ.get("D4RL_DATASET_DIR") or Path.home() / ".d4rl" / "datasets")
        path = folder / d4rl_table()[name]["file"]
        if not path.is_file():
            raise DataError(f"{source}: {path} does not exist; put D4RL's file there or set D4RL_DATASET_DIR")
    goes_on = is_antmaze(str(source))
    with open_hdf5(path) as file:
        if is_robomimic(file):
            arrays, keys = read_robomimic(file, name)
            return d4rl_fields(arrays, name) | {"obs_keys": keys}
        arrays = {key: np.asarray(file[key]) for key in ROWS if key in file}
        if NOTES in file:
            notes = json.loads(file[NOTES][()])
            return d4rl_fields(arrays, name) | {key: notes[key] for key in NOTED if key in notes}
    fields = d4rl_fields(arrays, name, goes_on=goes_on)
    if name in d4rl_table() and name.startswith("maze2d-"):
        return _in_pointmaze(fields, name)
    if goes_on:
        extras = {key: value for key, value in fields["extras"].items() if key != "goal"}
        fields |= {"goal_dims": (), "extras": extras}
        whole = split_at_terminations(Episodes(**fields, validate=False))
        return {key: getattr(whole, key) for key in fields}
    return fields


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Opens an `h5py.File`. Raises `DataError`, naming the file, for anything that goes wrong while it is open."""
    import h5py

    if not os.path.isfile(path):  # false for a name that no file can have
        raise DataError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (DataError, Warning):
        raise
    except Exception as error:  # a file may hold anything, or nothing, in place of an array
        raise DataError(f"{path}: cannot be read ({one_line(error)}); is it complete and HDF5?") from error


def _in_pointmaze(fields: Fields, name: str) -> Fields:
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


def d4rl_fields(arrays: Mapping[str, np.ndarray], name: str, *, ends_in_observation: bool = False,
                goes_on: bool = False) -> Fields:
    """Converts arrays under D4RL's names to the fields of `Episodes`, not yet validated.

    Warns of steps that are lost, and of observations that are repeated, because the data have no next_observations,
    unless every trajectory `ends_in_observation`, which means that its last row never was a step. With `goes_on`,
    terminal rows end no trajectory, and the fields may have terminal steps within episodes. Raises `DataError` for
    another layout.
    """
    _check_rows(arrays, name)
    terminal_N = as_flags(arrays["terminals"].reshape(-1), name, "terminals")
    last_N = _last_rows(arrays, name, terminal_N, goes_on)
    following = "next_observations" in arrays
    extras = {key: arrays[f"infos/{key}"] for key in ("goal", "qpos", "qvel") if f"infos/{key}" in arrays}
    obs, ends_E = arrays["observations"], np.flatnonzero(last_N)
    rows_E = np.diff(ends_E, prepend=-1)  # rows of each trajectory in the file
    if following:
        step_N, lengths_E = np.ones_like(last_N), rows_E
        obs = np.insert(obs, ends_E + 1, arrays["next_observations"][ends_E], 0)
        # The goal of a step is that of the observation after it, too.
        extras = {key: np.insert(x, ends_E + 1, x[ends_E], 0) for key, x in extras.items() if key == "goal"}
    else:
        step_N = ~last_N | terminal_N
        steps_E = np.add.reduceat(step_N, ends_E + 1 - rows_E, dtype=int)
        if not steps_E.any():
            raise DataError(f"{name}: no trajectory has two rows or terminates, and without next_observations the last "
                            "row of a trajectory is only its last observation; give next_observations")
        if not ends_in_observation:
            _warn_of_last_steps(name, steps_E, terminal_N[ends_E], arrays["rewards"].reshape(-1)[ends_E])
        # A row of a trajectory that has steps is an observation, and where it ends for good, twice.
        times_N = np.repeat(steps_E > 0, rows_E).astype(int) + (last_N & terminal_N)
        lengths_E = steps_E[steps_E > 0]
        obs, extras = obs.repeat(times_N, 0), {key: x.repeat(times_N, 0) for key, x in extras.items()}
    terminated = terminal_N[step_N]
    return {"obs": obs, "act": arrays["actions"][step_N], "reward": arrays["rewards"].reshape(-1)[step_N],
            "terminated": terminated, "truncated": last_steps(lengths_E) & ~terminated, "lengths": lengths_E,
            "extras": extras, "name": name,
            "goal_dims": (0, 1) if name.lower().startswith(("maze2d", "antmaze", "ant_maze")) else ()}


def _warn_of_last_steps(name: str, steps_E: np.ndarray, terminal_E: np.ndarray, reward_E: np.ndarray) -> None:
    """Warns of what a file without next_observations loses of trajectories, and of what is put in the place of it.

    `steps_E` are the steps that each keeps. `terminal_E` and `reward_E` are the flags and rewards of their last rows.
    """
    cut_E, said = ~terminal_E, []
    if cut_E.any():
        said.append(f"{np.count_nonzero(cut_E)} trajectories that do not terminate lose their last step "
                    f"({np.count_nonzero(cut_E & (reward_E != 0))} of them a reward other than 0, "
                    f"{np.count_nonzero(steps_E == 0)} their only step)")
    if terminal_E.any():
        said.append(f"{np.count_nonzero(terminal_E)} trajectories that terminate repeat their last observation after "
                    "the last step")
    warnings.warn(f"{name} has no next observations: {', and '.join(said)}; give them to keep what was recorded",
                  stacklevel=3)


def _check_rows(arrays: Mapping[str, np.ndarray], name: str) -> None:
    missing = {"observations", "actions", "rewards", "terminals"} - arrays.keys()
    if missing:
        raise DataError(f"{name}: not in D4RL's layout; it lacks {', '.join(sorted(missing))}")
    N = np.size(arrays["observations"], 0) if arrays["observations"].ndim else 0
    for key in ROWS:
        if key not in arrays:
            continue
        array = as_numbers(arrays[key], name, key)
        if not N or array.shape[:1] != (N,) or (key in SINGLE and array.size != N):
            raise DataError(f"{name}: {key} has shape {array.shape}; a row for each of the {N} observations is "
                            "expected, at least one, and a number in each for rewards, terminals and timeouts")
    following = arrays.get("next_observations", arrays["observations"])
    if following.shape != arrays["observations"].shape:
        raise DataError(f"{name}: next_observations have shape {following.shape} and observations "
                        f"{arrays['observations'].shape}; the same shape is expected")


def _last_rows(arrays: Mapping[str, np.ndarray], name: str, terminal_N: np.ndarray, goes_on: bool) -> np.ndarray:
    """(N,) true at the last row of each trajectory, which ends too, with a warning, where its next observation is not
    the observation of the row after it."""
    last_N = np.zeros_like(terminal_N) if goes_on else terminal_N.copy()
    if "timeouts" in arrays:
        last_N |= as_flags(arrays["timeouts"].reshape(-1), name, "timeouts")
    elif arrays["terminals"].dtype.kind != "f":  # the float terminals of the kitchen data also mark time limits
        raise DataError(f"{name}: no 'timeouts', so the ends of trajectories are unknown; add 'timeouts', true in the "
                        "last row of each that was cut off")
    last_N[-1] = True
    if "next_observations" in arrays:
        same = np.isclose(arrays["next_observations"][:-1], arrays["observations"][1:], rtol=1e-3, atol=1e-5)
        jumps_N = np.append(~same.all(tuple(range(1, same.ndim))), False) & ~last_N
        if number := np.count_nonzero(jumps_N):
            warnings.warn(f"{name}: in {number} rows next_observations is not the observation of the row after them, "
                          "so their trajectories are cut there; if rows were shuffled, give them in their order",
                          stacklevel=3)
            last_N |= jumps_N
    return last_N


def d4rl_arrays(episodes: Episodes) -> dict[str, np.ndarray]:
    """The steps of episodes under D4RL's names, with a row (S, ...) for each.

    `terminals` is true where an episode has ended for good, and `timeouts` where it was cut off.
    """
    e = episodes
    return {"observations": np.delete(e.obs, e.last_rows, 0), "actions": e.act, "rewards": e.reward,
            "terminals": e.terminated, "timeouts": last_steps(e.lengths) & ~e.terminated,
            "next_observations": np.delete(e.obs, e.last_rows - e.lengths, 0)}


def save_d4rl(episodes: Episodes, path: str | Path) -> Path:
    """Writes an HDF5 file in D4RL's layout, completely or not at all, and returns its path.

    The arrays are those of `d4rl_arrays` and, for data with goals, `infos/goal`. `load_episodes` also finds the
    environment, `goal_dims`, `obs_keys` and the names of entries in the file. Warns of what the layout has no place
    for: extras other than the goal, and the goal at an episode's last observation if it differs from that of the last
    step. Raises `DataError` for a name without .hdf5.
    """
    import h5py

    path = named(path, ".hdf5")
    e, arrays = episodes, d4rl_arrays(episodes)
    lost = [f"the {key} of {len(e.obs):,} observations" for key in e.extras if key != "goal"]
    if "goal" in e.extras:
        goal_NG = e.extras["goal"]
        arrays["infos/goal"] = np.delete(goal_NG, e.last_rows, 0)
        if new := np.count_nonzero((goal_NG[e.last_rows] != goal_NG[e.last_rows - 1]).any(1)):
            lost.append(f"the goal at the last observation of {new:,} episodes, which is read as the one before")
    if lost:
        warnings.warn(f"{path}: its layout has no place for {', '.join(lost)}", stacklevel=2)
    with BytesIO() as written:
        with h5py.File(written, "w") as file:
            for key, array in arrays.items():
                file[key] = array
            file[NOTES] = json.dumps({key: getattr(e, key) for key in NOTED})
        write_file(path, written.getvalue())
    return path
