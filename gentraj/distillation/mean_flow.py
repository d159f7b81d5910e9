"""Mean flow: a flow map that learns how the average velocity between two times changes with the later one.

Geng et al. 2025, "Mean Flows for One-step Generative Modeling", algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..config import Fraction, settings
from ..device import to_device
from ..models.conditional import Microbatch
from .flow_map import FlowMap, FlowMapConfig

C = 1e-3  # section 4.3, adaptive loss weighting with p = 1


@settings
class MeanFlowConfig(FlowMapConfig):
    """Settings of a mean flow. Raises ValueError for a setting outside its range."""

    apart: Fraction = 0.5
    """Fraction of the trajectories for which the two times differ; for the others the average velocity is the
    instantaneous one."""


class MeanFlow(FlowMap):
    """A flow map that learns how the average velocity between two times changes with the later one."""

    distillation: MeanFlowConfig

    def objective(self, rows: Microbatch) -> Tensor:
        """The scalar ||u(z, r, t) - (v - (t - r) du/dt)||^2, where du/dt is the derivative along (v, 0, 1)."""
        flow = self.flow(rows)
        share_R = torch.where(self.uniform(rows) < self.distillation.apart, self.uniform(rows), 1)
        r_R = flow.t_R * to_device(share_R, flow.t_R.device)

        def average(z: Tensor, r_R: Tensor, t_R: Tensor) -> Tensor:
            return self.average(self.network, z, t_R, r_R, rows)

        direction = (flow.v, torch.zeros_like(r_R), torch.ones_like(r_R))
        u, du_dt = derivative(average, (flow.z, r_R, flow.t_R), direction)
        square_R = self.squares(u, flow.v - (flow.t_R - r_R)[:, None, None] * du_dt.detach(), rows)
        return (adaptive(square_R, 1.0, C) * rows.weight).mean()


def derivative(function: Callable[..., Tensor], point: tuple[Tensor, ...],
               direction: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The value of a function of tensors at a point, and its derivative there in a direction, in float32."""
    in_float32 = torch.autocast(point[0].device.type, enabled=False)  # which casts weights, but no derivatives
    with in_float32, sdpa_kernel(SDPBackend.MATH):  # the attention that has a forward derivative
        return torch.func.jvp(function, point, direction)[:2]


def adaptive(square_R: Tensor, power: float, c: float) -> Tensor:
    """(R,) squared errors, each divided by its own size to a power, which has no gradient: |e|^2 / (|e|^2 + c)^power
    (Geng et al. 2025, section 4.3)."""
    return square_R / (square_R.detach() + c) ** power
