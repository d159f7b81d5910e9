"""Constraints on the timesteps of a trajectory and on their differences: plain settings that measure their violation.

A constraint concerns the entries `dims` of each timestep x_h (order 0), of the first differences x_h+1 - x_h (order 1),
or of the second differences x_h+1 - 2 x_h + x_h-1 (order 2). `excess` says how far such a vector lies outside the
allowed set, and `nearest` projects it onto that set. The certificate, the projection of whole trajectories and the
refusals are written once, for all constraints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..trajectory import TrajectorySpec

TOLERANCE = 1e-6
"""The size up to which a violation counts as none, in natural units."""
Values = float | tuple[float, ...]  # one number for all entries, or one number for each


@dataclass(frozen=True)
class RegionQuery:
    """The trajectories that a projection starts from, for constraints that choose among several allowed regions."""

    x_RHd: Tensor
    known_RHd: Tensor
    reach: float
    """The largest distance between neighbouring timesteps; inf where no speed is bounded."""
    weight: float
    """The cost of a squared distance beyond `reach`, relative to the cost of moving a timestep by that distance."""


class Constraint:
    """The base class of all constraints; most subclasses define `excess` and `nearest` only. They compute in
    float64."""

    order: ClassVar[int] = 0
    """The order of the differences that it concerns: 0 are the timesteps themselves."""
    dims: tuple[int, ...]
    """The entries of a timestep that it concerns."""

    def entries(self, spec: TrajectorySpec) -> list[int]:
        """The entries that the constraint concerns. Raises ValueError unless trajectories of `spec` have them."""
        if spec.horizon <= self.order:
            raise ValueError(f"it compares {self.order + 1} timesteps; the trajectory has {spec.horizon}")
        return check_dims(self, self.dims, spec)

    def excess(self, vectors: Tensor, spec: TrajectorySpec) -> Tensor:
        """Returns how far each of the vectors (R, K, d) lies outside the allowed set: (R, K), or (R, K, d) for bounds
        on single entries, in natural units and at most 0 inside the set."""
        raise NotImplementedError

    def nearest(self, vectors: Tensor, spec: TrajectorySpec, region: Tensor, slack: Tensor) -> Tensor:
        """Returns the projection of vectors (R, K, d) onto the allowed set, given the regions (R, ..).

        The projection keeps a distance of `slack` (R, 1, 1) from the borders, so that neither the solver's error nor
        rounding to float32 leaves a violation.
        """
        raise NotImplementedError

    def region(self, query: RegionQuery) -> Tensor:
        """(R, ..) the convex region chosen for each trajectory, where the allowed set is not convex."""
        return query.x_RHd.new_zeros(len(query.x_RHd), 0)

    def reach(self, spec: TrajectorySpec, dims: list[int]) -> float:
        """The largest distance that it allows between neighbouring timesteps in these entries."""
        return math.inf

    def violation(self, x_RHD: Tensor, spec: TrajectorySpec, known_RHD: Tensor | None = None) -> Tensor:
        """(R,) the largest violation of each trajectory in natural units; 0 where the constraint is satisfied.

        With `known_RHD`, timesteps or differences whose entries `dims` are all known do not count, as nothing can
        change them.
        """
        excess_RK = largest(self._excess(x_RHD, spec))
        if known_RHD is not None:
            excess_RK = excess_RK.masked_fill(self._known(known_RHD).all(-1), 0)
        return excess_RK.amax(1).clamp(min=0)

    def conflict(self, values_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> str | None:
        """Why no trajectory with these known entries can satisfy the constraint, or None if they do not rule it out.

        Of timesteps that are known in part, only bounds on single entries are considered.
        """
        excess, known_RKd = self._excess(values_RHD, spec), self._known(known_RHD)
        if excess.ndim == 2:
            excess_RK = excess.masked_fill(~known_RKd.all(-1), 0)
        else:
            excess_RK = largest(excess.masked_fill(~known_RKd, 0))
        if excess_RK.max() <= TOLERANCE:
            return None
        r, h = divmod(int(excess_RK.argmax()), excess_RK.shape[1])
        end = h + self.order
        given = values_RHD[r, h : end + 1, list(self.dims)].tolist()
        known = ", ".join(" ".join(f"{value:g}" for value in timestep) for timestep in given)
        which = f"timestep {h} is"
        if self.order:
            which = f"timesteps {h} to {end} are"
        return (f"{which} known to be {known} in the entries {list(self.dims)}, which violates it by "
                f"{excess_RK[r, h]:.3g}")

    def _excess(self, x_RHD: Tensor, spec: TrajectorySpec) -> Tensor:
        """(R, K) the excess of each timestep or difference, or (R, K, d)."""
        return self.excess(x_RHD[..., list(self.dims)].double().diff(n=self.order, dim=1), spec)

    def _known(self, known_RHD: Tensor) -> Tensor:
        """(R, K, d) whether an entry is known in all timesteps of a difference."""
        return known_RHD[..., list(self.dims)].unfold(1, self.order + 1, 1).all(-1)


def largest(excess: Tensor) -> Tensor:
    """(R, K) the excess (R, K), or the largest entry of (R, K, d)."""
    if excess.ndim == 2:
        return excess
    return excess.amax(-1)


def clamp(x: Tensor, low: Tensor, high: Tensor, slack: Tensor) -> Tensor:
    """Clamps x into [low, high], `slack` away from both borders, or to the middle where the interval is too narrow."""
    slack = torch.minimum(slack, (high - low) / 2)
    return torch.clamp(x, low + slack, high - slack)


@dataclass(frozen=True)
class Box(Constraint):
    """Requires low <= x_h[dims] <= high at every timestep.

    An infinite bound leaves its side open. Entry obs_dim + a of a timestep is entry a of its action. Raises ValueError
    for bounds of other shapes, and where no finite number lies between `low` and `high`.
    """

    low: Values
    high: Values
    dims: tuple[int, ...]

    def __post_init__(self) -> None:
        low, high = check_values(self, "low", self.dims), check_values(self, "high", self.dims)
        if not all(a <= b and a < math.inf and b > -math.inf for a, b in zip(low, high, strict=True)):
            raise ValueError(f"Box: low is {self.low} and high is {self.high}; low must be at most high, with a finite "
                             "number between them")
        freeze(self, "low", "high", "dims")

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The bounds low_d and high_d, in float64."""
        every = like.new_zeros(len(self.dims), dtype=torch.float64)
        return every + double(self.low, like), every + double(self.high, like)

    def excess(self, vectors: Tensor, spec: TrajectorySpec) -> Tensor:
        low, high = self.bounds(vectors)
        return torch.maximum(low - vectors, vectors - high)

    def nearest(self, vectors: Tensor, spec: TrajectorySpec, region: Tensor, slack: Tensor) -> Tensor:
        return clamp(vectors, *self.bounds(vectors), slack)


@dataclass(frozen=True)
class Speed(Constraint):
    """Requires |x_h+1 - x_h| / (stride dt) <= limit for the Euclidean norm over the entries `dims`.

    With `per_dim` the bound holds for the absolute value of each entry instead. `dt` is the duration of one environment
    step, so `limit` is in units of the entries per unit of `dt`. Raises ValueError for a negative `limit` and
    for a `dt` that is not positive.
    """

    limit: float
    dims: tuple[int, ...]
    dt: float
    per_dim: bool = False
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_dims(self, self.dims)
        check_bound(self, "limit")
        if not 0 < self.dt < math.inf:
            raise ValueError(f"{type(self).__name__}.dt is {self.dt}; a positive duration is expected")

    def unit(self, spec: TrajectorySpec) -> float:
        """The duration, to the power of the order, by which a difference is divided."""
        return (spec.stride * self.dt) ** self.order

    def size(self, vectors: Tensor) -> Tensor:
        """(R, K, 1) the norms of vectors (R, K, d), or the absolute values (R, K, d)."""
        if self.per_dim:
            return vectors.abs()
        return vectors.norm(dim=-1, keepdim=True)

    def reach(self, spec: TrajectorySpec, dims: list[int]) -> float:
        if not set(dims) <= set(self.dims):
            return math.inf
        distance = self.limit * self.unit(spec)
        if self.per_dim:
            distance *= math.sqrt(len(dims))
        return distance

    def excess(self, vectors: Tensor, spec: TrajectorySpec) -> Tensor:
        return self.size(vectors) / self.unit(spec) - self.limit

    def nearest(self, vectors: Tensor, spec: TrajectorySpec, region: Tensor, slack: Tensor) -> Tensor:
        size, bound = self.size(vectors), (self.limit * self.unit(spec) - slack).clamp(min=0)
        return torch.where(size > bound, vectors * (bound / size), vectors)

    def conflict(self, values_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> str | None:
        """Names two known timesteps that are further apart than the timesteps between them allow."""
        dims = list(self.dims)
        known_RH = known_RHD[..., dims].all(-1)
        for gap in range(1, spec.horizon):
            both_RK = known_RH[:, gap:] & known_RH[:, :-gap]
            if not both_RK.any():
                continue
            moved = values_RHD[:, gap:, dims].double() - values_RHD[:, :-gap, dims].double()
            excess_RK = largest(self.excess(moved / gap, spec)).masked_fill(~both_RK, 0)
            if excess_RK.max() > TOLERANCE:
                h = int(excess_RK.argmax()) % excess_RK.shape[1]
                return (f"timesteps {h} and {h + gap} are known, and from one to the other it takes "
                        f"{self.limit + excess_RK.max():.4g}, more than {self.limit:g}")
        return None


@dataclass(frozen=True)
class Acceleration(Speed):
    """Requires |x_h+1 - 2 x_h + x_h-1| / (stride dt)^2 <= limit, with the norm and the units of `Speed`."""

    order: ClassVar[int] = 2
    conflict = Constraint.conflict
    reach = Constraint.reach


@dataclass(frozen=True)
class Projection(Constraint):
    """A set of your own, given by the projection onto it, x_RHD -> x_RHD (float64, environment units).

    The function must be idempotent and must treat each trajectory independently of the others. The violation of a
    trajectory is the Euclidean distance, over all entries, by which the function moves it.
    """

    function: Callable[[Tensor], Tensor]
    dims = ()

    def entries(self, spec: TrajectorySpec) -> list[int]:
        return list(range(spec.dim))

    def violation(self, x_RHD: Tensor, spec: TrajectorySpec, known_RHD: Tensor | None = None) -> Tensor:
        x_RHD = x_RHD.double()  # known entries say nothing about a function's set
        return (self._checked(x_RHD) - x_RHD).flatten(1).norm(dim=1)

    def nearest(self, vectors: Tensor, spec: TrajectorySpec, region: Tensor, slack: Tensor) -> Tensor:
        return self._checked(vectors)

    def conflict(self, values_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> str | None:
        return None

    def _checked(self, x: Tensor) -> Tensor:
        out = self.function(x.clone())
        if not isinstance(out, Tensor) or out.shape != x.shape or not torch.isfinite(out).all():
            given = out
            if isinstance(out, Tensor):
                given = tuple(out.shape)
            raise ValueError(f"Projection: the function returned {given} for {tuple(x.shape)}, or "
                             "numbers that are not finite; finite trajectories of the same shape are expected")
        return out.to(x.dtype)


def check_dims(what: object, dims: tuple[int, ...], spec: TrajectorySpec | None = None) -> list[int]:
    """The entries as a list. Raises ValueError for no entries, for duplicates, and for entries outside `spec`."""
    if not dims or len(set(dims)) < len(dims) or min(dims) < 0:
        raise ValueError(f"{type(what).__name__}.dims are {dims}; different entries 0, 1, .. are expected")
    if spec is not None and max(dims) >= spec.dim:
        raise ValueError(f"its dims are {dims}; a timestep has the entries 0..{spec.dim - 1} "
                         f"({spec.obs_dim} of the observation, then {spec.act_dim} of the action)")
    return list(dims)


def check_values(what: object, name: str, dims: tuple[int, ...]) -> tuple[float, ...]:
    """One number for each entry, from a field that holds one for all or one each. Raises ValueError for NaN and for
    any other count."""
    check_dims(what, dims)
    given: Values = getattr(what, name)
    if isinstance(given, Iterable):
        values = tuple(map(float, given))
    else:
        values = (given,) * len(dims)
    if len(values) != len(dims) or any(math.isnan(value) for value in values):
        raise ValueError(f"{type(what).__name__}.{name} is {given}; a number, or one for each of {dims}, is expected")
    return values


def freeze(what: object, *names: str) -> None:
    """Makes the lists and arrays in these fields of a frozen dataclass tuples, so that it can be hashed."""
    for name in names:
        value = getattr(what, name)
        if isinstance(value, Iterable):
            object.__setattr__(what, name, tuple(value))


def check_bound(what: object, name: str) -> None:
    """Raises ValueError for a bound on a length that is negative, NaN or infinite."""
    value = getattr(what, name)
    if not 0 <= value < math.inf:
        raise ValueError(f"{type(what).__name__}.{name} is {value}; a number of at least 0 is expected")


def double(values: Values, like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)
