"""The one tensor and what is known of it: `TrajectorySpec`, `Batch`, `Condition`, and the protocols.

Shape legend of the whole project: B batch, H horizon, O observation, A action, D = O + A, N candidates,
C context, G goal, T episode length, R rows of a network call (R = B * N).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.optim import Optimizer

Guide = Callable[[Tensor], Tensor]  # x_BHD in environment units -> one score per trajectory, higher is better
Observer = Callable[[Tensor, Tensor], None]  # sees (x, t) after each step of sampling


@dataclass(frozen=True)
class TrajectorySpec:
    """The layout of a trajectory `x_BHD`, D = obs_dim + act_dim, observation first; nothing else knows it.

    `horizon` rows, `stride` environment steps apart or, dense near and sparse far, `offsets` steps after the first one.
    `act_dim` is 0 for state-only trajectories; a transition is horizon 2.
    """

    obs_dim: int
    act_dim: int
    horizon: int
    stride: int = 1
    offsets: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, least in (("obs_dim", 1), ("act_dim", 0), ("horizon", 1), ("stride", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"TrajectorySpec.{name} is {getattr(self, name)}; give at least {least}")
        if self.offsets and (len(self.offsets) != self.horizon - 1 or min(self.gaps) < 1):
            raise ValueError(f"TrajectorySpec.offsets: {self.offsets}; {self.horizon - 1} growing ones are expected")

    @property
    def dim(self) -> int:
        return self.obs_dim + self.act_dim

    @property
    def spacing(self) -> int | tuple[int, ...]:
        """The stride, or the offsets of rows that are not evenly apart."""
        return self.offsets or self.stride

    @property
    def times(self) -> tuple[int, ...]:
        """(H,) environment steps from the first row to each."""
        return (0, *self.offsets) if self.offsets else tuple(range(0, self.horizon * self.stride, self.stride))

    @property
    def gaps(self) -> tuple[int, ...]:
        """(H,) environment steps that each row stands for: to the next one, and of the last as of the one before."""
        apart = [later - row for row, later in pairwise(self.times)]
        return (*apart, apart[-1] if apart else self.stride)

    def rows(self, step_T: Tensor) -> Tensor:
        """(T,) environment steps, at least 0 -> rows, fractions between two; past the last row they go on."""
        if not self.offsets:
            return step_T / self.stride
        time_H, gap_H = (torch.tensor(each, device=step_T.device) for each in (self.times, self.gaps))
        below_T = torch.searchsorted(time_H, step_T, right=True) - 1
        return below_T + (step_T - time_H[below_T]) / gap_H[below_T]

    def longer(self, horizon: int) -> TrajectorySpec:
        """With so many rows at least; further ones are as far apart as the last two."""
        more = (self.times[-1] + i * self.gaps[-1] for i in range(1, 1 + max(horizon - self.horizon, 0)))
        return replace(self, horizon=max(horizon, self.horizon), offsets=self.offsets and (*self.offsets, *more))

    def require_even(self, what: str) -> None:
        """Raises ValueError unless rows are evenly apart; `what` needs it."""
        if self.offsets:
            raise ValueError(f"{what} needs rows that are evenly apart; these are at steps {self.times}")

    def join(self, obs: Tensor, act: Tensor | None = None) -> Tensor:
        """Observations (..., O) and actions (..., A) -> trajectory (..., D)."""
        return obs if act is None else torch.cat([obs, act], dim=-1)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Trajectory (..., D) -> observations (..., O) and actions (..., A)."""
        return x[..., : self.obs_dim], x[..., self.obs_dim :]


@dataclass(frozen=True)
class Batch:
    """Windows of data in environment units. `mask_BHD` is true where an entry is real and false where it is padding.

    `reward_BH` is what was earned from each row to the next, 0 where padded; `terminal_BH` is true of the first row by
    which an episode ended for good (a truncation by a time limit is no end), padding where the end was between two
    rows. `weight_B`, of mean 1, says how much a window counts in the loss of a model of trajectories; None is alike.
    `synthetic_B` is true of what a world model made, for critics only; None is nowhere. `episode_B` numbers episodes.
    """

    x_BHD: Tensor
    mask_BHD: Tensor
    context_BC: Tensor | None = None
    reward_BH: Tensor | None = None
    terminal_BH: Tensor | None = None
    weight_B: Tensor | None = None
    synthetic_B: Tensor | None = None
    episode_B: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(**{name: tensor.to(device) for name, tensor in given.items() if tensor is not None})

    def weights(self) -> Tensor:
        """(B,), or a one for all."""
        return self.x_BHD.new_ones(1) if self.weight_B is None else self.weight_B


@dataclass(frozen=True)
class Condition:
    """What is known of a trajectory: `values_BHD` (environment units) where `mask_BHD` is true, and `context_BC`.

    Built up from nothing: `Condition.unknown(spec, 8).with_obs(0, obs_BO).with_obs(-1, goal_BG, dims=(0, 1))`.
    """

    spec: TrajectorySpec
    values_BHD: Tensor
    mask_BHD: Tensor
    context_BC: Tensor | None = None

    def __post_init__(self) -> None:
        shape = (self.values_BHD.shape[0], self.spec.horizon, self.spec.dim)
        for name in ("values_BHD", "mask_BHD"):
            if getattr(self, name).shape != shape:
                given = tuple(getattr(self, name).shape)
                raise ValueError(f"Condition.{name} has shape {given}; this model's trajectories need {shape}")
        if self.mask_BHD.dtype != torch.bool:
            raise TypeError(f"Condition.mask_BHD is {self.mask_BHD.dtype}; give torch.bool, true where known")
        if not torch.isfinite(self.values_BHD[self.mask_BHD]).all():
            raise ValueError("a known value of the condition is NaN or infinite; give finite values")
        if self.context_BC is not None and (self.context_BC.ndim != 2 or len(self.context_BC) != self.batch):
            raise ValueError(f"Condition.context_BC has shape {tuple(self.context_BC.shape)}; give ({self.batch}, C)")

    @classmethod
    def unknown(cls, spec: TrajectorySpec, batch: int = 1, *, device: torch.device | None = None) -> Condition:
        shape = (batch, spec.horizon, spec.dim)
        return cls(spec, torch.zeros(shape, device=device), torch.zeros(shape, dtype=torch.bool, device=device))

    @property
    def batch(self) -> int:
        return self.values_BHD.shape[0]

    def with_obs(self, index: int | Tensor, obs: Tensor, dims: Sequence[int] | None = None) -> Condition:
        """Observation entries `dims` (all of them by default) known at row `index`, one for all or one per trajectory.

        `obs` is (len(dims),) or (B, len(dims)): the start at 0, a goal at any index, a waypoint at another.
        """
        return self._with(index, obs, list(range(self.spec.obs_dim)) if dims is None else list(dims))

    def with_action(self, index: int | Tensor, act: Tensor) -> Condition:
        """The action (A,) or (B, A) known at row `index`."""
        return self._with(index, act, list(range(self.spec.obs_dim, self.spec.dim)))

    def with_actions(self, act_BKA: Tensor) -> Condition:
        """The first K actions known: the trajectory is then what a world model predicts."""
        condition = self
        for k in range(act_BKA.shape[1]):
            condition = condition.with_action(k, act_BKA[:, k])
        return condition

    def with_prefix(self, x_BKD: Tensor) -> Condition:
        """The first K rows known entirely: history, or a warm start."""
        condition, dims = self, list(range(self.spec.dim))
        for k in range(x_BKD.shape[1]):
            condition = condition._with(k, x_BKD[:, k], dims)
        return condition

    def repeat(self, num: int) -> Condition:
        """Each trajectory `num` times in a row: B -> B * num. Raises ValueError where nothing is left."""
        if num < 1 or self.batch < 1:
            raise ValueError(f"{num} samples of {self.batch} conditions were asked for; at least 1 of 1 is expected")
        context = None if self.context_BC is None else self.context_BC.repeat_interleave(num, 0)
        return replace(self, values_BHD=self.values_BHD.repeat_interleave(num, 0),
                       mask_BHD=self.mask_BHD.repeat_interleave(num, 0), context_BC=context)

    def __getitem__(self, rows: slice | Tensor) -> Condition:
        context = None if self.context_BC is None else self.context_BC[rows]
        return replace(self, values_BHD=self.values_BHD[rows], mask_BHD=self.mask_BHD[rows], context_BC=context)

    def check(self, spec: TrajectorySpec) -> None:
        """Raises ValueError unless it is about trajectories of `spec`."""
        if self.spec != spec:
            raise ValueError(f"the condition is on {self.spec}; the model is of {spec}")

    def padded(self, num: int) -> Condition:
        """`num` more trajectories, like the first."""
        return self if num == 0 else cat([self, self[:1].repeat(num)])

    def to(self, device: torch.device) -> Condition:
        context = None if self.context_BC is None else self.context_BC.to(device)
        return replace(self, values_BHD=self.values_BHD.to(device), mask_BHD=self.mask_BHD.to(device),
                       context_BC=context)

    def _with(self, index: int | Tensor, value: Tensor, dims: list[int]) -> Condition:
        device = self.values_BHD.device
        value = torch.as_tensor(value, dtype=torch.float32, device=device)
        if value.shape[-1:] != (len(dims),) or not all(0 <= i < self.spec.dim for i in dims):
            raise ValueError(f"the known value has width {tuple(value.shape)}; {len(dims)} entries were named: {dims}")
        index_B = torch.as_tensor(index, device=device).expand(self.batch)
        if ((index_B >= self.spec.horizon) | (index_B < -self.spec.horizon)).any():
            raise ValueError(f"row {index} is outside the horizon of {self.spec.horizon} rows")
        rows, columns = torch.arange(self.batch, device=device)[:, None], torch.tensor(dims, device=device)
        values, mask = self.values_BHD.clone(), self.mask_BHD.clone()
        values[rows, index_B[:, None], columns] = value.expand(self.batch, len(dims))
        mask[rows, index_B[:, None], columns] = True
        return replace(self, values_BHD=values, mask_BHD=mask)


def cat(conditions: Sequence[Condition]) -> Condition:
    """Conditions of one spec after each other."""
    contexts = [c.context_BC for c in conditions if c.context_BC is not None]
    return replace(conditions[0], values_BHD=torch.cat([c.values_BHD for c in conditions]),
                   mask_BHD=torch.cat([c.mask_BHD for c in conditions]),
                   context_BC=torch.cat(contexts) if contexts else None)


@dataclass(frozen=True)
class SamplingOptions:
    """How to sample, where it is not as the model's own settings say: None leaves that setting as it is.

    A model refuses with ValueError what it does not have: one that samples in one call has no sampler, grid or eta.
    """

    sampler: str | None = None
    """Name of a sampler of `gentraj.diffusion.samplers.SAMPLERS`."""
    steps: int | None = None
    """Sampling steps; a model that samples in one call takes one, whatever is given."""
    grid: str | None = None
    """Where the sampling steps stop: a name of `gentraj.diffusion.grids.GRIDS`."""
    eta: float | None = None
    """Noise added while sampling, from 0 (deterministic) to 1."""
    temperature: float = 1.0
    """Scale of the noise that a sample is made from; 0 gives the likeliest."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"the temperature is {self.temperature}; a number of at least 0 is expected")

    def changed(self) -> dict[str, Any]:
        """The settings of a sampler that are given: sampler, grid and eta, by name."""
        given = (("sampler", self.sampler), ("grid", self.grid), ("eta", self.eta))
        return {name: value for name, value in given if value is not None}


DEFAULT_OPTIONS = SamplingOptions()  # a model's own settings


@runtime_checkable
class Trainable(Protocol):
    """What one training loop can train: a generator, a critic, an inverse-dynamics network, a policy."""

    spec: TrajectorySpec  # the windows it is trained on
    batch_size: int

    def optimizers(self) -> dict[str, Optimizer]: ...

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        """One step. Raises `NonFinite` before stepping when a loss or a gradient is not finite."""
        ...


class TrajectoryModel(Protocol):
    """A generator of trajectories: diffusion, GAN, latent, a distilled student; interchangeable everywhere.

    These four members are all that a planner or a policy needs. What else a model can do is a protocol of its own:
    `SupportsLogProb`, `SupportsImplausibility`, `CountsCalls`. A model whose tensors are not on the CPU also has a
    `device`. `gentraj.testing.check_model` tries a model of your own.
    """

    @property
    def spec(self) -> TrajectorySpec: ...

    def optimizers(self) -> dict[str, Optimizer]: ...

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator, *,
               guide: Guide | None = None) -> dict[str, Tensor]:
        """As `Trainable.update`, on the batch's weights. `guide` scores what the model itself makes of the batch's
        conditions, (B, H, D) in environment units and differentiable; it learns to raise the scores' mean too."""
        ...

    def sample(self, condition: Condition, num_samples: int = 1, *, guide: Any = None,
               seed: int | Sequence[int] = 0, options: SamplingOptions = DEFAULT_OPTIONS,
               observe: Observer | None = None) -> Tensor:
        """(B, N, H, D) in environment units, the known entries exact.

        `guide` is an energy, a `Guide`, or what else shapes this model's samples; it is shown at least 16 rows at a
        time, some of them made up. `seed` is one for all or one for each of the B * N samples. `observe` sees the
        sample become. Raises ValueError for options that this model cannot follow.
        """
        ...


@runtime_checkable
class SupportsLogProb(Protocol):
    """A model that has a density of trajectories."""

    def log_prob(self, x_RHD: Tensor, condition: Condition | None = None, *, seeds: int | Sequence[int] = 0,
                 exact: bool | None = None, probes: int = 8, steps: int | None = None) -> Tensor:
        """(R,) log density, environment units, of the entries of x that `condition` does not know, given the others.

        `exact`, `probes` and `steps` are for models that have to integrate (`gentraj.diffusion.likelihood.log_prob`).
        """
        ...


@runtime_checkable
class SupportsImplausibility(Protocol):
    """A model that can say how unlike data a trajectory is, which is what a planner's trust asks."""

    spec: TrajectorySpec

    def ood_score(self, x_RHD: Tensor, condition: Condition, seeds: Sequence[int]) -> Tensor:
        """(R, H) how unlike data each row is, at least 0, on the model's own scale; `condition` is what is known."""
        ...


@runtime_checkable
class CountsCalls(Protocol):
    """What counts the calls of its generator's network while sampling, so that the cost of a decision can be told."""

    @property
    def network_calls(self) -> int: ...


def calls_of(models: Iterable[object]) -> int:
    """The network calls of all of them so far; one that does not count them has none."""
    return sum(model.network_calls for model in models if isinstance(model, CountsCalls))


class Agent(Protocol):
    """Anything that acts: a planner, a policy, a controller."""

    def reset(self, mask_B: Tensor | None = None, seeds_B: Sequence[int] | None = None) -> None:
        """Forget what was queued for the masked environments (all by default) and seed their episodes."""
        ...

    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        """(B, A), inside the action space."""
        ...
