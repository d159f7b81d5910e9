"""What all models of trajectories share in sampling: guides, and rows that depend on their own seed only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..networks.rows import MAX_ROWS
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

    Rejected trajectories are sampled again. `seed` is one seed for all rows or one for each of the B * N. Raises
    ValueError for a condition of another spec and for another number of seeds.
    """
    condition.check(spec)
    rows = condition.repeat(num_samples)
    seeds = row_seeds(seed, rows.batch)
    blocks = [_accepted(rows[i : i + MAX_ROWS], seeds[i : i + MAX_ROWS], plugins, sample_rows)
              for i in range(0, rows.batch, MAX_ROWS)]
    return torch.cat(blocks).unflatten(0, (condition.batch, num_samples))


def _accepted(rows: Condition, seeds: Sequence[int], plugins: Sequence[Plugin], sample_rows: SampleRows) -> Tensor:
    """Samples the rows, and those that a plug-in rejects again, with other seeds."""
    x = sample_rows(rows, seeds)
    rejected, attempt = torch.arange(len(x), device=x.device), 1
    while plugins:
        rejected = rejected[torch.stack([plugin.rejects(x[rejected], attempt) for plugin in plugins]).any(0)]
        if not len(rejected):
            break
        x[rejected] = sample_rows(rows[rejected], [fold(seeds[i], attempt) for i in rejected.tolist()])
        attempt += 1
    return x


def check_trajectories(spec: TrajectorySpec, x_RHD: Tensor, condition: Condition) -> None:
    """Raises ValueError unless x and the condition have one shape, fit `spec`, and the unknown entries are finite."""
    condition.check(spec)
    if x_RHD.shape != condition.values_BHD.shape:
        raise ValueError(f"the trajectories have shape {tuple(x_RHD.shape)}; this model and condition need "
                         f"{tuple(condition.values_BHD.shape)}")
    if not torch.isfinite(x_RHD[~condition.mask_BHD]).all():
        raise ValueError("an unknown entry of the trajectories is NaN or infinite; give finite numbers")
