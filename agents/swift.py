"""Swift, gentraj's own: a flow that draws the better of the data's actions; the best that its one-step student draws.

FQL (Park et al. 2025) with the flow's data weighted by their advantage over the student, as guided flow policies have
it (arXiv 2512.03973), and with the best of several draws, both where it acts and where the critic learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.networks.mlp import mlp
from gentraj.optimization import adamw, apply_gradients
from gentraj.randomness import RowNoise
from gentraj.trajectory import Batch

from .critic import Critic, CriticConfig, advantage_weights
from .generators import FLOW
from .policy import Policy, Scales, Transition, part_of, under


@dataclass(frozen=True)
class SwiftConfig:
    model: DiffusionConfig = field(default_factory=lambda: FLOW)
    """The generator of actions, of which there is a one-step student."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    alpha: float = 1.0
    """Weight of the squared error to what the flow makes of the same noise, beside the value, of size 1."""
    beta: float = 1.0
    """How much more the flow copies a better action: its weight is exp(beta * advantage), advantages having size 1."""
    candidates: int = 16
    """Actions that are drawn, of which the one with the highest value is taken."""
    next_candidates: int = 4
    """The same for the next actions that the critic learns from."""
    width: int = 256
    """Of the student."""
    depth: int = 3
    """Hidden layers of the student."""
    chunk: int = 1
    """Actions that are decided together."""
    execute: int = 1
    """Of these, the actions that are carried out before the next are decided."""
    batch_size: int = 256

    def __post_init__(self) -> None:
        require(self, alpha=(0, 1e6), beta=(0, 1e3), candidates=(1, 1e4), next_candidates=(1, 1e4), width=(1, 1e5),
                depth=(1, 100), chunk=(1, 1e4), execute=(1, self.chunk), batch_size=(1, 1e9))


class Swift(Policy):
    def __init__(self, obs_dim: int, act_dim: int, config: SwiftConfig, scales: Scales):
        super().__init__(obs_dim, act_dim, config, scales, config.critic.reach)
        self.config, self.model = config, cast(Diffusion, self.generator(config.model))
        self.critic = Critic.of(self, config.critic)
        chunk_dim = self.chunk * act_dim
        self.student = mlp([self.state_dim + chunk_dim, *[config.width] * config.depth, chunk_dim])
        self.calls = 0

    @property
    def network_calls(self) -> int:
        return self.calls

    def sampling(self, steps: int | None = None) -> str:
        return "one call of the student"

    def optimizers(self) -> dict[str, Optimizer]:
        student = adamw(self.student, self.config.critic)["network"]
        return {"critic": self.critic.optimizer(), "student": student, **under("model", self.model.optimizers())}

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        t = self.transition(batch, self.config.critic.discount)
        next_BX = self._best(t.next_BS, self._noise(t, self.config.next_candidates, generator)).flatten(1)
        metrics = self.critic.learn(t, self.critic.least(t.next_BS, next_BX), optimizers["critic"])
        weight_B = advantage_weights(self._advantage(t, generator), self.config.beta)
        metrics |= self.model.update(self.windows(t, weight_B), part_of("model", optimizers), generator)
        return metrics | self._learn_student(t, optimizers["student"], generator)

    def _learn_student(self, t: Transition, optimizer: Optimizer, generator: torch.Generator) -> dict[str, Tensor]:
        """Equation 8, its value normalised (section 4.2)."""
        z_BKA, known = self._noise(t, 1, generator)[:, 0], self.known(t.state_BS)
        flow_BX = self.model.transport(self.join(torch.zeros_like(t.state_BS), z_BKA), known)
        chunk_BX = self.one_step(t.state_BS, z_BKA)
        distance = ((chunk_BX - self.actions(flow_BX).flatten(1)) ** 2).mean()
        value = self.critic.relative(t.state_BS, chunk_BX.clamp(-1, 1)).mean()
        apply_gradients(self.config.alpha * distance - value, optimizer, self.config.critic.max_grad_norm)
        return {"student_distance": distance.detach()}

    def _noise(self, t: Transition, number: int, generator: torch.Generator) -> Tensor:
        """(B, N, K, A)."""
        batch, *shape = t.act_BKA.shape
        return torch.randn(batch, number, *shape, generator=generator).to(t.act_BKA.device)

    @torch.no_grad()
    def _advantage(self, t: Transition, generator: torch.Generator) -> Tensor:
        """(B,) of the data's actions over the student's."""
        own_BX = self.one_step(t.state_BS, self._noise(t, 1, generator)[:, 0]).clamp(-1, 1)
        return self.critic.least(t.state_BS, t.chunk_BX) - self.critic.least(t.state_BS, own_BX)

    @torch.no_grad()
    def _best(self, state_BS: Tensor, z_BNKA: Tensor) -> Tensor:
        """(B, K, A) of what the student makes of N noises."""
        state_RS = state_BS.repeat_interleave(z_BNKA.shape[1], 0)
        act_BNKA = self.one_step(state_RS, z_BNKA.flatten(0, 1)).view_as(z_BNKA).clamp(-1, 1)
        return self.critic.best(state_BS, act_BNKA)

    def one_step(self, state_BS: Tensor, z_BKA: Tensor) -> Tensor:
        """(B, K * A)."""
        return self.student(torch.cat([state_BS, z_BKA.flatten(1)], -1))

    def decide(self, state_BS: Tensor, seeds: Sequence[int]) -> Tensor:
        self.calls += 1
        noise = RowNoise(seeds, self.device)
        return self._best(state_BS, noise.normal(self.config.candidates, self.chunk, self.spec.act_dim))
