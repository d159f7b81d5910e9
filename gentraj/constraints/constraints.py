"""Several constraints at once: refused if they contradict each other, certified, and projected on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..trajectory import Condition, TrajectorySpec
from .keepout import Blocks
from .kinds import TOLERANCE, Box, Constraint, Place, Speed
from .nearest import Term, nearest_in_all
from .regions import NUMBERS

PRECISION = 4e-7  # at positions of size 1: what the solver and rounding to float32 may leave


@dataclass(frozen=True)
class Effort:
    """A round of a projection: regions are chosen, then at most `iterations` made."""

    iterations: int
    stiffness: float = 1.0
    """To the power of its order, a constraint's penalty: 1 is fastest near the feasible set, more far from it."""
    weight: float = 1.0
    """How much worse it is to exceed what a bounded speed reaches than to be moved."""


THOROUGH = (Effort(300), Effort(600, 3, 100), Effort(2000, 3, 1e4), Effort(2000, 3, 1e6))  # measured
QUICK = (Effort(40),)


@dataclass(frozen=True)
class Certificate:
    """The largest violation of each trajectory, computed on it as given; 0 is none, natural units.

    `worst` is over all constraints, `by_name` of each one; all have the shape that the trajectories came in.
    """

    worst: Tensor
    by_name: dict[str, Tensor]

    @property
    def feasible(self) -> Tensor:
        """True where no violation exceeds 1e-6."""
        return self.worst <= TOLERANCE

    def __str__(self) -> str:
        broken = [f"{name} is violated by {int((v > TOLERANCE).sum())}, by up to {v.max():.3g}"
                  for name, v in self.by_name.items() if (v > TOLERANCE).any()]
        return "; ".join([f"{int(self.feasible.sum())} of {self.worst.numel()} trajectories are feasible", *broken])


class Constraints:
    """Constraints on the trajectories of `spec`, in environment units.

    Given as a list, each is named by its class ("Box", the next one "Box 2"); as a dict, by its key. Raises ValueError,
    naming the constraint, for entries or rows that `spec` has not, for boxes without a common point, for blocks that
    leave none of them free, and for equalities that break another constraint.
    """

    def __init__(self, spec: TrajectorySpec, constraints: Sequence[Constraint] | Mapping[str, Constraint]):
        self.spec = spec
        self.constraints = dict(constraints) if isinstance(constraints, Mapping) else _named(constraints)
        self.dims: dict[str, list[int]] = {}
        for name, constraint in self.constraints.items():
            try:
                self.dims[name] = constraint.entries(spec)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        self.used = sorted({i for dims in self.dims.values() for i in dims})
        self._check_boxes()
        self.known(Condition.unknown(spec))

    def certificate(self, x: Tensor) -> Certificate:
        """Of trajectories (..., H, D) in environment units, such as the (B, N, H, D) of `sample`."""
        shape, rows = x.shape[:-2], x.reshape(-1, *x.shape[-2:])
        if rows.shape[1:] != (self.spec.horizon, self.spec.dim):
            raise ValueError(f"trajectories of shape {tuple(x.shape)} were given; (.., {self.spec.horizon}, "
                             f"{self.spec.dim}) is expected")
        by_name = {name: c.violation(rows, self.spec).view(shape) for name, c in self.constraints.items()}
        none = torch.zeros(shape, dtype=torch.float64, device=x.device)
        return Certificate(torch.stack([*by_name.values(), none]).amax(0), by_name)

    def known(self, condition: Condition, refuse: bool = True) -> tuple[Tensor, Tensor]:
        """Values and mask (R, H, D) of what is known from a condition and from equalities.

        Raises ValueError, naming the constraint, where known rows alone tell that no trajectory can satisfy it, unless
        told not to `refuse`.
        """
        values, mask = condition.values_BHD, condition.mask_BHD
        for name, constraint in self.constraints.items():
            if refuse:
                self._refuse(name, values, mask)
            values, mask = constraint.fix(values, mask)
        for name in self.constraints if refuse else ():
            self._refuse(name, values, mask)
        return values, mask

    def project(self, x_RHD: Tensor, condition: Condition | None = None,
                efforts: Sequence[Effort] = THOROUGH, *, refuse: bool = True) -> Tensor:
        """The nearest feasible trajectories found (Euclidean, environment units); known entries come out as known.

        A feasible one comes back as it is, bit for bit. The result is the nearest one where the constraints are convex;
        keep-out regions are left on a side chosen by distance and by what bounded speeds can reach, anew in each of the
        `efforts`. If none is found the last attempt comes back, as `certificate` tells. Raises what `known` raises.
        """
        values, known = self.known((condition or Condition.unknown(self.spec)).to(x_RHD.device), refuse)
        result = torch.where(known, values.to(x_RHD.dtype), x_RHD)
        todo = (~self.certificate(result).feasible).nonzero()[:, 0]
        target, known = result[..., self.used].double(), known.expand_as(result)[..., self.used]
        start = target.clone()
        for effort in efforts:
            if not len(todo):
                break
            for rows in todo.split(max(1, NUMBERS // (self.spec.horizon**2 * len(self.used)))):
                start[rows] = self._nearest(target[rows], start[rows], known[rows], effort)
                moved = result[rows]
                moved[..., self.used] = start[rows].to(moved)
                result[rows] = moved
            todo = todo[~self.certificate(result[todo]).feasible]
        return result

    def _nearest(self, y: Tensor, start: Tensor, known: Tensor, effort: Effort) -> Tensor:
        """Of the entries in use, with the regions chosen around `start`."""
        size = y.abs().amax((1, 2), keepdim=True).clamp(min=1)
        terms = []
        for name, c in self.constraints.items():
            columns, order = [self.used.index(i) for i in self.dims[name]], c.order
            place = Place(start[..., columns], known[..., columns], self._reach(self.dims[name]), effort.weight)
            terms.append(Term(columns, order, c.nearest(self.spec), c.region(place), PRECISION * 2**order * size,
                              effort.stiffness**order))
        return nearest_in_all(y, known, terms, PRECISION / 4 * size[:, 0, 0], effort.iterations)

    def _reach(self, dims: list[int]) -> float:
        """How far apart neighbouring rows may be in these entries."""
        return min((c.reach(self.spec) for c in self.constraints.values()
                    if type(c) is Speed and set(dims) <= set(c.dims)), default=math.inf)

    def _refuse(self, name: str, values: Tensor, mask: Tensor) -> None:
        problem = self.constraints[name].conflict(values, mask, self.spec)
        if problem:
            raise ValueError(f"{name} cannot be satisfied: {problem}; change what is known or the constraint")

    def _check_boxes(self) -> None:
        low = torch.full((self.spec.dim,), -math.inf, dtype=torch.float64)
        high = -low
        for name, box in self.constraints.items():
            if isinstance(box, Box):
                dims, (box_low, box_high) = self.dims[name], box.bounds(low)
                low[dims], high[dims] = torch.maximum(low[dims], box_low), torch.minimum(high[dims], box_high)
                if (low > high).any():
                    i = int((low > high).int().argmax())
                    raise ValueError(f"{name} cannot be satisfied: with the boxes before it entry {i} must be at least "
                                     f"{low[i]:g} and at most {high[i]:g}")
        for name, blocks in self.constraints.items():
            if isinstance(blocks, Blocks):
                dims, (free_low, free_high) = self.dims[name], map(torch.from_numpy, blocks.free)
                if not ((free_low <= high[dims]) & (free_high >= low[dims])).all(1).any():
                    raise ValueError(f"{name} cannot be satisfied: the blocks leave nothing free of the boxes")


def _named(constraints: Sequence[Constraint]) -> dict[str, Constraint]:
    named: dict[str, Constraint] = {}
    for constraint in constraints:
        kind = type(constraint).__name__
        count = sum(type(c) is type(constraint) for c in named.values())
        named[f"{kind} {count + 1}" if count else kind] = constraint
    return named
