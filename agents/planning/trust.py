"""Is a plan possible? Its model's out-of-distribution score, judged against the scores of data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gentraj.data.windows import repeat_last
from gentraj.trajectory import Batch, Condition, SupportsImplausibility

from .execution import shift_time


class Trust:
    """The error of a plan up to its arrival row over the `quantile` of data windows' error up to the same row.

    One threshold per row: a short prefix has a smaller error than a whole window, and a common threshold would let
    impossible early arrivals through. With a history one for each row that the present may be, and errors count from
    there: what has happened speaks for no plan.
    """

    def __init__(self, model: SupportsImplausibility, reference: Batch, quantile: float, history: int = 0):
        """Raises ValueError for a model that cannot say how unlike data a trajectory is."""
        if not isinstance(model, SupportsImplausibility):
            raise ValueError(f"{type(model).__name__} has no ood_score, which trust asks of a model; plan with a "
                             "fixed arrival (arrival 'fixed'), or give it that method")
        self.model = model
        # the network mixes rows: no jump to 0
        total_WH = self._total(repeat_last(reference), range(len(reference.x_BHD)))
        total_WH[~reference.mask_BHD[..., 0]] = torch.nan
        since = [_since(total_WH, torch.full((len(total_WH),), k, device=total_WH.device)) for k in range(history + 1)]
        self.threshold_KH = torch.stack([torch.nanquantile(error_WH, quantile, dim=0) for error_WH in since])

    def ratio(self, x_RHD: Tensor, row_R: Tensor, seeds: Sequence[int], now_R: Tensor) -> Tensor:
        """(R,) error over threshold from the present, row `now_R`, up to the row `row_R` rows later.

        At most 1 is trusted. Past all data it is infinite.
        """
        error_R = _since(self._total(x_RHD, seeds), now_R).gather(1, row_R[:, None])[:, 0]
        ratio_R = error_R / self.threshold_KH[now_R, row_R]
        return torch.where(ratio_R.isnan(), torch.inf, ratio_R)

    def _total(self, x_RHD: Tensor, seeds: Sequence[int]) -> Tensor:
        """(R, H) sum of the errors up to row h, knowing the first observation only."""
        spec = self.model.spec
        start = Condition.unknown(spec, len(x_RHD), device=x_RHD.device).with_obs(0, spec.split(x_RHD)[0][:, 0])
        return self.model.ood_score(x_RHD, start, seeds).cumsum(1)


def _since(total_RH: Tensor, now_R: Tensor) -> Tensor:
    """(R, H) mean error from the present, row `now_R`, up to h rows later, in rows after it."""
    before_R1 = F.pad(total_RH, (1, 0)).gather(1, now_R[:, None])
    rows_H = torch.arange(total_RH.shape[1], device=total_RH.device)
    return (shift_time(total_RH, now_R) - before_R1) / rows_H.clamp(min=1)
