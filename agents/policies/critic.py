"""Value functions: an ensemble of critics Q(s, a) with a target network, V(s), and the losses that they share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.networks import ValueEnsemble
from gentraj.training.optimization import LearningConfig, MovingAverage, adamw, apply_gradients
from gentraj.training.parallel import max_over_processes, mean_over_processes

from .policy import Policy, Transition

LARGEST = 100  # bound on exp(beta * advantage) (Kostrikov et al. 2022, appendix B)


@dataclass(frozen=True, kw_only=True)
class ValueConfig(LearningConfig):
    discount: float = 0.99
    """Discount per environment step."""
    n_step: int = 32
    """Environment steps of the n-step return, at least those of a chunk. The papers use 1. More steps need far fewer
    updates, but credit an action with what the data did after it."""
    width: int = 256
    """Units of each hidden layer."""
    depth: int = 2
    """Number of hidden layers."""
    members: int = 2
    """Number of networks in the ensemble."""
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    max_grad_norm: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, discount=(0, 0.99999), n_step=(1, 1e4), width=(1, 1e5), depth=(1, 100), members=(1, 1000))


@dataclass(frozen=True)
class CriticConfig(ValueConfig):
    """Settings of the critic Q(s, a), an ensemble with target networks; the minimum over these is used as the value."""

    tau: float = 0.01
    """Rate at which the target network follows the critic."""
    quantiles: int | None = None
    """Number of quantiles of the return that the critic learns by quantile regression (Dabney et al. 2018); their mean
    is the value. None learns the value alone, by squared errors."""

    @classmethod
    def from_former(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """The first release had no `quantiles`."""
        return {"quantiles": None, **settings}

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, tau=(0, 1))
        if self.quantiles is not None:
            require(self, quantiles=(1, 1000))


class Critic(nn.Module):
    """Q(s, a) for chunks of actions, in units of the root mean square of the rewards.

    Before training, all values are about `start`, which should be the value that the data's mean reward leads to: from
    0 they would need 1 / (tau (1 - discount^n_step)) updates to get there.

    With `quantiles`, a member predicts N quantiles of the return at the levels (i + 1/2) / N; its value is their mean.
    """

    def __init__(self, state_dim: int, chunk_dim: int, config: CriticConfig, start: float = 0.0):
        super().__init__()
        self.config = config
        self.q = ValueEnsemble(state_dim + chunk_dim, config.width, config.depth, config.members, start,
                               config.quantiles or 1)
        self.target = MovingAverage(self.q, 1 - config.tau)

    def optimizer(self) -> Optimizer:
        return adamw(self.q, self.config)["network"]

    def forward(self, state_BS: Tensor, chunk_BX: Tensor) -> Tensor:
        """(E, B) values under each member of the ensemble."""
        return self.q(torch.cat([state_BS, chunk_BX], -1))

    @classmethod
    def of(cls, policy: Policy, config: CriticConfig) -> Critic:
        """Builds the critic for the states and chunks of a policy."""
        return cls(policy.state_dim, policy.chunk * policy.spec.act_dim, config,
                   policy.reward_statistics.initial_value(config.discount))

    @torch.no_grad()
    def target_min(self, state_BS: Tensor, chunk_BX: Tensor) -> Tensor:
        """(B,) minimum over the members of the target network."""
        return self.target(torch.cat([state_BS, chunk_BX], -1)).amin(0)

    @torch.no_grad()
    def next_return(self, state_BS: Tensor, chunk_BX: Tensor) -> Tensor:
        """(B, N) the quantiles of the member of the target network with the least value, which is their mean; without
        quantiles, (B, 1) that value."""
        q_EBN = self.target.module.outputs(torch.cat([state_BS, chunk_BX], -1))
        least_B = q_EBN.mean(-1).argmin(0)
        return q_EBN[least_B, torch.arange(len(least_B), device=least_B.device)]

    def update(self, t: Transition, next_return: Tensor, optimizer: Optimizer) -> dict[str, Tensor]:
        """Trains the critic for one step towards r + discount * V(s').

        `next_return` is V(s') as (B,), or M equally likely returns from s' as (B, M). It counts where a time limit
        truncated the episode and not where it terminated.
        """
        target_BM = t.reward_B[:, None] + t.discount_B[:, None] * next_return.reshape(len(next_return), -1)
        q_EBN = self.q.outputs(torch.cat([t.state_BS, t.chunk_BX], -1))
        if self.config.quantiles:
            loss_EB = quantile_loss(q_EBN, target_BM) / self.q.unit
        else:
            loss_EB = (((q_EBN - target_BM) / self.q.unit) ** 2)[..., 0]
        loss = average(loss_EB, t)
        apply_gradients(loss, optimizer, self.config.max_grad_norm)
        self.target.update_parameters(self.q)
        return {"critic_loss": loss.detach(), "q": q_EBN.detach().mean()}

    def relative(self, state_BS: Tensor, chunk_BX: Tensor) -> Tensor:
        """(B,) mean over the members, divided by its mean absolute value over the batch.

        The gradient reaches the actions, but not the weights of the critic.
        """
        self.q.requires_grad_(False)
        try:
            q_B = self(state_BS, chunk_BX).mean(0)
        finally:
            self.q.requires_grad_(True)
        return q_B / mean_over_processes(q_B.detach().abs().mean()).clamp(min=1e-6)

    def best(self, state_BS: Tensor, act_BNKA: Tensor) -> Tensor:
        """(B, K, A) of each state's N candidates, the one with the highest value under the target network."""
        batch, num = act_BNKA.shape[:2]
        value_BN = self.target_min(state_BS.repeat_interleave(num, 0),
                                   act_BNKA.flatten(2).flatten(0, 1)).view(batch, num)
        return act_BNKA[torch.arange(batch, device=value_BN.device), value_BN.argmax(1)]


def state_value(policy: Policy, config: ValueConfig, members: int = 1) -> ValueEnsemble:
    """V(s) as `members` independent networks, which start from the same value as Q(s, a)."""
    return ValueEnsemble(policy.state_dim, config.width, config.depth, members,
                         policy.reward_statistics.initial_value(config.discount))


def update_implicit(critic: Critic, value: ValueEnsemble, t: Transition, tau: float,
                    optimizers: dict[str, Optimizer]) -> tuple[dict[str, Tensor], Tensor]:
    """Train V(s) and Q(s, a) for one step of implicit Q-learning (Kostrikov et al. 2022, section 4.2).

    V(s) learns the expectile `tau` of Q(s, a) over the actions of the data (equation 5), and Q(s, a) learns
    r + discount * V(s') (equation 6). Returns the metrics, and the advantages (B,) of the data's actions before the
    step.
    """
    advantage_B = critic.target_min(t.state_BS, t.chunk_BX) - value(t.state_BS)[0]
    value_loss = average(expectile(advantage_B / value.unit, tau), t)
    apply_gradients(value_loss, optimizers["value"], critic.config.max_grad_norm)
    with torch.no_grad():
        next_value_B = value(t.next_BS)[0]
    metrics = critic.update(t, next_value_B, optimizers["critic"])
    return {"value_loss": value_loss.detach()} | metrics, advantage_B.detach()


def average(x_EB: Tensor, t: Transition) -> Tensor:
    """Mean over the transitions whose chunk is whole or reached a termination; a truncated chunk is no action."""
    return (x_EB * t.whole_B).sum(-1).mean() / mean_over_processes(t.whole_B.sum()).clamp(min=1)


def expectile(error: Tensor, tau: float) -> Tensor:
    """|tau - 1(error < 0)| error^2, the asymmetric squared loss of expectiles (Kostrikov et al. 2022, equation 4)."""
    return torch.where(error < 0, 1 - tau, tau) * error**2


def quantile_loss(q_EBN: Tensor, target_BM: Tensor) -> Tensor:
    """(E, B) the loss whose minimum are the quantiles at (i + 1/2) / N of M equally likely targets.

    It is the quantile Huber loss with a threshold of 1 (Dabney et al. 2018, "Distributional Reinforcement Learning with
    Quantile Regression", equations 9 and 10), which is the root mean square of the rewards; here its mean over the
    quantiles, not the sum.
    """
    number = q_EBN.shape[-1]
    level_N1 = ((torch.arange(number, device=q_EBN.device) + 0.5) / number)[:, None]
    error_EBNM = target_BM[:, None] - q_EBN[..., None]
    size = error_EBNM.abs()
    huber_EBNM = torch.where(size <= 1, 0.5 * size**2, size - 0.5)
    return ((level_N1 - (error_EBNM < 0).to(size)).abs() * huber_EBNM).mean((-2, -1))


def advantage_weights(advantage_B: Tensor, beta: float, weight_B: Tensor | float = 1.0) -> Tensor:
    """(B,) weights exp(beta * advantage), bounded by LARGEST and divided by their mean.

    The advantages are divided by the mean of their absolute values, weighted by `weight_B`.
    """
    size = mean_over_processes((advantage_B.abs() * weight_B).mean()).clamp(min=1e-6)
    exponent_B = (beta * advantage_B / size).clamp(max=math.log(LARGEST))
    better_B = (exponent_B - max_over_processes(exponent_B.max())).exp()  # divided by the largest, against underflow
    return better_B / mean_over_processes(better_B.mean())
