"""What a denoiser says of trajectories: their score and their distance from the data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..models.sample_batch import by_blocks, check_trajectories
from ..randomness import RowNoise, fold, row_seeds
from ..trajectory import Condition, cat
from .denoiser import DenoisingModel, NoiseLevel
from .grids import noised_time


@torch.no_grad()
def score(model: DenoisingModel, x_RHD: Tensor, condition: Condition, t: float) -> Tensor:
    """The score (R, H, D) of noisy trajectories, in environment units: the gradient of their log density at time t.

    `x_RHD` is alpha x0 + sigma eps in normalised units, and the score (alpha x0 - x) / sigma^2 with the denoised x0
    (Vincent 2011; Song et al. 2021, equation 7). Known entries have no noise: their values in `x_RHD` are ignored, and
    their score is 0. Close to t = 0 it is the score of clean trajectories. Raises ValueError for shapes that do not
    fit, and for a time outside (0, 1].
    """
    if not 0 < t <= 1:
        raise ValueError(f"t is {t}; a noise time above 0 (clean) and up to 1 is expected")
    normalizer, device = model.normalizer, model.normalizer.shift_D.device
    x_RHD, condition = x_RHD.to(device), condition.to(device)
    x = normalizer.normalize(check_trajectories(model.spec, x_RHD, condition))
    at = NoiseLevel(model.path, model.path.snap(torch.full((1,), t, device=device)))
    values = normalizer.normalize(condition.values_BHD)
    denoise = model.denoise(values, condition.mask_BHD, condition.context_BC, clipped=False)
    score = (at.alpha * denoise(x, at.t_R) - x) / at.sigma**2 / normalizer.scale_D
    return torch.where(condition.mask_BHD, 0, score)


@torch.no_grad()
def ood_score(model: DenoisingModel, x_RHD: Tensor, condition: Condition, seeds: Sequence[int], noise: float = 1.0,
              noises: int = 2) -> Tensor:
    """The ood score (R, H): the mean squared error, in normalised units, of x0 after noising and denoising.

    x0 is noised until sigma / alpha is `noise`. A likely trajectory comes back as it was; an unlikely one is moved. The
    denoiser is conditioned on `condition`, and the values of `x_RHD` at known entries are ignored. The mean is over
    `noises` samples of the noise. Raises ValueError for noise of 0 or less, for fewer than 1 sample of it, and for
    another number of seeds than one for each trajectory.
    """
    if not noise > 0 or noises < 1:
        raise ValueError(f"noise is {noise}, {noises} times; a ratio sigma / alpha above 0, at least once, is expected")
    normalizer, device = model.normalizer, model.normalizer.shift_D.device
    x_RHD, condition = x_RHD.to(device), condition.to(device)
    x_RHD = check_trajectories(model.spec, x_RHD, condition)
    seeds = row_seeds(seeds, len(x_RHD), "trajectories")
    t = noised_time(model.path, noise).to(device)

    def error_rows(x_RHD: Tensor, known: Condition, seeds: Sequence[int]) -> Tensor:
        x0, values = normalizer.normalize(x_RHD), normalizer.normalize(known.values_BHD)
        eps = RowNoise(seeds, x0.device).normal(model.spec.horizon, model.spec.dim)
        denoise = model.denoise(values, known.mask_BHD, known.context_BC)
        denoised = denoise(NoiseLevel(model.path, t).noised(x0, eps), t)
        return ((denoised - x0) ** 2).mean(-1)

    seeds = [fold(s, n) for n in range(noises) for s in seeds]
    errors = by_blocks(error_rows, x_RHD.repeat(noises, 1, 1), cat([condition] * noises), seeds)
    return errors.unflatten(0, (noises, -1)).mean(0)
