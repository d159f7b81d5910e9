"""Plug-ins take part in sampling from outside of a model: they wrap `denoise`, and score, finish or reject samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..normalize import Normalizer
from ..trajectory import Condition, Guide

if TYPE_CHECKING:
    from ..diffusion.paths import NoisePath

# (x_RHD, t of shape (R,) or (1,)) -> x0_RHD, normalised units: the one primitive of sampling, which plug-ins wrap
Denoise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class SampledRows:
    """The context in which a plug-in acts: the conditions and seeds of the R trajectories that are sampled at once."""

    normalizer: Normalizer
    """The model's normaliser."""
    condition: Condition
    """The condition of each trajectory, in environment units."""
    seeds: Sequence[int]
    """One seed for each trajectory."""


@dataclass(frozen=True)
class Denoising(SampledRows):
    """The context in which a plug-in acts in a model that denoises."""

    path: NoisePath
    """The noise path of the model."""
    denoiser: Callable[[Tensor | None], Denoise]
    """Returns the model's own denoiser for a context (R, C), or for none."""


class Plugin:
    """The base class of plug-ins, which changes nothing. A subclass overrides the steps that it takes part in."""

    def wrap(self, denoise: Denoise, sampling: Denoising) -> Denoise:
        """Returns a denoiser to be used in place of `denoise`; both work in normalised units.

        The input of a denoiser may have any number at the known entries (`sampling.condition`). The output of the
        model's denoiser has the known values there, and the returned denoiser should leave them as they are.
        """
        return denoise

    def prefer(self, x_RHD: Tensor) -> Tensor | None:
        """Scores (R,) of finished trajectories, higher is better, for models that choose among candidates."""
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

        Raises ValueError if the guide raises, or if its scores have another shape or are not finite.
        """
        try:
            scores = self.guide(x_RHD)
        except Exception as error:
            raise ValueError(f"the guide raised {type(error).__name__}: {error}; it was given trajectories of shape "
                             f"{tuple(x_RHD.shape)}") from error
        return finite(one_each(scores, x_RHD), "the guide's score is", "; finite scores are expected")


def one_each(scores: object, x_RHD: Tensor) -> Tensor:
    """Returns a guide's scores of trajectories. Raises ValueError unless they are one for each, a tensor (R,)."""
    if not isinstance(scores, Tensor) or scores.shape != x_RHD.shape[:1]:
        given = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else repr(scores)
        raise ValueError(f"the guide returned {given} for trajectories of shape {tuple(x_RHD.shape)}; one score for "
                         f"each, shape ({len(x_RHD)},), is expected")
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
