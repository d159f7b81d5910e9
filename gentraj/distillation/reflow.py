"""Reflow: a student learns the straight paths from noise to the trajectories that its teacher makes of this noise.

Liu et al. 2023, "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", algorithm 1. On a
noise path that is not straight, x0 and the noise are constant along the path, so that DDIM's steps are exact.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import PositiveInt
from torch import Tensor

from ..config import settings
from ..diffusion.paths import sampling_times
from ..diffusion.samplers import SAMPLERS
from ..models.conditional import Microbatch
from .few_step import FewStep, FewStepConfig


@settings
class ReflowConfig(FewStepConfig):
    """Settings of a student by reflow. A student of one step learns the teacher's map from noise to trajectories.

    Raises ValueError for a setting outside its range.
    """

    teacher_steps: PositiveInt | None = None
    """Number of sampling steps of the teacher; None is the teacher's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher_steps is not None and self.max_steps is not None and self.teacher_steps > self.max_steps:
            raise ValueError(f"ReflowConfig.teacher_steps is {self.teacher_steps}; a whole number from 1 to "
                             f"{self.max_steps}, the teacher's number of levels, is expected")


class Reflow(FewStep):
    """A student that learns the straight paths from noise to the trajectories that its teacher makes of this noise."""

    distillation: ReflowConfig

    def objective(self, rows: Microbatch) -> Tensor:
        """The scalar E ||x0(x_t, t) - x0||^2, where the teacher makes x0 of the noise z, and t is a time of sampling.

        x_t is alpha x0 + sigma z, and sigma z at the start, as in sampling.
        """
        whole = replace(rows, real=torch.ones_like(rows.real))  # the teacher's trajectories have no padding
        z = rows.normal()
        x0 = self.transported(z, whole)
        times = sampling_times(self.path, self.config.steps, self.config.grid)[:-1]
        t_R = times[torch.randint(len(times), (len(z),), generator=rows.generator)]
        at = self.level(t_R)
        x_t = at.noised(torch.where(at.t_R[:, None, None] < 1, x0, 0), z)
        return self.regression(x0, x_t, t_R, whole)

    @torch.no_grad()
    def transported(self, z: Tensor, rows: Microbatch) -> Tensor:
        """The trajectories (R, H, D), in normalised units, that the teacher's sampler without noise makes of z."""
        config = self.teacher.config
        steps = self.distillation.teacher_steps or config.steps
        times = sampling_times(self.path, steps, config.grid)
        x = self.path.sigma(times[0]) * z
        return SAMPLERS[config.sampler](lambda x, t: self.taught(x, t.expand(len(z)), rows), x, times, self.path,
                                        lambda: z, eta=0.0)
