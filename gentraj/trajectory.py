"""Trajectories, batches and conditions: `TrajectorySpec`, `Batch`, `Condition`, and the protocols of models and agents.

Names of tensors end in the letters of their axes. In the whole project B is the batch, H the horizon, O the
observation, A the action, D = O + A, N the samples of a condition, C the context, G the goal, T the steps of an
episode, and R the rows of a network call (R = B * N).
"""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, TypeGuard, overload, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from pydantic import NonNegativeFloat
from torch import Tensor

from .config import settings
from .device import constant, to_device, to_device_together
from .entries import check_names, entries_named
from .randomness import Seeds, as_seeds, unfold
from .ranges import DataRanges

MAX_SIZE = 1_000_000  # timesteps, widths and strides beyond it are mistakes, and would fill the memory
Guide = Callable[[Tensor], Tensor]  # maps x_BHD in environment units to one score per trajectory; higher is better
Observer = Callable[[Tensor, Tensor], None]  # is called with (x, t) after each sampling step


@dataclass(frozen=True)
class TrajectorySpec:
    """The layout of a trajectory `x_BHD`, where D = obs_dim + act_dim and the observation comes first.

    A trajectory has `horizon` timesteps, which are `stride` environment steps apart. `act_dim` is 0 for trajectories of
    states only; a transition has a horizon of 2. With a `history` above 1 or `past_actions`, windows also hold the
    steps before the first timestep that an agent remembers. Raises ValueError for other sizes, and for sizes that are
    not whole numbers.
    """

    obs_dim: int
    """Width O of an observation."""
    act_dim: int
    """Width A of an action."""
    horizon: int
    stride: int = 1
    history: int = 1
    """Number of observations that an agent sees: the present one and the last ones before it."""
    past_actions: int = 0
    """Number of its last actions that it sees."""
    obs_names: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """The names of the entries of an observation, as the data give them; empty if they give none."""
    act_names: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """The names of the entries of an action."""

    def __post_init__(self) -> None:
        for name, least in (("obs_dim", 1), ("act_dim", 0), ("horizon", 1), ("stride", 1), ("history", 1),
                            ("past_actions", 0)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or not least <= value <= MAX_SIZE:
                raise ValueError(f"TrajectorySpec.{name} is {value}; a whole number from {least} to {MAX_SIZE} is "
                                 "expected")
        if not self.act_dim:  # where a layout with actions is made one without
            object.__setattr__(self, "act_names", ())
        check_names(self.obs_names, self.obs_dim, "TrajectorySpec.obs_names")
        check_names(self.act_names, self.act_dim, "TrajectorySpec.act_names")

    @cached_property
    def dim(self) -> int:
        """The width D of a timestep."""
        return self.obs_dim + self.act_dim

    @cached_property
    def past(self) -> int:
        """The number P of environment steps before the present that an agent remembers."""
        return max(self.history - 1, self.past_actions)

    @property
    def seen_dim(self) -> int:
        """The width of what an agent sees, `seen`."""
        return self.history * self.obs_dim + self.past_actions * self.act_dim

    def seen(self, obs_BO: Tensor, past_BPD: Tensor | None = None) -> Tensor:
        """(B, `seen_dim`) what an agent sees: its last observations, the present one first, and its last actions, the
        latest first.

        `past_BPD` are the steps before the present, the oldest first. None is the beginning of an episode, where the
        present observation is repeated and actions are 0 (Chi et al. 2023, whose policy sees two observations).
        """
        if not self.past:
            return obs_BO
        if past_BPD is None:
            past_BPD = self.beginning(obs_BO)
        obs_BPO, act_BPA = self.split(past_BPD.to(obs_BO).flip(1))
        return torch.cat([obs_BO, obs_BPO[:, : self.history - 1].flatten(1),
                          act_BPA[:, : self.past_actions].flatten(1)], 1)

    def past_of(self, seen_BW: Tensor) -> tuple[Tensor, Tensor | None]:
        """The present observations and the steps before them, of which an agent sees this; entries that it does not see
        are 0. The steps are None if it remembers none."""
        if not self.past:
            return seen_BW, None
        width = self.history * self.obs_dim
        obs_BKO = seen_BW[:, :width].unflatten(1, (self.history, self.obs_dim))
        act_BMA = seen_BW[:, width:].unflatten(1, (self.past_actions, self.act_dim))
        obs_BPO = F.pad(obs_BKO[:, 1:], (0, 0, 0, self.past - self.history + 1))
        act_BPA = F.pad(act_BMA, (0, 0, 0, self.past - self.past_actions))
        return obs_BKO[:, 0], self.join(obs_BPO, act_BPA).flip(1)

    def beginning(self, obs_BO: Tensor) -> Tensor:
        """(B, P, D) the steps before the first observation of an episode: that observation, and actions of 0."""
        obs_BPO = obs_BO[:, None].expand(-1, self.past, -1)
        return self.join(obs_BPO, obs_BPO.new_zeros(*obs_BPO.shape[:2], self.act_dim))

    @property
    def times(self) -> tuple[int, ...]:
        """(H,) the environment steps from the first timestep to each timestep."""
        return tuple(range(0, self.horizon * self.stride, self.stride))

    def longer(self, horizon: int) -> TrajectorySpec:
        """The layout with at least `horizon` timesteps."""
        return replace(self, horizon=max(horizon, self.horizon))

    def check_windows(self, shape: Sequence[int]) -> None:
        """Raises ValueError unless windows of this shape are (B, H, D), of this layout."""
        if tuple(shape[1:]) != (self.horizon, self.dim):
            raise ValueError(f"windows of shape {tuple(shape)} were given; (B, {self.horizon}, {self.dim}) is "
                             f"expected, as Windows(episodes, spec) makes them of {self}")

    def join(self, obs: Tensor, act: Tensor | None = None) -> Tensor:
        """Joins observations (..., O) and actions (..., A), if there are any, to trajectories (..., D)."""
        if act is None:
            return obs
        return torch.cat([obs, act], dim=-1)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Splits trajectories (..., D) into observations (..., O) and actions (..., A)."""
        return x[..., : self.obs_dim], x[..., self.obs_dim :]


@dataclass(frozen=True)
class Batch:
    """Windows of data, in environment units. `mask_BHD` is false where an entry is padding.

    `reward_BH` is the sum of the rewards from each timestep to the next, 0 in padding. `terminal_BH` is true at the
    first timestep at or after the end of an episode that terminated, which is padding if the end lies between two
    timesteps; a truncated episode has none. `weight_B`, of mean 1, weights the windows in the loss of a model of
    trajectories; None weights them equally. `synthetic_B` is true for windows that a world model generated, which only
    critics learn from; None means that all are real. `episode_B` numbers the episodes. `goal_BG` are the goals in
    hindsight that rewards and terminations are about, and values are learned for; None without them. `past_BPD` are the
    steps before each window that an agent remembers (`TrajectorySpec.seen`); None if it remembers none.
    `proposals_B2Y` are actions that a prior proposes, normalised, in the first and in the last state of each window;
    None if none were drawn.
    """

    x_BHD: Tensor
    """Observations and actions."""
    mask_BHD: Tensor
    context_BC: Tensor | None = None
    """The context of each window, in environment units; None if there is none."""
    reward_BH: Tensor | None = None
    terminal_BH: Tensor | None = None
    weight_B: Tensor | None = None
    synthetic_B: Tensor | None = None
    episode_B: Tensor | None = None
    goal_BG: Tensor | None = None
    past_BPD: Tensor | None = None
    proposals_B2Y: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on another device, which it gets to by one copy."""
        tensors = {name: tensor for name, tensor in vars(self).items() if tensor is not None}
        return Batch(**dict(zip(tensors, to_device_together(list(tensors.values()), device), strict=True)))

    def take(self, rows: slice | Tensor) -> Batch:
        """These rows of the batch."""
        return Batch(**{name: tensor[rows] for name, tensor in vars(self).items() if tensor is not None})

    def weights(self) -> Tensor:
        """The weights (B,), or (1,) with a single 1 if all windows are weighted equally.

        Raises ValueError for weights of another shape.
        """
        if self.weight_B is None:
            return self.x_BHD.new_ones(1)
        if self.weight_B.shape != self.x_BHD.shape[:1]:
            raise ValueError(f"Batch.weight_B has shape {tuple(self.weight_B.shape)}; one weight for each of the "
                             f"{len(self.x_BHD)} windows is expected")
        return self.weight_B


@dataclass(frozen=True, repr=False)
class Condition:
    """The known entries of trajectories: `values_BHD` (environment units) where `mask_BHD` is true, and `context_BC`.

    A condition is built step by step:
    `Condition.empty(spec, 8).with_obs(0, obs_BO).with_obs(-1, goal_BG, dims=(0, 1))`. Raises ValueError for other
    shapes and for numbers that are not finite, and TypeError for a mask that is not bool. Numbers on a GPU are not
    looked at, as that would wait for it: a sample of them is.
    """

    spec: TrajectorySpec
    values_BHD: Tensor
    mask_BHD: Tensor
    context_BC: Tensor | None = None
    checked: bool = field(default=True, kw_only=True)
    """False for a policy's states: neither these numbers nor samples are looked at, but the losses of its training and
    the actions of its agent."""
    finite: InitVar[bool] = field(default=False, kw_only=True)
    """True where the numbers were looked at before."""

    def __post_init__(self, finite: bool) -> None:
        shape = (self.values_BHD.shape[0], self.spec.horizon, self.spec.dim)
        for name, tensor in (("values_BHD", self.values_BHD), ("mask_BHD", self.mask_BHD)):
            if tensor.shape != shape:
                raise ValueError(f"Condition.{name} has shape {tuple(tensor.shape)}; trajectories of its spec need "
                                 f"{shape}")
        if self.mask_BHD.dtype != torch.bool:
            raise TypeError(f"Condition.mask_BHD is {self.mask_BHD.dtype}; give torch.bool, true where known")
        if self.context_BC is not None and (self.context_BC.ndim != 2 or len(self.context_BC) != self.batch):
            raise ValueError(f"Condition.context_BC has shape {tuple(self.context_BC.shape)}; give ({self.batch}, C)")
        if self.checked and not finite:
            self._check_finite()

    def _check_finite(self) -> None:
        # NaN times 0 is NaN, and so is infinity times 0.
        if self.values_BHD.is_cpu and (torch.where(self.mask_BHD, self.values_BHD, 0) * 0).sum() != 0:
            raise ValueError("a known value of the condition is NaN or infinite; give finite values")
        if self.context_BC is not None and self.context_BC.is_cpu and (self.context_BC * 0).sum() != 0:
            raise ValueError("the context of the condition is NaN or infinite; give finite numbers")

    @classmethod
    def empty(cls, spec: TrajectorySpec, batch: int = 1, *, device: torch.device | None = None) -> Condition:
        """A condition for `batch` trajectories of which no entry is known."""
        if not isinstance(spec, TrajectorySpec):
            raise TypeError(f"spec is a {type(spec).__name__}; a TrajectorySpec is expected, such as run.model.spec")
        shape = (batch, spec.horizon, spec.dim)
        return cls(spec, torch.zeros(shape, dtype=torch.float32, device=device),
                   torch.zeros(shape, dtype=torch.bool, device=device))

    def __repr__(self) -> str:
        context = "" if self.context_BC is None else f", a context of width {self.context_BC.shape[1]}"
        spec, known = self.spec, int(self.mask_BHD.sum())
        return (f"Condition({self.batch} of {spec.horizon} timesteps, obs {spec.obs_dim}, act {spec.act_dim}, "
                f"{known} of {self.mask_BHD.numel()} entries known{context})")

    @property
    def batch(self) -> int:
        """The number B of conditions."""
        return self.values_BHD.shape[0]

    def with_obs(self, index: int | Tensor, obs: ArrayLike | Mapping[str, float | Tensor],
                 dims: Sequence[int] | None = None) -> Condition:
        """Adds the observation entries `dims`, by default all of them, at timestep `index`.

        `obs` is (len(dims),) or (B, len(dims)), and `index` is one for all trajectories or one each (B,); negative ones
        count from the end. Where the data name the entries, `obs` may also be the values of some of them by name, such
        as `{"current": 0.3}`, each a number or (B,). The observation may be the start, a waypoint or a goal. Raises
        ValueError for another width, for repeated or unknown entries, and for an index of another kind or, unless it is
        a tensor on a GPU, outside the horizon.
        """
        if isinstance(obs, Mapping):
            obs, dims = _by_name(obs, dims, self.spec.obs_names, "observation")
        if dims is None:
            dims = range(self.spec.obs_dim)
        return self._with(index, obs, dims)

    def with_act(self, index: int | Tensor, act: ArrayLike | Mapping[str, float | Tensor],
                 dims: Sequence[int] | None = None) -> Condition:
        """Adds the entries `dims` of the action at timestep `index`, as `with_obs` does those of the observation."""
        if isinstance(act, Mapping):
            act, dims = _by_name(act, dims, self.spec.act_names, "action")
        if dims is None:
            dims = range(self.spec.act_dim)
        if not all(0 <= i < self.spec.act_dim for i in dims):
            raise ValueError(f"the entries {list(dims)} of an action were named; it has {self.spec.act_dim}, from 0 on")
        return self._with(index, act, [self.spec.obs_dim + i for i in dims])

    def with_first_acts(self, act_BKA: Tensor) -> Condition:
        """Adds the first K actions (B, K, A) or (1, K, A), for which a world model predicts the observations.

        Raises ValueError for other shapes and for more actions than timesteps.
        """
        return self._with_first(act_BKA, range(self.spec.obs_dim, self.spec.dim))

    def with_prefix(self, x_BKD: Tensor) -> Condition:
        """Adds the first K timesteps (B, K, D) or (1, K, D) with all their entries, such as a history or a warm start.

        Raises ValueError for other shapes and for more timesteps than the horizon has.
        """
        return self._with_first(x_BKD, range(self.spec.dim))

    def repeat(self, num: int) -> Condition:
        """Repeats each trajectory's condition `num` times in succession: B -> B * num.

        Raises ValueError if either number is 0, and TypeError if `num` is no whole number.
        """
        if not isinstance(num, int | np.integer):
            raise TypeError(f"{num!r} samples of each condition were asked for; a whole number is expected")
        if num < 1 or self.batch < 1:
            raise ValueError(f"{num} samples of {self.batch} conditions were asked for; at least 1 sample of at least "
                             "1 condition is expected")
        return self._with_each(lambda x: x.repeat_interleave(num, 0))

    def __getitem__(self, rows: slice | Tensor) -> Condition:
        if isinstance(rows, slice) and range(self.batch)[rows] == range(self.batch):
            return self
        return self._with_each(lambda x: x[rows])

    def check(self, spec: TrajectorySpec, whose: str = "the model's trajectories are") -> None:
        """Raises ValueError unless the condition is for trajectories of `spec`; the message says `whose` they are."""
        if self.spec != spec:
            raise ValueError(f"the condition is for {self.spec}; {whose} {spec}")

    def padded(self, num: int) -> Condition:
        """The condition with `num` more trajectories, copies of the first."""
        if num == 0:
            return self
        return cat([self, self[:1].repeat(num)])

    def to(self, device: torch.device) -> Condition:
        """The condition on another device."""
        tensors = (self.values_BHD, self.mask_BHD, self.context_BC)
        if {tensor.device for tensor in tensors if tensor is not None} == {device}:
            return self
        return self._with_each(lambda x: to_device(x, device))

    def _with_each(self, function: Callable[[Tensor], Tensor]) -> Condition:
        """The condition with each of its tensors replaced by a function of it."""
        context = self.context_BC
        if context is not None:
            context = function(context)
        return replace(self, values_BHD=function(self.values_BHD), mask_BHD=function(self.mask_BHD), context_BC=context,
                       finite=True)

    def _with_first(self, x_BKX: Tensor, dims: Sequence[int]) -> Condition:
        if x_BKX.ndim != 3:
            raise ValueError(f"the first timesteps were given with shape {tuple(x_BKX.shape)}; a value for each "
                             f"trajectory, timestep and entry is expected, shape ({self.batch}, K, {len(dims)})")
        condition = self
        for k in range(x_BKX.shape[1]):
            condition = condition._with(k, x_BKX[:, k], dims)
        return condition

    def _with(self, index: int | Tensor, value: ArrayLike, dims: Sequence[int]) -> Condition:
        device, own = self.values_BHD.device, self.values_BHD.dtype
        value = to_device(_as_tensor(value, "known value", own if own.is_floating_point else torch.float32), device)
        if value.shape not in ((len(dims),), (1, len(dims)), (self.batch, len(dims))):
            raise ValueError(f"the known value has shape {tuple(value.shape)}; a number for each of the entries "
                             f"{list(dims)} is expected, shape {(len(dims),)} or {(self.batch, len(dims))}")
        if not all(0 <= i < self.spec.dim for i in dims) or len({*dims}) < len(dims):
            raise ValueError(f"the entries {list(dims)} were named; a timestep has the entries 0 to "
                             f"{self.spec.dim - 1}, each once")
        index_B = _as_tensor(index, "timestep")
        whole = not index_B.is_floating_point() and index_B.dtype != torch.bool
        H = self.spec.horizon
        outside = index_B.is_cpu and bool(((index_B >= H) | (index_B < -H)).any())
        if not whole or outside or index_B.shape not in ((), (1,), (self.batch,)):
            raise ValueError(f"timestep {index} was given; an integer from {-H} to {H - 1}, or one for each of the "
                             f"{self.batch} trajectories, is expected")
        rows, columns = torch.arange(self.batch, device=device)[:, None], constant(tuple(dims), device, torch.long)
        row_B1 = to_device(index_B, device).expand(self.batch)[:, None]
        values, mask = self.values_BHD.to(value.dtype, copy=True), self.mask_BHD.clone()
        values[rows, row_B1, columns] = value.expand(self.batch, len(dims))
        mask[rows, row_B1, columns] = constant((True,), device, torch.bool)
        return replace(self, values_BHD=values, mask_BHD=mask)


def _by_name(values: Mapping[str, float | Tensor], dims: Sequence[int] | None, names: Sequence[str],
             what: str) -> tuple[Tensor, Sequence[int]]:
    """The values of entries that are given by their names, and the entries."""
    if dims is not None:
        raise ValueError(f"values of the {what} were given by the names of their entries, and dims; leave dims out")
    dims = entries_named(values, names, what)
    return torch.stack(torch.broadcast_tensors(*map(torch.as_tensor, values.values())), -1), dims


def cat(conditions: Sequence[Condition]) -> Condition:
    """Concatenates conditions of one spec along the batch."""
    contexts = [c.context_BC for c in conditions if c.context_BC is not None]
    return replace(conditions[0], values_BHD=torch.cat([c.values_BHD for c in conditions]),
                   mask_BHD=torch.cat([c.mask_BHD for c in conditions]),
                   context_BC=torch.cat(contexts) if contexts else None, finite=True)


SAMPLER_SETTINGS = ("sampler", "grid", "eta")


@settings
class SamplingOptions:
    """Settings of sampling that replace the model's own for one call; None keeps the model's setting.

    A model raises ValueError for a setting that it does not have: a one-step model has no sampler, grid or eta.
    """

    sampler: str | None = None
    """Name of a sampler in `gentraj.diffusion.samplers.SAMPLERS`."""
    steps: int | None = None
    """Number of sampling steps; a one-step model takes one step, whatever is given, and a student that was trained for
    one number of steps (`only_steps`) takes no other."""
    grid: str | None = None
    """Name of a grid of times in `gentraj.diffusion.paths.GRIDS`, at which the sampling steps end."""
    eta: float | None = None
    """Noise added while sampling, from 0 (deterministic) to 1."""
    temperature: NonNegativeFloat = 1.0
    """Scale of all noise that a sample is generated from; at 0 the sample does not depend on the seed."""


def refuse_options(options: SamplingOptions, why: str, *names: str) -> None:
    """Raises ValueError if one of these settings of the sampler was given, of all of them if there are no `names`;
    `why` is why the model does not have it."""
    for name in names or SAMPLER_SETTINGS:
        if getattr(options, name) is not None:
            raise ValueError(f"{name} was given, and {why}; leave it out")


DEFAULT_OPTIONS = SamplingOptions()
"""The options that keep all settings of a model."""


@runtime_checkable
class SupportsLogProb(Protocol):
    """A model that has a probability density of trajectories."""

    def log_prob(self, x_RHD: Tensor, condition: Condition | None = None, *, seeds: Seeds = 0,
                 exact: bool | None = None, probes: int = 8, steps: int | None = None) -> Tensor:
        """(R,) the log density, in environment units, of the entries that are unknown in `condition`, given the known
        ones.

        `exact`, `probes` and `steps` are for models that integrate an ODE (`gentraj.diffusion.likelihood.log_prob`).
        """
        ...


@runtime_checkable
class SupportsScore(Protocol):
    """A model with noise levels, at each of which it has the score of noisy trajectories."""

    def score(self, x_RHD: Tensor, condition: Condition, t: float) -> Tensor:
        """(R, H, D) the gradient of the log density of noisy trajectories at time t in (0, 1], in environment units; 0
        at the known entries."""
        ...


@runtime_checkable
class SupportsOODScore(Protocol):
    """A model that can score how far a trajectory is out of distribution, which a planner's trust relies on."""

    spec: TrajectorySpec
    """The layout of its trajectories."""

    def ood_score(self, x_RHD: Tensor, condition: Condition, seeds: Seeds) -> Tensor:
        """(R, H) the out-of-distribution score of each timestep, at least 0, on the model's own scale.

        `condition` holds the known entries, whose values in `x_RHD` are ignored, and `seeds` one seed for each
        trajectory.
        """
        ...


@dataclass(frozen=True)
class Limits:
    """The bounds, in environment units, to which an agent clips its actions and, if given, the observations it sees."""

    act_low_A: np.ndarray
    """The lowest actions."""
    act_high_A: np.ndarray
    """The highest actions."""
    obs_low_O: np.ndarray | None = None
    """The lowest observations that it does not clip; None if it clips none."""
    obs_high_O: np.ndarray | None = None
    """The highest ones."""

    def clips(self, act_BA: np.ndarray) -> np.ndarray:
        """(B,) whether an entry of an action is at a bound: clipped, or as large as the bounds allow."""
        return np.any((act_BA <= self.act_low_A) | (act_BA >= self.act_high_A), axis=1)

    def clamps(self, obs_BO: np.ndarray) -> np.ndarray:
        """(B,) whether an entry of an observation is beyond its bounds."""
        if self.obs_low_O is None or self.obs_high_O is None:
            return np.zeros(len(obs_BO), bool)
        return np.any((obs_BO < self.obs_low_O) | (obs_BO > self.obs_high_O), axis=1)


def only_steps(model: object) -> int | None:
    """The number of sampling steps of a model that was trained for one number alone; None for any other model."""
    return getattr(model, "only_steps", None)


def calls_of(models: Iterable[object]) -> int:
    """The number of network calls of all models or agents so far; one that does not count them adds none."""
    return sum(getattr(model, "network_calls", None) or 0 for model in models)


class Agent(ABC):
    """Anything that acts in environments: a planner, a policy, a controller.

    A subclass has `_act`, and `_reset` if it remembers something; the other members are for agents that have more to
    tell.
    """

    spec: TrajectorySpec | None = None
    """The layout of the trajectories that it was trained on; None if unknown."""
    limits: Limits | None = None
    """Where it clips, so that a rollout can count how often it does; None for an agent that does not tell."""
    ranges: DataRanges | None = None
    """The ranges of the observations in its data; None if unknown."""
    network_calls: int | None = None
    """The number of network calls so far, as a measure of the cost of a decision; None if it does not count them."""
    _batch: int | None = None  # the number of environments that it acts in; None before the first reset
    _number_given = False  # whether the last reset said so, by a seed for each environment or a mask
    _seed: int | list[int] | np.random.Generator | None = None  # what the seeds of episodes follow from

    def reset(self, seed: int | Sequence[int] | None = None, mask_B: ArrayLike | None = None) -> None:
        """Begins new episodes in the environments that `mask_B` (B,) selects, by default in all of them.

        Queued actions and memories of these environments are discarded. `seed` is one for each environment (B,), or a
        single one: an only environment has it, and those of several are derived from it. The seeds determine what the
        agent samples. Without a seed they follow from the last one that was given, as in Gymnasium, so that every
        episode has its own; if none was ever given, or the agent acts without a reset, they are drawn anew.

        Raises ValueError for negative seeds and for another number of them than `mask_B` has environments, and
        TypeError for what is no seed.
        """
        if seed is None:
            self._seed = np.random.default_rng(self._seed)
        else:
            self._seed = as_seeds(seed)
        batch = self._batch or 1
        self._number_given = True
        if mask_B is not None:
            mask_B = torch.as_tensor(mask_B, dtype=torch.bool)
            batch = len(mask_B)
        elif isinstance(self._seed, list):
            batch = len(self._seed)
        else:
            self._number_given = False
        self._begin_episodes(batch, mask_B)

    @overload
    def act(self, obs: Tensor, goal: ArrayLike | None = None) -> Tensor: ...

    @overload
    def act(self, obs: ArrayLike, goal: ArrayLike | None = None) -> np.ndarray: ...

    def act(self, obs: ArrayLike, goal: ArrayLike | None = None) -> Tensor | np.ndarray:
        """The actions (B, A), inside the action space, for observations (B, O) and, if given, goals (B, G); one
        observation (O,) gives one action (A,).

        Of tensors it returns a tensor, on the device of the observations or on the CPU, and of what NumPy makes arrays
        of an array. Raises TypeError for what is no array of numbers, and ValueError for other shapes, for numbers that
        are not finite, and for another number of environments than `reset` was given.
        """
        if not _is_batch(obs) or not (goal is None or _is_batch(goal)):
            return self._act_on(obs, goal)
        if len(obs) != self._batch:
            self._begin_in(len(obs))
        return self._act(obs, goal)

    def _act_on(self, obs: Any, goal: Any) -> Tensor | np.ndarray:
        """Does what `act` does, for arrays or a single observation."""
        obs_X, goal_X = as_tensor(obs, "observation"), None
        if goal is not None:
            goal_X = as_tensor(goal, "goal")
        single = obs_X.ndim == 1
        if single:
            obs_X = obs_X[None]
            if goal_X is not None and goal_X.ndim == 1:
                goal_X = goal_X[None]
        for x, what, axis in ((obs_X, "observations", "O"), (goal_X, "goals", "G")):
            if x is not None and x.ndim != 2:
                raise ValueError(f"{what} of shape {tuple(x.shape)} were given to an agent; (B, {axis}) is expected, a "
                                 f"row for each environment, or ({axis},) for one observation")
        act = self.act(obs_X, goal_X)
        if single:
            act = act[0]
        if isinstance(obs, Tensor):
            return act
        return as_array(act)

    def _begin_in(self, batch: int) -> None:
        """Begins episodes in so many environments. Raises ValueError if the last reset was for another number."""
        if self._number_given:
            raise ValueError(f"{batch} observations were given to an agent that was reset for {self._batch} "
                             "environments; reset it with a seed for each, or with a single one, first")
        self._begin_episodes(batch, None)

    def _begin_episodes(self, batch: int, mask_B: Tensor | None) -> None:
        if self._seed is None:
            self._seed = np.random.default_rng()
        if isinstance(self._seed, np.random.Generator):
            seeds_B = self._seed.integers(2**62, size=batch).tolist()
        elif isinstance(self._seed, int):
            seeds_B = [self._seed] if batch == 1 else unfold(batch, self._seed)
        else:
            seeds_B = self._seed
        if len(seeds_B) != batch:
            raise ValueError(f"{len(seeds_B)} seeds were given for {batch} environments; give one for each, or a "
                             "single integer")
        if mask_B is None:
            mask_B = torch.ones(batch, dtype=torch.bool)
        self._reset(seeds_B, mask_B)
        self._batch = batch

    @abstractmethod
    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """Does what `act` does, for tensors (B, O) and (B, G), after a reset for B environments."""

    def _reset(self, seeds_B: list[int], mask_B: Tensor) -> None:  # noqa: B027 - some agents have no state
        """Begins new episodes, with these seeds, in the environments that `mask_B` selects."""

    def pad_batches(self, padded: bool = True) -> None:  # noqa: B027 - most agents have no network
        """Fills up the batches of its networks from now on, or no longer, so that no action depends on the environments
        beside its own, bit for bit. A decision in one environment then costs as much as in 16."""

    def took(self, act_BA: Tensor) -> None:  # noqa: B027 - most agents remember no actions
        """Tells an agent that remembers its actions which ones (B, A) were carried out in the place of those that `act`
        returned last."""

    def avoiding(self, obstacles: Sequence[Any]) -> Agent:
        """Returns an agent that keeps out of obstacles, constraints on its position; this one, where it cannot be told
        of any."""
        return self

    def leave_data(self) -> None:
        """Lets it act far from its data without a warning from now on, where it is meant to, or it is told elsewhere.
        """
        if self.ranges is not None:
            self.ranges.told = True
            if self.ranges.goal is not None:
                self.ranges.goal.told = True

    def rest(self, seconds: float) -> None:  # noqa: B027 - most agents have nothing to do
        """Lets `seconds` pass, in which an agent with a deadline plans ahead; returns as soon as it has nothing to
        plan."""

    def timing(self) -> dict[str, Any]:
        """What an agent with a deadline did to be in time, for reports: `Counter`s of all its steps so far, and times,
        by name; empty for others."""
        return {}


def as_array(x: ArrayLike) -> np.ndarray:
    """A tensor on any device, or anything that NumPy makes an array of, as an array."""
    if isinstance(x, Tensor):
        return x.detach().cpu().numpy()
    return np.asarray(x)


def _is_batch(x: object) -> TypeGuard[Tensor]:
    return isinstance(x, Tensor) and x.ndim == 2


def as_tensor(x: Any, what: str) -> Tensor:
    """The observations or goals that were given, as `what`. Raises TypeError for what is no array of numbers."""
    if isinstance(x, Tensor):
        return x
    if isinstance(x, Mapping):
        raise TypeError(f"the {what} is a dict with the keys {list(x)}; give the array of its observation, and that of "
                        "its goal, if there is one, as an argument of its own")
    try:
        array = np.array(x, order="C")
    except ValueError:
        array = np.array(None)
    if array.dtype.kind not in "fiub":
        also = "; gymnasium.spaces.flatten(env.observation_space, obs) makes one of a tuple" if type(x) is tuple else ""
        raise TypeError(f"the {what} is {x!r}; an array or a tensor of numbers is expected{also}")
    return torch.from_numpy(array)


def _as_tensor(x: Any, what: str, dtype: torch.dtype | None = None) -> Tensor:
    try:
        return torch.as_tensor(x, dtype=dtype)
    except (TypeError, ValueError, RuntimeError):  # by what it is
        raise TypeError(f"the {what} is {reprlib.repr(x)}; numbers are expected") from None
