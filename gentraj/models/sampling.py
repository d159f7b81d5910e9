"""What generators of trajectories do alike: guides, contexts, and rows that depend on their own seed only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..networks.rows import MAX_ROWS
from ..normalize import Normalizer
from ..randomness import fold, row_seeds
from ..trajectory import Condition, Guide, TrajectorySpec
from .plugin import Plugin

Guidance = Guide | Plugin | Sequence[Plugin] | None
SampleRows = Callable[[Condition, Sequence[int]], Tensor]  # R known rows and their seeds -> x_RHD


def as_plugins(guide: Guidance, energy: Callable[[Guide], Plugin]) -> list[Plugin]:
    """`energy` makes a plug-in of a function of trajectories; None is none. Raises TypeError for what is neither."""
    several = isinstance(guide, Sequence) and not isinstance(guide, str)
    guides = [] if guide is None else list(guide) if several else [guide]  # pyright: ignore[reportArgumentType]
    for g in guides:
        if not callable(g) and not isinstance(g, Plugin):
            raise TypeError(f"a guide is {g!r}; an energy (trajectories -> scores) or a plug-in is expected")
    return [g if isinstance(g, Plugin) else energy(cast(Guide, g)) for g in guides]


def sample_batch(spec: TrajectorySpec, condition: Condition, num_samples: int, seed: int | Sequence[int],
                 plugins: Sequence[Plugin], sample_rows: SampleRows) -> Tensor:
    """(B, N, H, D): `num_samples` of each condition, at most MAX_ROWS rows at a time; what is rejected is drawn again.

    `seed` is one for all, or one for each of the B * N rows. Raises ValueError for a condition on other trajectories
    and for another number of seeds.
    """
    condition.check(spec)
    rows = condition.repeat(num_samples)
    seeds = row_seeds(seed, rows.batch)
    parts = [_accepted(rows[i : i + MAX_ROWS], seeds[i : i + MAX_ROWS], plugins, sample_rows)
             for i in range(0, rows.batch, MAX_ROWS)]
    return torch.cat(parts).unflatten(0, (condition.batch, num_samples))


def _accepted(rows: Condition, seeds: Sequence[int], plugins: Sequence[Plugin], sample_rows: SampleRows) -> Tensor:
    """What is drawn, and drawn again with other seeds where a plug-in rejects it."""
    x = sample_rows(rows, seeds)
    which, attempt = torch.arange(len(x), device=x.device), 1
    while plugins:
        which = which[torch.stack([plugin.rejects(x[which], attempt) for plugin in plugins]).any(0)]
        if not len(which):
            break
        x[which] = sample_rows(rows[which], [fold(seeds[i], attempt) for i in which.tolist()])
        attempt += 1
    return x


def check_trajectories(spec: TrajectorySpec, x_RHD: Tensor, condition: Condition) -> None:
    """Raises ValueError unless x is of the condition's shape, and both of `spec`, and what is not known is finite."""
    condition.check(spec)
    if x_RHD.shape != condition.values_BHD.shape:
        raise ValueError(f"the trajectories have shape {tuple(x_RHD.shape)}; this condition and model need "
                         f"{tuple(condition.values_BHD.shape)}")
    if not torch.isfinite(x_RHD[~condition.mask_BHD]).all():
        raise ValueError("an unknown entry of the trajectories is NaN or infinite; give finite numbers")


def encode_context(context_BC: Tensor | None, normalizer: Normalizer | None,
                   kept_B: Tensor | None = None) -> Tensor | None:
    """What a network is given of a context: it, normalised, and 1; or zeros, where it is not there or not kept.

    None for a model without contexts. Raises ValueError for a context that it cannot take.
    """
    if normalizer is None:
        if context_BC is not None:
            raise ValueError("a context was given to a model that was trained without; train with --context.kinds")
        return None
    width = len(normalizer.shift_D)
    if context_BC is None:
        return normalizer.shift_D.new_zeros(1, width + 1)
    if context_BC.ndim != 2 or context_BC.shape[1] != width or not torch.isfinite(context_BC).all():
        raise ValueError(f"a context of width {tuple(context_BC.shape[1:])} was given; {width} finite numbers for "
                         "each trajectory are expected")
    encoded = F.pad(normalizer.normalize(context_BC), (0, 1), value=1.0)
    return encoded if kept_B is None else encoded * kept_B[:, None].to(encoded.device)


def encoded_width(normalizer: Normalizer | None) -> int:
    """Of `encode_context`: the context, and one number that says whether it is there; 0 for a model without."""
    return 0 if normalizer is None else len(normalizer.shift_D) + 1
