"""Projection onto the nearest data, which brings back a plan that guidance has pushed to where there are no data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import require
from ..models.plugin import Denoise, Denoising, Plugin
from ..networks.rows import MIN_ROWS
from ..trajectory import Batch
from .composition import Interval, check_interval, within

MAX_DISTANCES = 1 << 24  # the most distances in memory at once


@dataclass(frozen=True, eq=False)
class NearestData(Plugin):
    """Projects the denoised trajectory onto an affine subspace near its nearest windows (LoMAP, Lee & Choi 2025,
    algorithm 1).

    `reference` holds windows (W, H, D) in environment units; padded windows of a `Batch` are left out. The subspace of
    a trajectory goes through the mean of its nearest `neighbours` (by Euclidean distance, in normalised units) along
    their first `rank` principal directions. `weight`, from 0 to 1, is how far the trajectory moves towards the
    subspace. The paper takes the cosine similarity and noises the neighbours; here the denoised trajectory is compared
    with clean windows. It acts at times t in `interval` only. Put this plug-in after the guides that it corrects.

    Raises ValueError unless there are more neighbours than `rank`, and, when sampling, unless `reference` has at least
    `neighbours` windows that are finite and of the model's shape.
    """

    reference: Tensor | Batch
    neighbours: int = 10
    rank: int = 4
    weight: float = 1.0
    interval: Interval = (0.0, 1.0)

    def __post_init__(self) -> None:
        require(self, neighbours=(1, math.inf), rank=(0, self.neighbours - 1), weight=(0, 1))
        check_interval(self)

    def wrap(self, denoise: Denoise, sampling: Denoising) -> Denoise:
        spec, device = sampling.condition.spec, sampling.condition.values_BHD.device
        windows = self._windows().to(device)
        if windows.shape[1:] != (spec.horizon, spec.dim) or not torch.isfinite(windows).all():
            raise ValueError(f"NearestData.reference has shape {tuple(windows.shape)}; finite windows of shape "
                             f"(W, {spec.horizon}, {spec.dim}) are expected")
        if len(windows) < self.neighbours:
            raise ValueError(f"NearestData has {len(windows)} whole windows; {self.neighbours} neighbours need at "
                             "least as many")
        data_WX = sampling.normalizer.normalize(windows).flatten(1)

        def projected(x: Tensor, t: Tensor) -> Tensor:
            x0 = denoise(x, t)
            size = max(1, MAX_DISTANCES // len(data_WX) // MIN_ROWS) * MIN_ROWS  # so that no row depends on others
            blocks = x0.flatten(1).split(size)
            near = torch.cat([self._project(block, data_WX) for block in blocks]).view_as(x0)
            return torch.where(sampling.condition.mask_BHD, x0, torch.lerp(x0, near, self.weight))

        return within(self.interval, projected, denoise)

    def _windows(self) -> Tensor:
        if isinstance(self.reference, Tensor):
            return self.reference
        return self.reference.x_BHD[self.reference.mask_BHD.all(dim=(1, 2))]

    def _project(self, y_RX: Tensor, data_WX: Tensor) -> Tensor:
        """The projections (R, X) of trajectories on their subspaces, which are constants to any gradient."""
        with torch.no_grad():
            nearest_RK = torch.cdist(y_RX, data_WX.to(y_RX)).topk(self.neighbours, largest=False).indices
            near_RKX = data_WX[nearest_RK].to(y_RX)
            mean_RX = near_RKX.mean(1)
            axes_RPX = torch.linalg.svd(near_RKX - mean_RX[:, None], full_matrices=False).Vh[:, : self.rank]
        along_RP = torch.einsum("rpx,rx->rp", axes_RPX, y_RX - mean_RX)
        return mean_RX + torch.einsum("rp,rpx->rx", along_RP, axes_RPX)
