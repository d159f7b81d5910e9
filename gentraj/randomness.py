"""Randomness as a pure function of integers: the same key gives the same numbers, whatever was drawn before.

Noise is drawn on the CPU and moved, so a seed means the same noise on every device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def fold(*keys: int) -> int:
    """Integers -> one 63-bit seed; any change of any key gives an unrelated seed."""
    halves = [half for k in keys for half in (k & 0xFFFFFFFF, k >> 32 & 0xFFFFFFFF)]
    words = np.random.SeedSequence([len(keys), *halves]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def generator(*keys: int) -> torch.Generator:
    """A CPU generator seeded by the keys, for example (seed, step)."""
    return torch.Generator().manual_seed(fold(*keys))


class RowNoise:
    """One stream of normal noise per row, so that row i does not depend on how many rows are drawn beside it."""

    def __init__(self, seeds: Sequence[int], device: torch.device | None = None):
        self.generators = [torch.Generator().manual_seed(int(s)) for s in seeds]
        self.device = device

    def normal(self, *shape: int) -> Tensor:
        """The next (R, *shape) standard normal numbers."""
        out = torch.empty(len(self.generators), *shape)
        for row, g in zip(out, self.generators, strict=True):
            row.normal_(generator=g)
        return out.to(self.device) if self.device is not None else out
