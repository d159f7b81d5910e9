"""`Episodes`: an offline dataset in memory, in environment units, validated when it is made; and its own npz files."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import escaped
from ..entries import check_names, entry_word
from ..files import new_file
from ..progress import one_line

PER_STEP = ("act", "reward", "terminated", "truncated")  # all other fields have one row more for each episode
FLAT = ("reward", "terminated", "truncated")  # one number for each step
ARRAYS = ("obs", *PER_STEP, "lengths")
WORDS = ("obs_keys", "obs_names", "act_names")  # each is a tuple of words
Fields = dict[str, Any]
"""The fields of `Episodes` by name, not yet validated."""
LARGE_VALUE = 1e4  # in the units of the data; float32 tells numbers below it apart if they differ by 0.0005
LOST_SHARE = 0.01  # of the range of a column, which its rounding to float32 may cost


class DataError(ValueError):
    """A dataset cannot be used; the message is one line that names the dataset, episode, step, field and value."""

    def __init__(self, message: str = ""):
        super().__init__(escaped(message))


@dataclass(frozen=True, eq=False, repr=False)
class Episodes:
    """Flat arrays of E episodes with S steps in all; episode e has T = lengths[e] steps and T + 1 observations.

    `obs` (S + E, O), `act` (S, A) and `reward` (S,) are float32. `terminated` and `truncated` (S,) are bool and may be
    true at an episode's last step only: it ended for good, or it was stopped by a time limit or the end of the
    recording. A step with both flags counts as terminated, and an episode with neither flag as truncated.

    `extras` hold one row for each observation (S + E, ...): goal, qpos, qvel, or imagined, which marks synthetic data.
    `goal_dims` are the entries of an observation that a goal gives values for. `obs_keys` are the entries of a dict
    observation, or the places in a tuple ("0", "1"), that were flattened and joined, in this order, to make `obs`.
    `obs_names` and `act_names` are what the entries of an observation and of an action are called, empty for nothing.
    `env` is the environment, Gymnasium's EnvSpec as JSON. Two datasets are equal if all fields but the name are equal.

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
    obs_names: tuple[str, ...] = ()
    act_names: tuple[str, ...] = ()
    validate: InitVar[bool] = True

    def __post_init__(self, validate: bool) -> None:
        fields: dict[str, object] = {"lengths": as_whole(self.lengths, self.name, "lengths")}
        for key in ("obs", "act", "reward"):
            fields[key] = as_float32(getattr(self, key), self.name, key)
        for key in ("terminated", "truncated"):
            fields[key] = as_flags(getattr(self, key), self.name, key)
        fields["extras"] = {key: as_float32(value, self.name, key) for key, value in self.extras.items()}
        fields["goal_dims"] = tuple(np.ravel(as_whole(self.goal_dims, self.name, "goal_dims")).tolist())
        for key in WORDS:
            fields[key] = tuple(map(str, getattr(self, key)))
        for key, value in fields.items():
            object.__setattr__(self, key, value)
        if validate:
            for problem in problems(self):
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

    @property
    def last_rows(self) -> np.ndarray:
        """(E,) the row of each episode's last observation in `obs`."""
        return np.cumsum(self.lengths + 1) - 1

    @property
    def returns(self) -> np.ndarray:
        """(E,) the undiscounted return of each episode."""
        return np.add.reduceat(self.reward.astype(np.float64), self.starts)

    def __repr__(self) -> str:
        return f"Episodes({self.name!r}, {len(self)} of {self.num_steps} steps, obs {self.obs_dim}, act {self.act_dim})"

    def __len__(self) -> int:
        return len(self.lengths)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Episodes):
            return NotImplemented
        return (all(getattr(self, key) == getattr(other, key) for key in ("goal_dims", "env", *WORDS))
                and all(np.array_equal(array, other.arrays[key]) for key, array in self.arrays.items())
                and self.extras.keys() == other.extras.keys()
                and all(np.array_equal(value, other.extras[key]) for key, value in self.extras.items()))

    def __getitem__(self, which: int | slice | Sequence[int] | Sequence[bool] | np.ndarray) -> Episodes:
        """The episodes of an index, a slice, a list of indices, or a mask (E,) that is true for those to take.

        The arrays of neighbouring episodes are views of these. Raises IndexError for an episode that is not there, for
        a mask of another length and for a list that names no episode.
        """
        e_K = np.atleast_1d(np.arange(len(self))[which])
        if not len(e_K):
            raise IndexError(f"{self.name} has {len(self)} episodes, and none of them is chosen; choose at least one")
        lengths, starts = self.lengths[e_K], self.starts[e_K]
        if (np.diff(e_K) == 1).all():
            end = starts[-1] + lengths[-1]
            return self.pick(slice(starts[0], end), slice(starts[0] + e_K[0], end + e_K[-1] + 1), lengths)
        return self.pick(spans(starts, lengths), spans(starts + e_K, lengths + 1), lengths)

    def filter(self, keep: Callable[[Episodes], bool]) -> Episodes:
        """The episodes for which `keep` is true, such as `lambda episode: episode.returns[0] > 100`.

        Raises IndexError if there are none, and TypeError where `keep` is no function.
        """
        if not callable(keep):
            raise TypeError(f"filter was given {keep!r}; give a function of an episode, such as lambda episode: "
                            "episode.returns[0] > 100, or take episodes by their numbers, as in episodes[:10]")
        return self[np.array([bool(keep(episode)) for episode in self])]

    def __iter__(self) -> Iterator[Episodes]:
        for e, (start, T) in enumerate(zip(self.starts, self.lengths, strict=True)):
            yield self.pick(slice(start, start + T), slice(start + e, start + e + T + 1), self.lengths[e:e + 1])

    def pick(self, steps: slice | np.ndarray, rows: slice | np.ndarray, lengths: np.ndarray) -> Episodes:
        """The episodes of these lengths that these steps, and these rows of the observations, make up."""
        fields = {key: getattr(self, key)[steps] for key in PER_STEP}
        extras = {key: value[rows] for key, value in self.extras.items()}
        return replace(self, obs=self.obs[rows], lengths=lengths, extras=extras, **fields)

    @property
    def is_real(self) -> np.ndarray:
        """(E,) false for the episodes that `gentraj augment` marked as synthetic, that is, as made by a world model."""
        imagined = self.extras.get("imagined")
        return np.ones(len(self), bool) if imagined is None else imagined[self.last_rows, 0] == 0

    def real(self) -> Episodes:
        """The episodes that are real (`is_real`).

        Raises `DataError` where all episodes are synthetic.
        """
        if "imagined" not in self.extras:
            return self
        kept_E = self.is_real
        if not kept_E.any():
            raise DataError(f"{self.name}: all episodes are synthetic; take real data")
        extras = {key: value for key, value in self.extras.items() if key != "imagined"}
        return replace(self, extras=extras)[kept_E]


def spans(first_K: np.ndarray, length_K: np.ndarray) -> np.ndarray:
    """The numbers from each `first` on, as many as its length, one after the other."""
    before_K = np.cumsum(length_K) - length_K
    return np.repeat(first_K - before_K, length_K) + np.arange(length_K.sum())


def last_steps(lengths_E: np.ndarray) -> np.ndarray:
    """(S,) true at the last step of each of the episodes of these lengths."""
    last_S = np.zeros(int(lengths_E.sum()), bool)
    last_S[np.cumsum(lengths_E) - 1] = True
    return last_S


def episodes_hash(episodes: Episodes) -> str:
    """SHA-256 of all that training can see of a dataset, which excludes its name and its environment."""
    arrays = episodes.arrays
    arrays |= {f"extras.{key}": value for key, value in sorted(episodes.extras.items())}
    digest = hashlib.sha256(f"{episodes.goal_dims} {episodes.obs_keys}".encode())
    for key, array in arrays.items():
        digest.update(f"{key} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def as_numbers(array: object, name: str, field: str) -> np.ndarray:
    """The array. Raises `DataError` for one of text or objects, and for one with masked entries."""
    try:
        numbers = np.asarray(array)
    except ValueError as error:
        raise DataError(f"{name}: {field} has rows of different lengths, or no numbers; give one array of all "
                        "episodes, one after the other") from error
    if numbers.dtype.kind not in "fiub" or np.ma.is_masked(array):
        raise DataError(f"{name}: {field} has masked entries or dtype {numbers.dtype}; numbers are expected")
    return numbers


def as_float32(array: object, name: str, field: str) -> np.ndarray:
    """Converts the array to float32, without a copy where it is float32 already.

    Numbers too large become infinite. Warns of columns with large numbers whose differences are lost: float32 has 24
    binary digits, and so tells apart only Unix times that are two minutes apart.
    """
    numbers = as_numbers(array, name, field)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = numbers.astype(np.float32, copy=False)
    if rounded is numbers or numbers.ndim == 0 or not numbers.size:
        return rounded
    columns = numbers.reshape(len(numbers), -1)
    low, high = columns.min(0).astype(np.float64), columns.max(0).astype(np.float64)
    lost = []
    for i in np.flatnonzero((np.maximum(-low, high) >= LARGE_VALUE) & np.isfinite(high - low)):
        error = np.abs(columns[:, i] - rounded.reshape(columns.shape)[:, i].astype(np.float64)).max()
        if np.isfinite(error) and error > LOST_SHARE * (high[i] - low[i]) > 0:
            lost.append(i)
    if lost:
        i = lost[0]
        warnings.warn(f"{name}: entry {i} of {field} is from {low[i]:.10g} to {high[i]:.10g}, where float32 makes "
                      "different values the same; subtract an offset, such as the smallest value, or leave the entry "
                      f"out (entries affected: {', '.join(map(str, lost))})", stacklevel=3)
    return rounded


def as_whole(array: object, name: str, field: str) -> np.ndarray:
    """Converts the array to int64. Raises `DataError` for anything but whole numbers, which may be floats."""
    numbers = as_numbers(array, name, field)
    if (wrong := numbers[(numbers != np.floor(numbers)) | (np.abs(numbers) >= 2.0**53)]).size:
        raise DataError(f"{name}: {field} has {wrong.flat[0]}; whole numbers below 2^53 are expected")
    return numbers.astype(np.int64)


def as_flags(array: object, name: str, field: str) -> np.ndarray:
    """Converts the array to bool. Raises `DataError` for anything but 0 and 1, such as NaN, which would be true."""
    numbers = as_numbers(array, name, field)
    if numbers.dtype != bool and (wrong := numbers[(numbers != 0) & (numbers != 1)]).size:
        raise DataError(f"{name}: {field} has {wrong.flat[0]}; only 0 and 1, or false and true, are expected")
    return numbers.astype(bool, copy=False)


def problems(episodes: Episodes) -> Iterator[str]:
    """Yields one line for each problem of a dataset."""
    yield from list(wrong_shapes(episodes)) or wrong_values(episodes)  # with wrong shapes no value has an episode


def wrong_shapes(e: Episodes) -> Iterator[str]:
    """Yields one line for each array whose shape does not fit the lengths of the episodes."""
    if e.lengths.ndim != 1 or not len(e.lengths):
        yield f"{e.name}: lengths has shape {e.lengths.shape}; a number for each of one or more episodes is expected"
        return
    for episode in np.flatnonzero(e.lengths < 1):
        yield f"{e.name}: episode {episode} has {e.lengths[episode]} steps; at least 1 is expected"
    for key in {*ARRAYS} & e.extras.keys():
        yield f"{e.name}: extras has an array named {key}, which is a field of every dataset; give it another name"
    S, E = int(e.lengths.sum()), len(e)
    fit = True
    for key, array in {"obs": e.obs, **{key: getattr(e, key) for key in PER_STEP}, **e.extras}.items():
        rows = S if key in PER_STEP else S + E
        shape, dims = (f"({rows},)", 1) if key in FLAT else (f"({rows}, width)", 2)
        if array.ndim != dims or len(array) != rows or (not array.size and key != "act"):
            fit = False
            yield (f"{e.name}: {key} has shape {array.shape}; {E} episodes of {S} steps in all need {shape}, as each "
                   "has one observation more than steps")
    if not fit:
        return
    if not all(0 <= dim < e.obs_dim for dim in e.goal_dims) or len({*e.goal_dims}) < len(e.goal_dims):
        yield f"{e.name}: goal_dims is {e.goal_dims}; entries of an observation of width {e.obs_dim}, each once, are " \
              "expected"
    for key, width in (("obs_names", e.obs_dim), ("act_names", e.act_dim)):
        try:
            check_names(getattr(e, key), width, key)
        except ValueError as error:
            yield f"{e.name}: {error}"
    if "goal" in e.extras and e.goal_dims and e.extras["goal"].shape[1] != len(e.goal_dims):
        yield f"{e.name}: goal has width {e.extras['goal'].shape[1]}; goal_dims {e.goal_dims} need {len(e.goal_dims)}"


def wrong_values(e: Episodes) -> Iterator[str]:
    """Yields one line for each array with a number that is not finite, and for flags inside an episode."""
    for key, array in {"obs": e.obs, "act": e.act, "reward": e.reward, **e.extras}.items():
        # NaN and infinity survive min and max, which need no array as large as the data.
        if array.size == 0 or np.isfinite([array.min(), array.max()]).all():
            continue
        rows = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))
        row = array[rows[0]]
        at = np.argwhere(~np.isfinite(row))[0].tolist()
        names = {"obs": e.obs_names, "act": e.act_names}.get(key, ())
        entry = entry_word(key, at[0], names) if at else key
        yield (f"{locate(e, int(rows[0]), key)}: {entry} is {row[tuple(at)]} in float32; finite numbers below 3.4e38 "
               f"are expected (rows affected: {len(rows)}); fill them in, or cut the episode there, truncated")
    for key in ("terminated", "truncated"):
        inside = getattr(e, key) & ~last_steps(e.lengths)
        if inside.any():
            yield (f"{locate(e, int(np.argmax(inside)), key)}: {key} is true inside the episode; only its last step "
                   f"may be (steps affected: {np.count_nonzero(inside)}; split the episode there)")


def locate(e: Episodes, row: int, key: str) -> str:
    """Names a row of the flat array `key` by its dataset, episode and step."""
    rows_E = e.lengths + (key not in PER_STEP)
    ends_E = np.cumsum(rows_E)
    episode = int(np.searchsorted(ends_E, row, side="right"))
    return f"{e.name}: episode {episode}, step {row - int(ends_E[episode] - rows_E[episode])}"


def named(path: str | Path, suffix: str) -> Path:
    """The path of a file to write. Raises `DataError` where its name does not end in `suffix`."""
    if (path := Path(path)).suffix != suffix:
        raise DataError(f"{path}: give a name that ends in {suffix}")
    return path


NPZ_FORMAT = "gentraj-episodes-1"


def save_npz(episodes: Episodes, path: str | Path) -> Path:
    """Writes the file, completely or not at all, and returns its path. Raises `DataError` for a name without .npz, and
    TypeError for what are no episodes."""
    if not isinstance(episodes, Episodes):
        raise TypeError(f"save_npz was given a {type(episodes).__name__} as the episodes; give "
                        "save_npz(episodes, path)")
    path = named(path, ".npz")
    members: dict[str, Any] = dict(episodes.arrays)
    members |= {f"extras/{key}": value for key, value in episodes.extras.items()}
    members |= {key: np.array(getattr(episodes, key), dtype=str) for key in WORDS}
    members |= {"format": NPZ_FORMAT, "env": episodes.env or "",
                "goal_dims": np.array(episodes.goal_dims, dtype=np.int64)}
    with new_file(path) as file:
        np.savez(file, **members)
    return path


def npz_fields(members: dict[str, np.ndarray], path: Path) -> Fields:
    """Converts the members of gentraj's npz to the fields of `Episodes`, not yet validated."""
    missing = {*ARRAYS, "format", "env", "obs_keys", "goal_dims"} - members.keys()
    found = str(members.get("format"))
    if missing or found != NPZ_FORMAT:
        lacks = f"; it lacks {', '.join(sorted(missing))}" if missing else ""
        raise DataError(f"{path}: not an npz of {NPZ_FORMAT} but of {found[:60]}{lacks}; save_npz writes one")
    return {key: members[key] for key in ARRAYS} | {
        "extras": {key.removeprefix("extras/"): value for key, value in members.items() if key.startswith("extras/")},
        "goal_dims": members["goal_dims"], **{key: tuple(members.get(key, ())) for key in WORDS}, "name": path.stem,
        "env": str(members["env"]) or None}


def open_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of an npz file. Raises `DataError` for a missing or damaged file and for pickled objects."""
    if not os.path.isfile(path):  # false for a name that no file can have
        raise DataError(f"{path}: no such file")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as members:
            return {key: members[key] for key in members.files}
    except Exception as error:  # zip, zlib and numpy's header parser raise their own kinds
        if "allow_pickle" in str(error):  # numpy's advice is to trust the file
            raise DataError(f"{path}: is no zip of arrays, or holds Python objects (pickles), which can run code when "
                            "read; save arrays of numbers, and text as numpy.array(text, dtype=str)") from error
        raise DataError(f"{path}: cannot be read ({one_line(error)}); is it complete and npz?") from error
