"""Shortcut models: a flow map that learns to reach in one step what it reaches in two steps of half the size.

Frans et al. 2024, "One Step Diffusion via Shortcut Models", algorithms 1 and 2.
"""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor

from ..config import Fraction, settings
from ..device import to_device_together
from ..models.conditional import Microbatch
from .flow_map import FlowMap, FlowMapConfig


@settings
class ShortcutConfig(FlowMapConfig):
    """Settings of a shortcut model. Raises ValueError for a setting outside its range."""

    share: Fraction = 0.25
    """Fraction of the trajectories on which a step learns two steps of half its size; on the others the model learns
    the velocity, which is its step of size 0."""
    halvings: PositiveInt = 7
    """Number of times that the step from noise to data is halved to the smallest, which is taken with the velocity."""


class Shortcut(FlowMap):
    """A flow map that learns to reach in one step what it reaches in two steps of half the size."""

    distillation: ShortcutConfig

    def objective(self, rows: Microbatch) -> Tensor:
        """The scalar ||u(z, t, d) - u*||^2, where u* is the velocity at d = 0, and the mean of two half steps else."""
        flow = self.flow(rows)
        d_R = torch.zeros_like(flow.t_R)
        count = round(self.distillation.share * len(d_R))
        if count:
            some = rows.take(torch.arange(count, device=d_R.device))
            flow.t_R[:count], d_R[:count] = self.steps(some)
            flow.z[:count] = self.level(flow.t_R[:count]).noised(some.x0, some.normal())
            flow.v[:count] = self.half_steps(flow.z[:count], flow.t_R[:count], d_R[:count], some)
        u = self.average(self.network, flow.z, flow.t_R, flow.t_R - d_R, rows)
        return (self.squares(u, flow.v, rows) * rows.weight).mean()

    def steps(self, rows: Microbatch) -> tuple[Tensor, Tensor]:
        """Times t and sizes d (R,) of random steps from t to t - d: a size is 1, 1/2, 1/4 and so on, each as probable,
        and t one of its multiples."""
        d_R = 0.5 ** torch.randint(self.distillation.halvings, (len(rows.x0),), generator=rows.generator)
        t_R = d_R * (1 + (self.uniform(rows) / d_R).floor())
        t_R, d_R = to_device_together([t_R, d_R], rows.x0.device)
        return t_R, d_R

    @torch.no_grad()
    def half_steps(self, z: Tensor, t_R: Tensor, d_R: Tensor, rows: Microbatch) -> Tensor:
        """(R, H, D) the average velocity of two steps of half the size d, by the average of the weights."""
        half_R = d_R / 2
        size_R = torch.where(half_R > 0.5**self.distillation.halvings, half_R, 0)  # for the network
        first = self.average(self.ema.module, z, t_R, t_R - size_R, rows)
        middle_R = t_R - half_R
        z = z - half_R[:, None, None] * first
        second = self.average(self.ema.module, z, middle_R, middle_R - size_R, rows)
        return (first + second) / 2 * rows.free
