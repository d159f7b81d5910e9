"""Diffusion-QL: a generative model of actions that is trained to imitate the data and to maximise Q(s, a).

Wang et al. 2023, "Diffusion Policies as an Expressive Policy Class for Offline Reinforcement Learning". The model
may be of any family, such as a GAN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.families import Model, ModelConfig
from gentraj.randomness import OneStream
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions

from .critic import Critic, CriticConfig
from .generators import DIFFUSION
from .policy import Policy, PolicyConfig, Scales


@dataclass(frozen=True)
class DiffusionQLConfig(PolicyConfig):
    model: ModelConfig = field(default_factory=lambda: replace(DIFFUSION, steps=2))
    """The generative model of actions."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    eta: float = 0.2
    """Weight of the Q loss beside the model's own loss; values are divided by their mean absolute value."""
    candidates: int = 8
    """Actions that are sampled in each decision; the one with the highest value is taken."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, eta=(0, 1e6), candidates=(1, 1e4))


class DiffusionQL(Policy[Model]):
    def __init__(self, obs_dim: int, act_dim: int, config: DiffusionQLConfig, scales: Scales):
        super().__init__(obs_dim, act_dim, config, scales, config.critic.n_step)
        self.config, self.model = config, self.build_model(config.model)
        self.critic = Critic.of(self, config.critic)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"critic": self.critic.optimizer(), **self.model.optimizers()}

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        t = self.transition(batch, self.config.critic.discount)
        with OneStream(generator):
            next_BKA = self.actions(self.model.sample(self.condition(t.next_BS, finite=True))[:, 0])
        critic = self.critic.update(t, self.critic.next_return(t.next_BS, next_BKA.flatten(1)), optimizers["critic"])
        actor = self.model.update(self.windows(t), optimizers, generator, guide=self.value_guide)
        return critic | actor

    def value_guide(self, x: Tensor) -> Tensor:
        """(B,) eta Q(s, a) / mean |Q| of the model's windows, which equation 3 subtracts from its own loss.

        For a diffusion model, the action is the one that it denoises in a single step (Kang et al. 2023).
        """
        return self.config.eta * self.critic.relative(self.states(x), self.actions(x).flatten(1))

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        act_BNKA = self.candidates(self.model, state_BS, self.config.candidates, seeds, options)
        return self.critic.best(state_BS, act_BNKA)
