"""Networks of values, Q(s, a) with its target and V(s), and the pure functions of which losses are made.

Expectiles: Kostrikov et al. 2022, "Offline Reinforcement Learning with Implicit Q-Learning" (arXiv 2110.06169).
Quantiles: Dabney et al. 2018, "Distributional Reinforcement Learning with Quantile Regression" (arXiv 1710.10044).
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Interval
from einops import rearrange, repeat
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import Fraction, settings
from gentraj.device import to_device
from gentraj.networks import ValueEnsemble
from gentraj.networks.mlp import ACTIVATIONS, ActivationName, InitialName, NormName
from gentraj.randomness import Seeds, as_noise
from gentraj.training.optimization import LearningConfig, MovingAverage, adamw
from gentraj.training.step import TrainingStep

from .policy import Policy, Transition

MAX_DISCOUNT = 0.99999  # per environment step, as the return of endless rewards must be finite
MAX_ADVANTAGE_WEIGHT = 100  # bound on exp(beta * advantage) (Kostrikov et al. 2022, appendix B)


@settings
class ValueConfig(LearningConfig):
    """The settings of a value function, which every critic has."""

    discount: Annotated[float, Interval(ge=0, le=MAX_DISCOUNT)] = 0.99
    """Discount per environment step."""
    n_step: PositiveInt = 32
    """Environment steps of the n-step return, at least those of a chunk. The papers use 1. More steps need far fewer
    updates, but credit an action with what the data did after it."""
    width: PositiveInt = 256
    """Units of each hidden layer."""
    depth: PositiveInt = 2
    """Number of hidden layers."""
    members: PositiveInt = 2
    """Number of networks in the ensemble."""
    learning_rate: Fraction = 5e-4
    weight_decay: Fraction = 0.0
    max_grad_norm: PositiveFloat = 10.0
    activation: ActivationName = "relu"
    """Activation of the hidden layers."""
    norm: NormName = "before"
    """Layer normalisation before each activation; after it, with a scale and a shift that are learned; or none."""
    initial: InitialName = "uniform"
    """Distribution of the initial weights: uniform, as in torch; orthogonal with a gain of sqrt(2); or glorot."""
    start: Literal["data", "zero"] = "data"
    """Value of all states before training: that which the data's mean reward leads to, or about 0."""


@settings
class CriticConfig(ValueConfig):
    """Settings of the critic Q(s, a), an ensemble with target networks.

    Raises ValueError for a setting outside its range.
    """

    tau: Fraction = 0.01
    """Rate at which the target network follows the critic."""
    target: Literal["min", "mean"] = "min"
    """Value that the target networks give to an action, for targets and to choose among actions: their minimum or their
    mean."""
    gradient: Literal["mean", "first", "random"] = "mean"
    """Values that an actor maximises: the mean over the ensemble, its first member, or a random member of two, divided
    by the mean absolute value of the other. IQL and Swift do not use it."""

    REMOVED: ClassVar[dict[str, object]] = {"quantiles": None}

    def __post_init__(self) -> None:
        if self.gradient == "random" and self.members != 2:
            raise ValueError(f"CriticConfig.members is {self.members}, and gradient is 'random', which takes two; give "
                             "2 members or another gradient")


class Critic(nn.Module):
    """Q(s, a) for chunks of actions, in units of the root mean square of the rewards, and its target network.

    Before training, all values are about `start`, which should be the value that the data's mean reward leads to: from
    0 they would need 1 / (tau (1 - discount^n_step)) updates to get there.
    """

    def __init__(self, state_dim: int, chunk_dim: int, config: CriticConfig, start: float = 0.0):
        super().__init__()
        self.config = config
        self.q = ensemble(config, state_dim + chunk_dim, config.members, start)
        self.target = MovingAverage(self.q, 1 - config.tau)

    @classmethod
    def of(cls, policy: Policy, config: CriticConfig) -> Critic:
        """Builds the critic for the states and chunks of a policy."""
        return cls(policy.state_dim, policy.chunk * policy.spec.act_dim, config,
                   policy.scales.initial_value(config.discount))

    def optimizer(self) -> Optimizer:
        """The optimiser of the Q networks; the target networks follow them."""
        return adamw(self.q, self.config)

    def forward(self, state_BS: Tensor, chunk_BX: Tensor) -> Tensor:
        """(E, B) values under each member of the ensemble."""
        return self.q(torch.cat([state_BS, chunk_BX], -1))

    @torch.no_grad()
    def target_value(self, state_BS: Tensor, chunk_BX: Tensor) -> Tensor:
        """(B,) the minimum or the mean over the members of the target network."""
        return self.pooled(self.target(torch.cat([state_BS, chunk_BX], -1)))

    def pooled(self, q_EB: Tensor) -> Tensor:
        """(B,) the minimum or the mean over the members, as the settings say."""
        if self.config.target == "min":
            return q_EB.amin(0)
        return q_EB.mean(0)

    @torch.no_grad()
    def next_return(self, state_BS: Tensor, act_BNKA: Tensor) -> Tensor:
        """(B,) the value of what follows, as `target_value`. Of several candidates for a state, each member takes its
        best one."""
        q_EB = self.target(torch.cat(pairs(state_BS, act_BNKA), -1))
        return self.pooled(rearrange(q_EB, "e (b n) -> e b n", n=act_BNKA.shape[1]).amax(2))

    def loss(self, t: Transition, target_B: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L(theta) = E[(y - Q(s, a))^2] for the targets y, in units of the values. Returns the loss and metrics."""
        q_EB = self(t.state_BS, t.chunk_BX)
        loss = t.average(((q_EB - target_B) / self.q.unit) ** 2)
        return loss, {"critic_loss": loss.detach(), "q": q_EB.detach().mean()}

    def relative(self, state_BS: Tensor, chunk_BX: Tensor, step: TrainingStep, *, divided: bool = True) -> Tensor:
        """(B,) the values that an actor maximises, if `divided` by their mean absolute value over the step's batch.

        The gradient reaches the actions, but not the weights of the critic. The step's generator draws a random member.
        """
        self.q.requires_grad_(False)
        try:
            q_EB = self(state_BS, chunk_BX)
        finally:
            self.q.requires_grad_(True)
        if self.config.gradient == "mean":
            q_B = q_EB.mean(0)
            size_B = q_B
        elif self.config.gradient == "first":
            q_B = q_EB[0]
            size_B = q_B
        else:
            member = torch.randint(2, (), generator=step.generator)
            member_1 = to_device(member.view(1), q_EB.device)
            q_B = q_EB.index_select(0, member_1)[0]
            size_B = q_EB.index_select(0, 1 - member_1)[0]
        if not divided:
            return q_B
        return q_B / size_B.detach().abs().mean().clamp(min=1e-6)

    def best(self, state_BS: Tensor, act_BNKA: Tensor, seeds: Seeds | None = None) -> Tensor:
        """(B, K, A) of each state's N candidates, the one with the highest value under the target network.

        With a seed or noise for each state, a candidate is drawn with the probability softmax(value), in the policy's
        units of rewards.
        """
        number = act_BNKA.shape[1]
        if number == 1:
            return act_BNKA[:, 0]
        value_BN = rearrange(self.target_value(*pairs(state_BS, act_BNKA)), "(b n) -> b n", n=number)
        if seeds is not None:  # the largest sum of a logit and Gumbel noise is a sample
            noise_BN = as_noise(seeds, len(value_BN), "states").anew(number).normal(number)
            value_BN = value_BN - (-torch.special.log_ndtr(to_device(noise_BN, value_BN.device))).log()
        return act_BNKA[torch.arange(len(act_BNKA), device=value_BN.device), value_BN.argmax(1)]


def pairs(state_BS: Tensor, act_BNKA: Tensor) -> tuple[Tensor, Tensor]:
    """The states (B * N, S) and the chunks (B * N, X) of N candidates for each state, one state after the other."""
    number = act_BNKA.shape[1]
    if number > 1:
        state_BS = repeat(state_BS, "b s -> (b n) s", n=number)
    return state_BS, rearrange(act_BNKA, "b n k a -> (b n) (k a)")


def state_value(policy: Policy, config: ValueConfig, members: int = 1) -> ValueEnsemble:
    """V(s) as `members` independent networks, which start from the same value as Q(s, a)."""
    return ensemble(config, policy.state_dim, members, policy.scales.initial_value(config.discount))


def ensemble(config: ValueConfig, inputs: int, members: int, start: float) -> ValueEnsemble:
    """An ensemble of value functions whose values begin near `start`, or near 0 as the settings say."""
    widths = [inputs, *[config.width] * config.depth, 1]
    return ValueEnsemble(widths, members, start if config.start == "data" else 0.0, ACTIVATIONS[config.activation],
                         norm=config.norm, initial=config.initial)


def steps_to_go(value: Tensor, discount: float) -> Tensor:
    """The environment steps d to a goal in hindsight whose value is -(1 - discount^d) / (1 - discount).

    A value that no number of steps has, as of a network that errs, is taken for the nearest one.
    """
    left = (1 + (1 - discount) * value).clamp(torch.finfo(value.dtype).tiny, 1)
    return left.log() / math.log(discount)


def expectile(error: Tensor, tau: float) -> Tensor:
    """|tau - 1(error < 0)| error^2, of the shape of `error`: the asymmetric squared loss of expectiles (Kostrikov et
    al. 2022, equation 4)."""
    return torch.where(error < 0, 1 - tau, tau) * error**2


def advantage_weights(advantage_B: Tensor, beta: float, weight_B: Tensor | float = 1.0) -> Tensor:
    """(B,) weights exp(beta * advantage), bounded by MAX_ADVANTAGE_WEIGHT and divided by their mean.

    The advantages are divided by the mean of their absolute values. Both means are weighted by `weight_B`, so that the
    product of both weights has mean 1.
    """
    size = (advantage_B.abs() * weight_B).mean().clamp(min=1e-6)
    exponent_B = (beta * advantage_B / size).clamp(max=math.log(MAX_ADVANTAGE_WEIGHT))
    better_B = (exponent_B - exponent_B.max()).exp()  # divided by the largest, against underflow
    return better_B / (better_B * weight_B).mean().clamp(min=torch.finfo(better_B.dtype).tiny)
