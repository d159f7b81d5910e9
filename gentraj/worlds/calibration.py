"""What a raw number of doubt is worth: the error that was found where it was as large."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BINS = 16


class Calibration(NamedTuple):
    """A monotone map from doubt to the root mean square error of held-out data with such doubt, linear between bins."""

    doubt_N: Tensor
    error_N: Tensor

    @classmethod
    def none(cls) -> Calibration:
        """Doubt as it is."""
        return cls(torch.zeros(0), torch.zeros(0))

    @classmethod
    def fit(cls, doubt_M: Tensor, error_M: Tensor) -> Calibration:
        """By bins of equally many, or more where doubts are equal; a smaller doubt never means a larger error."""
        edges_N = torch.unique(doubt_M.sort().values[:: -(-len(doubt_M) // BINS)])
        bin_M = torch.searchsorted(edges_N, doubt_M.contiguous(), right=True) - 1
        doubt_N = torch.stack([doubt_M[bin_M == n].mean() for n in range(len(edges_N))])
        error_N = torch.stack([(error_M[bin_M == n] ** 2).mean().sqrt() for n in range(len(edges_N))])
        return cls(doubt_N, torch.cummax(error_N, 0).values)

    @property
    def largest(self) -> float:
        """The largest error that it expects of data like the held-out ones; infinite where nothing is known."""
        return float(self.error_N[-1]) if len(self.error_N) else float("inf")

    def __call__(self, doubt: Tensor) -> Tensor:
        """Beyond the last bin it grows in proportion."""
        if not len(self.doubt_N):
            return doubt
        doubt_N, error_N = self.doubt_N.to(doubt), self.error_N.to(doubt)
        right = torch.searchsorted(doubt_N, doubt.contiguous()).clamp(1, max(len(doubt_N) - 1, 1))
        left = right - 1
        right = right.clamp(max=len(doubt_N) - 1)
        share = ((doubt - doubt_N[left]) / (doubt_N[right] - doubt_N[left]).clamp(min=1e-12)).clamp(0, 1)
        inside = torch.lerp(error_N[left], error_N[right], share)
        times = (doubt / doubt_N[-1].clamp(min=1e-12)).clamp(min=1)
        return torch.where(doubt > doubt_N[-1], error_N[-1] * times, inside)
