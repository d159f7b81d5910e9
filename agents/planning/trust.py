"""Trust: a plan is trusted if neither the model nor the recorded positions speak against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from gentraj.data.windows import repeat_last
from gentraj.device import constant, running_sum
from gentraj.randomness import Seeds
from gentraj.trajectory import Batch, Condition, SupportsOODScore

from ..memory import between
from ..roadmap.graph import spread

PLACES = 1000  # at most, among which the nearest one to each position of a plan is searched
FINEST = 1e-3  # distance that is told from 0, in units of the farthest place, as squares in float32 are subtracted
FARTHEST = 1e30  # square of the distance from a place that is left out
PARTS = 3  # of the straight line between two timesteps, at whose ends distances are measured
ROWS = 512  # positions whose distances to all places are computed at once, so that they fit in the cache


class Trust:
    """Judges plans up to their arrival by two numbers, each in units of its threshold; the larger one counts.

    The first is the mean out-of-distribution score under the model. Its threshold is the given quantile of the same
    mean over windows of data. Each arrival timestep has its own one: a short prefix has a lower score than a whole
    window, so a common threshold would let impossible early arrivals through. This score hardly
    sees walls, as the noise that it is made of is wider than most of them. So the second number is the largest distance
    of the plan from recorded positions, where there are goals; see `Recorded`.
    """

    def __init__(self, model: SupportsOODScore, reference: Batch, quantile: float,
                 goal_dims: Sequence[int] = (), more_MG: Tensor | None = None):
        """Computes the thresholds from the windows of data in `reference`, given their contexts if they have any.

        `quantile`, in [0, 1], is the fraction of windows that are below a threshold. `goal_dims` are the entries of a
        goal; without any, no distance is judged. `more_MG` are recorded positions beside those of the windows. Raises
        ValueError for a model without `ood_score`.
        """
        if not isinstance(model, SupportsOODScore):
            raise ValueError(f"{type(model).__name__} has no ood_score, which trust needs from a model; plan with "
                             "arrival='fixed', or give the model that method")
        self.model = model
        # The network mixes timesteps, so padding repeats the last one instead of a jump to 0.
        error_WH = self._error(repeat_last(reference), range(len(reference.x_BHD)), reference.context_BC)
        error_WH[~reference.mask_BHD[..., 0]] = torch.nan
        self.threshold_H = torch.nanquantile(error_WH, quantile, dim=0)
        self.recorded = None
        if goal_dims:
            self.recorded = Recorded(goal_dims, reference, quantile, more_MG)

    def ratio(self, x_RHD: Tensor, arrival_step_R: Tensor, seeds: Seeds, context_RC: Tensor | None = None) -> Tensor:
        """(R,) the larger number over its threshold, up to the arrival at timestep `arrival_step_R`, of plans that were
        sampled with these contexts.

        A plan with a ratio of at most 1 is trusted. The ratio is infinite where no window of data is as long.
        """
        error_R = self._error(x_RHD, seeds, context_RC).gather(1, arrival_step_R[:, None])[:, 0]
        ratio_R = error_R / self.threshold_H[arrival_step_R]
        if self.recorded is not None:
            ratio_R = ratio_R.maximum(self.recorded.ratio(x_RHD, arrival_step_R))
        return torch.where(ratio_R.isnan(), torch.inf, ratio_R)

    def _error(self, x_RHD: Tensor, seeds: Seeds, context_RC: Tensor | None) -> Tensor:
        """(R, H) means of the scores up to timestep h, conditioned on the first observation and the context only."""
        spec = self.model.spec
        start = Condition.empty(spec, len(x_RHD), device=x_RHD.device).with_obs(0, spec.split(x_RHD)[0][:, 0])
        start = replace(start, context_BC=context_RC)
        h_H = torch.arange(spec.horizon, device=x_RHD.device)
        return running_sum(self.model.ood_score(x_RHD, start, seeds)) / h_H.clamp(min=1)


class Recorded:
    """The recorded positions, in the entries of a goal, by P places that are spread over them.

    A plan through a wall, or over it in a leap, crosses a hole in the data: there it is farther from all places than
    `tolerance`.
    """

    tolerance: float
    """The larger one of two distances that a quantile of the data stay below: from a window to the places of all
    others, at its farthest, and from one timestep to the next, as a plan is no more exact."""

    def __init__(self, goal_dims: Sequence[int], reference: Batch, quantile: float, more_MG: Tensor | None = None):
        """The recorded positions are those of the windows in `reference`, and `more_MG`."""
        self.dims, real_WH = tuple(goal_dims), reference.mask_BHD[..., 0]
        x_WHD = repeat_last(reference)
        position_WHG = self._position(x_WHD)
        position_NG, window_N = position_WHG[real_WH], real_WH.nonzero()[:, 0]
        if more_MG is not None:
            position_NG = torch.cat([position_NG, more_MG.to(position_NG)])
            window_N = F.pad(window_N, (0, len(more_MG)), value=-1)
        chosen, _ = spread(position_NG.cpu().numpy(), 0.0, PLACES)
        self.middle_G = position_NG[chosen].mean(0)
        self.place_PG = position_NG[chosen] - self.middle_G
        """The places, relative to their middle."""
        apart_W = torch.stack([self._distance(position_TG, window_N[chosen] == window).max()
                               for window, position_TG in enumerate(self._line(x_WHD))])
        move_M = position_WHG.diff(dim=1).norm(dim=-1)[real_WH[:, 1:]]
        finest = FINEST * self.place_PG.norm(dim=1).max().clamp(min=1e-6)
        self.tolerance = max(float(one.quantile(quantile)) for one in (finest, apart_W, move_M) if one.numel())

    def ratio(self, x_RHD: Tensor, arrival_step_R: Tensor) -> Tensor:
        """(R,) the largest distance of plans from the places up to their arrival, in units of the tolerance, or of the
        distance of their start or arrival where that is larger, as both are given."""
        position_RTG = self._line(x_RHD)
        parts = [self._distance(part_MG) for part_MG in rearrange(position_RTG, "r t g -> (r t) g").split(ROWS)]
        distance_RT = rearrange(torch.cat(parts), "(r t) -> r t", t=position_RTG.shape[1])
        arrival_R1 = PARTS * arrival_step_R[:, None]
        ends_R = distance_RT[:, 0].maximum(distance_RT.gather(1, arrival_R1)[:, 0])
        later_RT = torch.arange(distance_RT.shape[1], device=x_RHD.device) > arrival_R1
        return distance_RT.masked_fill(later_RT, 0).amax(1) / ends_R.clamp(min=self.tolerance)

    def _line(self, x_RHD: Tensor) -> Tensor:
        """(R, T, G) positions along the straight lines between the timesteps, as a plan may leap across a hole."""
        last = PARTS * (x_RHD.shape[1] - 1)
        return between(self._position(x_RHD), torch.arange(last + 1, device=x_RHD.device) / PARTS)

    def _position(self, x_RHD: Tensor) -> Tensor:
        return x_RHD[..., constant(self.dims, x_RHD.device, torch.long)]

    def _distance(self, position_MG: Tensor, left_out_P: Tensor | None = None) -> Tensor:
        """(M,) distances from positions to the nearest place, or the nearest of those that are not left out."""
        x_MG = position_MG - self.middle_G
        square_MP = torch.addmm(self.place_PG.square().sum(1), x_MG, self.place_PG.T, alpha=-2)
        if left_out_P is not None:
            square_MP = square_MP.masked_fill(left_out_P, FARTHEST)
        return (square_MP.amin(1) + x_MG.square().sum(1)).clamp(min=0).sqrt()
