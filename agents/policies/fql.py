"""FQL and GFP: a flow imitates the data, and the actor is pulled to the flow's action from the same noise.

    L_flow(phi) = E[w ||v(s, x_t, t) - (z - a)||^2],   x_t = (1 - t) a + t z            (w = 1 in FQL)
    pull        = alpha E||mu(s, z) - a_flow(s, z)||^2                                  (equation 8)

where a_flow(s, z) is where the ODE of the flow leads from the noise z. Park et al. 2025, "Flow Q-Learning" (arXiv
2502.02538). GFP weights the data's actions, so that the flow imitates those that are worth more than the actor's:

    w = exp(Q'(s, a) / T) / (exp(Q'(s, a) / T) + exp(Q'(s, mu(s, z)) / T)),   T = guidance E|Q'(s, mu(s, z))|

Nguimatsia Tiofack et al. 2026, "Guided Flow Policy: Learning from High-Value Actions in Offline Reinforcement
Learning". Its weights and losses are those of the authors' code (agents/gfp.py), as the paper was read in summaries
only; docs/notebook/published.md says what differs. QC-FQL is FQL over chunks of actions: Li et al. 2025,
"Reinforcement Learning with Action Chunking" (arXiv 2507.07969).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import field, replace

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from gentraj.config import settings
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.families import FLOW
from gentraj.training.step import TrainingStep

from .actor_critic import CHUNK, CHUNK_CRITIC, ActorCriticConfig, NoiseActor
from .policy import POLICIES, PRESETS, Transition, join
from .scales import StateActionScales


@settings
class FQLConfig(ActorCriticConfig):
    """The settings of `FQL`. Raises ValueError for a setting outside its range."""

    model: DiffusionConfig = field(default_factory=lambda: FLOW)
    """The flow, a model of actions. The actor has the same network, learning rate and decay of the average."""
    alpha: NonNegativeFloat = 10.0
    """Weight of the squared error to the flow's action from the same noise, relative to the value."""
    guidance: PositiveFloat | None = None
    """Temperature of the weights with which the flow imitates the data (GFP): the probability, by a softmax of the
    values divided by their mean absolute value, of the data's action against the actor's. None weights all actions
    equally (FQL)."""
    max_grad_norm: PositiveFloat = 10.0
    """Norm to which larger gradients of the actor are clipped."""


class FQL(NoiseActor[FQLConfig]):
    """An actor that distils a flow of the data's actions into one step."""

    def __init__(self, config: FQLConfig, scales: StateActionScales):
        super().__init__(config, scales)
        self.act_by(deepcopy(self.flow.network), replace(config.model, max_grad_norm=config.max_grad_norm))

    @property
    def flow(self) -> Diffusion:
        """The flow."""
        assert isinstance(self.model.model, Diffusion)  # noqa: S101  by the type of its settings
        return self.model.model

    def update_actor(self, t: Transition, step: TrainingStep) -> dict[str, Tensor]:
        """One optimiser step of the flow, and one of the actor. Returns metrics."""
        if self.config.guidance is None:
            flow = self.model.update(t, step)
            z_BKA = self.noise(t.state_BS, step.generator)
        else:
            z_BKA = self.noise(t.state_BS, step.generator)
            flow = self.model.update(t, step, self.guidance(t, z_BKA, self.config.guidance))
        return flow | self.learn(*self.distillation(t, z_BKA), t, step)

    def distillation(self, t: Transition, z_BKA: Tensor) -> tuple[Tensor, Tensor]:
        """The pull, a scalar, and the actor's actions (B, K * A)."""
        start_BKD = join(torch.zeros_like(t.state_BS), z_BKA)
        flow_BKD = self.flow.transport(start_BKD, self.model.condition(t.state_BS))
        chunk_BX = self.act(self.network, t.state_BS, z_BKA)
        square_BX = (chunk_BX - self.model.actions(flow_BKD).flatten(1)) ** 2
        return self.config.alpha * (square_BX * t.weight_B[:, None]).mean(), chunk_BX

    @torch.no_grad()
    def guidance(self, t: Transition, z_BKA: Tensor, temperature: float) -> Tensor:
        """(B,) the weights w of GFP, in [0, 1], with which the flow imitates the data's actions."""
        own_B = self.critic.target_value(t.state_BS, self.act(self.network, t.state_BS, z_BKA).clamp(-1, 1))
        size = t.processes.mean(own_B.abs().mean()).clamp(min=1e-6)
        better_B = self.critic.target_value(t.state_BS, t.chunk_BX) - own_B
        return (better_B / (temperature * size)).sigmoid()


POLICIES["fql"] = FQLConfig, FQL
PRESETS["fql"] = ("flow Q-learning: a flow clones the data, and a one-step actor distils it and maximises the value",
                  FQLConfig())
PRESETS["gfp"] = ("FQL whose flow prefers the data's actions with a higher value than the actor's",
                  FQLConfig(alpha=1.0, guidance=1e-3))
PRESETS["qc-fql"] = ("FQL over chunks of actions, with the critic of qc",
                     FQLConfig(chunk=CHUNK, execute=CHUNK, critic=CHUNK_CRITIC))
