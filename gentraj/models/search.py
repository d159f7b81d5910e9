"""What models of one network call share: a guide chooses the best of several candidates and may improve its noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..normalize import Normalizer
from ..randomness import RowNoise, unfold
from ..trajectory import DEFAULT_OPTIONS, Condition, Observer, SamplingOptions, refuse_options
from .conditional import ConditionalModel, SearchConfig
from .plugin import Plugin, Preference, SampledRows, finite
from .sample_batch import Guidance, as_plugins, by_blocks, sample_batch, without_gradient

Generate = Callable[[Tensor, Condition], Tensor]  # noise z_RHD and conditions -> x_RHD in environment units


class OneCallModel(ConditionalModel):
    """Base class of models that sample in one network call. A subclass has a `config` and implements `generates`."""

    config: SearchConfig
    NAME: ClassVar[str]
    """The model in messages, such as "a GAN"."""

    def generates(self, rows: Condition) -> Generate:
        """The map from noise to trajectories of the conditions `rows`, or of each of them several times in a row."""
        raise NotImplementedError

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        """A description of how the model samples, for messages and reports."""
        return f"one call of {self.NAME}"

    @without_gradient
    def sample(self, condition: Condition, num_samples: int = 1, *, guide: Guidance = None,
               seed: int | Sequence[int] = 0, options: SamplingOptions = DEFAULT_OPTIONS,
               observe: Observer | None = None) -> Tensor:
        """Samples (B, N, H, D) in environment units, with exact known entries, as `Diffusion.sample` does, in one call.

        `options.temperature` scales the noise: at 0 the sample is that without noise. A guide chooses among `best_of`
        candidates for each trajectory, the first of which is the sample without a guide, and may improve the noise of
        the best one (`search_steps`). Plug-ins that finish trajectories, such as constraints, finish the chosen ones.
        `observe` sees the result. Raises ValueError for a plug-in that needs a denoiser, and for options of a sampler.
        """
        plugins = choosing_plugins(guide, self.NAME)
        refuse_options(options, f"{self.NAME} samples in one call of its network")

        def sampled(rows: Condition, seeds: Sequence[int]) -> Tensor:
            return sample_rows(self.generates(rows), rows, seeds, options.temperature, plugins, self.config,
                               self.normalizer)

        return sample_batch(self.spec, condition.to(self.device), num_samples, seed, plugins, sampled, observe)


def choosing_plugins(guide: Guidance, model: str) -> list[Plugin]:
    """The plug-ins of a guide, for a model without a denoiser: a function becomes a `Preference`.

    Raises ValueError for a plug-in that needs a denoiser, with `model` as the name of the model.
    """
    plugins = as_plugins(guide, Preference)
    for plugin in plugins:
        if plugin.needs_denoiser:
            raise ValueError(f"{type(plugin).__name__} changes what a model denoises, and {model} does not denoise; "
                             "give a function of clean trajectories, constraints or no guidance, or use a diffusion "
                             "model")
    return plugins


def sample_rows(generate: Generate, rows: Condition, seeds: Sequence[int], temperature: float,
                plugins: Sequence[Plugin], config: SearchConfig, normalizer: Normalizer) -> Tensor:
    """Samples trajectories (R, H, D), in environment units, from their seeds; plug-ins choose and finish them."""
    choosing = [plugin for plugin in plugins if type(plugin).prefer is not Plugin.prefer]
    if choosing:
        x = preferred(generate, rows, seeds, temperature, choosing, config)
    else:
        x = generate(temperature * RowNoise(seeds, rows.values_BHD.device).normal(*rows.values_BHD.shape[1:]), rows)
    for plugin in plugins:
        x = plugin.finish(x, SampledRows(normalizer, rows, seeds))
    return torch.where(rows.mask_BHD, rows.values_BHD, x)


def preferred(generate: Generate, rows: Condition, seeds: Sequence[int], temperature: float, plugins: Sequence[Plugin],
              config: SearchConfig) -> Tensor:
    """The best (R, H, D) of `best_of` candidates for each row, by the plug-ins' scores, improved in `search_steps`.

    The first candidate of a row is sampled from the row's own seed. Of several best candidates the first is taken.
    """
    candidate_seeds = [one for seed in seeds for one in (seed, *unfold(config.best_of - 1, seed, 1))]
    z = temperature * RowNoise(candidate_seeds, rows.values_BHD.device).normal(*rows.values_BHD.shape[1:])
    x = generate(z, rows.repeat(config.best_of))
    best_R = preference(plugins, x).view(rows.batch, -1).argmax(1)
    chosen = torch.arange(rows.batch, device=z.device) * config.best_of + best_R
    if not config.search_steps:
        return x[chosen]
    return latent_ascent(generate, rows, z[chosen], x[chosen], plugins, config)


def preference(plugins: Sequence[Plugin], x_RHD: Tensor) -> Tensor:
    """The sum (R,) of the plug-ins' scores. Each plug-in sees a copy of its own, which it may change."""
    def total(x: Tensor) -> Tensor:
        scores = [score for plugin in plugins if (score := plugin.prefer(x.clone())) is not None]
        return torch.stack(scores).sum(0)

    return by_blocks(total, x_RHD)


def latent_ascent(generate: Generate, rows: Condition, z: Tensor, x: Tensor, plugins: Sequence[Plugin],
                  config: SearchConfig) -> Tensor:
    """Gradient ascent on the plug-ins' scores in the noise z, from `x` = G(`z`); returns the best trajectory found.

    z keeps its length: normal noise in many dimensions has nearly constant length, and the generator was not trained on
    others. Raises ValueError for a score without a gradient.
    """
    z = z * ~rows.mask_BHD  # noise at known entries has no effect, but would add to the length
    length_R11 = _length(z)
    best, best_R = x, preference(plugins, x)
    for _ in range(config.search_steps):
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            gradient = _gradient(preference(plugins, generate(z, rows)), z)
        z = z.detach() + config.search_rate * length_R11 * gradient / _length(gradient)
        z = z * length_R11 / _length(z)
        x = generate(z, rows)
        score_R = preference(plugins, x)
        best = torch.where((score_R > best_R)[:, None, None], x, best)
        best_R = torch.maximum(score_R, best_R)
    return best


def _gradient(score_R: Tensor, z: Tensor) -> Tensor:
    gradient = None
    if score_R.requires_grad:
        gradient, = torch.autograd.grad(score_R.sum(), z, allow_unused=True)
    if gradient is None:
        raise ValueError("the guide's score has no gradient to search by: write it in differentiable torch "
                         "operations, or set search_steps to 0")
    return finite(gradient, "the guide's gradient is", "; smooth the guide, or set search_steps to 0")


def _length(z: Tensor) -> Tensor:
    return z.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None]
