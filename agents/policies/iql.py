"""IQL: it learns values by expectile regression on the data's actions, and a policy by advantage-weighted regression.

Kostrikov et al. 2022, "Offline Reinforcement Learning with Implicit Q-Learning".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.families import Model, ModelConfig
from gentraj.training.optimization import adamw
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions

from .critic import Critic, CriticConfig, advantage_weights, exponential_weights, state_value, update_implicit
from .generators import GAUSSIAN
from .policy import Policy, PolicyConfig, Scales


@dataclass(frozen=True)
class IQLConfig(PolicyConfig):
    """The settings of `IQL`. Raises ValueError for a setting outside its range."""

    model: ModelConfig = field(default_factory=lambda: GAUSSIAN)
    """The generative model of actions."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    expectile: float = 0.7
    """Expectile of Q(s, a), over the actions of the data, that V(s) estimates: 0.5 is their mean, 1 their maximum."""
    beta: float = 1.0
    """Inverse temperature of the weights exp(beta * advantage) with which actions are imitated."""
    advantages: Literal["relative", "raw"] = "relative"
    """Advantages in the weights: divided by their mean absolute value, with weights divided by their mean; or as they
    are, in the units of the rewards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, expectile=(0, 1), beta=(0, 1e3))


class IQL(Policy[Model]):
    """Implicit Q-learning: V(s) by expectile regression, and the policy by regression weighted by the advantages.

    The exponent of a weight is beta times the advantage Q(s, a) - V(s).
    """

    def __init__(self, obs_dim: int, act_dim: int, config: IQLConfig, scales: Scales):
        super().__init__(obs_dim, act_dim, config, scales, config.critic.n_step)
        self.config, self.model = config, self.build_model(config.model)
        self.critic = Critic.of(self, config.critic)
        self.value = state_value(self, config.critic)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"critic": self.critic.optimizer(), "value": adamw(self.value, self.config.critic),
                **self.model.optimizers()}

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        t = self.transition(batch, self.config.critic.discount)
        values, advantage_B = update_implicit(self.critic, self.value, t, self.config.expectile, optimizers)
        weight_B = (exponential_weights(advantage_B, self.config.beta) if self.config.advantages == "raw"
                    else advantage_weights(advantage_B, self.config.beta, t.weights()))
        actor = self.model.update(self.windows(t, weight_B), optimizers, generator)  # equation 7
        return values | actor

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        options = replace(options, temperature=0.0)
        return self.actions(self.model.sample(self.condition(state_BS), seed=seeds, options=options)[:, 0])
