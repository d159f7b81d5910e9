"""GFP: FQL whose flow imitates the actions of the data that are worth more than the student's. The student acts.

Nguimatsia Tiofack et al. 2026, "Guided Flow Policy: Learning from High-Value Actions in Offline Reinforcement
Learning". The weights and the losses are those of the authors' code (agents/gfp.py), as the paper was read in summaries
only; docs/policies.md says what differs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.diffusion import DiffusionConfig
from gentraj.training.optimization import apply_gradients
from gentraj.training.parallel import mean_over_processes
from gentraj.trajectory import Batch

from .critic import CriticConfig
from .generators import FLOW
from .one_step import DistilledFlow
from .policy import PolicyConfig, Scales, Transition


@dataclass(frozen=True)
class GFPConfig(PolicyConfig):
    """The settings of `GFP`. Raises ValueError for a setting outside its range."""

    model: DiffusionConfig = field(default_factory=lambda: FLOW)
    """The flow, a model of actions. Its student has the same network, learning rate and decay of the average."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    alpha: float = 1.0
    """Weight of the distillation loss, the squared error to the flow's action from the same noise, relative to the Q
    loss; values are divided by their mean absolute value."""
    temperature: float = 1e-3
    """Temperature of the weights with which the flow imitates the data: the probability, by a softmax of the values
    divided by their mean absolute value, of the data's action against the student's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, alpha=(0, 1e6), temperature=(1e-9, 1e6))


class GFP(DistilledFlow):
    """A flow of the data's actions that are worth more than its student's, and that student, which acts."""

    def __init__(self, obs_dim: int, act_dim: int, config: GFPConfig, scales: Scales):
        super().__init__(obs_dim, act_dim, config, scales, config.model, config.critic)
        self.config = config

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        t = self.transition(batch, self.config.critic.discount)
        with torch.no_grad():
            next_BX = self.one_step(self.student_ema, t.next_BS, self.noise(t, generator)).clamp(-1, 1)
        critic = self.critic.update(t, self.critic.next_return(t.next_BS, next_BX), optimizers["critic"])
        z_BKA = self.noise(t, generator)
        guidance_B = self.guidance(t, z_BKA)
        flow = self.model.update(self.windows(t, guidance_B), optimizers, generator)
        student_loss, distance = self.distillation_loss(t, z_BKA, self.config.alpha, generator)
        apply_gradients(student_loss, optimizers["student"], self.config.critic.max_grad_norm)
        self.student_ema.update_parameters(self.student)
        return critic | flow | {"student_distance": distance.detach(), "guidance": guidance_B.mean()}

    @torch.no_grad()
    def guidance(self, t: Transition, z_BKA: Tensor) -> Tensor:
        """(B,) the weights with which the flow imitates the data's actions, in [0, 1].

        They are exp(Q(s, a) / T) / (exp(Q(s, a) / T) + exp(Q(s, a') / T)), where a' is the student's action from this
        noise and T the temperature times the mean of |Q(s, a')| over the batch.
        """
        own_BX = self.one_step(self.student, t.state_BS, z_BKA).clamp(-1, 1)
        own_B = self.critic.target_value(t.state_BS, own_BX)
        size = mean_over_processes(own_B.abs().mean()).clamp(min=1e-6)
        better_B = self.critic.target_value(t.state_BS, t.chunk_BX) - own_B
        return (better_B / (self.config.temperature * size)).sigmoid()
