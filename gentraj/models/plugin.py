"""Plug-ins: what takes part in sampling without the model's knowing. They wrap `denoise`, prefer, finish or reject."""

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

Denoise = Callable[[Tensor, Tensor], Tensor]  # (x_RHD, t of shape (R,) or (1,)) -> x0_RHD, normalised units


@dataclass(frozen=True)
class SampledRows:
    """The sampling that a plug-in takes part in: R trajectories at once."""

    normalizer: Normalizer
    condition: Condition
    """What is known of each row, in environment units."""
    seeds: Sequence[int]


@dataclass(frozen=True)
class Denoising(SampledRows):
    """The sampling of a model that denoises."""

    path: NoisePath
    denoiser: Callable[[Tensor | None], Denoise]
    """The model's own denoiser under another context, None for no context."""


class Plugin:
    """Changes nothing; a subclass overrides what it takes part in."""

    works_finished = False
    """Whether `prefer`, `finish` and `rejects` do without `wrap` what it is for, in a model that denoises nothing."""

    def wrap(self, denoise: Denoise, sampling: Denoising) -> Denoise:
        """A denoiser (normalised units) in place of that one.

        What it is asked about may have any number at known entries (`sampling.condition`), and what the model denoises
        has the known ones there; leave these as they are.
        """
        return denoise

    def prefer(self, x_RHD: Tensor) -> Tensor | None:
        """(R,) scores of finished trajectories, higher is better, for a model that chooses among some."""
        return None

    def finish(self, x_RHD: Tensor, sampling: SampledRows) -> Tensor:
        """The sampled trajectories in environment units; known entries are set after this."""
        return x_RHD

    def rejects(self, x_RHD: Tensor, attempt: int) -> Tensor:
        """(R,) which finished trajectories shall be drawn once more, after `attempt` times; or raises what is wrong."""
        return torch.zeros(len(x_RHD), dtype=torch.bool, device=x_RHD.device)

    @property
    def needs_denoiser(self) -> bool:
        return type(self).wrap is not Plugin.wrap and not self.works_finished


@dataclass(frozen=True, eq=False)
class Preference(Plugin):
    """An energy: trajectories (R, H, D) in environment units -> scores (R,), higher is better."""

    energy: Guide

    def prefer(self, x_RHD: Tensor) -> Tensor | None:
        return self.scores(x_RHD)

    def scores(self, x_RHD: Tensor) -> Tensor:
        """(R,). Raises ValueError for an energy of another shape, one that is not finite, and one that raises."""
        try:
            scores = self.energy(x_RHD)
        except Exception as error:
            raise ValueError(f"the guide raised {type(error).__name__}: {error}; it was given trajectories of shape "
                             f"{tuple(x_RHD.shape)}") from error
        if not isinstance(scores, Tensor) or scores.shape != x_RHD.shape[:1]:
            given = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else repr(scores)
            raise ValueError(f"the guide returned {given} for trajectories of shape {tuple(x_RHD.shape)}; one score "
                             f"each, shape ({len(x_RHD)},), is expected")
        return finite(scores, "the guide's score is", "; a finite one is expected")


def finite(x: Tensor, what: str, remedy: str) -> Tensor:
    """x itself. Raises ValueError where it is not finite."""
    if not torch.isfinite(x).all():
        raise ValueError(f"{what} not finite in {int((~torch.isfinite(x)).sum())} of {x.numel()} entries{remedy}")
    return x
