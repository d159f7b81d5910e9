"""Consistency models: a student learns to map all points of a path from noise to data to the end of this path.

Song et al. 2023, "Consistency Models" (distillation, algorithm 2, and sampling, algorithm 1); Geng et al. 2024,
"Consistency Models Made Easy" (training from data, algorithm 1). The boundary condition f(x, 0) = x holds for every
prediction, as `Preconditioned` returns x itself where t is 0.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from ..config import settings
from ..diffusion.diffusion_model import DiffusionConfig
from ..diffusion.grids import sampling_times
from ..diffusion.paths import NoisePath
from ..diffusion.samplers import Normal, Sampler, steps_along
from ..models.microbatch import Microbatch
from ..models.plugin import Denoise
from ..trajectory import DEFAULT_OPTIONS, Observer, SamplingOptions, refuse_options
from .few_step import FewStep, FewStepConfig, ddim_step

K, B = 8.0, 1.0  # Geng et al. 2024, section 3.2: n(t) = 1 + K sigmoid(-B t)
Q, MAX_STAGE = 2.0, 8  # the base of r / t, and its largest power


@settings
class ConsistencyConfig(FewStepConfig):
    """Settings of a consistency model. Raises ValueError for a setting outside its range."""

    targets: Literal["teacher", "data"] = "teacher"
    """Where the next cleaner point of a path comes from: a step of the teacher (distillation), or the data and the same
    noise, without the teacher (training)."""
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
        """The scalar w ||f(x_t, t) - f-(x_r, r)||^2, where f- is f without gradient, and r < t."""
        of_teacher, eps = self.distillation.targets == "teacher", rows.normal()
        t_R, r_R = self.neighbours(rows) if of_teacher else self.easy(rows)
        t, r = self.level(t_R), self.level(r_R)
        x_t = t.noised(rows.x0, eps)
        with torch.no_grad():
            x_r = ddim_step(x_t, self.taught(x_t, t_R, rows), t, r) if of_teacher else r.noised(rows.x0, eps)
            target = self.preconditioned(self.network, clipped=False)(x_r, r_R, rows)
        return self.regression(target, x_t, t_R, rows)

    def neighbours(self, rows: Microbatch) -> tuple[Tensor, Tensor]:
        """(R,) random times t of a grid, and the next cleaner ones."""
        points = min(self.distillation.points, self.path.levels or self.distillation.points)
        times = sampling_times(self.path, points)
        i_R = torch.randint(points, (len(rows.x0),), generator=rows.generator)
        return times[i_R].to(rows.x0.device), times[i_R + 1].to(rows.x0.device)

    def easy(self, rows: Microbatch) -> tuple[Tensor, Tensor]:
        """(R,) random times t, and times r = t (1 - n(t) / q^a), at least 0, in stages a = 0 .. 8 of the training.

        At first r is 0, and the student learns from the data as a diffusion model does.
        """
        t_R = self.path.snap(torch.rand(len(rows.x0), generator=rows.generator))
        stage = int(self.ema.n_averaged) * (MAX_STAGE + 1) // self.distillation.updates
        r_R = (t_R * (1 - (1 + K * torch.sigmoid(-B * t_R)) / Q**stage)).clamp(min=0)
        if levels := self.path.levels:  # the next cleaner level
            r_R = (r_R * levels).floor().minimum((t_R * levels).round() - 1) / levels
        return t_R.to(rows.x0.device), r_R.to(rows.x0.device)


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
