"""`Diffusion`: a diffusion model of trajectories, trained on a mix of conditions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Union

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..conditioning import ConditionMix
from ..config import require
from ..networks import NETWORKS, TemporalUNetConfig
from ..networks.rows import MAX_ROWS, padded, padding
from ..normalize import STATISTICS, Normalizer
from ..optimization import LEARNING, adamw, apply_gradients
from ..randomness import RowNoise, fold
from ..trajectory import Batch, Condition, Guide, TrajectorySpec
from .denoiser import PREDICTIONS, Denoise, clip, hold
from .paths import PATHS
from .samplers import SAMPLERS, Observer

if TYPE_CHECKING:
    NetworkConfig = TemporalUNetConfig
    PathName = str
    PredictionName = str
    NormalizerName = str
    SamplerName = str
else:  # the choices of the settings are what the dicts hold, so that a newcomer is one line there
    NetworkConfig = Union[tuple(NETWORKS)]  # noqa: UP007
    PathName, PredictionName, NormalizerName, SamplerName = (
        Literal[tuple(names)] for names in (PATHS, PREDICTIONS, STATISTICS, SAMPLERS))


@dataclass(frozen=True)
class DiffusionConfig:
    network: NetworkConfig = field(default_factory=TemporalUNetConfig)
    path: PathName = "vp-cosine"
    """Noise schedule."""
    levels: int = 20
    """Noise levels in training."""
    prediction: PredictionName = "x0"
    """What the network predicts."""
    normalizer: NormalizerName = "limits"
    mix: ConditionMix = field(default_factory=ConditionMix)
    clip: float | None = 1.1
    """Bound on x0 in normalised units while sampling."""
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones that sample."""
    sampler: SamplerName = "ddim"
    steps: int = 5
    """Sampling steps."""
    eta: float = 0.0
    """Noise added while sampling: 0 is deterministic DDIM, 1 ancestral."""

    def __post_init__(self) -> None:
        require(self, levels=(1, 1e6), steps=(1, self.levels), eta=(0, 1), ema=(0, 1), **LEARNING)
        if self.clip is not None:
            require(self, clip=(0, math.inf))


class Diffusion(nn.Module):
    """A `TrajectoryModel`. Everything outside is in environment units, everything inside is normalised."""

    def __init__(self, spec: TrajectorySpec, config: DiffusionConfig, normalizer: Normalizer, context_dim: int = 0):
        super().__init__()
        self.spec, self.config, self.batch_size = spec, config, config.batch_size
        self.normalizer = normalizer
        self.path = PATHS[config.path](config.levels)
        self.network = NETWORKS[type(config.network)](spec.dim, spec.horizon, context_dim, config.network)
        self.ema = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
        self.ema.requires_grad_(False)
        self.network_calls = 0

    @property
    def device(self) -> torch.device:
        return self.normalizer.shift_D.device

    def optimizers(self) -> dict[str, Optimizer]:
        return adamw(self.network, self.config)

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        """One step on the squared error of the unknown real entries (Ho et al. 2020, equation 14)."""
        x0, real = self.normalizer.normalize(batch.x_BHD) * batch.mask_BHD, batch.mask_BHD
        known = self.config.mix.draw(self.spec, real, generator)
        t_B = torch.randint(1, self.path.levels + 1, (len(x0),), generator=generator).to(x0.device) / self.path.levels
        eps = torch.randn(x0.shape, generator=generator).to(x0.device)
        alpha, sigma = self.path.alpha(t_B)[:, None, None], self.path.sigma(t_B)[:, None, None]
        x_t = torch.where(known, x0, alpha * x0 + sigma * eps) * real
        predicted = self.network(x_t, x0 * known, known, t_B, batch.context_BC)
        error = (predicted - PREDICTIONS[self.config.prediction].target(x0, eps, alpha, sigma)) ** 2
        scored = real & ~known
        loss = (error * scored).sum() / scored.sum().clamp(min=1)
        norm = apply_gradients(loss, optimizers["network"], self.config.max_grad_norm)
        self.ema.update_parameters(self.network)
        return {"loss": loss.detach(), "grad_norm": norm.detach()}

    def denoise(self, values: Tensor, mask: Tensor, context: Tensor | None = None) -> Denoise:
        """The denoiser under known entries, in normalised units: `denoise(x_RHD, t) -> x0_RHD`."""
        known, to_x0 = values * mask, PREDICTIONS[self.config.prediction].x0

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            self.network_calls += 1
            predicted = self.ema(x, known, mask, t, context)
            return to_x0(x, predicted, self.path.alpha(t)[:, None, None], self.path.sigma(t)[:, None, None])

        return hold(denoise if self.config.clip is None else clip(denoise, self.config.clip), values, mask)

    @torch.no_grad()
    def sample(self, condition: Condition, num_samples: int = 1, *, guide: Guide | None = None,
               seed: int | Sequence[int] = 0, steps: int | None = None, temperature: float = 1.0,
               eta: float | None = None, observe: Observer | None = None) -> Tensor:
        """(B, N, H, D) in environment units, the known entries exact.

        `seed` is one for all, or one for each of the B * N rows; a row depends on its own seed and condition only.
        `temperature` scales the noise the sampling starts from. `observe` sees (x_RHD in environment units, t).
        """
        if guide is not None:
            raise NotImplementedError("guidance is not built yet; sample without a guide")
        rows = condition.repeat(num_samples).to(self.device)
        seeds = [fold(seed, i) for i in range(rows.batch)] if isinstance(seed, int) else list(seed)
        if len(seeds) != rows.batch:
            raise ValueError(f"{len(seeds)} seeds were given for {rows.batch} samples; give one each, or a single one")
        steps = self.config.steps if steps is None else steps
        eta = self.config.eta if eta is None else eta
        parts = [self._sample_rows(rows[i : i + MAX_ROWS], seeds[i : i + MAX_ROWS], steps, eta, temperature, observe)
                 for i in range(0, rows.batch, MAX_ROWS)]
        return torch.cat(parts).unflatten(0, (condition.batch, num_samples))

    def _sample_rows(self, rows: Condition, seeds: Sequence[int], steps: int, eta: float, temperature: float,
                     observe: Observer | None) -> Tensor:
        count, missing = rows.batch, padding(rows.batch)
        rows, noise = rows.padded(missing), RowNoise([*seeds, *[0] * missing], rows.values_BHD.device)
        normal = lambda: noise.normal(self.spec.horizon, self.spec.dim)  # noqa: E731
        denoise = self.denoise(self.normalizer.normalize(rows.values_BHD), rows.mask_BHD, rows.context_BC)
        watch = observe and (lambda x, t: observe(self.normalizer.unnormalize(x[:count]), t))
        times = self.path.times(steps).to(self.device)
        x = SAMPLERS[self.config.sampler](denoise, temperature * normal(), times, self.path, normal,
                                          eta=eta, observe=watch)
        return torch.where(rows.mask_BHD, rows.values_BHD, self.normalizer.unnormalize(x))[:count]

    @torch.no_grad()
    def denoising_error(self, x_RHD: Tensor, condition: Condition, t: float, seeds: Sequence[int]) -> Tensor:
        """(R, H) mean squared error, in normalised units, of x0 after noising to level t and denoising once.

        What the model finds likely comes back; what it finds impossible is moved. `condition` is what it may know.
        """
        errors = [self._error_rows(x_RHD[i : i + MAX_ROWS], condition[i : i + MAX_ROWS], t, seeds[i : i + MAX_ROWS])
                  for i in range(0, len(x_RHD), MAX_ROWS)]
        return torch.cat(errors)

    def _error_rows(self, x_RHD: Tensor, condition: Condition, t: float, seeds: Sequence[int]) -> Tensor:
        count, missing = len(x_RHD), padding(len(x_RHD))
        condition, x0 = condition.padded(missing), self.normalizer.normalize(padded(x_RHD))
        time = torch.full((1,), t, device=x0.device)
        eps = RowNoise([*seeds, *[0] * missing], x0.device).normal(self.spec.horizon, self.spec.dim)
        values = self.normalizer.normalize(condition.values_BHD)
        denoise = self.denoise(values, condition.mask_BHD, condition.context_BC)
        back = denoise(self.path.alpha(time) * x0 + self.path.sigma(time) * eps, time)
        return ((back - x0) ** 2).mean(-1)[:count]


