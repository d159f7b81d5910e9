"""IQL and IDQL: values by expectile regression on the data's actions, and a model of these actions.

    L_V(psi)   = E[L_2^tau(Q'(s, a) - V(s))],   L_2^tau(u) = |tau - 1(u < 0)| u^2        (5)
    L_Q(theta) = E[(r + gamma V(s') - Q(s, a))^2]                                        (6)
    L_pi(phi)  = -E[exp(beta (Q'(s, a) - V(s))) log pi(a | s)]                           (7)

Q' is the target network, (s, a, r, s') are (n-step) transitions of the data. Kostrikov et al. 2022, "Offline
Reinforcement Learning with Implicit Q-Learning" (arXiv 2110.06169). IDQL imitates all actions of the data alike (beta
= 0), by a diffusion model, and acts by the sample with the highest Q'(s, a). Hansen-Estruch et al. 2023, "IDQL:
Implicit Q-Learning as an Actor-Critic Method with Diffusion Policies" (arXiv 2304.10573).
"""

from __future__ import annotations

import math
from dataclasses import field, replace
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import Fraction, settings
from gentraj.families import DIFFUSION, GAUSSIAN, ModelConfig
from gentraj.randomness import Seeds
from gentraj.training.optimization import adamw
from gentraj.training.step import TrainingStep
from gentraj.trajectory import DEFAULT_OPTIONS, SamplingOptions

from .critic import MAX_ADVANTAGE_WEIGHT, Critic, CriticConfig, advantage_weights, expectile, state_value
from .policy import POLICIES, PRESETS, Policy, PolicyConfig, Transition
from .scales import StateActionScales


@settings
class IQLConfig(PolicyConfig):
    """The settings of `IQL`. Raises ValueError for a setting outside its range."""

    model: ModelConfig = field(default_factory=lambda: GAUSSIAN)
    """The generative model of actions."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    expectile: Fraction = 0.7
    """Expectile of Q(s, a), over the actions of the data, that V(s) estimates: 0.5 is their mean, 1 their maximum."""
    beta: NonNegativeFloat = 1.0
    """Inverse temperature of the weights exp(beta * advantage) with which actions are imitated; 0 imitates all alike,
    as IDQL does."""
    advantages: Literal["relative", "raw"] = "relative"
    """Advantages in the weights: divided by their mean absolute value, with weights divided by their mean; or as they
    are, in the units of the rewards."""
    candidates: PositiveInt = 1
    """Actions that are sampled in each decision; the one with the highest value is taken."""
    temperature: NonNegativeFloat = 0.0
    """Scale of the noise that an action is sampled from, multiplied by the temperature of the sampling options."""

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "candidates", "temperature")


class IQL(Policy[IQLConfig]):
    """Implicit Q-learning, and with a beta of 0 IDQL."""

    def __init__(self, config: IQLConfig, scales: StateActionScales):
        super().__init__(config, scales, config.critic.n_step)
        self.model = self.build_model(config.model)
        self.critic = Critic.of(self, config.critic)
        self.value = state_value(self, config.critic)

    def optimizers(self) -> dict[str, Optimizer]:
        return super().optimizers() | {"critic": self.critic.optimizer(),
                                       "value": adamw(self.value, self.config.critic)}

    def advantage(self, t: Transition) -> Tensor:
        """(B,) Q'(s, a) - V(s) of the data's actions."""
        return self.critic.target_value(t.state_BS, t.chunk_BX) - self.value(t.state_BS)[0]

    def value_loss(self, t: Transition) -> tuple[Tensor, Tensor]:
        """Equation 5, and the advantages (B,) of the data's actions."""
        advantage_B = self.advantage(t)
        return t.average(expectile(advantage_B / self.value.unit, self.config.expectile)), advantage_B.detach()

    def critic_loss(self, t: Transition) -> tuple[Tensor, dict[str, Tensor]]:
        """Equation 6, and metrics."""
        with torch.no_grad():
            next_value_B = self.value(t.next_BS)[0]
        return self.critic.loss(t, t.reward_B + t.discount_B * next_value_B)

    def actor_weights(self, t: Transition, advantage_B: Tensor) -> Tensor | None:
        """(B,) the weights exp(beta advantage) of equation 7, with which the model imitates the data's actions."""
        if not self.config.beta:
            return None
        if self.config.advantages == "raw":
            return (self.config.beta * advantage_B).clamp(max=math.log(MAX_ADVANTAGE_WEIGHT)).exp()
        return advantage_weights(advantage_B, self.config.beta, t.weight_B)

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        t = self.transition(step.batch, self.config.critic.discount)
        value_loss, advantage_B = self.value_loss(t)
        step.descend(value_loss, "value", self.config.critic.max_grad_norm)
        critic_loss, critic = self.critic_loss(t)
        step.descend(critic_loss, "critic", self.config.critic.max_grad_norm)
        step.follow(self.critic.target, self.critic.q)
        acting = t.for_actor()
        if acting.state_BS is not t.state_BS:
            with torch.no_grad():
                advantage_B = self.advantage(acting)
        actor = self.model.update(acting, step, self.actor_weights(acting, advantage_B))
        return {"value_loss": value_loss.detach()} | critic | actor

    def sample_actions(self, state_BS: Tensor, seeds: Seeds,
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        options = replace(options, temperature=options.temperature * self.config.temperature)
        return self.critic.best(state_BS, self.model.sample(state_BS, seeds, options, self.config.candidates))


POLICIES["iql"] = IQLConfig, IQL
PRESETS["iql"] = "implicit Q-learning: values by expectile regression, policy by advantage weighting", IQLConfig()
PRESETS["idql"] = ("the best of several actions of a diffusion model, by IQL's values",
                   IQLConfig(DIFFUSION, beta=0.0, candidates=8, temperature=1.0))
