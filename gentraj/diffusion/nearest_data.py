"""Projection onto the nearest data: guidance may push a plan to where no data are, this brings it back."""

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

MAX_DISTANCES = 1 << 24  # held at a time


@dataclass(frozen=True, eq=False)
class NearestData(Plugin):
    """What is denoised comes to the affine subspace of its nearest windows (LoMAP, Lee & Choi 2025, algorithm 1).

    `reference` holds windows (W, H, D) in environment units; those of a `Batch` that are padded are left out. For each
    trajectory the `rank` first principal directions through the mean of its nearest `neighbours` (Euclidean, normalised
    units) span the subspace; `weight` is the share of the way to go. The paper takes the cosine similarity and noises
    the neighbours; here what is denoised is compared, so they stay clean. Put it after the guides that it corrects.

    Raises ValueError unless there are `neighbours` windows of the model's shape, finite, and more neighbours than rank.
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
            raise ValueError(f"NearestData has {len(windows)} whole windows; {self.neighbours} neighbours need as many")
        data_WX = sampling.normalizer.normalize(windows).flatten(1)

        def projected(x: Tensor, t: Tensor) -> Tensor:
            x0 = denoise(x, t)
            rows = max(1, MAX_DISTANCES // len(data_WX) // MIN_ROWS) * MIN_ROWS  # so that no row depends on others
            parts = x0.flatten(1).split(rows)
            near = torch.cat([self._project(part, data_WX) for part in parts]).view_as(x0)
            return torch.where(sampling.condition.mask_BHD, x0, torch.lerp(x0, near, self.weight))

        return within(self.interval, projected, denoise)

    def _windows(self) -> Tensor:
        if isinstance(self.reference, Tensor):
            return self.reference
        return self.reference.x_BHD[self.reference.mask_BHD.all(dim=(1, 2))]

    def _project(self, y_RX: Tensor, data_WX: Tensor) -> Tensor:
        """The subspace counts as fixed where a gradient is taken."""
        with torch.no_grad():
            nearest_RK = torch.cdist(y_RX, data_WX.to(y_RX)).topk(self.neighbours, largest=False).indices
            near_RKX = data_WX[nearest_RK].to(y_RX)
            mean_RX = near_RKX.mean(1)
            axes_RPX = torch.linalg.svd(near_RKX - mean_RX[:, None], full_matrices=False).Vh[:, : self.rank]
        along_RP = torch.einsum("rpx,rx->rp", axes_RPX, y_RX - mean_RX)
        return mean_RX + torch.einsum("rp,rpx->rx", along_RP, axes_RPX)
