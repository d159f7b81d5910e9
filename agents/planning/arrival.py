"""The arrival model: at which timestep of a plan the goal could be reached, p(j | s_0, goal)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import settings
from gentraj.device import constant
from gentraj.networks.embedding import Frequencies, fourier, width
from gentraj.networks.mlp import mlp
from gentraj.normalize import Normalizer
from gentraj.training.optimization import LearningConfig, adamw
from gentraj.training.step import TrainingStep
from gentraj.trajectory import TrajectorySpec

from .inverse_dynamics import later_observation


@settings
class ArrivalConfig(LearningConfig):
    """The settings of `Arrival`."""

    width: PositiveInt = 256
    """Units of each hidden layer."""
    depth: NonNegativeInt = 3
    """Number of hidden layers."""
    frequencies: Frequencies = 4
    """Number of Fourier frequencies of the inputs. With none, two places on either side of a wall look almost alike."""
    batch_size: PositiveInt = 512
    """Number of windows in a batch."""


class Arrival(nn.Module):
    """A classifier over the H timesteps of a plan at which a goal may be reached.

    It is trained by cross-entropy on pairs of a window's first observation and the goal entries of one of its later
    timesteps j, with label j.
    """

    def __init__(self, spec: TrajectorySpec, goal_dims: tuple[int, ...], config: ArrivalConfig, obs: Normalizer):
        super().__init__()
        self.spec, self.config = spec, config
        self.batch_size = config.batch_size
        self.goal_dims, self.obs = goal_dims, obs
        inputs = width(spec.obs_dim + len(goal_dims), config.frequencies)
        self.network = mlp([inputs, *[config.width] * config.depth, spec.horizon])

    def optimizers(self) -> dict[str, Optimizer]:
        return {"network": adamw(self.network, self.config)}

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        batch = step.batch
        j_B, later_BO = later_observation(self.spec, batch, step.generator)
        obs_BO, _ = self.spec.split(batch.x_BHD[:, 0])
        going_B = batch.mask_BHD[:, 1:, 0].any(1)  # a window of one real timestep arrives nowhere
        goal_BG = later_BO[:, constant(self.goal_dims, later_BO.device, torch.long)]
        loss_B = F.cross_entropy(self(obs_BO, goal_BG), j_B, reduction="none")
        loss = (loss_B * going_B).sum() / going_B.sum().clamp(min=1)
        step.descend(loss, "network", self.config.max_grad_norm)
        return {"loss": loss.detach()}

    def forward(self, obs_BO: Tensor, goal_BG: Tensor) -> Tensor:
        """(B, H) logits over arrival timesteps; observations and goals are in environment units."""
        goal = self.obs.normalize(goal_BG, self.goal_dims)
        return self.network(fourier(torch.cat([self.obs.normalize(obs_BO), goal], dim=-1), self.config.frequencies))

    @torch.no_grad()
    def propose(self, obs_BO: Tensor, goal_BG: Tensor, thresholds: tuple[float, ...]) -> Tensor:
        """(B, N) ascending arrival timesteps, one for each of the N thresholds, which are fractions in (0, 1].

        It is the earliest timestep that is at least that fraction as probable as the most probable one.
        """
        p_BH = self(obs_BO, goal_BG).softmax(-1)
        p_BH[:, 0] = 0  # timestep 0 is the present
        ratio_BH = p_BH / p_BH.amax(1, keepdim=True)
        threshold_N1 = constant(tuple(sorted(thresholds)), ratio_BH.device, torch.get_default_dtype())[:, None]
        enough_BNH = ratio_BH[:, None] >= threshold_N1
        return enough_BNH.int().argmax(-1)
