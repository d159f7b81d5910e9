"""MeanFlowQL: the actor is itself a mean flow of the data's actions, in one step from noise to an action.

With z_t = (1 - t) a + t z and the average velocity u between 0 and t of a mean flow (Geng et al. 2025, arXiv
2505.13447), the actor is g(z_t, t) = z_t - u(z_t, 0, t), so that g(z, 1) is an action:

    pull = alpha E[w ||g - sg(z_t + (t - 1) v - t dg/dt)||^2] + bound E[distance of g(z, 1) from the data's bounds]

with v = z - a, dg/dt along (v, 1), and the adaptive weights w. Wang et al. 2026, "One-Step Generative Policies with
Q-Learning: A Reformulation of MeanFlow". The losses are those of the authors' code (agents/meanflowql.py), as the paper
was read in summaries only; docs/notebook/published.md says what differs.
"""

from __future__ import annotations

from dataclasses import field

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from gentraj.config import settings
from gentraj.device import to_device
from gentraj.distillation.flow_map import TwoTimes
from gentraj.distillation.mean_flow import adaptive, derivative

from .actor_critic import ActorCriticConfig, NoiseActor, NoiseActorConfig
from .policy import POLICIES, PRESETS, Transition
from .scales import StateActionScales

MAX_TARGET = 5.0  # bound on the targets of the mean flow
TIME_SCALE = 1.0  # of the times before they are embedded, as the authors'; at 10, errors of dg/dt spread the actions
POWER, OFFSET = 0.2, 1e-4  # of the adaptive weights of the mean-flow loss


@settings
class MeanFlowQLConfig(ActorCriticConfig):
    """The settings of `MeanFlowQL`. Raises ValueError for a setting outside its range."""

    actor: NoiseActorConfig = field(default_factory=NoiseActorConfig)
    """The network that acts."""
    alpha: NonNegativeFloat = 10.0
    """Weight of the mean-flow loss, which imitates the data, relative to the value."""
    bound: NonNegativeFloat = 1.0
    """Weight of the loss of actions outside the data's bounds, which is their mean distance from the bounds."""


class MeanFlowQL(NoiseActor[MeanFlowQLConfig]):
    """An actor that is a mean flow of the data's actions."""

    def __init__(self, config: MeanFlowQLConfig, scales: StateActionScales):
        super().__init__(config, scales)
        network = TwoTimes(self.window_spec.dim, self.chunk, 0, config.actor.network, TIME_SCALE)
        self.act_by(network, config.actor)

    def loss(self, t: Transition, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        time_B = 1 - to_device(torch.rand(len(t.state_BS), generator=generator), t.state_BS.device)  # never 0
        flow_loss = self.mean_flow_loss(t, self.noise(t.state_BS, generator), time_B)
        chunk_BX = self.act(self.network, t.state_BS, self.noise(t.state_BS, generator))
        return self.config.alpha * flow_loss + self.config.bound * self.beyond(t, chunk_BX), chunk_BX

    def mean_flow_loss(self, t: Transition, z_BKA: Tensor, time_B: Tensor) -> Tensor:
        """The scalar squared error of g to z_t + (t - 1) v - t dg/dt, which is z_t - u by the identity of mean flows,
        u = v - t du/dt. dg/dt is the derivative along the path of a data action, whose velocity is v."""
        act_BKA = t.chunk_BX.view_as(z_BKA)
        time_B11 = time_B[:, None, None]
        x_BKA = (1 - time_B11) * act_BKA + time_B11 * z_BKA
        v_BKA = z_BKA - act_BKA

        def actor(x_BKA: Tensor, time_B: Tensor) -> Tensor:
            return self.act(self.network, t.state_BS, x_BKA, time_B).view_as(x_BKA)

        g_BKA, slope_BKA = derivative(actor, (x_BKA, time_B), (v_BKA, torch.ones_like(time_B)))
        target_BKA = x_BKA + (time_B11 - 1) * v_BKA - time_B11 * slope_BKA
        target_BKA = target_BKA.detach().clamp(-MAX_TARGET, MAX_TARGET)
        square_BK = ((g_BKA - target_BKA) ** 2).mean(2) * t.real_BK
        return (adaptive(square_BK.sum(1) / t.real_BK.sum(1), POWER, OFFSET) * t.weight_B).mean()

    def beyond(self, t: Transition, chunk_BX: Tensor) -> Tensor:
        """The mean distance of actions from the data's bounds, a scalar."""
        return ((chunk_BX.abs() - 1).clamp(min=0).mean(1) * t.weight_B).mean()


POLICIES["meanflow-ql"] = MeanFlowQLConfig, MeanFlowQL
PRESETS["meanflow-ql"] = ("a one-step mean flow that clones the data and maximises the value in one stage",
                          MeanFlowQLConfig(backup=2, temperature=0.5))
