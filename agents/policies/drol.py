"""DROL: a one-step student without a teacher. Of several of its actions, the nearest to the data's action learns.

Mu et al. 2026, "Preserve Support, Not Correspondence: Dynamic Routing for Offline Reinforcement Learning". In each
state the student makes K candidates, and only the one that is nearest to the data's action is drawn to it and raised in
value. The losses are those of the authors' code (agents/drol.py), as the paper was read in abstract only;
docs/policies.md says what differs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.networks import NETWORKS
from gentraj.training.optimization import MovingAverage, adamw, apply_gradients
from gentraj.trajectory import Batch

from .critic import Critic, CriticConfig
from .one_step import OneStep, OneStepConfig
from .policy import PolicyConfig, Scales, Transition


@dataclass(frozen=True)
class DROLConfig(PolicyConfig):
    """The settings of `DROL`. Raises ValueError for a setting outside its range."""

    student: OneStepConfig = field(default_factory=OneStepConfig)
    """The network that acts."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    alpha: float = 1.0
    """Weight of the squared error of the nearest candidate to the data's action, relative to the Q loss; values are
    divided by their mean absolute value."""
    temperature: float = 1.0
    """Scale of the noise that an action is made from, multiplied by the temperature of the sampling options. At 0 the
    same state always gives the same action."""
    candidates: int = 16
    """Actions of the student in each state of an update, of which only the nearest to the data's action learns. With 1,
    every action of the student is pulled towards the data's."""

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "temperature")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, alpha=(0, 1e6), candidates=(1, 1e4), temperature=(0, 10))


class DROL(OneStep):
    """A student of one step, of whose candidates the nearest to the data's action learns."""

    def __init__(self, obs_dim: int, act_dim: int, config: DROLConfig, scales: Scales):
        super().__init__(obs_dim, act_dim, config, scales, config.critic.n_step)
        self.config, network = config, config.student.network
        self.critic = Critic.of(self, config.critic)
        self.student = NETWORKS.made_of(network)(self.window_spec.dim, self.chunk, 0, network)
        self.student_ema = MovingAverage(self.student, config.student.ema)

    @property
    def temperature(self) -> float:
        return self.config.temperature

    def optimizers(self) -> dict[str, Optimizer]:
        return {"critic": self.critic.optimizer(), "student": adamw(self.student, self.config.student)}

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        t = self.transition(batch, self.config.critic.discount)
        with torch.no_grad():
            next_BX = self.one_step(self.student_ema, t.next_BS, self.noise(t, generator)).clamp(-1, 1)
        critic = self.critic.update(t, self.critic.next_return(t.next_BS, next_BX), optimizers["critic"])
        z_BNKA = self.noise(t, generator, self.config.candidates).unflatten(0, (-1, self.config.candidates))
        student_loss, distance = self.student_loss(t, self.nearest(t, z_BNKA), generator)
        norm = apply_gradients(student_loss, optimizers["student"], self.config.student.max_grad_norm)
        self.student_ema.update_parameters(self.student)
        return critic | {"student_distance": distance.detach(), "grad_norm": norm.detach()}

    @torch.no_grad()
    def nearest(self, t: Transition, z_BNKA: Tensor) -> Tensor:
        """(B, K, A) the noise of N whose action is the nearest to the data's."""
        state_RS = t.state_BS.repeat_interleave(z_BNKA.shape[1], 0)
        chunk_BNX = self.one_step(self.student, state_RS, z_BNKA.flatten(0, 1)).view(*z_BNKA.shape[:2], -1)
        square_BNX = (chunk_BNX.clamp(-1, 1) - t.chunk_BX[:, None]) ** 2 * self.real(t)[:, None]
        return z_BNKA[torch.arange(len(z_BNKA), device=z_BNKA.device), square_BNX.sum(-1).argmin(1)]

    def student_loss(self, t: Transition, z_BKA: Tensor,
                     generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The loss of the student's actions from the noise that was nearest, and their distance to the data's: two
        scalars."""
        chunk_BX, real_BX = self.one_step(self.student, t.state_BS, z_BKA), self.real(t)
        square_B = ((chunk_BX - t.chunk_BX) ** 2 * real_BX).sum(1) / real_BX.sum(1)
        distance = (square_B * t.weights()).mean()
        value = (self.critic.relative(t.state_BS, chunk_BX.clamp(-1, 1), generator) * t.weights()).mean()
        return self.config.alpha * distance - value, distance

    def real(self, t: Transition) -> Tensor:
        """(B, K * A) true for the entries of a chunk's actions before the end of its episode."""
        return t.real_BK.repeat_interleave(self.spec.act_dim, 1)

    @property
    def noise_dim(self) -> int:
        return super().noise_dim + 2

    def latent(self, normal_BZ: Tensor) -> Tensor:
        """(B, K, A) uniform in the ball of radius sqrt(K * A): a point on a sphere without its last two coordinates."""
        size = self.chunk * self.spec.act_dim
        ball_BX = normal_BZ[:, :size] / normal_BZ.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return size**0.5 * ball_BX.unflatten(1, (self.chunk, -1))
