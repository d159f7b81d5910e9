"""IDQL: values by expectile regression as in IQL, and the best of several actions of a cloned policy.

    L_V(psi)   = E[L_2^tau(Q'(s, a) - V(s))],   L_2^tau(u) = |tau - 1(u < 0)| u^2
    L_Q(theta) = E[(r + gamma V(s') - Q(s, a))^2]
    L_pi(phi)  = the model's own loss of the data's actions, unweighted                  (9)
    a          = argmax of Q'(s, a_i) over N samples a_i of the model

Q' is the target network. Hansen-Estruch et al. 2023, "IDQL: Implicit Q-Learning as an Actor-Critic Method with
Diffusion Policies" (arXiv 2304.10573).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import Fraction, settings
from gentraj.families import DIFFUSION, ModelConfig
from gentraj.training.optimization import adamw, apply_gradients
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions

from .critic import Critic, CriticConfig, expectile, state_value
from .policy import POLICIES, PRESETS, Policy, PolicyConfig
from .scales import StateActionScales
from .transition import Transition


@settings
class IDQLConfig(PolicyConfig):
    """The settings of `IDQL`. Raises ValueError for a setting outside its range."""

    model: ModelConfig = field(default_factory=lambda: DIFFUSION)
    """The generative model of actions."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    expectile: Fraction = 0.7
    """Expectile of Q(s, a), over the actions of the data, that V(s) estimates: 0.5 is their mean, 1 their maximum."""
    candidates: PositiveInt = 8
    """Actions that are sampled in each decision; the one with the highest value is taken."""

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "candidates")


class IDQL(Policy[IDQLConfig]):
    """A model that imitates all actions of the data, and implicit values, by which it acts."""

    def __init__(self, config: IDQLConfig, scales: StateActionScales):
        super().__init__(config, scales, config.critic.n_step)
        self.model = self.build_model(config.model)
        self.critic = Critic.of(self, config.critic)
        self.value = state_value(self, config.critic)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"critic": self.critic.optimizer(), "value": adamw(self.value, self.config.critic),
                **self.model.optimizers()}

    def value_loss(self, t: Transition) -> Tensor:
        """V(s) learns an expectile of Q'(s, a) over the actions of the data."""
        advantage_B = self.critic.target_value(t.state_BS, t.chunk_BX) - self.value(t.state_BS)[0]
        return t.average(expectile(advantage_B / self.value.unit, self.config.expectile))

    def critic_loss(self, t: Transition) -> tuple[Tensor, dict[str, Tensor]]:
        """Q(s, a) learns r + gamma V(s'); returns the loss and metrics."""
        with torch.no_grad():
            next_value_B = self.value(t.next_BS)[0]
        return self.critic.loss(t, t.reward_B + t.discount_B * next_value_B)

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        t = self.transition(batch, self.config.critic.discount)
        value_loss = self.value_loss(t)
        apply_gradients(value_loss, optimizers["value"], self.config.critic.max_grad_norm)
        critic_loss, critic = self.critic_loss(t)
        self.critic.step(critic_loss, optimizers["critic"])
        return {"value_loss": value_loss.detach()} | critic | self.model.update(t, optimizers, generator)

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        act_BNKA = self.model.candidates(state_BS, self.config.candidates, seeds, options)
        return self.critic.best(state_BS, act_BNKA)


POLICIES["idql"] = IDQLConfig, IDQL
PRESETS["idql"] = "the best of several actions of a diffusion model, by IQL's values", IDQLConfig()
