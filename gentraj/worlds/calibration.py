"""What a raw uncertainty is worth: the error that was found where it was as large."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BINS = 16


class Calibration(NamedTuple):
    """A monotone map from uncertainty to the root mean square error of held-out data with such uncertainty, linear
    between bins."""

    uncertainty_N: Tensor
    error_N: Tensor

    @classmethod
    def none(cls) -> Calibration:
        """The uncertainty as it is."""
        return cls(torch.zeros(0), torch.zeros(0))

    @classmethod
    def fit(cls, uncertainty_M: Tensor, error_M: Tensor) -> Calibration:
        """By bins of equally many, or more where uncertainties are equal; a smaller uncertainty never means a larger
        error."""
        edges_N = torch.unique(uncertainty_M.sort().values[:: -(-len(uncertainty_M) // BINS)])
        bin_M = torch.searchsorted(edges_N, uncertainty_M.contiguous(), right=True) - 1
        uncertainty_N = torch.stack([uncertainty_M[bin_M == n].mean() for n in range(len(edges_N))])
        error_N = torch.stack([(error_M[bin_M == n] ** 2).mean().sqrt() for n in range(len(edges_N))])
        return cls(uncertainty_N, torch.cummax(error_N, 0).values)

    @property
    def largest(self) -> float:
        """The largest error that it expects of data like the held-out ones; infinite where nothing is known."""
        return float(self.error_N[-1]) if len(self.error_N) else float("inf")

    def __call__(self, uncertainty: Tensor) -> Tensor:
        """Beyond the last bin it grows in proportion."""
        if not len(self.uncertainty_N):
            return uncertainty
        uncertainty_N, error_N = self.uncertainty_N.to(uncertainty), self.error_N.to(uncertainty)
        right = torch.searchsorted(uncertainty_N, uncertainty.contiguous()).clamp(1, max(len(uncertainty_N) - 1, 1))
        left = right - 1
        right = right.clamp(max=len(uncertainty_N) - 1)
        share = ((uncertainty - uncertainty_N[left])
                 / (uncertainty_N[right] - uncertainty_N[left]).clamp(min=1e-12)).clamp(0, 1)
        inside = torch.lerp(error_N[left], error_N[right], share)
        times = (uncertainty / uncertainty_N[-1].clamp(min=1e-12)).clamp(min=1)
        return torch.where(uncertainty > uncertainty_N[-1], error_N[-1] * times, inside)
