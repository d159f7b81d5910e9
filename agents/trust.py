"""Is a plan possible? How implausible its model finds it, judged against what the model finds of data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from gentraj.data.windows import held
from gentraj.trajectory import Batch, Condition, TrajectorySpec


class Scorable(Protocol):
    spec: TrajectorySpec

    def implausibility(self, x_RHD: Tensor, condition: Condition, seeds: Sequence[int]) -> Tensor: ...


class Trust:
    """The error of a plan up to its arrival row over the `quantile` of data windows' error up to the same row.

    One threshold per row: a short prefix has a smaller error than a whole window, and a common threshold would let
    impossible early arrivals through.
    """

    def __init__(self, model: Scorable, reference: Batch, quantile: float):
        self.model = model
        error_WH = self._error(held(reference), range(len(reference.x_BHD)))  # the network mixes rows: no jump to 0
        error_WH[~reference.mask_BHD[..., 0]] = torch.nan
        self.threshold_H = torch.nanquantile(error_WH, quantile, dim=0)

    def ratio(self, x_RHD: Tensor, row_R: Tensor, seeds: Sequence[int]) -> Tensor:
        """(R,) error over threshold up to `row_R`; at most 1 is trusted. Past all data it is infinite."""
        error_R = self._error(x_RHD, seeds).gather(1, row_R[:, None])[:, 0]
        ratio_R = error_R / self.threshold_H[row_R]
        return torch.where(ratio_R.isnan(), torch.inf, ratio_R)

    def _error(self, x_RHD: Tensor, seeds: Sequence[int]) -> Tensor:
        """(R, H) error up to row h, in rows after the first, knowing the first observation only."""
        spec = self.model.spec
        start = Condition.unknown(spec, len(x_RHD), device=x_RHD.device).with_obs(0, spec.split(x_RHD)[0][:, 0])
        rows_H = torch.arange(spec.horizon, device=x_RHD.device)
        return self.model.implausibility(x_RHD, start, seeds).cumsum(1) / rows_H.clamp(min=1)
