"""Flow maps: students that learn the average velocity between two times, with which they step from one to the other.

The velocity at a single time is the teacher's.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..config import settings
from ..device import to_device_together
from ..diffusion.diffusion_model import DiffusionConfig
from ..models.conditional import Microbatch
from ..models.conditioning import encoded_width
from ..models.sampling import Denoise
from ..networks import NETWORKS, NetworkConfig
from ..networks.embedding import Predict, SinusoidalEmbedding, TrajectoryNetwork
from ..training.optimization import MovingAverage
from ..trajectory import SamplingOptions, refuse_options
from .few_step import FewStep, FewStepConfig

SPAN_FEATURES = 16  # number of features of the time t - r
TWO_TIMES_SCALE = 10.0  # of the times before they are embedded: it multiplies the losses' derivatives by the times


@settings
class FlowMapConfig(FewStepConfig):
    """What the settings of all flow maps have. Their noise path is straight, whatever the teacher's is.

    Raises ValueError for a setting outside its range.
    """

    ANY_STEPS: ClassVar[bool] = True

    def model(self) -> DiffusionConfig:
        return replace(super().model(), path="flow", levels=None, prediction="velocity", sampler="euler")


class TwoTimes(nn.Module):
    """A network of trajectories with a second time r, 0 where none is given: features of t - r go where those of the
    context go. Times are multiplied by `time_scale` before they are embedded."""

    def __init__(self, dim: int, horizon: int, context_dim: int, config: NetworkConfig,
                 time_scale: float = TWO_TIMES_SCALE):
        super().__init__()
        self.network = NETWORKS.made_of(config)(dim, horizon, context_dim + SPAN_FEATURES, config)
        self.span = SinusoidalEmbedding(SPAN_FEATURES, time_scale)
        self.context_dim = context_dim
        if isinstance(self.network, TrajectoryNetwork):
            for module in self.network.time.modules():  # a network may also take the time as it is
                if isinstance(module, SinusoidalEmbedding):
                    module.scale = time_scale
        for module in self.network.modules():
            if isinstance(module, nn.GroupNorm):  # whose forward derivative needs this layout
                module.register_forward_pre_hook(_contiguous)

    def forward(self, x_RHD: Tensor, known_RHD: Tensor, mask_RHD: Tensor, t_R: Tensor,
                context_RC: Tensor | None = None, r_R: Tensor | None = None) -> Tensor:
        span_R = t_R
        if r_R is not None:
            span_R = t_R - r_R
        span = self.span(span_R)
        if context_RC is not None:
            rows = max(len(span), len(context_RC))
            span = torch.cat([context_RC.expand(rows, -1), span.expand(rows, -1)], 1)
        return self.network(x_RHD, known_RHD, mask_RHD, t_R, span)

    def conditioned(self, known_RHD: Tensor, mask_RHD: Tensor, context_RC: Tensor | None,
                    times_S: Tensor | None) -> Predict:
        """The network as a function of (x, t) that leads from one of the times to the next."""
        after = dict[float, float]()
        if times_S is not None:
            after = dict(pairwise(times_S.tolist()))

        def predict(x_RHD: Tensor, t_R: Tensor) -> Tensor:
            r_R = t_R.new_tensor([after.get(t, 0.0) for t in t_R.tolist()])
            t_R, r_R = to_device_together([t_R, r_R], x_RHD.device)
            return self(x_RHD, known_RHD, mask_RHD, t_R, context_RC, r_R)

        return predict

    def start(self, teacher: nn.Module) -> None:
        """Takes over the teacher's weights; at first the second time changes nothing."""
        weights = self.network.state_dict()
        for key in ("context.weight", "context.bias"):
            weights[key].zero_()
        if self.context_dim:
            weights["context.weight"][:, : self.context_dim] = teacher.state_dict()["context.weight"]
        self.network.load_state_dict({**weights, **teacher.state_dict(), "context.weight": weights["context.weight"]})


def _contiguous(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].contiguous(),)


class Flow(NamedTuple):
    """Points z (R, H, D) on the straight path, their velocities v (R, H, D), 0 at known entries, and times t (R,)."""

    z: Tensor
    v: Tensor
    t_R: Tensor


class FlowMap(FewStep):
    """A student of any number of steps, each of which is one Euler step with the average velocity."""

    distillation: FlowMapConfig

    def add_parts(self) -> None:
        self.network = TwoTimes(self.spec.dim, self.spec.horizon, encoded_width(self.context), self.config.network)
        self.ema = MovingAverage(self.network, self.config.ema)

    def start(self, network: TwoTimes, teacher: nn.Module) -> None:
        network.start(teacher)

    def settings(self, options: SamplingOptions) -> DiffusionConfig:
        """As `Diffusion.settings`. Raises ValueError for a sampler and for noise: between two of its times, a flow map
        has no slope that another method could follow."""
        refuse_options(options, "a flow map steps from one time to the next by its average velocity", "sampler", "eta")
        return super().settings(options)

    def denoise(self, values: Tensor, mask: Tensor, context: Tensor | None = None, *, times: Tensor | None = None,
                clipped: bool = True) -> Denoise:
        """As `Diffusion.denoise`, for steps from one of `times` to the next.

        x0 is bounded where there is one step only: between other times it is no trajectory, but where a step points.
        """
        return super().denoise(values, mask, context, times=times,
                               clipped=clipped and (times is None or len(times) == 2))

    def average(self, network: nn.Module, z: Tensor, t_R: Tensor, r_R: Tensor, rows: Microbatch) -> Tensor:
        """u(z, t, r) (R, H, D), the average velocity from z (R, H, D) at t to r, as a network predicts it; the velocity
        where r = t."""
        at = self.level(t_R)
        F = self.preconditioned(network).output(rows.held(z), at, rows, r_R)
        return F * self.prediction.unit(at)

    @torch.no_grad()
    def flow(self, rows: Microbatch) -> Flow:
        """Random points of the teacher's flow. It is asked at its own times, which may be those of noise levels; its
        x_s with the same ratio of signal and noise is z_t times alpha + sigma."""
        eps, path = rows.normal(), self.teacher.path
        s_R = path.snap(self.uniform(rows)).to(eps.dtype)
        alpha_R, sigma_R = path.alpha(s_R), path.sigma(s_R)
        total_R = alpha_R + sigma_R
        t_R, total_R = to_device_together([sigma_R / total_R, total_R], eps.device)
        z = self.level(t_R).noised(rows.x0, eps)
        x0 = self.taught(total_R[:, None, None] * z, s_R, rows)
        return Flow(z, (z - x0) / t_R[:, None, None] * rows.free, t_R)

    def uniform(self, rows: Microbatch) -> Tensor:
        """(R,) numbers on the CPU, uniform between 0 and 1."""
        return torch.rand(len(rows.x0), generator=rows.generator)

    def squares(self, u: Tensor, target: Tensor, rows: Microbatch) -> Tensor:
        """(R,) mean squared errors of the free entries."""
        return ((u - target) ** 2 * rows.free).sum((1, 2)) / rows.free.sum((1, 2)).clamp(min=1)
