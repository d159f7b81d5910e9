"""`Diffusion`: a diffusion model of trajectories that is trained on a mix of conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from functools import partial
from typing import Annotated, Self

import torch
from einops import reduce
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config import Fraction, OneOf, settings
from ..device import to_device
from ..models.conditional import ConditionalModel, GeneratorConfig, Microbatch
from ..models.conditioning import ConditionMix, encode_context, encoded_width
from ..models.sampling import (
    Checks,
    Denoise,
    Denoising,
    Guidance,
    Plugin,
    by_blocks,
    check_shapes,
    check_trajectories,
    placed,
    sample_batch,
    without_gradient,
)
from ..networks import NETWORKS, NetworkConfig, TemporalUNetConfig
from ..networks.embedding import conditioned
from ..normalize import Normalizer
from ..randomness import Noise, Seeds, as_noise
from ..training.optimization import LearningConfig, MovingAverage, adamw
from ..training.step import TrainingStep
from ..trajectory import (
    DEFAULT_OPTIONS,
    SAMPLER_SETTINGS,
    Condition,
    Guide,
    Observer,
    SamplingOptions,
    TrajectorySpec,
    cat,
)
from .denoiser import (
    DENSITIES,
    NEEDS_SIGNAL,
    PREDICTIONS,
    WEIGHTS,
    DenoisingModel,
    NoiseLevel,
    Preconditioned,
    denoising_loss,
    levels_at,
    sample_times,
)
from .guidance import denoising_plugins
from .likelihood import log_prob
from .paths import GRIDS, PATHS, noised_time, sampling_times
from .samplers import SAMPLERS, Sampler, refuse_noise

PathName = Annotated[str, OneOf(PATHS)]
PredictionName = Annotated[str, OneOf(PREDICTIONS)]
WeightName = Annotated[str, OneOf(WEIGHTS)]
DensityName = Annotated[str, OneOf(DENSITIES)]
SamplerName = Annotated[str, OneOf(SAMPLERS)]
GridName = Annotated[str, OneOf(GRIDS)]


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
    x_RHD, condition = to_device(x_RHD, device), condition.to(device)
    x = normalizer.normalize(check_trajectories(model.spec, x_RHD, condition))
    t_1 = model.path.snap(torch.full((1,), t))
    at = NoiseLevel(model.path, t_1, device=device)
    values = normalizer.normalize(condition.values_BHD)
    denoise = model.denoise(values, condition.mask_BHD, condition.context_BC, clipped=False)
    score = (at.alpha * denoise(x, t_1) - x) / at.sigma**2 / normalizer.scale_D
    return torch.where(condition.mask_BHD, 0, score)


@torch.no_grad()
def ood_score(model: DenoisingModel, x_RHD: Tensor, condition: Condition, seeds: Seeds, noise: float = 1.0,
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
    x_RHD, condition = to_device(x_RHD, device), condition.to(device)
    x_RHD = check_trajectories(model.spec, x_RHD, condition)
    rows = as_noise(seeds, len(x_RHD), "trajectories")
    t = noised_time(model.path, noise)

    def error_rows(x_RHD: Tensor, known: Condition, eps: Tensor) -> Tensor:
        x0, values = normalizer.normalize(x_RHD), normalizer.normalize(known.values_BHD)
        denoise = model.denoise(values, known.mask_BHD, known.context_BC)
        denoised = denoise(NoiseLevel(model.path, t, device=device).noised(x0, eps), t)
        return ((denoised - x0) ** 2).mean(-1)

    eps = torch.cat([rows.anew(n).normal(*x_RHD.shape[1:]) for n in range(noises)])
    errors = by_blocks(error_rows, x_RHD.repeat(noises, 1, 1), cat([condition] * noises), to_device(eps, device))
    return reduce(errors, "(n r) h -> r h", "mean", n=noises)


@settings
class DiffusionConfig(GeneratorConfig, LearningConfig):
    """Settings of a diffusion model: its network, its noise path, its loss and its sampler."""

    network: NetworkConfig = field(default_factory=TemporalUNetConfig)
    """The network that denoises."""
    path: PathName = "vp-cosine"
    """Noise path: how the signal fades and the noise grows with time t."""
    levels: PositiveInt | None = 20
    """Number of noise levels in training; None is continuous time."""
    prediction: PredictionName = "x0"
    """What the network predicts."""
    weight: WeightName = "uniform"
    """Weight of each noise level in the loss."""
    density: DensityName = "uniform"
    """Distribution of the noise levels in training."""
    sigma_data: PositiveFloat = 1.0
    """Standard deviation of normalised data. It scales the network's input, and EDM's prediction and weight."""
    clip: NonNegativeFloat | None = 1.1
    """Bound on |x0| in sampling, in normalised units, before guidance; None is no bound."""
    ema: Fraction = 0.999
    """Decay of the exponential moving average of the weights, which is used for sampling."""
    sampler: SamplerName = "ddim"
    """Sampling method."""
    steps: PositiveInt = 5
    """Number of sampling steps."""
    grid: GridName = "uniform"
    """Spacing of the sampling steps."""
    eta: Fraction | None = None
    """Noise added while sampling, from 0 (deterministic) to 1; None is the sampler's own default."""

    @property
    def max_steps(self) -> int | None:
        return self.levels

    def from_one_noise(self) -> Self:
        return replace(self, eta=0.0)

    def __post_init__(self) -> None:
        if self.levels is not None and self.steps > self.levels:
            raise ValueError(f"DiffusionConfig.steps is {self.steps}; a whole number from 1 to {self.levels}, the "
                             "number of levels, is expected")
        refuse_noise(self.sampler, self.eta)
        if self.prediction in NEEDS_SIGNAL and PATHS[self.path](self.levels).alpha(torch.ones(1)) == 0:
            others = ", ".join(name for name in PREDICTIONS if name not in NEEDS_SIGNAL)
            raise ValueError(f"DiffusionConfig.prediction is {self.prediction}, which does not determine x0 where "
                             f"there is no signal, as at the noisy end of the path {self.path}; use one of {others}")


@settings
class FlowConfig(DiffusionConfig):
    """Settings of a rectified flow (Liu et al. 2023): diffusion along a straight noise path in continuous time, sampled
    by Euler's method."""

    path: PathName = "flow"
    """Noise path: how the signal fades and the noise grows with time t."""
    levels: PositiveInt | None = None
    """Number of noise levels in training; None is continuous time."""
    sampler: SamplerName = "euler"
    """Sampling method."""


class Diffusion(ConditionalModel):
    """A diffusion model of trajectories, a `TrajectoryModel`.

    Its methods take and return environment units; its network sees normalised ones. `context` normalises
    Batch.context_BC and Condition.context_BC (B, C); a model without it refuses a context. The owner of the model
    decides how it is trained: `conditioning` is the distribution of conditions,
    `context_dropout` the fraction of trajectories
    trained without their context (for classifier-free guidance), and `batch_size` the number of windows in a step.
    Raises ValueError for a normaliser of another width than a timestep's.
    """

    def __init__(self, spec: TrajectorySpec, config: DiffusionConfig, normalizer: Normalizer,
                 context: Normalizer | None = None, *, conditioning: ConditionMix | None = None,
                 context_dropout: float = DiffusionConfig.CONTEXT_DROPOUT,
                 batch_size: int = DiffusionConfig.BATCH_SIZE):
        super().__init__(spec, normalizer, context, conditioning, context_dropout, batch_size)
        self.config = config
        self.path, self.prediction = PATHS[config.path](config.levels), PREDICTIONS[config.prediction]
        self.network = NETWORKS.made_of(config.network)(spec.dim, spec.horizon, encoded_width(context),
                                                        config.network)
        self.ema = MovingAverage(self.network, config.ema)

    # Functions of any model with a denoiser, which they take first.
    log_prob = log_prob
    score = score
    ood_score = ood_score

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        """A description of how the model samples, for messages and reports."""
        config = self.settings(options)
        eta = "" if config.eta is None else f" with eta {config.eta:g}"
        return f"{config.sampler}{eta}, {config.grid} grid, {options.steps or config.steps} steps"

    def settings(self, options: SamplingOptions) -> DiffusionConfig:
        """The model's settings with the options' sampler, grid and eta. Raises ValueError if these do not fit."""
        changed = {name: value for name in SAMPLER_SETTINGS if (value := getattr(options, name)) is not None}
        if not changed:
            return self.config
        return replace(self.config, **changed)

    def sampler(self, config: DiffusionConfig) -> Sampler:
        """The function that follows the denoiser from noise to a trajectory."""
        sampler = SAMPLERS[config.sampler]
        if config.eta is None:
            return sampler
        return partial(sampler, eta=config.eta)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"network": adamw(self.network, self.config)}

    def update(self, step: TrainingStep, *, guide: Guide | None = None, chain: bool = False) -> dict[str, Tensor]:
        """One optimiser step on `loss`; returns metrics, scalars."""
        return self.learn(step, self.loss(step, guide, chain), self.config.max_grad_norm)

    def loss(self, step: TrainingStep, guide: Guide | None = None, chain: bool = False) -> Tensor:
        """`denoising_loss`, the weighted squared error of the unknown real entries: a scalar.

        The mean score of x0 by a `guide` is subtracted. It scores x0 as denoised from one noise level instead of a
        sample (Kang et al. 2023, equation 9), or with `chain` a sample, with the gradient through all of its steps.
        """
        batch, generator = step.batch, step.generator
        real = batch.mask_BHD
        known, x0 = self.conditioning.sample(self.spec, real, generator), self.normalizer.normalize_windows(batch)
        at = self.level(sample_times(self.config.density, self.path, len(x0), generator))
        eps = to_device(torch.randn(x0.shape, generator=generator), x0.device)
        context = self.training_context(batch, generator)
        rows = Microbatch(x0, real, known, context, batch.weights(), generator)
        score = None if guide is None else partial(self.own_score, guide, rows=rows, batch=batch)
        loss = denoising_loss(self.preconditioned(self.network), rows, eps, at, self.config.weight,
                              None if chain else score)
        if chain and score:
            loss = loss - score(self.sampled_chain(rows, batch.context_BC))
        return loss

    def sampled_chain(self, rows: Microbatch, context_BC: Tensor | None) -> Tensor:
        """Samples (R, H, D) of the network in training, normalised; their gradient passes through all steps."""
        times = sampling_times(self.path, self.config.steps, self.config.grid)
        denoise = self.denoise(rows.x0, rows.known, context_BC, times=times, network=self.network)
        start = self.path.sigma(times[0]) * rows.normal()
        return self.sampler(self.config)(denoise, start, times, self.path, rows.normal)

    def level(self, t_R: Tensor) -> NoiseLevel:
        """The noise level at the times t (R,), on the model's device."""
        return NoiseLevel(self.path, t_R, self.config.sigma_data, self.device)

    def preconditioned(self, network: nn.Module, *, clipped: bool = True) -> Preconditioned:
        """The denoiser D(x; t) that one of its networks makes; `clipped` bounds x0 (`config.clip`)."""
        return Preconditioned(network, self.path, self.prediction, self.config.sigma_data,
                              self.config.clip if clipped else None)

    def denoise(self, values: Tensor, mask: Tensor, context: Tensor | None = None, *,
                times: Tensor | None = None, clipped: bool = True, network: nn.Module | None = None) -> Denoise:
        """The denoiser `denoise(x_RHD, t) -> x0_RHD` conditioned on the known entries, in normalised units; t is (R,),
        or (1,) on the CPU.

        The network sees the known entries clean, and x0 has their values: what `x` has there has no effect, and the
        gradient with respect to it is zero, so that guidance does not move it. The noise levels, and what the network
        computes of them and of the condition alone, are computed once for all `times` (S,), if they are given.
        `clipped` bounds x0; a likelihood needs it without the bound. The averaged `network` is the default.
        """
        if network is None:
            network = self.ema.module
        D = self.preconditioned(network, clipped=clipped)
        predict = conditioned(network, torch.where(mask, values, 0), mask, encode_context(context, self.context), times)
        levels = dict[float, NoiseLevel]()
        if times is not None:
            levels = levels_at(self.path, times, self.config.sigma_data, self.device)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            self.network_calls += 1
            at = None
            if len(t) == 1:
                at = levels.get(t.item())
            if at is None:
                at = self.level(t)
            x_t = torch.where(mask, values, x)
            return torch.where(mask, values, D.x0(x_t, predict(x_t / at.spread, t), at))

        return denoise

    @torch.no_grad()
    def transport(self, z_RHD: Tensor, condition: Condition, *, steps: int | None = None) -> Tensor:
        """Maps standard normal noise (R, H, D) to trajectories (R, H, D) in environment units, without further noise.

        One-step students are distilled from this map. Raises ValueError for shapes that do not fit.
        """
        known, z_RHD = condition.to(self.device), z_RHD.to(self.device)
        check_shapes(self.spec, z_RHD, known)
        if steps is None:
            steps = self.config.steps
        times = sampling_times(self.path, steps, self.config.grid)
        values = self.normalizer.normalize(known.values_BHD)
        denoise = self.denoise(values, known.mask_BHD, known.context_BC, times=times)
        start = self.path.sigma(times[0]) * z_RHD
        x = SAMPLERS[self.config.sampler](denoise, start, times, self.path, lambda: z_RHD, eta=0.0)
        return torch.where(known.mask_BHD, known.values_BHD, self.normalizer.unnormalize(x))

    @without_gradient
    def sample(self, condition: Condition, num_samples: int = 1, *, guide: Guidance = None,
               seed: Seeds | None = None, options: SamplingOptions = DEFAULT_OPTIONS,
               observe: Observer | None = None) -> Tensor:
        """Samples N trajectories for each of B conditions: (B, N, H, D) in environment units, with exact known entries.

        `guide` is a function (trajectories in environment units -> scores, higher is better), a plug-in, or a sequence
        of plug-ins. `seed` is one seed for all trajectories, one for each of the B * N, or their noise; a trajectory
        depends on its own seed and condition only. Without a seed, trajectories differ from call to call.
        `options.temperature` scales all noise; less than 1 is low-temperature sampling (Ajay et al. 2023). `observe`
        sees (x_RHD in environment units, t) after each step. Raises ValueError for options, guides and seeds that do
        not fit.
        """
        config, plugins = self.settings(options), denoising_plugins(guide)
        steps = config.steps
        if options.steps is not None:
            steps = options.steps
        times = sampling_times(self.path, steps, config.grid)
        return sample_batch(self.spec, placed(condition, self.device), num_samples, seed, plugins,
                            partial(self._sample_rows, sampler=self.sampler(config), times=times, plugins=plugins,
                                    temperature=options.temperature, observe=observe))

    def _sample_rows(self, rows: Condition, noise: Noise, checks: Checks, sampler: Sampler, times: Tensor,
                     plugins: Sequence[Plugin], temperature: float, observe: Observer | None) -> Tensor:
        def normal() -> Tensor:
            return to_device(noise.scaled(temperature, self.spec.horizon, self.spec.dim), rows.values_BHD.device)

        values = self.normalizer.normalize(rows.values_BHD)

        def unconditional() -> Denoise:
            if self.context is not None and not self.context_dropout:
                raise ValueError("the guide needs the model without a context, which a context_dropout of 0 never "
                                 "trains; give the model the context_dropout that it was trained with, train one with "
                                 "0.1, for example, or sample unguided")
            return self.denoise(values, rows.mask_BHD, times=times)

        sampling = Denoising(self.normalizer, rows, checks, self.path, unconditional)
        denoise = self.denoise(values, rows.mask_BHD, rows.context_BC, times=times)
        for plugin in plugins:
            denoise = plugin.wrap(denoise, sampling)
        watch = observe and (lambda x, t: observe(self.normalizer.unnormalize(x), t))
        x = sampler(denoise, self.path.sigma(times[0]) * normal(), times, self.path, normal, observe=watch)
        x = self.normalizer.unnormalize(x)
        for plugin in plugins:
            x = plugin.finish(x, sampling)
        return torch.where(rows.mask_BHD, rows.values_BHD, x)
