"""Hard constraints in any sampler: what is denoised is projected on them, so that the model answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import require
from ..constraints import QUICK, THOROUGH, Certificate, Constraints, Effort
from ..models.plugin import Denoise, Denoising, Plugin, SampledRows
from ..trajectory import Condition


class Infeasible(RuntimeError):
    """Trajectories for which no feasible one was found: the nearest ones `x_RHD`, and their `certificate`."""

    def __init__(self, x_RHD: Tensor, certificate: Certificate):
        super().__init__(f"{certificate}; sample with another seed, loosen the constraints, or take what was found "
                         "with Constrained(.., strict=False)")
        self.x_RHD, self.certificate = x_RHD, certificate


@dataclass(frozen=True, eq=False)
class Constrained(Plugin):
    """Trajectories that satisfy the constraints to 1e-6, as `constraints.certificate(x)` tells of what is returned.

    Where t is at most `below`, what is denoised is projected quickly, so that the next steps answer to it; the sampled
    trajectory is projected with all `efforts`. Put it last among the guides. Below 0 only the result is projected.

    A trajectory that could not be made feasible is drawn once more, up to `attempts` times in all: of 10,000 plans in
    PointMaze-UMaze 3 were. Sampling refuses with ValueError, by name and before the first step, what is known to
    contradict a constraint, and raises `Infeasible` where it finds no feasible trajectory; both say that there is none
    (a goal further behind a wall than a bounded speed reaches), the second one not for certain. With `strict` false
    such trajectories come back with the others, as near to feasible as they got: for a planner that tries many goals,
    and asks the certificate.
    """

    works_finished = True  # the result is projected in any case

    constraints: Constraints
    below: float = 0.5
    strict: bool = True
    efforts: Sequence[Effort] = THOROUGH
    attempts: int = 4

    def __post_init__(self) -> None:
        require(self, below=(-1, 1), attempts=(1, 1e6))

    def wrap(self, denoise: Denoise, sampling: Denoising) -> Denoise:
        constraints, normalizer, condition = self.constraints, sampling.normalizer, sampling.condition
        self._check(condition)

        def constrained(x: Tensor, t: Tensor) -> Tensor:
            x0 = denoise(x, t)
            if t.max() > self.below:
                return x0
            with torch.no_grad():
                given = normalizer.unnormalize(x0)
                allowed = constraints.project(given, condition, QUICK, refuse=False)
                move = normalizer.normalize(allowed) - x0  # counts as fixed where a gradient is taken
            return torch.where(allowed == given, x0, x0 + move)

        return constrained

    @torch.no_grad()
    def finish(self, x_RHD: Tensor, sampling: SampledRows) -> Tensor:
        self._check(sampling.condition)  # before the work, in a model that denoises nothing too
        return self.constraints.project(x_RHD, sampling.condition, self.efforts, refuse=False)

    def _check(self, condition: Condition) -> None:
        if self.constraints.spec != condition.spec:
            raise ValueError(f"the constraints are on {self.constraints.spec}; those of the model are {condition.spec}")
        self.constraints.known(condition, refuse=self.strict)

    def rejects(self, x_RHD: Tensor, attempt: int) -> Tensor:
        certificate = self.constraints.certificate(x_RHD)
        if attempt < self.attempts:
            return ~certificate.feasible
        if self.strict and not certificate.feasible.all():
            raise Infeasible(x_RHD, certificate)
        return torch.zeros_like(certificate.feasible)
