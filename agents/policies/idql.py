"""IDQL: it learns values by expectile regression as IQL, and takes the best of several actions of a cloned policy.

Hansen-Estruch et al. 2023, "IDQL: Implicit Q-Learning as an Actor-Critic Method with Diffusion Policies".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.families import Model, ModelConfig
from gentraj.training.optimization import adamw
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions

from .critic import Critic, CriticConfig, state_value, update_implicit
from .generators import DIFFUSION
from .policy import Policy, PolicyConfig, Scales


@dataclass(frozen=True)
class IDQLConfig(PolicyConfig):
    """The settings of `IDQL`. Raises ValueError for a setting outside its range."""

    model: ModelConfig = field(default_factory=lambda: DIFFUSION)
    """The generative model of actions."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    expectile: float = 0.7
    """Expectile of Q(s, a), over the actions of the data, that V(s) estimates: 0.5 is their mean, 1 their maximum."""
    candidates: int = 8
    """Actions that are sampled in each decision; the one with the highest value is taken."""

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "candidates")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, expectile=(0, 1), candidates=(1, 1e4))


class IDQL(Policy[Model]):
    """A model that imitates all actions of the data, and values learned as in `IQL`, by which it acts.

    To act, it samples several actions and takes the one with the highest value.
    """

    def __init__(self, obs_dim: int, act_dim: int, config: IDQLConfig, scales: Scales):
        super().__init__(obs_dim, act_dim, config, scales, config.critic.n_step)
        self.config, self.model = config, self.build_model(config.model)
        self.critic = Critic.of(self, config.critic)
        self.value = state_value(self, config.critic)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"critic": self.critic.optimizer(), "value": adamw(self.value, self.config.critic),
                **self.model.optimizers()}

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        t = self.transition(batch, self.config.critic.discount)
        values, _ = update_implicit(self.critic, self.value, t, self.config.expectile, optimizers)
        actor = self.model.update(self.windows(t), optimizers, generator)  # equation 9, unweighted
        return values | actor

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        act_BNKA = self.candidates(self.model, state_BS, self.config.candidates, seeds, options)
        return self.critic.best(state_BS, act_BNKA)
