"""`LatentDiffusion`: diffusion in the latent space of a temporal VAE (Rombach et al. 2022), and this autoencoder."""

from __future__ import annotations

import sys
from dataclasses import field, replace
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config import settings
from ..device import to_device
from ..models.conditional import GeneratorConfig
from ..models.conditioning import ConditionMix
from ..models.sampling import (
    Checks,
    Guidance,
    Plugin,
    SampledRows,
    by_blocks,
    check_trajectories,
    one_each,
    without_gradient,
)
from ..networks import NetworkConfig, TemporalUNetConfig
from ..networks.temporal_unet import check_horizon, check_kernel
from ..normalize import Normalizer
from ..randomness import Seeds
from ..training.optimization import adamw
from ..training.step import TrainingStep
from ..trajectory import DEFAULT_OPTIONS, Condition, Guide, Observer, SamplingOptions, TrajectorySpec
from .diffusion_model import Diffusion, DiffusionConfig
from .guidance import ClassifierFree, Guided, denoising_plugins

LATENT_AVERAGE_WEIGHT = 0.1  # weight of a batch in the moving averages of the latents' mean and variance
MAX_LOG_VARIANCE = 20.0  # bound on the logarithm, so that no exponential overflows


@settings
class VAEConfig:
    """An encoder of convolutions over time that halve the number of timesteps, and a decoder that doubles it again."""

    latent: PositiveInt = 8
    """Dimension of the latents at each latent timestep."""
    halvings: NonNegativeInt = 1
    """Number of halvings; a latent timestep stands for 2^halvings timesteps of the trajectory."""
    width: PositiveInt = 32
    """Number of channels."""
    kernel: PositiveInt = 5
    """Number of timesteps in a convolution's kernel; odd."""

    def __post_init__(self) -> None:
        check_kernel(self.kernel)


class TemporalVAE(nn.Module):
    """Maps trajectories (R, H, D) to latents (R, L, Z) and back, L = H / 2^halvings. No row depends on another row.

    Raises ValueError if the horizon cannot be halved that often.
    """

    def __init__(self, dim: int, horizon: int, config: VAEConfig):
        super().__init__()
        check_horizon(horizon, 2**config.halvings)
        width, kernel = config.width, config.kernel
        half = kernel // 2
        shrink, grow = list[nn.Module](), list[nn.Module]()
        for _ in range(config.halvings):
            shrink += [Residual(width, kernel), nn.Conv1d(width, width, 4, 2, 1)]
        for _ in range(config.halvings):
            grow += [Residual(width, kernel), nn.ConvTranspose1d(width, width, 4, 2, 1)]
        self.encoder = nn.Sequential(nn.Conv1d(2 * dim, width, kernel, padding=half), *shrink, Residual(width, kernel),
                                     nn.Conv1d(width, 2 * config.latent, 1))
        self.grow = nn.Sequential(nn.Conv1d(config.latent, width, kernel, padding=half), *grow)
        self.known = nn.Conv1d(2 * dim, width, kernel, padding=half)
        self.out = nn.Sequential(Residual(width, kernel), Residual(width, kernel), nn.Conv1d(width, dim, 1))

    def encode(self, x_RHD: Tensor, real_RHD: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latents, (R, L, Z) each. Entries that are not real are replaced by 0."""
        h = self.encoder(_time_last(x_RHD * real_RHD, real_RHD))
        h = h.to(self.known.weight.dtype)  # latents are data: not in bfloat16 under autocast
        mean, log_variance = h.transpose(1, 2).chunk(2, dim=-1)
        return mean, log_variance.clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)

    def decode(self, z_RLZ: Tensor, known_RHD: Tensor, mask_RHD: Tensor) -> Tensor:
        """Trajectories (R, H, D) from latents, known values (0 where unknown) and the mask of the known entries."""
        h = self.grow(z_RLZ.transpose(1, 2)) + self.known(_time_last(known_RHD, mask_RHD))
        return self.out(h).transpose(1, 2)


class Residual(nn.Module):
    """A residual block of two convolutions, without normalisation, which would lose the size of the input."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.first = nn.Conv1d(channels, channels, kernel, padding=kernel // 2)
        self.second = nn.Conv1d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, h_RCH: Tensor) -> Tensor:
        return h_RCH + self.second(F.mish(self.first(F.mish(h_RCH))))


def _time_last(x_RHD: Tensor, mask_RHD: Tensor) -> Tensor:
    """Values and mask (R, 2D, H), as convolutions take them."""
    return torch.cat([x_RHD, mask_RHD.to(x_RHD.dtype)], dim=-1).transpose(1, 2)


@settings
class LatentDiffusionConfig(GeneratorConfig):
    """Settings of a temporal VAE and of a diffusion model of its latents."""

    vae: VAEConfig = field(default_factory=VAEConfig)
    """The autoencoder, a variational one of convolutions over time."""
    prior: DiffusionConfig = field(default_factory=lambda: DiffusionConfig(clip=4.0))
    """The diffusion model of latents, which are normalised. Its learning rate, weight decay and gradient norm are the
    VAE's, too."""
    beta: NonNegativeFloat = 1e-4
    """Weight of the KL divergence of the latents from the standard normal (Higgins et al. 2017)."""

    @property
    def network(self) -> NetworkConfig:
        """The settings of the network of the prior."""
        return self.prior.network

    @property
    def max_steps(self) -> int | None:
        return self.prior.max_steps

    def with_network(self, network: object) -> LatentDiffusionConfig:
        """The settings with another network of the prior."""
        return replace(self, prior=self.prior.with_network(network))

    def from_one_noise(self) -> LatentDiffusionConfig:
        return replace(self, prior=self.prior.from_one_noise())


class LatentDiffusion(nn.Module):
    """A `TrajectoryModel`: a temporal VAE, and a `Diffusion` model of its latents, the prior.

    A trajectory of the prior has the condition as its 'observation', which is always known, and the latents as its
    'action'. Each latent timestep carries the known values and the mask of the timesteps that it stands for, so that
    conditioning is the inpainting of `Diffusion`. Both networks are trained from the first step, and no gradient of the
    prior reaches the VAE. In PointMaze this gave the same return as training the VAE first, and it needs no schedule.
    Raises ValueError for a horizon that cannot be halved as often as the networks do, and for a normaliser of another
    width than a timestep's.
    """

    def __init__(self, spec: TrajectorySpec, config: LatentDiffusionConfig, normalizer: Normalizer,
                 context: Normalizer | None = None, *, conditioning: ConditionMix | None = None,
                 context_dropout: float = LatentDiffusionConfig.CONTEXT_DROPOUT,
                 batch_size: int = LatentDiffusionConfig.BATCH_SIZE):
        super().__init__()
        network, factor = config.prior.network, 2**config.vae.halvings
        self.factor = factor  # timesteps of a trajectory in one latent timestep
        halved = 1
        if isinstance(network, TemporalUNetConfig):
            halved = 2 ** (len(network.multipliers) - 1)
        check_horizon(spec.horizon, factor * halved)
        self.spec, self.config = spec, config
        self.batch_size = batch_size
        self.normalizer = normalizer.require(spec.dim)
        self.conditioning = conditioning or ConditionMix()
        self.vae = TemporalVAE(spec.dim, spec.horizon, config.vae)
        inner = TrajectorySpec(2 * factor * spec.dim, config.vae.latent, spec.horizon // factor, spec.stride * factor)
        self.prior = Diffusion(inner, config.prior, Normalizer.identity(inner.dim), context,
                               conditioning=ConditionMix(start=0, goal=0, observations=1),
                               context_dropout=context_dropout)

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return self.normalizer.shift_D.device

    @property
    def network_calls(self) -> int:
        """Calls of the prior's network so far."""
        return self.prior.network_calls

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        """A description of how the model samples, for messages and reports."""
        return self.prior.sampling(options)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"prior": self.prior.optimizers()["network"], "vae": adamw(self.vae, self.config.prior)}

    def update(self, step: TrainingStep, *, guide: Guide | None = None) -> dict[str, Tensor]:
        """One step of the VAE (Kingma & Welling 2014, equation 10), and one of the prior on the means of its latents.

        Returns metrics, scalars. "reconstruction" is the root mean squared error of the unknown real entries, in
        normalised units. The weights of the batch act on the prior only: the VAE represents all windows alike.
        """
        batch, generator = step.batch, step.generator
        real = batch.mask_BHD
        known, x0 = self.conditioning.sample(self.spec, real, generator), self.normalizer.normalize_windows(batch)
        mean, log_variance = self.vae.encode(x0, real)
        eps = to_device(torch.randn(mean.shape, generator=generator), mean.device)
        decoded = self.vae.decode(mean + (log_variance / 2).exp() * eps, x0 * known, known)
        real_BL1 = self._grouped(real).any(-1, keepdim=True)
        error = _mean((decoded - x0) ** 2, real & ~known)
        kl = _mean(gaussian_kl(mean, log_variance), real_BL1)
        step.descend(error + self.config.beta * kl, "vae", self.config.prior.max_grad_norm)
        self._follow(mean.detach(), log_variance.detach(), real_BL1)
        y = torch.cat([self._patches(x0, known), mean.detach()], -1)
        real_BLE = real_BL1 | (torch.arange(y.shape[-1], device=y.device) < self.prior.spec.obs_dim)

        def decoded_guide(guide: Guide, y: Tensor) -> Tensor:
            x = self.vae.decode(y[..., self.prior.spec.obs_dim :], x0 * known, known)
            x = torch.where(real & ~known, self.normalizer.unnormalize(x), batch.x_BHD)
            return one_each(guide(x), x)

        inner = replace(batch, x_BHD=y, mask_BHD=real_BLE)
        metrics = self.prior.update(step.on(inner, {"network": step.optimizers["prior"]}),
                                    guide=guide and partial(decoded_guide, guide))
        return metrics | {"reconstruction": error.detach().sqrt(), "kl": kl.detach()}

    @without_gradient
    def sample(self, condition: Condition, num_samples: int = 1, *, guide: Guidance = None,
               seed: Seeds | None = None, options: SamplingOptions = DEFAULT_OPTIONS,
               observe: Observer | None = None) -> Tensor:
        """Samples (B, N, H, D) in environment units, with the known entries exact, as `Diffusion.sample` does.

        An energy scores the decoded trajectory. Raises ValueError for a plug-in that changes noisy trajectories, since
        only latents are noisy here.
        """
        condition.check(self.spec)
        rows, plugins = condition.repeat(num_samples).to(self.device), denoising_plugins(guide)
        watch = observe and (lambda y, t: observe(self.decode(y), t))
        inside = [p for plugin in plugins for p in self._inside(plugin)]
        y_RLE = self.prior.sample(self._inner(rows), guide=inside, seed=seed, options=options, observe=watch)[:, 0]
        x_RHD = self.decode(y_RLE)
        sampling = SampledRows(self.normalizer, rows, Checks())
        for plugin in plugins:
            x_RHD = plugin.finish(x_RHD, sampling)
            plugin.rejects(x_RHD, sys.maxsize)  # nothing is sampled again, but the plug-in may raise
        sampling.checks.read()
        x_RHD = torch.where(rows.mask_BHD, rows.values_BHD, x_RHD)
        return rearrange(x_RHD, "(b n) h d -> b n h d", n=num_samples)

    def decode(self, y_RLE: Tensor) -> Tensor:
        """Decodes trajectories of the prior (R, L, known values and latents) to (R, H, D) in environment units.

        The result is differentiable.
        """
        def decoded(y: Tensor) -> Tensor:
            patch, z = self.prior.spec.split(y)
            values_and_mask = rearrange(patch, "r l (f x) -> r (l f) x", f=self.factor)
            known, mask = values_and_mask.chunk(2, -1)
            return torch.where(mask > 0, known, self.vae.decode(z, known, mask))

        return self.normalizer.unnormalize(by_blocks(decoded, y_RLE))

    @torch.no_grad()
    def encode(self, x_RHD: Tensor) -> Tensor:
        """The means (R, L, Z) of the latents of trajectories (R, H, D) in environment units."""
        x0 = self.normalizer.normalize(x_RHD.to(self.device))
        return by_blocks(lambda x: self.vae.encode(x, torch.ones_like(x, dtype=torch.bool))[0], x0)

    def ood_score(self, x_RHD: Tensor, condition: Condition, seeds: Seeds, noise: float = 1.0) -> Tensor:
        """The ood score (R, H) of trajectories: the squared error of their latents after noising and denoising.

        All timesteps of one latent timestep have the same score.
        """
        condition = condition.to(self.device)
        x_RHD = check_trajectories(self.spec, x_RHD.to(self.device), condition)
        inner = self._inner(condition)
        y_RLE = torch.cat([self.prior.spec.split(inner.values_BHD)[0], self.encode(x_RHD)], -1)
        error_RL = self.prior.ood_score(y_RLE, inner, seeds, noise)
        return repeat(error_RL, "r l -> r (l f)", f=self.factor)

    def _inside(self, plugin: Plugin) -> list[Plugin]:
        """The plug-ins of the prior that stand for a plug-in on trajectories."""
        if isinstance(plugin, Guided):
            return [replace(plugin, guide=lambda y: plugin.guide(self.decode(y)))]
        if isinstance(plugin, ClassifierFree):
            return [plugin]
        if not plugin.needs_denoiser:  # it finishes the decoded trajectories
            return []
        raise ValueError(f"{type(plugin).__name__} changes the trajectory that is denoised, and latent diffusion "
                         "denoises latents; give a function of trajectories, or use a diffusion model without latents")

    def _inner(self, condition: Condition) -> Condition:
        """The condition on the prior's trajectories: all patches are known, all latents unknown."""
        patch = self._patches(self.normalizer.normalize(condition.values_BHD), condition.mask_BHD)
        y = F.pad(patch, (0, self.prior.spec.act_dim))
        known = torch.arange(y.shape[-1], device=y.device) < self.prior.spec.obs_dim
        return replace(condition, spec=self.prior.spec, values_BHD=y, mask_BHD=known.expand(y.shape), finite=True)

    def _patches(self, x0_RHD: Tensor, known_RHD: Tensor) -> Tensor:
        """(R, L, factor * 2D): the known values and the mask of the timesteps that a latent timestep stands for."""
        return self._grouped(torch.cat([torch.where(known_RHD, x0_RHD, 0), known_RHD.to(x0_RHD.dtype)], -1))

    def _grouped(self, x_RHX: Tensor) -> Tensor:
        """(R, H, X) -> (R, L, factor * X): the timesteps of one latent timestep, concatenated."""
        return rearrange(x_RHX, "r (l f) x -> r l (f x)", f=self.factor)

    def _follow(self, mean_BLZ: Tensor, log_variance_BLZ: Tensor, real_BL1: Tensor) -> None:
        """The prior's normaliser follows mean and variance of the latents; an unused latent has variance 1."""
        def mean(x_BLZ: Tensor) -> Tensor:
            return (x_BLZ * weight).sum((0, 1))

        weight = real_BL1 / real_BL1.sum().clamp(min=1)
        shift = mean(mean_BLZ)
        variance = mean((mean_BLZ - shift) ** 2 + log_variance_BLZ.exp())
        for buffer, now in ((self.prior.normalizer.shift_D, shift), (self.prior.normalizer.scale_D, variance.sqrt())):
            buffer[self.prior.spec.obs_dim :].lerp_(now, LATENT_AVERAGE_WEIGHT)


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) for each entry (Kingma & Welling 2014, appendix B)."""
    return (mean**2 + log_variance.exp() - 1 - log_variance) / 2


def _mean(x: Tensor, where: Tensor) -> Tensor:
    """The mean over the entries where `where` is true."""
    return (x * where).sum() / where.expand(x.shape).sum().clamp(min=1)
