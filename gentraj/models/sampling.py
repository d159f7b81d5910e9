"""What all models of trajectories share in sampling: guides, contexts, and rows that depend on their own seed only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..networks.rows import MAX_ROWS
from ..normalize import Normalizer
from ..randomness import fold, row_seeds
from ..trajectory import Condition, Guide, TrajectorySpec
from .plugin import Plugin

Guidance = Guide | Plugin | Sequence[Plugin] | None
SampleRows = Callable[[Condition, Sequence[int]], Tensor]  # conditions of R rows and their seeds -> x_RHD


def as_plugins(guide: Guidance, energy: Callable[[Guide], Plugin]) -> list[Plugin]:
    """The plug-ins of a guide, where `energy` makes a plug-in of a function of trajectories.

    Raises TypeError for a guide that is neither a function nor a plug-in.
    """
    if guide is None:
        return []
    guides = guide if isinstance(guide, Sequence) and not isinstance(guide, str) else [guide]
    return [_as_plugin(one, energy) for one in guides]


def _as_plugin(guide: object, energy: Callable[..., Plugin]) -> Plugin:
    if isinstance(guide, Plugin):
        return guide
    if not callable(guide):
        raise TypeError(f"a guide is {guide!r}; an energy (trajectories -> scores) or a plug-in is expected")
    return energy(guide)


def sample_batch(spec: TrajectorySpec, condition: Condition, num_samples: int, seed: int | Sequence[int],
                 plugins: Sequence[Plugin], sample_rows: SampleRows) -> Tensor:
    """Samples `num_samples` trajectories for each condition: (B, N, H, D), at most MAX_ROWS rows at a time.

    Those that a plug-in rejects are sampled again, with other seeds. `seed` is one seed for all rows or one for each of
    the B * N. Raises ValueError for a condition of another spec and for another number of seeds.
    """
    condition.check(spec)
    rows, blocks = condition.repeat(num_samples), []
    seeds = row_seeds(seed, rows.batch)
    for i in range(0, rows.batch, MAX_ROWS):
        block, own_seeds = rows[i : i + MAX_ROWS], seeds[i : i + MAX_ROWS]
        x_RHD = sample_rows(block, own_seeds)
        again, attempt = torch.arange(len(x_RHD), device=x_RHD.device), 1
        while plugins:
            again = again[torch.stack([plugin.rejects(x_RHD[again], attempt) for plugin in plugins]).any(0)]
            if not len(again):
                break
            x_RHD[again] = sample_rows(block[again], [fold(own_seeds[r], attempt) for r in again.tolist()])
            attempt += 1
        blocks.append(x_RHD)
    return torch.cat(blocks).unflatten(0, (condition.batch, num_samples))


def check_trajectories(spec: TrajectorySpec, x_RHD: Tensor, condition: Condition) -> None:
    """Raises ValueError unless x and the condition have one shape, fit `spec`, and the unknown entries are finite."""
    condition.check(spec)
    if x_RHD.shape != condition.values_BHD.shape:
        raise ValueError(f"the trajectories have shape {tuple(x_RHD.shape)}; this model and condition need "
                         f"{tuple(condition.values_BHD.shape)}")
    if not torch.isfinite(x_RHD[~condition.mask_BHD]).all():
        raise ValueError("an unknown entry of the trajectories is NaN or infinite; give finite numbers")


def encode_context(context_BC: Tensor | None, normalizer: Normalizer | None,
                   kept_B: Tensor | None = None) -> Tensor | None:
    """Encodes a context for a network: (B, C + 1), the normalised context and a 1, or zeros if there is no context.

    A context is also replaced by zeros where `kept_B` is false. Returns None for a model without contexts
    (`normalizer` is None). Raises ValueError for a context that the model cannot use.
    """
    if normalizer is None:
        if context_BC is not None:
            raise ValueError("a context was given to a model that was trained without one; train a model with "
                             "--context.kinds")
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
    """The width of an encoded context: C + 1, or 0 for a model without contexts."""
    return 0 if normalizer is None else len(normalizer.shift_D) + 1
