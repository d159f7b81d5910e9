"""Trust in a plan: its out-of-distribution score under the model, compared with the scores of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gentraj.data.windows import repeat_last
from gentraj.trajectory import Batch, Condition, SupportsOODScore

from .memory import shift_time


class Trust:
    """Judges plans by their mean out-of-distribution score up to the arrival, in units of a threshold.

    The threshold is the given quantile of the same mean over windows of data. Each arrival timestep has its own one: a
    short prefix has a lower score than a whole window, so a common threshold would let impossible early arrivals
    through. With a history, the scores count from the present on, as the past is the same for all plans, and
    each timestep at which the present may lie has thresholds of its own.
    """

    def __init__(self, model: SupportsOODScore, reference: Batch, quantile: float, history: int = 0):
        """Computes the thresholds from the windows of data in `reference`, given their contexts if they have any.

        `quantile`, in [0, 1], is the fraction of windows that are below the threshold, and `history` the largest number
        of timesteps before the present. Raises ValueError for a model without `ood_score`.
        """
        if not isinstance(model, SupportsOODScore):
            raise ValueError(f"{type(model).__name__} has no ood_score, which trust needs from a model; plan with "
                             "arrival='fixed', or give the model that method")
        self.model = model
        # The network mixes timesteps, so padding repeats the last one instead of a jump to 0.
        total_WH = self._total(repeat_last(reference), range(len(reference.x_BHD)), reference.context_BC)
        total_WH[~reference.mask_BHD[..., 0]] = torch.nan
        since = [_since(total_WH, torch.full((len(total_WH),), k, device=total_WH.device)) for k in range(history + 1)]
        self.threshold_KH = torch.stack([torch.nanquantile(error_WH, quantile, dim=0) for error_WH in since])

    def ratio(self, x_RHD: Tensor, arrival_step_R: Tensor, seeds: Sequence[int], present_R: Tensor,
              context_RC: Tensor | None = None) -> Tensor:
        """(R,) mean score over threshold, from the present, timestep `present_R`, up to the arrival,
        `arrival_step_R` timesteps later, of plans that were sampled with these contexts.

        A plan with a ratio of at most 1 is trusted. The ratio is infinite where no window of data is as long.
        """
        error_R = _since(self._total(x_RHD, seeds, context_RC), present_R).gather(1, arrival_step_R[:, None])[:, 0]
        ratio_R = error_R / self.threshold_KH[present_R, arrival_step_R]
        return torch.where(ratio_R.isnan(), torch.inf, ratio_R)

    def _total(self, x_RHD: Tensor, seeds: Sequence[int], context_RC: Tensor | None) -> Tensor:
        """(R, H) sums of the scores up to timestep h, conditioned on the first observation and the context only."""
        spec = self.model.spec
        start = Condition.empty(spec, len(x_RHD), device=x_RHD.device).with_obs(0, spec.split(x_RHD)[0][:, 0])
        start = replace(start, context_BC=context_RC)
        return self.model.ood_score(x_RHD, start, seeds).cumsum(1)


def _since(total_RH: Tensor, present_R: Tensor) -> Tensor:
    """(R, H) means over the timesteps from the present, `present_R`, up to h timesteps later."""
    before_R1 = F.pad(total_RH, (1, 0)).gather(1, present_R[:, None])
    h_H = torch.arange(total_RH.shape[1], device=total_RH.device)
    return (shift_time(total_RH, present_R) - before_R1) / h_H.clamp(min=1)
