"""Consistency models: a student learns to map all points of a path from noise to data to the end of this path.

Song et al. 2023, "Consistency Models" (distillation, algorithm 2, and sampling, algorithm 1). The boundary condition
f(x, 0) = x holds for every prediction, as `Preconditioned` returns x itself where t is 0.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from ..config import settings
from ..diffusion.diffusion_model import DiffusionConfig
from ..diffusion.paths import NoisePath, sampling_times
from ..diffusion.samplers import Normal, Sampler, steps_along
from ..models.conditional import Microbatch
from ..models.sampling import Denoise
from ..trajectory import DEFAULT_OPTIONS, Observer, SamplingOptions, refuse_options
from .few_step import FewStep, FewStepConfig, ddim_step


@settings
class ConsistencyConfig(FewStepConfig):
    """Settings of a consistency model. Raises ValueError for a setting outside its range."""

    points: PositiveInt = 40
    """Number of steps into which the teacher's path is divided, at most its number of noise levels."""

    ANY_STEPS: ClassVar[bool] = True


class Consistency(FewStep):
    """A student that maps every point of a path from noise to data to the end of this path."""

    distillation: ConsistencyConfig

    def settings(self, options: SamplingOptions) -> DiffusionConfig:
        """As `Diffusion.settings`. Raises ValueError for a sampler: `multistep` is the only one."""
        refuse_options(options, "a consistency model has one sampler, by which it maps each point to the end of its "
                       "path", "sampler")
        return super().settings(options)

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        return super().sampling(options).replace(self.config.sampler, "multistep", 1)

    def sampler(self, config: DiffusionConfig) -> Sampler:
        return partial(multistep, eta=1.0 if config.eta is None else config.eta)

    def objective(self, rows: Microbatch) -> Tensor:
        """The scalar w ||f(x_t, t) - f-(x_r, r)||^2, where f- is f without gradient. The teacher leads from a
        random time t of a grid to the next one, r."""
        eps = rows.normal()
        points = min(self.distillation.points, self.path.levels or self.distillation.points)
        times = sampling_times(self.path, points)
        i_R = torch.randint(points, (len(rows.x0),), generator=rows.generator)
        t_R, r_R = times[i_R], times[i_R + 1]
        t = self.level(t_R)
        x_t = t.noised(rows.x0, eps)
        with torch.no_grad():
            x_r = ddim_step(x_t, self.taught(x_t, t_R, rows), t, self.level(r_R))
            target = self.preconditioned(self.network, clipped=False)(x_r, r_R, rows)
        return self.regression(target, x_t, t_R, rows)


def multistep(denoise: Denoise, x: Tensor, times: Tensor, path: NoisePath, normal: Normal, *, eta: float = 1.0,
              observe: Observer | None = None) -> Tensor:
    """Song et al. 2023, algorithm 1, where `denoise` is a consistency function: noise is added to x0 anew in each step.

    With eta below 1 a part of the old noise is kept (Kim et al. 2024, "Consistency Trajectory Models", gamma-sampling).
    """
    for step in steps_along(times, path, eta):
        x0 = denoise(x, step.t)  # the end of the path
        eps = step.eps(x, x0)  # the noise in x
        x = step.alpha_s * x0 + step.sigma_s * ((1 - eta**2) ** 0.5 * eps)  # back to s, with a part of the old noise
        if eta > 0 and not step.last:
            x = x + step.sigma_s * eta * normal()  # and new noise
        if observe:
            observe(x, step.s)
    return x
