"""The windows of one optimiser step, as generative models learn from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Microbatch:
    """The windows of one optimiser step, in normalised units."""

    x0: Tensor
    """Data (R, H, D), 0 where padded."""
    real: Tensor
    """True (R, H, D) where an entry is no padding."""
    known: Tensor
    """True (R, H, D) where the condition knows an entry."""
    context: Tensor | None
    """Encoded contexts, (R, C) or (1, C)."""
    weight: Tensor
    """Weights in the loss: (R,), or (1,) if all are equal."""
    generator: torch.Generator

    @cached_property
    def free(self) -> Tensor:
        """True (R, H, D) where an entry is real and unknown."""
        return self.real & ~self.known

    def held(self, x: Tensor) -> Tensor:
        """x (R, H, D) with clean known entries, and 0 as padding."""
        return torch.where(self.known, self.x0, x) * self.real

    def take(self, index_R: Tensor) -> Microbatch:
        """The windows with these indices."""
        context, weight = self.context, self.weight
        if context is not None and len(context) > 1:
            context = context[index_R]
        if len(weight) > 1:
            weight = weight[index_R]
        return replace(self, x0=self.x0[index_R], real=self.real[index_R], known=self.known[index_R], context=context,
                       weight=weight)

    def twins(self) -> Microbatch:
        """The first half of the windows, twice: two samples of each condition can then be compared."""
        return self.take(torch.arange((len(self.x0) + 1) // 2, device=self.x0.device).repeat(2))

    def normal(self) -> Tensor:
        return torch.randn(self.x0.shape, generator=self.generator).to(self.x0.device)
