"""FQL: a flow imitates the data, and a one-step student distils the flow while it maximises Q(s, a). The student acts.

Park et al. 2025, "Flow Q-Learning".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.diffusion import DiffusionConfig
from gentraj.training.optimization import apply_gradients
from gentraj.trajectory import Batch

from .critic import CriticConfig
from .generators import FLOW
from .one_step import DistilledFlow
from .policy import PolicyConfig, Scales


@dataclass(frozen=True)
class FQLConfig(PolicyConfig):
    """The settings of `FQL`. Raises ValueError for a setting outside its range."""

    model: DiffusionConfig = field(default_factory=lambda: FLOW)
    """The flow, a model of actions. Its student has the same network, learning rate and decay of the average."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    alpha: float = 10.0
    """Weight of the distillation loss, the squared error to the flow's action from the same noise, relative to the Q
    loss."""
    temperature: float = 1.0
    """Scale of the noise that an action is made from, multiplied by the temperature of the sampling options. At 0 the
    same state always gives the same action."""
    relative: bool = True
    """Divide the values in the Q loss by their mean absolute value. Without it, the right alpha depends on the size of
    the rewards."""

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "temperature")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, alpha=(0, 1e6), temperature=(0, 10))


class FQL(DistilledFlow):
    """Flow Q-learning: a flow of the data's actions, and its student of one step, which maximises Q(s, a) and acts."""

    def __init__(self, obs_dim: int, act_dim: int, config: FQLConfig, scales: Scales):
        super().__init__(obs_dim, act_dim, config, scales, config.model, config.critic)
        self.config = config

    @property
    def temperature(self) -> float:
        return self.config.temperature

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        t = self.transition(batch, self.config.critic.discount)
        with torch.no_grad():
            next_BX = self.one_step(self.student_ema, t.next_BS, self.noise(t, generator)).clamp(-1, 1)
        critic = self.critic.update(t, self.critic.next_return(t.next_BS, next_BX), optimizers["critic"])
        flow = self.model.update(self.windows(t), optimizers, generator)
        student_loss, distance = self.distillation_loss(t, self.noise(t, generator), self.config.alpha, generator,
                                                        divided=self.config.relative)
        apply_gradients(student_loss, optimizers["student"], self.config.critic.max_grad_norm)
        self.student_ema.update_parameters(self.student)
        return critic | flow | {"student_distance": distance.detach()}
