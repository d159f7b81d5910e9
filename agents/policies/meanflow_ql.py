"""MeanFlowQL: a one-step student that learns the data's actions as a mean flow, while it maximises Q(s, a).

Wang et al. 2026, "One-Step Generative Policies with Q-Learning: A Reformulation of MeanFlow". There is no flow of many
steps that the student is distilled from: where z_t = (1 - t) a + t noise, the student is g(z, t) = z - u(z, 0, t), with
the average velocity u between 0 and t of a mean flow (Geng et al. 2025), so that g(noise, 1) is an action itself. The
losses are those of the authors' code (agents/meanflowql.py), as the paper was read in summaries only; docs/policies.md
says what differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.distillation.flow_map import TwoTimes
from gentraj.distillation.mean_flow import adaptive, derivative
from gentraj.randomness import unfold_each
from gentraj.training.optimization import MovingAverage, adamw, apply_gradients
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions

from .critic import Critic, CriticConfig
from .one_step import OneStep, OneStepConfig
from .policy import PolicyConfig, Scales, Transition

BOUND = 5.0  # on the targets of the mean flow
POWER, C = 0.2, 1e-4  # of the adaptive weights of the mean-flow loss


@dataclass(frozen=True)
class MeanFlowQLConfig(PolicyConfig):
    """The settings of `MeanFlowQL`. Raises ValueError for a setting outside its range."""

    student: OneStepConfig = field(default_factory=OneStepConfig)
    """The network that acts."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    alpha: float = 10.0
    """Weight of the mean-flow loss, which imitates the data, relative to the Q loss; values are divided by their mean
    absolute value."""
    bound: float = 1.0
    """Weight of the loss of actions outside the data's bounds, which is their mean distance from the bounds."""
    temperature: float = 1.0
    """Scale of the noise that an action is made from, multiplied by the temperature of the sampling options. At 0 the
    same state always gives the same action."""
    candidates: int = 5
    """Actions that are sampled in each decision; the one with the highest value is taken. The critic's targets take the
    best of half as many."""

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "temperature")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, alpha=(0, 1e6), bound=(0, 1e6), candidates=(1, 1e4), temperature=(0, 10))


class MeanFlowQL(OneStep):
    """A student of one step that is a mean flow of the data's actions and maximises Q(s, a)."""

    def __init__(self, obs_dim: int, act_dim: int, config: MeanFlowQLConfig, scales: Scales):
        super().__init__(obs_dim, act_dim, config, scales, config.critic.n_step)
        self.config = config
        self.critic = Critic.of(self, config.critic)
        self.student = TwoTimes(self.window_spec.dim, self.chunk, 0, config.student.network)
        self.student_ema = MovingAverage(self.student, config.student.ema)

    @property
    def temperature(self) -> float:
        return self.config.temperature

    def optimizers(self) -> dict[str, Optimizer]:
        return {"critic": self.critic.optimizer(), "student": adamw(self.student, self.config.student)}

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        t = self.transition(batch, self.config.critic.discount)
        number = max(1, self.config.candidates // 2)
        next_BX = self.best(t.next_BS, self.noise(t, generator, number)).flatten(1)
        critic = self.critic.update(t, self.critic.next_return(t.next_BS, next_BX), optimizers["critic"])
        time_B = 1 - torch.rand(len(t.state_BS), generator=generator).to(t.state_BS.device)  # never 0
        flow_loss = self.mean_flow_loss(t, self.noise(t, generator), time_B)
        student_loss = self.config.alpha * flow_loss + self.value_loss(t, self.noise(t, generator), generator)
        norm = apply_gradients(student_loss, optimizers["student"], self.config.student.max_grad_norm)
        self.student_ema.update_parameters(self.student)
        return critic | {"mean_flow_loss": flow_loss.detach(), "grad_norm": norm.detach()}

    def mean_flow_loss(self, t: Transition, z_BKA: Tensor, time_B: Tensor) -> Tensor:
        """The scalar squared error of g to z + (t - 1) v - t dg/dt, which is z - u by the identity of mean flows,
        u = v - t du/dt. dg/dt is the derivative along the path of a data action, whose velocity is v.
        """
        act_BKA, real_BK = t.chunk_BX.view_as(z_BKA), t.real_BK
        time_B11 = time_B[:, None, None]
        x_BKA, v_BKA = (1 - time_B11) * act_BKA + time_B11 * z_BKA, z_BKA - act_BKA

        def student(x_BKA: Tensor, time_B: Tensor) -> Tensor:
            return self.one_step(self.student, t.state_BS, x_BKA, time_B).view_as(x_BKA)

        g_BKA, slope_BKA = derivative(student, (x_BKA, time_B), (v_BKA, torch.ones_like(time_B)))
        target_BKA = (x_BKA + (time_B11 - 1) * v_BKA - time_B11 * slope_BKA).detach().clamp(-BOUND, BOUND)
        square_BK = ((g_BKA - target_BKA) ** 2).mean(2) * real_BK
        return (adaptive(square_BK.sum(1) / real_BK.sum(1), POWER, C) * t.weights()).mean()

    def value_loss(self, t: Transition, z_BKA: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The negative value of the student's actions, plus how far they are beyond the data's bounds: a scalar."""
        chunk_BX = self.one_step(self.student, t.state_BS, z_BKA)
        beyond_B = (chunk_BX.abs() - 1).clamp(min=0).mean(1)
        value_B = self.critic.relative(t.state_BS, chunk_BX.clamp(-1, 1), generator)
        return ((self.config.bound * beyond_B - value_B) * t.weights()).mean()

    @torch.no_grad()
    def best(self, state_BS: Tensor, z_RKA: Tensor) -> Tensor:
        """(B, K, A) the action with the highest value of those that the student makes in each state from the noise
        (B * number, K, A), one state after the other."""
        state_RS = state_BS.repeat_interleave(len(z_RKA) // len(state_BS), 0)
        act_RKA = self.one_step(self.student_ema, state_RS, z_RKA).view_as(z_RKA).clamp(-1, 1)
        return self.critic.best(state_BS, act_RKA.unflatten(0, (len(state_BS), -1)))

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        self.act_once(options)
        return self.best(state_BS, self.noise_to_act(unfold_each(self.config.candidates, seeds), options))
