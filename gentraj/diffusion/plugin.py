"""Plug-ins: what takes part in sampling without the sampler's knowing. They wrap `denoise`, or finish its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..normalize import Normalizer
from ..trajectory import Condition
from .denoiser import Denoise
from .paths import Path


@dataclass(frozen=True)
class Sampling:
    """The sampling that a plug-in takes part in: R trajectories at once."""

    path: Path
    normalizer: Normalizer
    condition: Condition
    """What is known of each row, in environment units."""
    seeds: Sequence[int]
    denoiser: Callable[[Tensor | None], Denoise]
    """The model's own denoiser under another context, None for no context."""


class Plugin:
    """Changes neither the denoiser nor the result; a subclass changes one of them or both."""

    def wrap(self, denoise: Denoise, sampling: Sampling) -> Denoise:
        """A denoiser (normalised units) in place of that one."""
        return denoise

    def finish(self, x_RHD: Tensor, sampling: Sampling) -> Tensor:
        """The sampled trajectories in environment units; known entries are set after this."""
        return x_RHD

    def rejects(self, x_RHD: Tensor, attempt: int) -> Tensor:
        """(R,) which finished trajectories shall be drawn once more, after `attempt` times; or raises what is wrong."""
        return torch.zeros(len(x_RHD), dtype=torch.bool, device=x_RHD.device)
