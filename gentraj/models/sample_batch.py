"""What all models of trajectories share in sampling: guides, and rows that depend on their own seed only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from ..networks.embedding import MAX_ROWS, padded, padding
from ..randomness import fold, row_seeds
from ..training.optimization import in_training_step
from ..trajectory import DEFAULT_OPTIONS, Condition, Guide, Observer, SamplingOptions, TrajectorySpec
from .plugin import Plugin, finite

P = ParamSpec("P")
T = TypeVar("T")
Guidance = Guide | Plugin | Sequence[Plugin] | None
SampleRows = Callable[[Condition, Sequence[int]], Tensor]  # conditions of R rows and their seeds -> x_RHD


def without_gradient(function: Callable[P, T]) -> Callable[P, T]:
    """Decorates a function as `torch.no_grad` does, so that it also works in `torch.inference_mode`, which it leaves:
    within that mode, neither a guide nor a density could have the gradient that it needs."""
    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        leave = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
        with leave, torch.no_grad():
            return function(*args, **kwargs)

    return called


@runtime_checkable
class DescribesSampling(Protocol):
    """A model that says how it samples, for messages and reports."""

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str: ...


def sampling_of(model: object, options: SamplingOptions) -> str:
    """How a model samples, in words: as it describes it, or else the name of its class."""
    if isinstance(model, DescribesSampling):
        return model.sampling(options)
    return type(model).__name__


def as_plugins(guide: Guidance, plugin_of: Callable[[Guide], Plugin]) -> list[Plugin]:
    """The plug-ins of a guide, where `plugin_of` makes a plug-in of a function of trajectories.

    Raises TypeError for a guide that is neither a function nor a plug-in.
    """
    if guide is None:
        return []
    guides: Sequence[Any] = [guide]
    if isinstance(guide, Sequence) and not isinstance(guide, str):
        guides = guide
    for one in guides:
        if not isinstance(one, Plugin) and not callable(one):
            raise TypeError(f"a guide is {one!r}; a function (trajectories -> scores) or a plug-in is expected")
    return [one if isinstance(one, Plugin) else plugin_of(one) for one in guides]


def sample_batch(spec: TrajectorySpec, condition: Condition, num_samples: int, seed: int | Sequence[int],
                 plugins: Sequence[Plugin], sample_rows: SampleRows, observe: Observer | None = None) -> Tensor:
    """Samples `num_samples` trajectories for each condition: (B, N, H, D), at most MAX_ROWS rows at a time.

    Those that a plug-in rejects are sampled again, with other seeds. `seed` is one seed for all rows or one for each of
    the B * N. `observe` sees the result. Raises ValueError for a condition of another spec, for another number of
    seeds, and for samples that are not finite, except in a training step, whose losses are checked.
    """
    condition.check(spec)
    rows, blocks = condition.repeat(num_samples), []
    seeds = row_seeds(seed, rows.batch)
    for i in range(0, rows.batch, MAX_ROWS):
        block, own_seeds = rows[i : i + MAX_ROWS], seeds[i : i + MAX_ROWS]
        x_RHD = _checked(sample_rows(block, own_seeds))
        again, attempt = torch.arange(len(x_RHD), device=x_RHD.device), 1
        while plugins:
            again = again[torch.stack([plugin.rejects(x_RHD[again], attempt) for plugin in plugins]).any(0)]
            if not len(again):
                break
            more_seeds = [fold(own_seeds[r], attempt) for r in again.tolist()]
            x_RHD[again] = _checked(sample_rows(block[again], more_seeds))
            attempt += 1
        blocks.append(x_RHD)
    x_RHD = torch.cat(blocks)
    if observe is not None:
        observe(x_RHD.clone(), x_RHD.new_zeros(1))
    return x_RHD.unflatten(0, (condition.batch, num_samples))


def _checked(x_RHD: Tensor) -> Tensor:
    if in_training_step():
        return x_RHD
    return finite(x_RHD, "a sample is", "; its known entries or its context may be too far from the data, or the "
                  "model's weights are not finite")


def by_blocks(function: Callable[..., Tensor], *rows: Condition | Tensor | Sequence[int]) -> Tensor:
    """Calls `function` on blocks of at most MAX_ROWS of R rows, and joins what it returns, (R, ...).

    Each of `rows` is a condition, a tensor (R, ...) or R seeds. Within `batch_invariant` a block is padded, with copies
    of its first row and seeds of 0, so that no row depends on those beside it.
    """
    number, results = rows[0].batch if isinstance(rows[0], Condition) else len(rows[0]), []
    for i in range(0, number, MAX_ROWS):
        block = [_padded(each[i : i + MAX_ROWS]) for each in rows]
        results.append(function(*block)[: number - i])
    return torch.cat(results)


def _padded(rows: Any) -> Any:
    if isinstance(rows, Condition):
        return rows.padded(padding(rows.batch))
    if isinstance(rows, Tensor):
        return padded(rows)
    return [*rows, *[0] * padding(len(rows))]


def check_trajectories(spec: TrajectorySpec, x_RHD: Tensor, condition: Condition) -> Tensor:
    """Returns x with the condition's values at the known entries, where x may hold anything, such as NaN.

    Raises ValueError unless x and the condition have one shape, fit `spec`, and have at least one row, and the unknown
    entries are finite.
    """
    check_shapes(spec, x_RHD, condition)
    if not torch.isfinite(x_RHD[~condition.mask_BHD]).all():
        raise ValueError("an unknown entry of the trajectories is NaN or infinite; give finite numbers")
    return torch.where(condition.mask_BHD, condition.values_BHD, x_RHD)


def check_shapes(spec: TrajectorySpec, x_RHD: Tensor, condition: Condition) -> None:
    """Raises ValueError unless x and the condition have one shape, fit `spec`, and have at least one row."""
    condition.check(spec)
    if x_RHD.shape != condition.values_BHD.shape or not len(x_RHD):
        raise ValueError(f"the trajectories have shape {tuple(x_RHD.shape)}; this model and condition need "
                         f"{tuple(condition.values_BHD.shape)}, and at least one row")
