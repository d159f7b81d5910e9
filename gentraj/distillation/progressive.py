"""Progressive distillation: in each round, one step of the student learns two steps of the student of the round before.

Salimans & Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models", algorithm 2.
"""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from einops import rearrange
from pydantic import PositiveInt
from torch import Tensor, nn

from ..config import settings
from ..diffusion.paths import NoisePath, sampling_times
from ..models.conditional import Microbatch
from .few_step import FewStep, FewStepConfig, ddim_step


@settings
class ProgressiveConfig(FewStepConfig):
    """Settings of a student by progressive distillation. Raises ValueError for a setting outside its range."""

    rounds: PositiveInt = 4
    """Number of rounds, each of which halves the number of steps; the teacher begins with 2^rounds times the student's
    steps. Fewer rounds are made where the teacher has fewer noise levels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.halvings < 1:
            raise ValueError(f"steps is {self.steps}, but the teacher has {self.max_steps} noise levels, of which each "
                             "step of the student needs at least 2; give fewer steps")

    @property
    def halvings(self) -> int:
        """The number of rounds that are made."""
        if not self.max_steps:
            return self.rounds
        return min(self.rounds, int(math.log2(self.max_steps / self.steps)))


class Progressive(FewStep):
    """A student one step of which learns two steps of the student of the round before."""

    distillation: ProgressiveConfig

    def add_parts(self) -> None:
        self.previous = deepcopy(self.ema.module).requires_grad_(False)  # the student of the round before

    def objective(self, rows: Microbatch) -> Tensor:
        """The scalar w ||x~ - x0(z_t, t)||^2, where one DDIM step to x~ leads from z_t to where two steps of the round
        before lead."""
        done = int(self.ema.n_averaged)
        rounds = self.distillation.halvings
        length = math.ceil(self.distillation.updates / rounds)
        number = min(done // length, rounds - 1)
        if done and done == number * length:  # a round begins
            self.previous.load_state_dict(self.ema.module.state_dict())
        before = self.previous if number else self.teacher.ema
        times = sampling_times(self.path, self.config.steps, self.config.grid)
        for _ in range(rounds - number):
            times = halved(times, self.path)
        i_R = 2 * torch.randint(len(times) // 2, (len(rows.x0),), generator=rows.generator)
        t_R = times[i_R]
        mid_R = times[i_R + 1]
        s_R = times[i_R + 2]
        z_t = self.level(t_R).noised(rows.x0, rows.normal())
        return self.regression(self.target(before, z_t, t_R, mid_R, s_R, rows), z_t, t_R, rows)

    @torch.no_grad()
    def target(self, before: nn.Module, z_t: Tensor, t_R: Tensor, mid_R: Tensor, s_R: Tensor,
               rows: Microbatch) -> Tensor:
        """x~ (R, H, D) of appendix G."""
        D = self.preconditioned(before)
        t = self.level(t_R)
        mid = self.level(mid_R)
        s = self.level(s_R)
        z_mid = ddim_step(z_t, D(z_t, t_R, rows), t, mid)
        z_s = ddim_step(z_mid, D(z_mid, mid_R, rows), mid, s)
        k = s.sigma / t.sigma
        return torch.where(rows.known, rows.x0, (z_s - k * z_t) / (s.alpha - k * t.alpha))


def halved(times: Tensor, path: NoisePath) -> Tensor:
    """The times with another one in the middle between each two, at a level of the path."""
    between = path.snap((times[:-1] + times[1:]) / 2)
    return torch.cat([rearrange([times[:-1], between], "two s -> (s two)"), times[-1:]])
