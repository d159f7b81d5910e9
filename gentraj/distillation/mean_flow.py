"""Mean flow: a student learns the average velocity between two times, with which it steps from one to the other.

Geng et al. 2025, "Mean Flows for One-step Generative Modeling", algorithms 1 and 2. The instantaneous velocity is the
teacher's, or that of the data and the noise, without the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..config import require, require_choice
from ..diffusion.model import DiffusionConfig
from ..models.conditioning import encoded_width
from ..models.microbatch import Microbatch
from ..models.sampling import Guidance
from ..networks import NETWORKS, NetworkConfig
from ..networks.embedding import SinusoidalEmbedding
from ..trajectory import DEFAULT_OPTIONS, Condition, Observer, SamplingOptions
from .few_step import FewStep, FewStepConfig

SPAN = 16  # number of features of the time t - r
SCALE = 10.0  # of the times before they are embedded: the loss has derivatives by the times, which the scale multiplies
C = 1e-3  # section 4.3, adaptive loss weighting with p = 1


@dataclass(frozen=True)
class MeanFlowConfig(FewStepConfig):
    """Settings of a mean flow. Its noise path is straight, whatever the teacher's is."""

    targets: Literal["teacher", "data"] = "teacher"
    """Where the instantaneous velocity comes from: the teacher, or the data and the noise."""
    apart: float = 0.5
    """Fraction of the trajectories for which the two times differ; for the others the average velocity is the
    instantaneous one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, apart=(0, 1))
        require_choice(self, targets=("teacher", "data"))

    def model(self) -> DiffusionConfig:
        return replace(super().model(), path="flow", levels=None, prediction="velocity", sampler="euler",
                       clip=self.teacher.clip if self.steps == 1 else None)  # between two times x0 is no trajectory


class TwoTimes(nn.Module):
    """A network of trajectories with a second time r: features of t - r go where those of the context go.

    Without r it is the next time of the even grid of sampling.
    """

    def __init__(self, dim: int, horizon: int, context_dim: int, config: NetworkConfig, steps: int):
        super().__init__()
        self.network = NETWORKS.made_of(config)(dim, horizon, context_dim + SPAN, config)
        self.span, self.context_dim, self.steps = SinusoidalEmbedding(SPAN, SCALE), context_dim, steps
        cast(SinusoidalEmbedding, self.network.time[0]).scale = SCALE
        for module in self.network.modules():
            if isinstance(module, nn.GroupNorm):  # whose forward derivative needs this layout
                module.register_forward_pre_hook(_contiguous)

    def forward(self, x_RHD: Tensor, known_RHD: Tensor, mask_RHD: Tensor, t_R: Tensor,
                context_RC: Tensor | None = None, r_R: Tensor | None = None) -> Tensor:
        r_R = (t_R - 1 / self.steps).clamp(min=0) if r_R is None else r_R
        span = self.span(t_R - r_R)
        if context_RC is not None:
            rows = max(len(span), len(context_RC))
            span = torch.cat([context_RC.expand(rows, -1), span.expand(rows, -1)], 1)
        return self.network(x_RHD, known_RHD, mask_RHD, t_R, span)

    def start(self, teacher: nn.Module) -> None:
        """Takes over the teacher's weights; at first the second time changes nothing."""
        weights, layer = dict(teacher.state_dict()), cast(nn.Linear, self.network.context)
        wide, bias = torch.zeros_like(layer.weight), weights.get("context.bias", torch.zeros_like(layer.bias))
        if self.context_dim:
            wide[:, : self.context_dim] = weights["context.weight"]
        self.network.load_state_dict(weights | {"context.weight": wide, "context.bias": bias})


def _contiguous(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].contiguous(),)


class MeanFlow(FewStep):
    distillation: MeanFlowConfig

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.network = TwoTimes(self.spec.dim, self.spec.horizon, encoded_width(self.context), self.config.network,
                                self.config.steps)
        self.ema = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(self.config.ema))
        self.ema.requires_grad_(False)

    def start(self, network: TwoTimes, teacher: nn.Module) -> None:
        network.start(teacher)

    def objective(self, rows: Microbatch) -> Tensor:
        """||u(z, r, t) - (v - (t - r) du/dt)||^2, where du/dt is the derivative along (v, 0, 1)."""
        z, v, t_R = self.flow(rows)
        r_R = t_R * torch.where(self.uniform(rows) < self.distillation.apart, self.uniform(rows), 1)

        def average(z: Tensor, r_R: Tensor, t_R: Tensor) -> Tensor:
            at = self.level(t_R)
            x = torch.where(rows.known, rows.x0, z) * rows.real
            F = self.network(x / at.spread, rows.x0 * rows.known, rows.known, t_R, rows.context, r_R)
            return F * self.prediction.unit(at)

        with sdpa_kernel(SDPBackend.MATH):  # the attention that has a forward derivative
            u, du_dt = torch.func.jvp(average, (z, r_R, t_R), (v, torch.zeros_like(r_R), torch.ones_like(t_R)))[:2]
        target = v - (t_R - r_R)[:, None, None] * du_dt.detach()
        square_R = ((u - target) ** 2 * rows.free).sum((1, 2)) / rows.free.sum((1, 2)).clamp(min=1)
        return (square_R / (square_R.detach() + C) * rows.weight).mean()

    @torch.no_grad()
    def flow(self, rows: Microbatch) -> tuple[Tensor, Tensor, Tensor]:
        """z_t on the straight path, its velocity v, which is 0 at known entries, and t (R,).

        The teacher's x_s with the same ratio of signal and noise is z_t times alpha + sigma.
        """
        eps, of_teacher = rows.normal(), self.distillation.targets == "teacher"
        s = self.teacher.level(self.teacher.path.snap(self.uniform(rows).cpu()).to(eps))
        total = s.alpha + s.sigma
        t_R = (s.sigma / total)[:, 0, 0]
        z = self.noised(rows.x0, eps, t_R)
        x0 = self.taught(total * z, s.t_R, rows) if of_teacher else rows.x0
        v = (z - x0) / t_R[:, None, None] if of_teacher else eps - x0
        return z, v * rows.free, t_R

    def uniform(self, rows: Microbatch) -> Tensor:
        return torch.rand(len(rows.x0), generator=rows.generator).to(rows.x0.device)

    def sample(self, condition: Condition, num_samples: int = 1, *, guide: Guidance = None,
               seed: int | Sequence[int] = 0, options: SamplingOptions = DEFAULT_OPTIONS,
               observe: Observer | None = None) -> Tensor:
        """As `Diffusion.sample`, in the steps of the settings, whatever the options say: the network depends on
        them."""
        return super().sample(condition, num_samples, guide=guide, seed=seed, observe=observe,
                              options=replace(options, steps=self.config.steps))
