"""Inverse dynamics: the action that leads from one state towards another state k environment steps later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import settings
from gentraj.data import Episodes, Windows
from gentraj.data.windows import repeat_last
from gentraj.device import constant, to_device
from gentraj.models.conditioning import later_row
from gentraj.networks.mlp import mlp
from gentraj.normalize import Normalizer
from gentraj.training.optimization import LearningConfig, adamw
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, TrajectorySpec

MIN_LONG_FRACTION = 0.05  # of windows that reach half of `lookahead`; with fewer, shorter ones are measured, too


@settings
class InverseDynamicsConfig(LearningConfig):
    """The settings of `InverseDynamics`."""

    lookahead: PositiveInt = 16
    """Largest number of environment steps k between the two states in training; planners look no further ahead."""
    towards: Literal["state", "goal"] = "state"
    """What the network sees of the later state: all entries, or those of a goal, such as a position, which is better
    for robots with many joints."""
    width: PositiveInt = 256
    """Units of each hidden layer."""
    depth: NonNegativeInt = 2
    """Number of hidden layers."""
    batch_size: PositiveInt = 256
    """Number of windows in a batch."""


def later_observation(spec: TrajectorySpec, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A later real timestep (B,) of each window, drawn uniformly, and its observation (B, O).

    Raises ValueError for windows of another layout.
    """
    spec.check_windows(batch.x_BHD.shape)
    length_B = batch.mask_BHD[..., 0].sum(1)
    u_B = to_device(torch.rand(len(length_B), generator=generator), length_B.device)
    k_B = later_row(length_B, u_B)
    return k_B, spec.split(batch.x_BHD[torch.arange(len(k_B), device=k_B.device), k_B])[0]


class InverseDynamics(nn.Module):
    """A network that predicts a_t from (s_t, s_{t+k} - s_t, k), trained by least squares on the actions of the data.

    Of the difference it sees the entries that `config.towards` names; `goal_dims` are those of a goal.
    """

    def __init__(self, spec: TrajectorySpec, config: InverseDynamicsConfig, obs: Normalizer, delta: Normalizer,
                 act: Normalizer, goal_dims: Sequence[int] = ()):
        super().__init__()
        self.spec, self.config = spec, config
        self.batch_size = config.batch_size
        self.obs, self.act = obs, act
        self.delta = delta
        self.seen = tuple(range(spec.obs_dim))
        if config.towards == "goal":
            self.seen = tuple(goal_dims)
        self.network = mlp([spec.obs_dim + len(self.seen) + 1, *[config.width] * config.depth, spec.act_dim])

    @classmethod
    def blank(cls, obs_dim: int, act_dim: int, config: InverseDynamicsConfig,
              goal_dims: Sequence[int] = ()) -> InverseDynamics:
        """Builds the network with identity normalisers, to load saved statistics and weights into."""
        spec = TrajectorySpec(obs_dim, act_dim, config.lookahead + 1)
        identity = Normalizer.identity
        return cls(spec, config, identity(obs_dim), identity(obs_dim), identity(act_dim), goal_dims)

    @classmethod
    def fit(cls, episodes: Episodes, config: InverseDynamicsConfig, goal_dims: Sequence[int] = ()) -> InverseDynamics:
        """Builds the network with the statistics of these episodes.

        The difference s_{t+k} - s_t is divided by the standard deviation of differences over half of `lookahead` steps.
        With a `lookahead` of 1 it is divided by the standard deviation of the observations instead, as in the papers,
        whose networks see both states: a plan's errors are of the observations' size, and units of a single step would
        magnify them.
        """
        spec = TrajectorySpec(episodes.obs_dim, episodes.act_dim, config.lookahead + 1)
        obs, act = (Normalizer.fit("gaussian", [x]) for x in (episodes.obs, episodes.act))
        if config.lookahead == 1:
            unmoved = Normalizer(torch.zeros_like(obs.shift_D), obs.scale_D.clone())
            return cls(spec, config, obs, unmoved, act, goal_dims)
        sample = Windows(episodes, spec).batch(step=0, seed=0, size=4096)
        long_B = sample.mask_BHD[:, config.lookahead // 2, 0]
        obs_BHO = spec.split(repeat_last(sample))[0]
        if long_B.float().mean() > MIN_LONG_FRACTION:  # otherwise, shorter windows count up to their ends
            obs_BHO = obs_BHO[long_B]
        delta = (obs_BHO[:, config.lookahead // 2] - obs_BHO[:, 0]).numpy()
        return cls(spec, config, obs, Normalizer.fit("gaussian", [delta]), act, goal_dims)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"network": adamw(self.network, self.config)}

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        k_B, target_BO = later_observation(self.spec, step.batch, step.generator)
        obs_BO, act_BA = self.spec.split(step.batch.x_BHD[:, 0])
        error = (self._act(obs_BO, target_BO, k_B) - self.act.normalize(act_BA)) ** 2
        loss = error.mean()
        step.descend(loss, "network", self.config.max_grad_norm)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def forward(self, obs_BO: Tensor, target_BO: Tensor, k: int) -> Tensor:
        """(B, A) actions in environment units that lead towards `target_BO`, k environment steps ahead."""
        device = self.obs.shift_D.device
        k_B = torch.full((len(obs_BO),), k, device=device)
        return self.act.unnormalize(self._act(to_device(obs_BO, device), to_device(target_BO, device), k_B))

    def _act(self, obs_BO: Tensor, target_BO: Tensor, k_B: Tensor) -> Tensor:
        seen = constant(self.seen, obs_BO.device, torch.long)
        inputs = [self.obs.normalize(obs_BO), self.delta.normalize(target_BO - obs_BO)[:, seen],
                  k_B[:, None] / self.config.lookahead]
        return self.network(torch.cat(inputs, dim=-1))
