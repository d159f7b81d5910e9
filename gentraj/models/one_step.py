"""What models of one call do alike. To them a guide is the best of several candidates, and a walk uphill in the noise
that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..networks.rows import MAX_ROWS, padded
from ..normalize import Normalizer
from ..randomness import RowNoise, unfold
from ..trajectory import Condition, SamplingOptions
from .plugin import Plugin, Preference, SampledRows, finite
from .sampling import Guidance, as_plugins

Generate = Callable[[Tensor, Condition], Tensor]  # noise z_RHD and what is known -> x_RHD in environment units


SEARCH = ("best_of", "search_steps", "search_rate")  # the settings of it


class Search(Protocol):
    """What the config of a model says of it."""

    @property
    def best_of(self) -> int: ...

    @property
    def search_steps(self) -> int: ...

    @property
    def search_rate(self) -> float: ...


def choosing_plugins(guide: Guidance, model: str) -> list[Plugin]:
    """An energy is what chooses. Raises ValueError for a plug-in that needs a denoiser, which `model` has not."""
    plugins = as_plugins(guide, Preference)
    for plugin in plugins:
        if plugin.needs_denoiser:
            raise ValueError(f"{type(plugin).__name__} changes what a model denoises, and {model} denoises nothing; "
                             "give an energy of clean trajectories, constraints or no guidance, or take a diffusion "
                             "model")
    return plugins


def refuse_sampler(options: SamplingOptions, why: str) -> None:
    """Raises ValueError where a sampler's settings are given: `why` there is no sampler."""
    for name in options.changed():
        raise ValueError(f"{name} was given, and {why}; leave it out")


def sample_rows(generate: Generate, rows: Condition, seeds: Sequence[int], temperature: float,
                plugins: Sequence[Plugin], config: Search, normalizer: Normalizer) -> Tensor:
    """(R, H, D) in environment units: drawn from the rows' own seeds, chosen and finished by the plug-ins."""
    choosing = [plugin for plugin in plugins if type(plugin).prefer is not Plugin.prefer]
    if choosing:
        x = preferred(generate, rows, seeds, temperature, choosing, config)
    else:
        x = generate(temperature * RowNoise(seeds, rows.values_BHD.device).normal(*rows.values_BHD.shape[1:]), rows)
    for plugin in plugins:
        x = plugin.finish(x, SampledRows(normalizer, rows, seeds))
    return torch.where(rows.mask_BHD, rows.values_BHD, x)


def preferred(generate: Generate, rows: Condition, seeds: Sequence[int], temperature: float, plugins: Sequence[Plugin],
              config: Search) -> Tensor:
    """(R, H, D): of `best_of` candidates of each row the one that the plug-ins like best, then refined.

    The first candidate of a row is drawn from the row's own seed, and the first of equals is taken.
    """
    several = [one for seed in seeds for one in (seed, *unfold(config.best_of - 1, seed, 1))]
    z = temperature * RowNoise(several, rows.values_BHD.device).normal(*rows.values_BHD.shape[1:])
    x = generate(z, rows.repeat(config.best_of))
    best_R = preference(plugins, x).view(rows.batch, -1).argmax(1)
    chosen = torch.arange(rows.batch, device=z.device) * config.best_of + best_R
    return latent_ascent(generate, rows, z[chosen], x[chosen], plugins, config) if config.search_steps else x[chosen]


def preference(plugins: Sequence[Plugin], x_RHD: Tensor) -> Tensor:
    """(R,) the sum of what the plug-ins say; they see whole blocks of rows, so that no score depends on the others."""
    parts = []
    for x in x_RHD.split(MAX_ROWS):
        scores = [score for plugin in plugins if (score := plugin.prefer(padded(x))) is not None]
        parts.append(torch.stack(scores).sum(0)[: len(x)])
    return torch.cat(parts)


def latent_ascent(generate: Generate, rows: Condition, z: Tensor, x: Tensor, plugins: Sequence[Plugin],
                  config: Search) -> Tensor:
    """The best trajectory on a walk of `search_steps` steps up the gradient of the preference in z, from `x` = G(`z`)
    on.

    z stays on the sphere that it is drawn from: normal noise of many dimensions has about one length, and elsewhere the
    generator was never trained. Raises ValueError for a preference without gradient.
    """
    z = z * ~rows.mask_BHD  # noise at known entries is never looked at, and would lengthen the rest
    length_R11, best, most_R = _length(z), x, preference(plugins, x)
    for _ in range(config.search_steps):
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            uphill = _gradient(preference(plugins, generate(z, rows)), z)
        z = z.detach() + config.search_rate * length_R11 * uphill / _length(uphill)
        z = z * length_R11 / _length(z)
        x = generate(z, rows)
        now_R = preference(plugins, x)
        best = torch.where((now_R > most_R)[:, None, None], x, best)
        most_R = torch.maximum(now_R, most_R)
    return best


def _gradient(score_R: Tensor, z: Tensor) -> Tensor:
    uphill = torch.autograd.grad(score_R.sum(), z, allow_unused=True)[0] if score_R.requires_grad else None
    if uphill is None:
        raise ValueError("the guide's score has no gradient to search by: write it in differentiable torch "
                         "operations, or set search_steps to 0")
    return finite(uphill, "the guide's gradient is", "; smooth the guide, or set search_steps to 0")


def _length(z: Tensor) -> Tensor:
    return z.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None]


def interpolate(values_RHD: Tensor, known_RHD: Tensor) -> Tensor:
    """Where a trajectory would go if it went straight from each known entry to the next: what a generator starts from.

    (R, H, D): each column linear between two known entries, constant outside of them, 0 where none is known.
    """
    rows_H1 = torch.arange(values_RHD.shape[1], device=values_RHD.device)[:, None]
    last, beyond = len(rows_H1) - 1, len(rows_H1)
    before = _running_max(torch.where(known_RHD, rows_H1, -1))
    after = -_running_max(torch.where(known_RHD, -rows_H1, -beyond).flip(1)).flip(1)
    before, after = torch.where(before < 0, after, before), torch.where(after == beyond, before, after)
    low, high = (values_RHD.gather(1, index.clamp(0, last)) for index in (before, after))
    share = (rows_H1 - before) / (after - before).clamp(min=1)
    return torch.where(known_RHD.any(1, keepdim=True), torch.lerp(low, high, share.to(low.dtype)), 0)


def _running_max(x_RHD: Tensor) -> Tensor:
    """The largest so far along the rows, each round over twice as many: ONNX has no cumulative maximum."""
    step = 1
    while step < x_RHD.shape[1]:
        x_RHD = torch.cat([x_RHD[:, :step], torch.maximum(x_RHD[:, step:], x_RHD[:, :-step])], 1)
        step *= 2
    return x_RHD
