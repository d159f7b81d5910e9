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

Values = float | tuple[float, ...]  # one number for all entries, or one number for each
TOLERANCE = 1e-6
"""The size up to which a violation counts as none, in natural units."""
Nearest = Callable[[Tensor, Tensor, Tensor], Tensor]  # (vectors (R, K, d), regions, slacks) -> the nearest allowed ones


@dataclass(frozen=True)
class Place:
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

    def nearest(self, spec: TrajectorySpec) -> Nearest:
        """Returns the projection of vectors (R, K, d) onto the allowed set, given the regions (R, ..).

        The projection keeps a distance of `slack` (R, 1, 1) from the borders, so that neither the solver's error nor
        rounding to float32 leaves a violation.
        """
        raise NotImplementedError

    def region(self, place: Place) -> Tensor:
        """(R, ..) the convex region chosen for each trajectory, where the allowed set is not convex."""
        return place.x_RHd.new_zeros(len(place.x_RHd), 0)

    def violation(self, x_RHD: Tensor, spec: TrajectorySpec) -> Tensor:
        """(R,) the largest violation of each trajectory in natural units; 0 where the constraint is satisfied."""
        vectors = x_RHD[..., list(self.dims)].double().diff(n=self.order, dim=1)
        return self.excess(vectors, spec).flatten(1).amax(1).clamp(min=0)

    def fix(self, values_RHD: Tensor, known_RHD: Tensor) -> tuple[Tensor, Tensor]:
        """The values and the mask (R, H, D) of the known entries, together with the entries that the constraint itself
        fixes."""
        return values_RHD, known_RHD

    def free_violation(self, x_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> Tensor:
        """(R,) the largest violation by timesteps, or differences, of which an entry of `dims` is unknown. The others
        cannot be changed."""
        excess_RK, fixed_RK = self._of_timesteps(x_RHD, known_RHD, spec)
        return excess_RK.masked_fill(fixed_RK, 0).amax(1).clamp(min=0)

    def _of_timesteps(self, x_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> tuple[Tensor, Tensor]:
        """(R, K) the excess of each timestep or difference, and whether all of its entries are known."""
        dims, order = list(self.dims), self.order
        excess = self.excess(x_RHD[..., dims].double().diff(n=order, dim=1), spec)
        fixed_RK = known_RHD[..., dims].all(-1).unfold(1, order + 1, 1).all(-1)
        return excess if excess.ndim == 2 else excess.amax(-1), fixed_RK

    def conflict(self, values_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> str | None:
        """Why no trajectory with these known entries can satisfy the constraint, or None if they do not rule it out.

        Only timesteps whose entries `dims` are all known are considered.
        """
        excess_RK, fixed_RK = self._of_timesteps(values_RHD, known_RHD, spec)
        dims, order, excess_RK = list(self.dims), self.order, excess_RK.masked_fill(~fixed_RK, 0)
        if excess_RK.max() <= TOLERANCE:
            return None
        r, h = divmod(int(excess_RK.argmax()), excess_RK.shape[1])
        given = [[f"{value:g}" for value in row] for row in values_RHD[r, h : h + order + 1, dims].tolist()]
        rows = f"timestep {h} is" if order == 0 else f"timesteps {h} to {h + order} are"
        known = ", ".join(" ".join(row) for row in given)
        return f"{rows} known to be {known}, which violates it by {excess_RK[r, h]:.3g}"


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
        low, high = (check_values(self, name, self.dims) for name in ("low", "high"))
        if not all(a <= b and a < math.inf and b > -math.inf for a, b in zip(low, high, strict=True)):
            raise ValueError(f"Box: low is {self.low} and high is {self.high}; low must be at most high, with a finite "
                             "number between them")

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The bounds low_d and high_d, in float64."""
        low, high = (check_values(self, name, self.dims) for name in ("low", "high"))
        return double(low, like), double(high, like)

    def excess(self, vectors: Tensor, spec: TrajectorySpec) -> Tensor:
        low, high = self.bounds(vectors)
        return torch.maximum(low - vectors, vectors - high)

    def nearest(self, spec: TrajectorySpec) -> Nearest:
        return lambda x, region, slack: clamp(x, *self.bounds(x), slack)

    def conflict(self, values_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> str | None:
        """Names a known entry outside the bounds, even where other entries of its timestep are not known."""
        dims = list(self.dims)
        excess = self.excess(values_RHD[..., dims].double(), spec).masked_fill(~known_RHD[..., dims], 0)
        if excess.max() <= TOLERANCE:
            return None
        r, h, i = (int(k) for k in torch.unravel_index(excess.argmax(), excess.shape))
        return f"entry {dims[i]} of timestep {h} is known to be {values_RHD[r, h, dims[i]]:g}"


@dataclass(frozen=True)
class Equal(Constraint):
    """Requires x_row[dims] = values in every trajectory, exactly (as float32).

    `row` is a timestep's index; a negative one counts from the end. Raises ValueError for values that are not finite as
    float32.
    """

    row: int
    values: tuple[float, ...]
    dims: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", check_values(self, "values", self.dims))
        if not torch.tensor(self.values, dtype=torch.float32).isfinite().all():
            raise ValueError(f"Equal.values are {self.values}; finite numbers of float32 are expected")

    def entries(self, spec: TrajectorySpec) -> list[int]:
        if not -spec.horizon <= self.row < spec.horizon:
            raise ValueError(f"its row is {self.row}; the trajectory has {spec.horizon} timesteps")
        return check_dims(self, self.dims, spec)

    def target(self, like: Tensor) -> Tensor:
        """The values, rounded to float32 as trajectories are, one for each of `dims`: of the shape (d,)."""
        return torch.tensor(self.values, dtype=torch.float32, device=like.device).to(like.dtype)

    def excess(self, vectors: Tensor, spec: TrajectorySpec) -> Tensor:
        return (vectors[:, [self.row]] - self.target(vectors)).abs()

    def nearest(self, spec: TrajectorySpec) -> Nearest:
        def nearest(x: Tensor, region: Tensor, slack: Tensor) -> Tensor:
            x = x.clone()
            x[:, self.row] = self.target(x)
            return x

        return nearest

    def free_violation(self, x_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> Tensor:
        return self.violation(x_RHD, spec)  # `fix` makes it 0

    def fix(self, values_RHD: Tensor, known_RHD: Tensor) -> tuple[Tensor, Tensor]:
        values, known, dims = values_RHD.clone(), known_RHD.clone(), list(self.dims)
        values[:, self.row, dims], known[:, self.row, dims] = self.target(values), True
        return values, known

    def conflict(self, values_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> str | None:
        dims = list(self.dims)
        given = values_RHD[:, self.row, dims]
        other = known_RHD[:, self.row, dims] & (given != self.target(given))
        if not other.any():
            return None
        r, i = divmod(int(other.int().argmax()), len(dims))
        return f"entry {dims[i]} of timestep {self.row} is known to be {given[r, i]:g}, not {self.values[i]:g}"


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
        spec.require_even(type(self).__name__)
        return (spec.stride * self.dt) ** self.order

    def reach(self, spec: TrajectorySpec, entries: int) -> float:
        """The largest distance between neighbouring timesteps in that many of its entries."""
        return self.limit * self.unit(spec) * (math.sqrt(entries) if self.per_dim else 1)

    def excess(self, vectors: Tensor, spec: TrajectorySpec) -> Tensor:
        return (vectors.abs() if self.per_dim else vectors.norm(dim=-1)) / self.unit(spec) - self.limit

    def nearest(self, spec: TrajectorySpec) -> Nearest:
        def nearest(x: Tensor, region: Tensor, slack: Tensor) -> Tensor:
            size = x.abs() if self.per_dim else x.norm(dim=-1, keepdim=True)
            bound = (self.limit * self.unit(spec) - slack).clamp(min=0)
            return torch.where(size > bound, x * (bound / size), x)

        return nearest

    def conflict(self, values_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> str | None:
        """Names two known timesteps that are further apart than the timesteps between them allow."""
        dims, known_RH = list(self.dims), known_RHD[..., list(self.dims)].all(-1)
        for gap in range(1, spec.horizon):
            both_RK = known_RH[:, gap:] & known_RH[:, :-gap]
            if not both_RK.any():
                continue
            moved = values_RHD[:, gap:, dims].double() - values_RHD[:, :-gap, dims].double()
            excess = self.excess(moved / gap, spec)
            excess_RK = (excess if excess.ndim == 2 else excess.amax(-1)).masked_fill(~both_RK, 0)
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

    def violation(self, x_RHD: Tensor, spec: TrajectorySpec) -> Tensor:
        return (self._checked(x_RHD.double()) - x_RHD.double()).flatten(1).norm(dim=1)

    def nearest(self, spec: TrajectorySpec) -> Nearest:
        return lambda x, region, slack: self._checked(x)

    def free_violation(self, x_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> Tensor:
        return self.violation(x_RHD, spec)  # known entries say nothing about a function's set

    def conflict(self, values_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> str | None:
        return None

    def _checked(self, x: Tensor) -> Tensor:
        out = self.function(x.clone())
        if not isinstance(out, Tensor) or out.shape != x.shape or not torch.isfinite(out).all():
            given = tuple(out.shape) if isinstance(out, Tensor) else repr(out)
            raise ValueError(f"Projection: the function returned {given} for {tuple(x.shape)}, or numbers that are not "
                             "finite; finite trajectories of the same shape are expected")
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
    values = tuple(map(float, given)) if isinstance(given, Iterable) else (given,) * len(dims)
    if len(values) != len(dims) or any(math.isnan(value) for value in values):
        raise ValueError(f"{type(what).__name__}.{name} is {given}; a number, or one for each of {dims}, is expected")
    return values


def check_bound(what: object, name: str) -> None:
    """Raises ValueError for a bound on a length that is negative, NaN or infinite."""
    if not 0 <= (value := getattr(what, name)) < math.inf:
        raise ValueError(f"{type(what).__name__}.{name} is {value}; a number of at least 0 is expected")


def double(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)
