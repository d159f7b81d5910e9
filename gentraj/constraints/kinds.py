"""The constraints on rows of a trajectory and on their differences: plain settings, each with its violation.

A constraint speaks about the entries `dims` of each row x_h (order 0), of x_h+1 - x_h (order 1), or of
x_h+1 - 2 x_h + x_h-1 (order 2): `excess` says by how much such a vector is outside what is allowed, `nearest` moves it
inside. The certificate, the projection and the refusals are written once for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..trajectory import TrajectorySpec
from .checks import Values, check_bound, check_dims, check_values, double

TOLERANCE = 1e-6  # a violation up to this, in natural units, is none
Nearest = Callable[[Tensor, Tensor, Tensor], Tensor]  # (vectors (R, K, d), regions, slacks) -> the nearest allowed ones


@dataclass(frozen=True)
class Place:
    """Where a projection starts, for a constraint that must choose among several allowed regions."""

    x_RHd: Tensor
    known_RHd: Tensor
    reach: float
    """How far two neighbouring rows may be apart; inf where no speed is bounded."""
    weight: float
    """How much worse it is to exceed `reach` than to be moved."""


class Constraint:
    """What every constraint is; most need `excess` and `nearest` only. All tensors inside are float64."""

    order: ClassVar[int] = 0
    dims: tuple[int, ...]

    def entries(self, spec: TrajectorySpec) -> list[int]:
        """The entries it speaks about. Raises ValueError unless trajectories of `spec` have them."""
        if spec.horizon <= self.order:
            raise ValueError(f"it compares {self.order + 1} rows; the trajectory has {spec.horizon}")
        return check_dims(self, self.dims, spec)

    def excess(self, vectors: Tensor, spec: TrajectorySpec) -> Tensor:
        """Vectors (R, K, d) -> by how much each one, or each entry, is outside, natural units; at most 0 inside."""
        raise NotImplementedError

    def nearest(self, spec: TrajectorySpec) -> Nearest:
        """The projection of vectors (R, K, d) on the allowed ones, given (R, ..) regions.

        It stays inside by (R, 1, 1) slacks, so that solving and rounding to float32 leave no violation.
        """
        raise NotImplementedError

    def region(self, place: Place) -> Tensor:
        """(R, ..) the convex region chosen for each trajectory, where the allowed vectors are not convex."""
        return place.x_RHd.new_zeros(len(place.x_RHd), 0)

    def violation(self, x_RHD: Tensor, spec: TrajectorySpec) -> Tensor:
        """(R,) the largest violation of each trajectory in natural units; 0 is satisfied."""
        vectors = x_RHD[..., list(self.dims)].double().diff(n=self.order, dim=1)
        return self.excess(vectors, spec).flatten(1).amax(1).clamp(min=0)

    def fix(self, values_RHD: Tensor, known_RHD: Tensor) -> tuple[Tensor, Tensor]:
        """The known entries and which they are, with those that it fixes itself."""
        return values_RHD, known_RHD

    def conflict(self, values_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> str | None:
        """Why no trajectory with these known entries satisfies it, where known rows alone tell; None otherwise."""
        dims, order = list(self.dims), self.order
        known_RK = known_RHD[..., dims].all(-1).unfold(1, order + 1, 1).all(-1)
        excess = self.excess(values_RHD[..., dims].double().diff(n=order, dim=1), spec)
        excess_RK = (excess if excess.ndim == 2 else excess.amax(-1)).masked_fill(~known_RK, 0)
        if excess_RK.max() <= TOLERANCE:
            return None
        r, h = divmod(int(excess_RK.argmax()), excess_RK.shape[1])
        given = [[f"{value:g}" for value in row] for row in values_RHD[r, h : h + order + 1, dims].tolist()]
        rows = f"row {h} is" if order == 0 else f"rows {h} to {h + order} are"
        known = ", ".join(" ".join(row) for row in given)
        return f"{rows} known to be {known}, which violates it by {excess_RK[r, h]:.3g}"


def clamp(x: Tensor, low: Tensor, high: Tensor, slack: Tensor) -> Tensor:
    """Into [low, high], by `slack` from its borders, or in the middle where that is more than there is."""
    slack = torch.minimum(slack, (high - low) / 2)
    return torch.clamp(x, low + slack, high - slack)


@dataclass(frozen=True)
class Box(Constraint):
    """low <= x_h[dims] <= high in every row; infinities leave a side open. Entry obs_dim + a is action a."""

    low: Values
    high: Values
    dims: tuple[int, ...]

    def __post_init__(self) -> None:
        low, high = (check_values(self, name, self.dims) for name in ("low", "high"))
        if not all(a <= b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"Box: low is {self.low} and high is {self.high}; low must be at most high")

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """low_d and high_d."""
        low, high = (check_values(self, name, self.dims) for name in ("low", "high"))
        return double(low, like), double(high, like)

    def excess(self, vectors: Tensor, spec: TrajectorySpec) -> Tensor:
        low, high = self.bounds(vectors)
        return torch.maximum(low - vectors, vectors - high)

    def nearest(self, spec: TrajectorySpec) -> Nearest:
        return lambda x, region, slack: clamp(x, *self.bounds(x), slack)

    def conflict(self, values_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> str | None:
        """A known entry outside; the others of its row need not be known."""
        dims = list(self.dims)
        excess = self.excess(values_RHD[..., dims].double(), spec).masked_fill(~known_RHD[..., dims], 0)
        if excess.max() <= TOLERANCE:
            return None
        r, h, i = (int(k) for k in torch.unravel_index(excess.argmax(), excess.shape))
        return f"entry {dims[i]} of row {h} is known to be {values_RHD[r, h, dims[i]]:g}"


@dataclass(frozen=True)
class Equal(Constraint):
    """x_row[dims] = values in every trajectory, exactly (as float32). A negative row counts from the end."""

    row: int
    values: tuple[float, ...]
    dims: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", check_values(self, "values", self.dims))

    def entries(self, spec: TrajectorySpec) -> list[int]:
        if not -spec.horizon <= self.row < spec.horizon:
            raise ValueError(f"its row is {self.row}; the trajectory has {spec.horizon} rows")
        return check_dims(self, self.dims, spec)

    def target(self, like: Tensor) -> Tensor:
        """The values, in the precision that trajectories have."""
        return torch.tensor(self.values, dtype=torch.float32, device=like.device).to(like.dtype)

    def excess(self, vectors: Tensor, spec: TrajectorySpec) -> Tensor:
        return (vectors[:, [self.row]] - self.target(vectors)).abs()

    def nearest(self, spec: TrajectorySpec) -> Nearest:
        def nearest(x: Tensor, region: Tensor, slack: Tensor) -> Tensor:
            x = x.clone()
            x[:, self.row] = self.target(x)
            return x

        return nearest

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
        return f"entry {dims[i]} of row {self.row} is known to be {given[r, i]:g}, not {self.values[i]:g}"


@dataclass(frozen=True)
class Speed(Constraint):
    """|x_h+1 - x_h| / (stride dt) <= limit, of the vector of the entries `dims`, or of each one if `per_dim`.

    `dt` is the duration of an environment step, so that the limit is in units of the entries per unit of `dt`.
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
        """What a difference is divided by."""
        spec.require_even(type(self).__name__)
        return (spec.stride * self.dt) ** self.order

    def reach(self, spec: TrajectorySpec) -> float:
        """How far the vectors of neighbouring rows may be apart."""
        return self.limit * self.unit(spec) * (math.sqrt(len(self.dims)) if self.per_dim else 1)

    def excess(self, vectors: Tensor, spec: TrajectorySpec) -> Tensor:
        return (vectors.abs() if self.per_dim else vectors.norm(dim=-1)) / self.unit(spec) - self.limit

    def nearest(self, spec: TrajectorySpec) -> Nearest:
        def nearest(x: Tensor, region: Tensor, slack: Tensor) -> Tensor:
            size = x.abs() if self.per_dim else x.norm(dim=-1, keepdim=True)
            bound = (self.limit * self.unit(spec) - slack).clamp(min=0)
            return torch.where(size > bound, x * (bound / size), x)

        return nearest

    def conflict(self, values_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> str | None:
        """Two known rows further apart than the rows between them allow."""
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
                return (f"rows {h} and {h + gap} are known, and from one to the other it takes "
                        f"{self.limit + excess_RK.max():.4g}, more than {self.limit:g}")
        return None


@dataclass(frozen=True)
class Acceleration(Speed):
    """|x_h+1 - 2 x_h + x_h-1| / (stride dt)^2 <= limit, of the vector of the entries, or of each one if `per_dim`."""

    order: ClassVar[int] = 2
    conflict = Constraint.conflict


@dataclass(frozen=True)
class Projection(Constraint):
    """A user's own set, given by its projection x_RHD -> x_RHD (float64, environment units), which is idempotent.

    It must treat each trajectory by itself. Its violation is the distance it moves one by (Euclidean, all entries).
    """

    function: Callable[[Tensor], Tensor]
    dims = ()

    def entries(self, spec: TrajectorySpec) -> list[int]:
        return list(range(spec.dim))

    def violation(self, x_RHD: Tensor, spec: TrajectorySpec) -> Tensor:
        return (self._checked(x_RHD.double()) - x_RHD.double()).flatten(1).norm(dim=1)

    def nearest(self, spec: TrajectorySpec) -> Nearest:
        return lambda x, region, slack: self._checked(x)

    def conflict(self, values_RHD: Tensor, known_RHD: Tensor, spec: TrajectorySpec) -> str | None:
        return None  # only the function knows

    def _checked(self, x: Tensor) -> Tensor:
        out = self.function(x.clone())
        if out.shape != x.shape or not torch.isfinite(out).all():
            raise ValueError(f"Projection: the function made {tuple(out.shape)} of {tuple(x.shape)}, or numbers that "
                             "are not finite; finite trajectories of the same shape are expected")
        return out
