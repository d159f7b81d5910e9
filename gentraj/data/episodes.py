"""`Episodes`: an offline dataset in memory, in environment units, validated when it is made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass, field, replace

import numpy as np

from . import validation
from .validation import DataError, as_flags, as_float32, as_whole

ARRAYS = ("obs", "act", "reward", "terminated", "truncated", "lengths")


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
        steps, rows = np.repeat(kept_E, self.lengths), np.repeat(kept_E, self.lengths + 1)
        return replace(self, obs=self.obs[rows], act=self.act[steps], reward=self.reward[steps],
                       terminated=self.terminated[steps], truncated=self.truncated[steps], lengths=self.lengths[kept_E],
                       extras={k: v[rows] for k, v in self.extras.items() if k != "imagined"})

    @property
    def last_rows(self) -> np.ndarray:
        """(E,) the row of each episode's last observation in `obs`."""
        return np.cumsum(self.lengths + 1) - 1


def problems(episodes: Episodes) -> Iterator[str]:
    """Yields one line for each problem of a dataset."""
    return validation.problems(episodes.name, episodes.arrays, episodes.extras, episodes.goal_dims)


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
