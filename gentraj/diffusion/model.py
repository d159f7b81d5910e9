"""`Diffusion`: a diffusion model of trajectories, trained on a mix of conditions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..networks import NETWORKS, TemporalUNet
from ..networks.rows import MAX_ROWS, padded, padding
from ..normalize import Normalizer
from ..optimization import adamw, apply_gradients
from ..randomness import RowNoise, fold
from ..trajectory import Batch, Condition, TrajectorySpec
from .denoiser import PREDICTIONS, Denoise, Level, clip, hold
from .grids import sampling_times
from .guidance import Guidance, as_plugins
from .likelihood import PROBES, model_log_prob
from .losses import draw_times, loss_weight
from .paths import PATHS
from .plugin import Plugin, Sampling
from .samplers import SAMPLERS, Observer
from .settings import DiffusionConfig


class Diffusion(nn.Module):
    """A `TrajectoryModel`. Everything outside is in environment units, everything inside is normalised.

    `context` normalises Batch.context_BC and Condition.context_BC (B, C); without it a context is refused.
    """

    def __init__(self, spec: TrajectorySpec, config: DiffusionConfig, normalizer: Normalizer,
                 context: Normalizer | None = None):
        super().__init__()
        self.spec, self.config, self.batch_size = spec, config, config.batch_size
        self.normalizer, self.context = normalizer, context
        self.path, self.prediction = PATHS[config.path](config.levels), PREDICTIONS[config.prediction]
        width = 0 if context is None else len(context.shift_D) + 1  # and one that says whether it is there
        self.network = NETWORKS[type(config.network)](spec.dim, spec.horizon, width, config.network)
        self.ema = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
        self.ema.requires_grad_(False)
        self.network_calls = 0

    @classmethod
    def from_network(cls, network: TemporalUNet, spec: TrajectorySpec, config: DiffusionConfig,
                     normalizer: Normalizer) -> Diffusion:
        """Around a network that is trained already, such as `gentraj.networks.pretrained` loads.

        The config says how it was trained: path, levels, prediction. Raises ValueError for a spec it does not fit.
        """
        model = cls(spec, config.with_network(network.config), normalizer)
        for own in (model.network, model.ema.module):
            try:
                own.load_state_dict(network.state_dict())
            except RuntimeError as error:
                raise ValueError(f"the network does not fit {spec}: {str(error).splitlines()[-1].strip()}") from error
        return model

    @property
    def device(self) -> torch.device:
        return self.normalizer.shift_D.device

    @property
    def levels(self) -> int | None:
        """The most sampling steps that make sense; None without a bound."""
        return self.path.levels

    @property
    def sampling(self) -> str:
        """How it samples, in words."""
        eta = "" if self.config.eta is None else f" with eta {self.config.eta:g}"
        return f"{self.config.sampler}{eta}, {self.config.grid} grid"

    def optimizers(self) -> dict[str, Optimizer]:
        return adamw(self.network, self.config)

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        """One step on the weighted squared error of the unknown real entries (Ho et al. 2020, equation 14)."""
        x0, real = self.normalizer.normalize(batch.x_BHD) * batch.mask_BHD, batch.mask_BHD
        known = self.config.mix.draw(self.spec, real, generator)
        at = self.level(draw_times(self.config.density, self.path, len(x0), generator).to(x0.device))
        eps = torch.randn(x0.shape, generator=generator).to(x0.device)
        kept = torch.rand(len(x0), generator=generator) >= self.config.context_dropout
        x_t = torch.where(known, x0, at.alpha * x0 + at.sigma * eps) * real
        output = self.network(x_t / at.spread, x0 * known, known, at.t_R, self._encoded(batch.context_BC, kept))
        error = (output - self.prediction.target(x0, eps, at) / self.prediction.unit(at)) ** 2
        scored = real & ~known
        weight = loss_weight(self.config.weight, self.prediction, at)
        loss = (error * weight * scored).sum() / scored.sum().clamp(min=1)
        norm = apply_gradients(loss, optimizers["network"], self.config.max_grad_norm)
        self.ema.update_parameters(self.network)
        return {"loss": loss.detach(), "grad_norm": norm.detach()}

    def use(self, *, sampler: str | None = None, grid: str | None = None, eta: float | None = None) -> None:
        """From now on sample in another way than the config says. Raises ValueError for unknown names."""
        given = {key: value for key, value in (("sampler", sampler), ("grid", grid), ("eta", eta)) if value is not None}
        self.config = replace(self.config, **given)

    def level(self, t_R: Tensor) -> Level:
        return Level(self.path, t_R, self.config.sigma_data)

    def denoise(self, values: Tensor, mask: Tensor, context: Tensor | None = None, *, clipped: bool = True) -> Denoise:
        """The denoiser under known entries, in normalised units: `denoise(x_RHD, t) -> x0_RHD`.

        A likelihood needs it not clipped.
        """
        known, encoded = torch.where(mask, values, 0), self._encoded(context)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            self.network_calls += 1
            at = self.level(t)
            output = self.ema(x / at.spread, known, mask, t, encoded)
            return self.prediction.x0(x, self.prediction.unit(at) * output, at)

        limit = self.config.clip if clipped else None
        return hold(denoise if limit is None else clip(denoise, limit), values, mask)

    @torch.no_grad()
    def sample(self, condition: Condition, num_samples: int = 1, *, guide: Guidance = None,
               seed: int | Sequence[int] = 0, steps: int | None = None, temperature: float = 1.0,
               observe: Observer | None = None) -> Tensor:
        """(B, N, H, D) in environment units, the known entries exact.

        `guide` is an energy (trajectories in environment units -> scores, higher is better), a plug-in or several.
        `seed` is one for all, or one for each of the B * N rows; a row depends on its own seed and condition only.
        `temperature` scales all noise: low-temperature sampling (Ajay et al. 2023) for less than 1. `observe` sees
        (x_RHD in environment units, t).
        Raises ValueError for what the sampler, a guide or the grid cannot do.
        """
        condition.check(self.spec)
        rows = condition.repeat(num_samples).to(self.device)
        seeds = [fold(seed, i) for i in range(rows.batch)] if isinstance(seed, int) else list(seed)
        if len(seeds) != rows.batch:
            raise ValueError(f"{len(seeds)} seeds were given for {rows.batch} samples; give one each, or a single one")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"the temperature is {temperature}; a number of at least 0 is expected")
        steps = self.config.steps if steps is None else steps
        times, plugins = sampling_times(self.path, steps, self.config.grid).to(self.device), as_plugins(guide)
        parts = [self._accepted(rows[i : i + MAX_ROWS], seeds[i : i + MAX_ROWS], times, plugins, temperature,
                                observe) for i in range(0, rows.batch, MAX_ROWS)]
        return torch.cat(parts).unflatten(0, (condition.batch, num_samples))

    def _accepted(self, rows: Condition, seeds: Sequence[int], times: Tensor, plugins: Sequence[Plugin],
                  temperature: float, observe: Observer | None) -> Tensor:
        """What is drawn, and drawn again with other seeds where a plug-in rejects it."""
        x = self._sample_rows(rows, seeds, times, plugins, temperature, observe)
        which, attempt = torch.arange(len(x), device=x.device), 1
        while plugins:
            which = which[torch.stack([plugin.rejects(x[which], attempt) for plugin in plugins]).any(0)]
            if not len(which):
                break
            again = [fold(seeds[i], attempt) for i in which.tolist()]
            x[which] = self._sample_rows(rows[which], again, times, plugins, temperature, observe)
            attempt += 1
        return x

    def _sample_rows(self, rows: Condition, seeds: Sequence[int], times: Tensor, plugins: Sequence[Plugin],
                     temperature: float, observe: Observer | None) -> Tensor:
        count, missing = rows.batch, padding(rows.batch)
        rows, seeds = rows.padded(missing), [*seeds, *[0] * missing]
        noise = RowNoise(seeds, rows.values_BHD.device)
        normal = lambda: temperature * noise.normal(self.spec.horizon, self.spec.dim)  # noqa: E731
        values = self.normalizer.normalize(rows.values_BHD)
        sampling = Sampling(self.path, self.normalizer, rows, seeds, partial(self.denoise, values, rows.mask_BHD))
        denoise = sampling.denoiser(rows.context_BC)
        for plugin in plugins:
            denoise = plugin.wrap(denoise, sampling)
        watch = observe and (lambda x, t: observe(self.normalizer.unnormalize(x[:count]), t))
        sampler, eta = SAMPLERS[self.config.sampler], self.config.eta
        sampler = sampler if eta is None else partial(sampler, eta=eta)
        x = sampler(hold(denoise, values, rows.mask_BHD), self.path.sigma(times[:1]) * normal(), times, self.path,
                    normal, observe=watch)
        x = self.normalizer.unnormalize(x)
        for plugin in plugins:
            x = plugin.finish(x, sampling)
        return torch.where(rows.mask_BHD, rows.values_BHD, x)[:count]

    def _encoded(self, context_BC: Tensor | None, kept_B: Tensor | None = None) -> Tensor | None:
        """What the network is told of a context: it, and 1; or zeros, where it is not there or not kept."""
        if self.context is None:
            if context_BC is not None:
                raise ValueError("a context was given to a model that was trained without; train with --context.kinds")
            return None
        width = len(self.context.shift_D)
        if context_BC is None:
            return self.context.shift_D.new_zeros(1, width + 1)
        if context_BC.ndim != 2 or context_BC.shape[1] != width or not torch.isfinite(context_BC).all():
            raise ValueError(f"a context of width {tuple(context_BC.shape[1:])} was given; {width} finite numbers for "
                             "each trajectory are expected")
        encoded = F.pad(self.context.normalize(context_BC), (0, 1), value=1.0)
        return encoded if kept_B is None else encoded * kept_B[:, None].to(encoded.device)

    def log_prob(self, x_RHD: Tensor, condition: Condition | None = None, *, seeds: int | Sequence[int] = 0,
                 exact: bool | None = None, probes: int = PROBES, steps: int | None = None) -> Tensor:
        """(R,) log density, environment units, of the entries of x that `condition` does not know, given the others.

        By the probability-flow ODE, in 64 steps unless `steps` says otherwise; `gentraj.diffusion.likelihood.log_prob`
        says what the options do. A low value is a sign that the model was not trained on such trajectories. A model
        of continuous time (`levels=None`) is the better judge: another one is asked between its levels.
        """
        condition = Condition.unknown(self.spec, len(x_RHD)) if condition is None else condition
        return model_log_prob(self, x_RHD, condition, seeds=seeds, exact=exact, probes=probes, steps=steps)

    @torch.no_grad()
    def denoising_error(self, x_RHD: Tensor, condition: Condition, seeds: Sequence[int], noise: float = 1.0) -> Tensor:
        """(R, H) mean squared error, in normalised units, of x0 after noising until sigma / alpha is `noise`, and back.

        What the model finds likely comes back; what it finds impossible is moved. `condition` is what it may know.
        """
        if not noise > 0:
            raise ValueError(f"noise is {noise}; a ratio sigma / alpha above 0 is expected")
        t = self.path.snap(self.path.time_of(torch.tensor([-2 * math.log(noise)]))).to(self.device)
        errors = [self._error_rows(x_RHD[i : i + MAX_ROWS], condition[i : i + MAX_ROWS], t, seeds[i : i + MAX_ROWS])
                  for i in range(0, len(x_RHD), MAX_ROWS)]
        return torch.cat(errors)

    def _error_rows(self, x_RHD: Tensor, condition: Condition, t: Tensor, seeds: Sequence[int]) -> Tensor:
        count, missing = len(x_RHD), padding(len(x_RHD))
        condition, x0 = condition.padded(missing), self.normalizer.normalize(padded(x_RHD))
        eps = RowNoise([*seeds, *[0] * missing], x0.device).normal(self.spec.horizon, self.spec.dim)
        values = self.normalizer.normalize(condition.values_BHD)
        denoise = self.denoise(values, condition.mask_BHD, condition.context_BC)
        back = denoise(self.path.alpha(t) * x0 + self.path.sigma(t) * eps, t)
        return ((back - x0) ** 2).mean(-1)[:count]
