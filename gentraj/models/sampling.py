"""What all models of trajectories share in sampling: rows that depend on their own seed only, and plug-ins.

A plug-in takes part from outside of a model: it wraps `denoise`, and scores, finishes or rejects samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, runtime_checkable

import torch
from einops import rearrange
from torch import Tensor

from ..networks.embedding import MAX_ROWS, MIN_ROWS
from ..normalize import Normalizer
from ..randomness import Noise, Seeds, as_noise
from ..trajectory import DEFAULT_OPTIONS, Condition, Guide, Observer, SamplingOptions, TrajectorySpec

if TYPE_CHECKING:
    from ..diffusion.paths import NoisePath

# (x_RHD, t (R,), or (1,) on the CPU) -> x0_RHD, normalised units: the one primitive of sampling, which plug-ins wrap
Denoise = Callable[[Tensor, Tensor], Tensor]


class Checks:
    """Looks whether numbers are finite: at those on the CPU at once, and at those on an accelerator when all are read,
    as each reading waits for it."""

    def __init__(self) -> None:
        self.counts = list[tuple[Tensor, str, str]]()

    def finite(self, x: Tensor, what: str, remedy: str) -> Tensor:
        """Does what the function `finite` does, on an accelerator in `read`."""
        if x.is_cpu:
            return finite(x, what, remedy)
        self.counts.append(((~torch.isfinite(x)).sum(), what, f"of {x.numel()} entries{remedy}"))
        return x

    def scores(self, score_R: Tensor) -> Tensor:
        """Returns the scores of a guide. Raises ValueError, now or in `read`, if one is not finite."""
        return self.finite(score_R, "the guide's score is", "; finite scores are expected")

    def read(self) -> None:
        """Raises ValueError for the first numbers on an accelerator that are not finite."""
        if not self.counts:
            return
        numbers = torch.stack([number for number, *_ in self.counts]).tolist()
        for number, (_, what, remedy) in zip(numbers, self.counts, strict=True):
            if number:
                raise ValueError(f"{what} not finite in {number} {remedy}")


@dataclass(frozen=True)
class SampledRows:
    """The context in which a plug-in acts: the conditions of the R trajectories that are sampled at once."""

    normalizer: Normalizer
    """The model's normaliser."""
    condition: Condition
    """The condition of each trajectory, in environment units."""
    checks: Checks
    """What is told numbers that are to be finite; they are read when the rows are sampled."""


@dataclass(frozen=True)
class Denoising(SampledRows):
    """The context in which a plug-in acts in a model that denoises."""

    path: NoisePath
    """The noise path of the model."""
    unconditional: Callable[[], Denoise]
    """Returns the model's own denoiser without a context."""


class Plugin:
    """The base class of plug-ins, which changes nothing. A subclass overrides the steps that it takes part in."""

    def wrap(self, denoise: Denoise, sampling: Denoising) -> Denoise:
        """Returns a denoiser to be used in place of `denoise`; both work in normalised units.

        The input of a denoiser may have any number at the known entries (`sampling.condition`). The output of the
        model's denoiser has the known values there, and the returned denoiser should leave them as they are.
        """
        return denoise

    def prefer(self, x_RHD: Tensor) -> Tensor | None:
        """Scores (R,) of finished trajectories, higher is better, for models that choose among candidates. These raise
        ValueError for scores that are not finite."""
        return None

    def finish(self, x_RHD: Tensor, sampling: SampledRows) -> Tensor:
        """Changes the sampled trajectories (R, H, D), in environment units. Known entries are set after this."""
        return x_RHD

    def rejects(self, x_RHD: Tensor, attempt: int) -> Tensor:
        """Which finished trajectories are to be sampled again: bool (R,). They were sampled `attempt` times so far.

        A plug-in that will not wait for another attempt raises an error.
        """
        return torch.zeros(len(x_RHD), dtype=torch.bool, device=x_RHD.device)

    @property
    def needs_denoiser(self) -> bool:
        """Whether the plug-in is of no use to a model that does not denoise."""
        return type(self).wrap is not Plugin.wrap


@dataclass(frozen=True, eq=False)
class Preference(Plugin):
    """Prefers trajectories of high score: `guide` maps (R, H, D) in environment units to scores (R,)."""

    guide: Guide

    def prefer(self, x_RHD: Tensor) -> Tensor | None:
        return self.scores(x_RHD)

    def scores(self, x_RHD: Tensor) -> Tensor:
        """The guide's scores (R,).

        Raises ValueError if the guide raises, or if its scores have another shape.
        """
        try:
            scores = self.guide(x_RHD)
        except Exception as error:
            raise ValueError(f"the guide raised {type(error).__name__}: {error}; it was given trajectories of shape "
                             f"{tuple(x_RHD.shape)}") from error
        return one_each(scores, x_RHD)


def one_each(scores: object, x_R: Tensor) -> Tensor:
    """Returns the scores that a guide gives to x (R, ...). Raises ValueError unless they are one for each, a tensor
    (R,)."""
    if not isinstance(scores, Tensor) or scores.shape != x_R.shape[:1]:
        given = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else repr(scores)
        raise ValueError(f"the guide returned {given} for trajectories of shape {tuple(x_R.shape)}; one score for "
                         f"each, shape ({len(x_R)},), is expected")
    return scores


def mean_score(guide: Guide, x_BHD: Tensor, weight_B: Tensor) -> Tensor:
    """The weighted mean score of a model's own trajectories, a scalar that training raises.

    `weight_B` is (B,) or (1,). Raises ValueError for scores of another shape, and for scores without a gradient, from
    which nothing would be learnt.
    """
    scores_B = one_each(guide(x_BHD), x_BHD)
    if x_BHD.requires_grad and not scores_B.requires_grad:
        raise ValueError("the guide's score has no gradient to train by: it does not depend on the trajectories by "
                         "differentiable torch operations; write it in such operations")
    return (scores_B * weight_B).mean()


def finite(x: Tensor, what: str, remedy: str) -> Tensor:
    """Returns `x`. Raises ValueError if an entry is not finite; the message begins with `what`, ends with `remedy`."""
    if (x.detach() * 0).sum() != 0:  # NaN times 0 is NaN, and so is infinity times 0
        raise ValueError(f"{what} not finite in {int((~torch.isfinite(x)).sum())} of {x.numel()} entries{remedy}")
    return x


P = ParamSpec("P")
T = TypeVar("T")
Guidance = Guide | Plugin | Sequence[Plugin] | None
SampleRows = Callable[[Condition, Noise, Checks], Tensor]  # conditions of R rows, their noise -> x_RHD


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


def placed(condition: Condition, device: torch.device) -> Condition:
    """What a model samples for, on its device. Raises TypeError for anything but a condition."""
    if not isinstance(condition, Condition):
        raise TypeError(f"the condition is of type {type(condition).__name__}; a Condition is expected, such as "
                        "Condition.empty(model.spec).with_obs(0, obs)")
    return condition.to(device)


def sample_batch(spec: TrajectorySpec, condition: Condition, num_samples: int, seed: Seeds | None,
                 plugins: Sequence[Plugin], sample_rows: SampleRows, observe: Observer | None = None) -> Tensor:
    """Samples `num_samples` trajectories for each condition: (B, N, H, D), at most MAX_ROWS rows at a time.

    Those that a plug-in rejects are sampled again, with other noise. `seed` is one seed for all rows, one for each of
    the B * N, or their noise. `observe` sees the result. Raises ValueError for a condition of another spec, for another
    number of seeds, and for samples that are not finite, unless they are not `checked`.
    """
    condition.check(spec)
    rows, blocks = condition.repeat(num_samples), []
    rejecting = [plugin for plugin in plugins if type(plugin).rejects is not Plugin.rejects]
    noise = as_noise(seed, rows.batch)
    for i in range(0, rows.batch, MAX_ROWS):
        block, own = rows[i : i + MAX_ROWS], noise[i : i + MAX_ROWS]
        x_RHD = _checked(sample_rows, block, own)
        again, attempt = torch.arange(len(x_RHD), device=x_RHD.device), 1
        while rejecting:
            again = again[torch.stack([plugin.rejects(x_RHD[again], attempt) for plugin in rejecting]).any(0)]
            if not len(again):
                break
            missing = -len(again) % MIN_ROWS  # so that it does not matter which others are sampled again
            anew = own[again.tolist()].anew(attempt).padded(missing)
            x_RHD[again] = _checked(sample_rows, block[again].padded(missing), anew)[: len(again)]
            attempt += 1
        blocks.append(x_RHD)
    x_RHD = torch.cat(blocks)
    if observe is not None:
        observe(x_RHD.clone(), x_RHD.new_zeros(1))
    return rearrange(x_RHD, "(b n) h d -> b n h d", n=num_samples)


def _checked(sample_rows: SampleRows, rows: Condition, noise: Noise) -> Tensor:
    checks = Checks()
    x_RHD = sample_rows(rows, noise, checks)
    if rows.checked:
        checks.finite(x_RHD, "a sample is", "; its known entries or its context may be too far from the data, or the "
                      "model's weights are not finite")
    checks.read()
    return x_RHD


def by_blocks(function: Callable[..., Tensor], *rows: Condition | Tensor | Noise) -> Tensor:
    """Calls `function` on blocks of at most MAX_ROWS of R rows, and joins what it returns, (R, ...).

    Each of `rows` is a condition, a tensor (R, ...) or noise.
    """
    number = rows[0].batch if isinstance(rows[0], Condition) else len(rows[0])
    return torch.cat([function(*[each[i : i + MAX_ROWS] for each in rows]) for i in range(0, number, MAX_ROWS)])


def check_trajectories(spec: TrajectorySpec, x_RHD: Tensor, condition: Condition) -> Tensor:
    """Returns x with the condition's values at the known entries, where x may hold anything, such as NaN.

    Raises ValueError unless x and the condition have one shape, fit `spec`, and have at least one row, and the unknown
    entries are finite.
    """
    check_shapes(spec, x_RHD, condition)
    x_RHD = torch.where(condition.mask_BHD, condition.values_BHD, x_RHD)
    return finite(x_RHD, "the trajectories are", "; give finite numbers")


def check_shapes(spec: TrajectorySpec, x_RHD: Tensor, condition: Condition) -> None:
    """Raises ValueError unless x and the condition have one shape, fit `spec`, and have at least one row."""
    condition.check(spec)
    if x_RHD.shape != condition.values_BHD.shape or not len(x_RHD):
        raise ValueError(f"the trajectories have shape {tuple(x_RHD.shape)}; this model and condition need "
                         f"{tuple(condition.values_BHD.shape)}, and at least one row")
