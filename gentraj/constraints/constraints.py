"""`Constraints`: several constraints at once, with a check for contradictions, a certificate and a projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..trajectory import Condition, TrajectorySpec
from .keepout import MAX_NUMBERS
from .kinds import TOLERANCE, Constraint, RegionQuery

OVER_RELAXATION = 1.6  # Boyd et al. 2011, section 3.4.3, recommend an over-relaxation of 1.5 to 1.8
CHECK_INTERVAL = 10  # iterations between two checks of which trajectories have converged


# The alternating direction method of multipliers (ADMM) finds the nearest trajectory in an intersection of convex sets.


@dataclass
class Term:
    """Requires the differences K x of the entries `dims` to lie in the set of a constraint.

    `region` (R, ..) and `slack` (R, 1, 1) are the parameters of its projection for each trajectory, and `rho` is the
    penalty of ADMM.
    """

    constraint: Constraint
    spec: TrajectorySpec
    dims: list[int]
    region: Tensor
    slack: Tensor
    rho: float

    def start(self, x_RHD: Tensor) -> None:
        """Initialises z, the copy of K x that lies in the set, and u, the scaled multiplier of K x = z."""
        self.K = torch.eye(x_RHD.shape[1], dtype=x_RHD.dtype, device=x_RHD.device).diff(n=self.constraint.order, dim=0)
        self.z = self.nearest(self.K @ x_RHD[..., self.dims])
        self.u = torch.zeros_like(self.z)

    def nearest(self, Kx: Tensor) -> Tensor:
        return self.constraint.nearest(Kx, self.spec, self.region, self.slack)

    def pull(self) -> Tensor:
        """rho K^T (z - u)."""
        return self.rho * (self.K.T @ (self.z - self.u))

    def move(self, x_RHD: Tensor) -> Tensor:
        """Updates z and u by equations 3.6 and 3.7 of Boyd et al. 2011, over-relaxed. Returns the residual K x - z."""
        Kx = self.K @ x_RHD[..., self.dims]
        aim = OVER_RELAXATION * Kx + (1 - OVER_RELAXATION) * self.z + self.u
        self.z = self.nearest(aim)
        self.u = aim - self.z
        return Kx - self.z

    def keep(self, rows: Tensor) -> None:
        self.region, self.slack = self.region[rows], self.slack[rows]
        self.z, self.u = self.z[rows], self.u[rows]


def nearest_in_all(y_RHD: Tensor, known_RHD: Tensor, terms: Sequence[Term], tolerance_R: Tensor,
                   iterations: int) -> Tensor:
    """The trajectory in all sets that is nearest to y and keeps the known entries of y; all tensors are float64.

    ADMM solves min |x - y|^2 / 2 subject to K_i x = z_i and z_i in S_i, where K_i takes the differences of term i (Boyd
    et al. 2011, equations 3.5 to 3.7). A trajectory has converged when neither |K_i x - z_i| nor the change of x
    exceeds its tolerance; the solver stops after `iterations` in any case.
    """
    for term in terms:
        term.start(y_RHD)
    inverse, shift = _systems(y_RHD, known_RHD, terms)
    x, result = y_RHD, y_RHD.clone()
    rows = torch.arange(len(y_RHD), device=y_RHD.device)
    for step in range(1, iterations + 1):
        pull = y_RHD - shift
        for term in terms:
            pull[..., term.dims] += term.pull()
        before, x = x, torch.where(known_RHD, y_RHD, (inverse @ pull.mT[..., None])[..., 0].mT)
        residuals = [x - before, *(term.move(x) for term in terms)]
        if step % CHECK_INTERVAL and step < iterations:
            continue
        done = torch.stack([r.abs().flatten(1).amax(1) for r in residuals]).amax(0) <= tolerance_R
        if step == iterations:
            done[:] = True
        result[rows[done]] = x[done]
        if done.all():
            break
        left = ~done
        rows, tolerance_R = rows[left], tolerance_R[left]
        x, y_RHD = x[left], y_RHD[left]
        known_RHD = known_RHD[left]
        inverse, shift = inverse[left], shift[left]
        for term in terms:
            term.keep(left)
    return result


def _systems(y_RHD: Tensor, known_RHD: Tensor, terms: Sequence[Term]) -> tuple[Tensor, Tensor]:
    """inverse_RDHH and shift_RHD: x = inverse (pull - shift) solves (I + sum rho K^T K) x = pull for the unknown
    entries."""
    R, H = y_RHD.shape[:2]
    D = y_RHD.shape[2]
    eye = torch.eye(H, dtype=y_RHD.dtype, device=y_RHD.device)
    P_DHH = eye.repeat(D, 1, 1)
    for term in terms:
        P_DHH[term.dims] += term.rho * (term.K.T @ term.K)
    # Trajectories share the system of an entry where they know it at the same timesteps.
    column = torch.arange(D, device=y_RHD.device).repeat(R)[:, None]
    keys, which = torch.cat([column, rearrange(known_RHD, "r h d -> (r d) h")], 1).unique(dim=0, return_inverse=True)
    known_UH, P_UHH = keys[:, 1:].bool(), P_DHH[keys[:, 0]]
    which = rearrange(which, "(r d) -> r d", d=D)
    free_UHH = ~known_UH[:, :, None] & ~known_UH[:, None]
    inverse_UHH = torch.linalg.inv(torch.where(free_UHH, P_UHH, eye)) * free_UHH
    shift = (P_UHH[which] @ torch.where(known_RHD, y_RHD, 0).mT[..., None])[..., 0].mT
    return inverse_UHH[which], shift


SOLVER_PRECISION = 4e-7  # the error that the solver and rounding to float32 may leave at positions of size 1


@dataclass(frozen=True)
class SolverBudget:
    """The settings of one round of a projection, which chooses regions and then runs the solver."""

    iterations: int
    """The largest number of iterations of the solver."""
    stiffness: float = 1.0
    """Base of a constraint's penalty rho = stiffness^order: 1 converges fastest near the feasible set, a larger value
    far from it."""
    weight: float = 1.0
    """The cost of a squared distance beyond what a bounded speed reaches, relative to the cost of moving a timestep."""


FULL_BUDGETS = (SolverBudget(300), SolverBudget(600, 3, 100), SolverBudget(2000, 3, 1e4), SolverBudget(2000, 3, 1e6),
                SolverBudget(4000, 10, 1e6))  # chosen by measurement
"""The rounds of a projection that shall find allowed trajectories wherever there are some."""
QUICK_BUDGETS = (SolverBudget(40),)
"""The one round of a projection between two sampling steps, where nearly allowed is enough."""


@dataclass(frozen=True)
class Certificate:
    """The largest violation of each trajectory, in natural units; 0 where a trajectory satisfies every constraint.

    `worst` is the maximum over all constraints, and `by_name` holds the violation of each one. All tensors have the
    batch shape of the trajectories, such as (B, N).
    """

    worst: Tensor
    by_name: dict[str, Tensor]

    @property
    def feasible(self) -> Tensor:
        """True where no violation exceeds 1e-6, of the shape of `worst`."""
        return self.worst <= TOLERANCE

    def __str__(self) -> str:
        broken = [f"{name} is violated by {int((violation > TOLERANCE).sum())}, by up to {violation.max():.3g}"
                  for name, violation in self.by_name.items() if (violation > TOLERANCE).any()]
        return "; ".join([f"{int(self.feasible.sum())} of {self.worst.numel()} trajectories are feasible", *broken])


class Constraints:
    """Constraints on the trajectories of `spec`, in environment units.

    Constraints in a list are named by their class ("Box", the next one "Box 2"), those in a dict by their key. Raises
    ValueError, naming the constraint, for entries or timesteps that `spec` does not have.
    """

    def __init__(self, spec: TrajectorySpec, constraints: Sequence[Constraint] | Mapping[str, Constraint]):
        self.spec = spec
        if not isinstance(constraints, Mapping):
            constraints = _named(constraints)
        self.constraints = dict(constraints)
        self.dims: dict[str, list[int]] = {}
        for name, constraint in self.constraints.items():
            try:
                self.dims[name] = constraint.entries(spec)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        self.used = sorted({i for dims in self.dims.values() for i in dims})

    def certificate(self, x: Tensor) -> Certificate:
        """The violations of trajectories (..., H, D) in environment units, such as the (B, N, H, D) of `sample`.

        Raises ValueError for trajectories of another horizon or width.
        """
        shape, x_RHD = x.shape[:-2], x.reshape(-1, *x.shape[-2:])
        if x_RHD.shape[1:] != (self.spec.horizon, self.spec.dim):
            raise ValueError(f"trajectories of shape {tuple(x.shape)} were given; (.., {self.spec.horizon}, "
                             f"{self.spec.dim}) is expected")
        by_name = {name: c.violation(x_RHD, self.spec).view(shape) for name, c in self.constraints.items()}
        none = torch.zeros(shape, dtype=torch.float64, device=x.device)
        return Certificate(torch.stack([*by_name.values(), none]).amax(0), by_name)

    def check(self, condition: Condition, refuse: bool = True) -> None:
        """Raises ValueError for a condition on trajectories of another spec and, naming the constraint, where the known
        entries alone rule out that any trajectory satisfies it; the latter not with `refuse=False`."""
        condition.check(self.spec, "these constraints are on trajectories of")
        if refuse:
            for name, constraint in self.constraints.items():
                problem = constraint.conflict(condition.values_BHD, condition.mask_BHD, self.spec)
                if problem:
                    raise ValueError(f"{name} cannot be satisfied: {problem}; change what is known or the constraint")

    def project(self, x_RHD: Tensor, condition: Condition | None = None,
                budgets: Sequence[SolverBudget] = FULL_BUDGETS, *, refuse: bool = True) -> Tensor:
        """Projects trajectories (R, H, D) onto the feasible set (Euclidean distance, environment units).

        Known entries take their known values, and a feasible trajectory is returned unchanged, bit for bit. Under
        convex constraints the result is the nearest feasible trajectory. A keep-out region is left on a side that is
        chosen by distance and by what bounded speeds can reach, again in each round of the `budgets`. Where no feasible
        trajectory is found, the last attempt is returned, or the first one that is infeasible at known timesteps
        alone; `certificate` tells which ones these are. Raises ValueError as `check` does, and for trajectories of
        another shape. The condition is one for all trajectories, or has one for each.
        """
        condition = condition or Condition.empty(self.spec)
        fits = x_RHD.ndim == 3 and x_RHD.shape[1:] == (self.spec.horizon, self.spec.dim)
        if not fits or condition.batch not in (1, len(x_RHD)):
            raise ValueError(f"trajectories of shape {tuple(x_RHD.shape)} and {condition.batch} conditions were given; "
                             f"(R, {self.spec.horizon}, {self.spec.dim}) and 1 or R conditions are expected")
        condition = condition.to(x_RHD.device)
        self.check(condition, refuse)
        result = torch.where(condition.mask_BHD, condition.values_BHD.to(x_RHD.dtype), x_RHD)
        fixed = condition.mask_BHD.expand_as(result)
        todo = self._improvable(result, fixed).nonzero()[:, 0]
        target, known = result[..., self.used].double(), fixed[..., self.used]
        start = target.clone()
        for budget in budgets:
            if not len(todo):
                break
            for rows in todo.split(max(1, MAX_NUMBERS // (self.spec.horizon**2 * len(self.used)))):
                start[rows] = self._nearest(target[rows], start[rows], known[rows], budget)
                moved = result[rows]
                moved[..., self.used] = start[rows].to(moved)
                result[rows] = moved
            todo = todo[self._improvable(result[todo], fixed[todo])]
        return result

    def _improvable(self, x_RHD: Tensor, known: Tensor) -> Tensor:
        """(R,) whether a trajectory violates a constraint where an entry is unknown."""
        violations = [c.violation(x_RHD, self.spec, known) for c in self.constraints.values()]
        none = torch.zeros(len(x_RHD), dtype=torch.float64, device=x_RHD.device)
        return ~(torch.stack([*violations, none]).amax(0) <= TOLERANCE)

    def _nearest(self, y: Tensor, start: Tensor, known: Tensor, budget: SolverBudget) -> Tensor:
        """Projects the entries that any constraint uses, in the regions chosen around `start`."""
        size = y.abs().amax((1, 2), keepdim=True).clamp(min=1)
        terms = []
        for name, constraint in self.constraints.items():
            dims, order = self.dims[name], constraint.order
            columns = [self.used.index(i) for i in dims]
            reach = min(each.reach(self.spec, dims) for each in self.constraints.values())
            region = constraint.region(RegionQuery(start[..., columns], known[..., columns], reach, budget.weight))
            terms.append(Term(constraint, self.spec, columns, region, SOLVER_PRECISION * 2**order * size,
                              budget.stiffness**order))
        return nearest_in_all(y, known, terms, SOLVER_PRECISION / 4 * size[:, 0, 0], budget.iterations)


def _named(constraints: Sequence[Constraint]) -> dict[str, Constraint]:
    named: dict[str, Constraint] = {}
    for constraint in constraints:
        kind = type(constraint).__name__
        count = sum(type(c) is type(constraint) for c in named.values())
        if count:
            kind = f"{kind} {count + 1}"
        named[kind] = constraint
    return named
