"""`Episodes`: an offline dataset in memory, in environment units, validated when it is made."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from ..config import escaped
from ..progress import one_line

PER_STEP = ("act", "reward", "terminated", "truncated")  # all other fields have one row more for each episode
AIMS = ("goal", "task")  # extras that policies are conditioned on
ARRAYS = ("obs", "act", "reward", "terminated", "truncated", "lengths")


class DataError(ValueError):
    """A dataset cannot be used; the message is one line that names the dataset, episode, step, field and value."""

    def __init__(self, message: str = ""):
        super().__init__(escaped(message))


def as_numbers(array: Any, name: str, field: str) -> np.ndarray:
    """The array. Raises `DataError` for one of text or objects, with masked entries, or with rows of several widths."""
    if np.ma.is_masked(array):
        raise DataError(f"{name}: {field} has masked entries; numbers are expected, so leave their episodes out")
    try:
        array = np.asarray(array)
    except (ValueError, TypeError, RuntimeError) as error:  # torch raises the latter two for tensors it cannot convert
        raise DataError(f"{name}: {field} is no array of numbers ({one_line(error)}); one array with the rows of all "
                        "episodes, one after the other, is expected") from error
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name}: {field} has dtype {array.dtype}; numbers are expected")
    return array


def as_float32(array: np.ndarray, name: str, field: str) -> np.ndarray:
    """Converts the array to float32, without a copy where it is float32 already. Numbers too large become infinite."""
    array = as_numbers(array, name, field)
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def as_whole(array: Any, name: str, field: str) -> np.ndarray:
    """Converts the array to int64. Raises `DataError` for anything but whole numbers, which may be floats."""
    array = as_numbers(array, name, field)
    if (wrong := array[(array != np.floor(array)) | (np.abs(array) >= 2.0**53)]).size:
        raise DataError(f"{name}: {field} has {wrong.flat[0]}; whole numbers below 2^53 are expected")
    return array.astype(np.int64)


def as_flags(array: Any, name: str, field: str) -> np.ndarray:
    """Converts the array to bool. Raises `DataError` for anything but 0 and 1, such as NaN, which would be true."""
    array = as_numbers(array, name, field)
    if array.dtype != bool and (wrong := array[(array != 0) & (array != 1)]).size:
        raise DataError(f"{name}: {field} has {wrong.flat[0]}; only 0 and 1, or false and true, are expected")
    return array.astype(bool, copy=False)


@dataclass(frozen=True, eq=False, repr=False)
class Episodes:
    """Flat arrays of E episodes with S steps in all; episode e has T = lengths[e] steps and T + 1 observations.

    `obs` (S + E, O), `act` (S, A) and `reward` (S,) are float32. `terminated` and `truncated` (S,) are bool and may be
    true at an episode's last step only: it ended for good, or it was stopped by a time limit or the end of the
    recording. A step with both flags counts as terminated, and an episode with neither flag as truncated.

    `extras` hold one row for each observation (S + E, ...): goal, qpos, qvel, or imagined, which marks synthetic data.
    `goal_dims` are the entries of an observation that a goal gives values for. `obs_keys` are the entries of a dict
    observation that were flattened and joined, in this order, to make `obs`. `env` is the environment, Gymnasium's
    EnvSpec as JSON. Two datasets are equal if all fields but the name are equal.

    Raises `DataError`, naming dataset, episode, step and field, unless `validate` is false (`inspect` needs that).
    """

    obs: np.ndarray
    act: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    lengths: np.ndarray
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)
    goal_dims: tuple[int, ...] = ()
    obs_keys: tuple[str, ...] = ()
    env: str | None = None
    name: str = "dataset"
    validate: InitVar[bool] = True

    def __post_init__(self, validate: bool) -> None:
        arrays: dict[str, object] = {"lengths": as_whole(self.lengths, self.name, "lengths")}
        arrays |= {key: as_float32(getattr(self, key), self.name, key) for key in ("obs", "act", "reward")}
        arrays |= {key: as_flags(getattr(self, key), self.name, key) for key in ("terminated", "truncated")}
        arrays["extras"] = {key: as_float32(value, self.name, key) for key, value in self.extras.items()}
        if type(self.goal_dims) is not tuple or any(type(dim) is not int for dim in self.goal_dims):
            arrays["goal_dims"] = tuple(np.ravel(as_whole(self.goal_dims, self.name, "goal_dims")).tolist())
        if type(self.obs_keys) is not tuple:
            arrays["obs_keys"] = (self.obs_keys,) if isinstance(self.obs_keys, str) else tuple(map(str, self.obs_keys))
        for key, value in arrays.items():
            object.__setattr__(self, key, value)
        if validate and (problem := next(problems(self), None)):
            raise DataError(problem)

    @property
    def obs_dim(self) -> int:
        """Width O of an observation."""
        return self.obs.shape[1]

    @property
    def act_dim(self) -> int:
        """Width A of an action."""
        return self.act.shape[1]

    @property
    def num_steps(self) -> int:
        """Number of steps of all episodes."""
        return len(self.act)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of all fields but the extras, by name, each of the shape that its field states."""
        return {key: getattr(self, key) for key in ARRAYS}

    @property
    def starts(self) -> np.ndarray:
        """(E,) the first step of each episode; the first observation of episode e is row `starts[e] + e` of `obs`."""
        return np.cumsum(self.lengths) - self.lengths

    def __repr__(self) -> str:
        return f"Episodes({self.name!r}, {len(self)} of {self.num_steps} steps, obs {self.obs_dim}, act {self.act_dim})"

    def __len__(self) -> int:
        return len(self.lengths)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Episodes):
            return NotImplemented
        return (all(getattr(self, key) == getattr(other, key) for key in ("goal_dims", "obs_keys", "env"))
                and all(np.array_equal(array, other.arrays[key]) for key, array in self.arrays.items())
                and self.extras.keys() == other.extras.keys()
                and all(np.array_equal(value, other.extras[key]) for key, value in self.extras.items()))

    def __getitem__(self, e: int) -> Episodes:
        """One episode, whose arrays are views of these."""
        if not -len(self) <= e < len(self):
            raise IndexError(f"episode {e} of {len(self)}")
        e %= len(self)
        a, T = int(self.starts[e]), int(self.lengths[e])
        steps, rows = slice(a, a + T), slice(a + e, a + e + T + 1)
        return replace(self, obs=self.obs[rows], act=self.act[steps], reward=self.reward[steps],
                       terminated=self.terminated[steps], truncated=self.truncated[steps],
                       lengths=self.lengths[e : e + 1], extras={k: v[rows] for k, v in self.extras.items()})

    def __iter__(self) -> Iterator[Episodes]:
        return (self[e] for e in range(len(self)))

    @property
    def returns(self) -> np.ndarray:
        """(E,) the undiscounted return of each episode."""
        return np.add.reduceat(self.reward.astype(np.float64), self.starts)

    @property
    def continues(self) -> np.ndarray:
        """(E - 1,) true where the next episode continues a truncated one: it starts with the observation that the
        truncated episode ends with. If that also started with it, as where observations never change, nothing tells
        that the next one continues it."""
        ends, starts = self._last_obs[:-1], self._last_obs[:-1] - self.lengths[:-1]
        moved = (self.obs[ends] != self.obs[starts]).any(1)
        return moved & (self.obs[ends] == self.obs[ends + 1]).all(1) & ~self.terminated[self.starts[1:] - 1]

    def stitched(self) -> Episodes:
        """Joins each truncated episode with the next one where that continues it.

        Recordings of one endless run are often truncated at every goal. After stitching, windows may cross a goal, so a
        model also learns what happens beyond it.
        """
        joins = self.continues
        if not joins.any():
            return self
        keep = np.ones(len(self.obs), dtype=bool)
        keep[self._last_obs[:-1][joins]] = False  # this observation is also the first of the next episode
        truncated = self.truncated.copy()
        truncated[self.starts[1:][joins] - 1] = False
        first = np.concatenate([[True], ~joins])
        return replace(self, obs=self.obs[keep], truncated=truncated,
                       lengths=np.add.reduceat(self.lengths, np.flatnonzero(first)),
                       extras={k: v[keep] for k, v in self.extras.items()})

    @property
    def is_real(self) -> np.ndarray:
        """(E,) false for the episodes that `gentraj augment` marked as synthetic, that is, as made by a world model."""
        imagined = self.extras.get("imagined")
        return np.ones(len(self), bool) if imagined is None else imagined[self._last_obs, 0] == 0

    def real(self) -> Episodes:
        """The episodes that are real (`is_real`).

        Raises `DataError` where all episodes are synthetic.
        """
        if "imagined" not in self.extras:
            return self
        kept_E = self.is_real
        if not kept_E.any():
            raise DataError(f"{self.name}: all episodes are synthetic; take real data")
        steps, rows = np.repeat(kept_E, self.lengths), np.repeat(kept_E, self.lengths + 1)
        return replace(self, obs=self.obs[rows], act=self.act[steps], reward=self.reward[steps],
                       terminated=self.terminated[steps], truncated=self.truncated[steps], lengths=self.lengths[kept_E],
                       extras={k: v[rows] for k, v in self.extras.items() if k != "imagined"})

    @property
    def _last_obs(self) -> np.ndarray:
        """(E,) the row of each episode's last observation in `obs`."""
        return np.cumsum(self.lengths + 1) - 1


def episodes_hash(episodes: Episodes) -> str:
    """SHA-256 of all that training can see of a dataset, which excludes its name and its environment."""
    arrays = episodes.arrays
    arrays |= {f"extras.{key}": value for key, value in sorted(episodes.extras.items())}
    goal_dims, obs_keys = tuple(map(int, episodes.goal_dims)), tuple(map(str, episodes.obs_keys))
    digest = hashlib.sha256(f"{goal_dims} {obs_keys}".encode())
    for key, array in arrays.items():
        digest.update(f"{key} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def concatenate(datasets: Sequence[Episodes]) -> Episodes:
    """Joins several datasets of one environment.

    Extras are kept where all datasets have them; a warning says where goals or tasks are lost. Where some datasets mark
    synthetic data, the others count as real. The environment is that of the first dataset which names one; a warning
    says where another one names another. Raises `DataError` for no datasets and for datasets whose observations,
    actions or extras differ in layout.
    """
    if not datasets:
        raise DataError("no datasets to join; give at least one")
    first = datasets[0]
    for other in datasets[1:]:
        for key in ("obs_dim", "act_dim", "goal_dims", "obs_keys"):
            if (value := getattr(other, key)) != (expected := getattr(first, key)):
                raise DataError(f"{other.name}: {key} is {value} but {expected} in {first.name}; only datasets of one "
                                "environment can be joined")
    if len(datasets) == 1:
        return first
    named = [d for d in datasets if d.env is not None]
    for other in named[1:]:
        if (own := environment_name(other.env)) != (expected := environment_name(named[0].env)):
            warnings.warn(f"{other.name} is of {own} and {named[0].name} of {expected}; the joined data count as those "
                          f"of {expected}", stacklevel=2)
    if any("imagined" in d.extras for d in datasets):
        datasets = [replace(d, extras={"imagined": np.zeros((len(d.obs), 1))} | dict(d.extras)) for d in datasets]
    joined: dict[str, Any] = {key: np.concatenate([d.arrays[key] for d in datasets]) for key in ARRAYS}
    joined["extras"] = _joined_extras(datasets)
    return replace(first, name="+".join(d.name for d in datasets), env=named[0].env if named else None, **joined)


def _joined_extras(datasets: Sequence[Episodes]) -> dict[str, np.ndarray]:
    first, *others = datasets
    for key in AIMS:
        having, lacking = ([d.name for d in datasets if (key in d.extras) is has] for has in (True, False))
        if having and lacking:
            warnings.warn(f"{lacking[0]} has no {key} beside its observations and {having[0]} has; the joined data "
                          "have none", stacklevel=3)
    shared = [key for key in first.extras if all(key in d.extras for d in others)]
    for other, key in product(others, shared):
        if (width := other.extras[key].shape[1]) != (expected := first.extras[key].shape[1]):
            raise DataError(f"{other.name}: {key} has width {width} but {expected} in {first.name}; only datasets of "
                            "one environment can be joined")
    return {key: np.concatenate([d.extras[key] for d in datasets]) for key in shared}


def environment_name(env: str | None) -> str:
    """The id in Gymnasium's EnvSpec as JSON without its version, such as PointMaze_UMaze; the text if it is no such."""
    try:
        return re.sub(r"-v\d+$", "", json.loads(env or "")["id"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return str(env)


def problems(e: Episodes) -> Iterator[str]:
    """Yields one line for each problem of a dataset."""
    wrong = list(wrong_shapes(e))
    yield from wrong or wrong_values(e)  # with wrong shapes no value belongs to an episode and a step


def wrong_shapes(e: Episodes) -> Iterator[str]:
    if e.lengths.ndim != 1:
        yield f"{e.name}: lengths has {e.lengths.ndim} dimensions, shape {e.lengths.shape}; 1 is expected"
        return
    if len(e.lengths) == 0:
        yield f"{e.name}: no episodes; at least one is expected"
        return
    for episode in np.flatnonzero(e.lengths < 1):
        yield f"{e.name}: episode {episode} has {e.lengths[episode]} steps; at least 1 is expected"
    for key in {"obs", *PER_STEP} & e.extras.keys():
        yield f"{e.name}: extras has an array named {key}, which is a field of every dataset; give it another name"
    S, E, flat = int(e.lengths.sum()), len(e.lengths), True
    for key, array in _fields(e).items():
        dims, rows = (1 if key in ("reward", "terminated", "truncated") else 2), S + E * _per_episode(key)
        if array.ndim != dims:
            flat = False
            shape = f"({rows},)" if dims == 1 else f"({rows}, width)"
            yield (f"{e.name}: {key} has {array.ndim} dimensions, shape {array.shape}; {dims} are expected, shape "
                   f"{shape}")
        elif len(array) != rows:
            needed = f"{S} + {E} = {rows} rows, one more than actions in each" if _per_episode(key) else f"{S} rows"
            yield f"{e.name}: {key} has {len(array)} rows; {E} episodes of {S} steps in all need {needed}"
        elif not array.size and key != "act":
            yield f"{e.name}: {key} has width 0; at least one entry is expected"
    if not flat:
        return
    width = e.obs.shape[-1]
    for dim in e.goal_dims:
        if not 0 <= dim < width:
            yield f"{e.name}: goal_dims is {e.goal_dims}; entries of an observation of width {width} are expected"
            break
    if len({*e.goal_dims}) < len(e.goal_dims):
        yield f"{e.name}: goal_dims is {e.goal_dims}; each entry once is expected"
    goal = e.extras.get("goal")
    if goal is not None and e.goal_dims and goal.shape[-1] != len(e.goal_dims):
        yield f"{e.name}: goal has width {goal.shape[-1]}; goal_dims {e.goal_dims} need {len(e.goal_dims)}"


def wrong_values(e: Episodes) -> Iterator[str]:
    for key, array in _fields(e).items():
        # NaN and infinity survive min and max, which need no array as large as the data.
        if array.dtype == bool or array.size == 0 or np.isfinite([array.min(), array.max()]).all():
            continue
        rows = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))
        beyond = " in float32, which holds no number beyond 3.4e38" if np.isinf(array[rows[0]]).any() else ""
        shown = np.array2string(array[rows[0]], max_line_width=sys.maxsize, threshold=50)
        yield (f"{place(e, int(rows[0]), key)}: {key} is {shown}{beyond}; finite numbers within float32 are "
               f"expected (rows affected: {len(rows)})")
    last = np.cumsum(e.lengths) - 1
    for key in ("terminated", "truncated"):
        inside = e.arrays[key].copy()
        inside[last] = False
        if inside.any():
            row = int(np.argmax(inside))
            yield (f"{place(e, row, key)}: {key} is true inside the episode; only its last step may be "
                   f"(steps affected: {np.count_nonzero(inside)}; split the episode there)")


def place(e: Episodes, row: int, key: str) -> str:
    """Names a row of a flat array by its dataset, episode and step."""
    rows_E = e.lengths + _per_episode(key)
    ends_E = np.cumsum(rows_E)
    episode = int(np.searchsorted(ends_E, row, side="right"))
    return f"{e.name}: episode {episode}, step {row - int(ends_E[episode] - rows_E[episode])}"


def _fields(e: Episodes) -> dict[str, np.ndarray]:
    return {key: array for key, array in e.arrays.items() if key != "lengths"} | dict(e.extras)


def _per_episode(key: str) -> int:
    """The number of rows that an episode has in this field beyond its number of steps."""
    return 0 if key in PER_STEP else 1


LONGEST_PIECE = 1000  # steps; most episodes are shorter and stay whole
FEWEST_PIECES = 20  # where the data have that many steps


def hold_out(episodes: Episodes, share: float, seed: int) -> tuple[Episodes, Episodes]:
    """Splits the data at random into a training set and a held-out set with about `share` of the steps.

    The pieces drawn are whole episodes; long episodes are split into several pieces. Each side gets at least one piece.
    Raises ValueError for data of a single step.
    """
    longest = min(LONGEST_PIECE, max(1, episodes.num_steps // FEWEST_PIECES))
    pieces = [(e, at, min(at + longest, T)) for e, T in enumerate(episodes.lengths.tolist())
              for at in range(0, T, longest)]
    if len(pieces) < 2:
        raise ValueError(f"{episodes.name} has a single step; nothing can be held out of it")
    order, steps = np.random.default_rng(seed).permutation(len(pieces)), 0
    number = 0
    while number < 1 or (steps < share * episodes.num_steps and number < len(pieces) - 1):
        _, first, last = pieces[order[number]]
        number, steps = number + 1, steps + last - first
    held = set(order[:number].tolist())
    return (take(episodes, [piece for i, piece in enumerate(pieces) if i not in held]),
            take(episodes, [piece for i, piece in enumerate(pieces) if i in held]))


def halves(episodes: Episodes) -> tuple[Episodes, Episodes]:
    """Splits the data into the even and the odd episodes. A single episode is returned twice."""
    whole = [(i, 0, T) for i, T in enumerate(episodes.lengths.tolist())]
    return (take(episodes, whole[::2]), take(episodes, whole[1::2])) if len(whole) > 1 else (episodes, episodes)


def split_at_terminations(e: Episodes) -> Episodes:
    """Ends an episode at each terminal step, and makes the steps after it an episode of their own.

    `e` need not be valid, as terminal steps within an episode are refused.
    """
    episode_S = np.repeat(np.arange(len(e.lengths)), e.lengths)
    last_S = e.terminated.copy()
    last_S[np.cumsum(e.lengths) - 1] = True
    ends = np.flatnonzero(last_S) + 1
    begins = np.concatenate([[0], ends[:-1]])
    offsets = e.starts[episode_S[begins]]
    pieces = zip(episode_S[begins].tolist(), (begins - offsets).tolist(), (ends - offsets).tolist(), strict=True)
    return take(replace(e, validate=False, truncated=e.truncated & ~e.terminated), list(pieces))


def take(e: Episodes, pieces: list[tuple[int, int, int]]) -> Episodes:
    """The pieces (episode, first step, one past the last) as episodes; one that ends early in its episode is
    truncated."""
    starts = e.starts
    steps = np.concatenate([np.arange(starts[i] + a, starts[i] + b) for i, a, b in pieces])
    rows = np.concatenate([np.arange(starts[i] + i + a, starts[i] + i + b + 1) for i, a, b in pieces])
    lengths = np.array([b - a for _, a, b in pieces])
    truncated, terminated, ends = e.truncated[steps].copy(), e.terminated[steps], np.cumsum(lengths) - 1
    truncated[ends] |= ~terminated[ends]
    return replace(e, obs=e.obs[rows], act=e.act[steps], reward=e.reward[steps], terminated=terminated,
                   truncated=truncated, lengths=lengths, extras={key: x[rows] for key, x in e.extras.items()})
