"""The student: a small network that learns what another agent does from what that agent did, and acts much faster.

A planner or an iterative policy may answer the same state in several ways. The student models its actions by a mixture
of distributions (Bishop 1994, "Mixture Density Networks") and takes the centre of the most probable component, so that
it does not act by the average of two ways round an obstacle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.networks.mlp import mlp
from gentraj.networks.rows import padding
from gentraj.training.optimization import LEARNING, adamw, apply_gradients
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions

from .actor import Actor
from .policy import FAR, Policy, PolicyConfig, Scales

SPREAD = (math.log(0.01), 0.0)  # bounds on the logarithm of a component's spread, in units of half the range of actions


@dataclass(frozen=True)
class StudentConfig(PolicyConfig):
    width: int = 256
    """Units of each hidden layer."""
    depth: int = 3
    """Number of hidden layers."""
    components: int = 4
    """Number of components of the mixture that models the teacher's actions in a state; 1 acts by their median."""
    goal_dims: tuple[int, ...] = ()
    """Entries of an observation that are subtracted from the goal, so that the network sees where the goal lies from
    here; none if the goal is not made of such entries. A distillation takes them from the data."""
    batch_size: int = 1024
    """Number of decisions in a batch."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 1e-4
    """Weight decay of AdamW."""
    max_grad_norm: float = 10.0
    """Gradients of a larger norm are scaled down to this norm."""

    def unused(self) -> dict[str, str]:
        return dict.fromkeys(("chunk", "execute"), "a student decides each action by itself")

    def __post_init__(self) -> None:
        require(self, chunk=(1, 1), execute=(1, 1), width=(1, 1e5), depth=(1, 100), components=(1, 1e3),
                batch_size=(1, 1e9), **LEARNING)


class Student(Policy):
    """A perceptron from the observation, and the goal relative to it, to a mixture of Laplace distributions of actions.

    The entries of an action are independent within a component. A Laplace distribution makes the loss an absolute
    error, whose best answer is the median: actions at the bounds of the action space stay there.
    """

    def __init__(self, obs_dim: int, act_dim: int, config: StudentConfig, scales: Scales):
        super().__init__(obs_dim, act_dim, config, scales)
        if scales.context is not None and len(config.goal_dims) not in (0, len(scales.context.shift_D)):
            raise ValueError(f"StudentConfig.goal_dims are {config.goal_dims}, and a goal has "
                             f"{len(scales.context.shift_D)} numbers; give an entry of the observation for each, or "
                             "none")
        self.config, self.calls = config, 0
        outputs = config.components * (1 + 2 * act_dim)
        self.network = mlp([self.state_dim, *[config.width] * config.depth, outputs])

    @property
    def network_calls(self) -> int:
        return self.calls

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        return f"one call, the most probable of {self.config.components} components"

    def optimizers(self) -> dict[str, Optimizer]:
        return adamw(self.network, self.config)

    def state(self, obs_BO: Tensor, context_BC: Tensor | None) -> Tensor:
        """(B, S) normalised observations, followed by the goals relative to them in units of the goals' deviations."""
        if context_BC is not None and self.context is not None and self.config.goal_dims:
            here_BG = self._bounded(obs_BO)[:, list(self.config.goal_dims)]
            context_BC = context_BC - here_BG + self.context.shift_D
        return super().state(obs_BO, context_BC)

    def _bounded(self, obs_BO: Tensor) -> Tensor:
        """The observations as `Policy.state` bounds them, in environment units."""
        reach_O = FAR * self.obs.scale_D
        return obs_BO.clamp(self.obs.shift_D - reach_O, self.obs.shift_D + reach_O)

    def mixture(self, state_BS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights (B, K), centres (B, K, A) and log spreads (B, K, A) of the actions, normalised."""
        K = self.config.components
        out_BX = self.network(state_BS)
        centre_BKA, spread_BKA = out_BX[:, K:].unflatten(1, (2, K, -1)).unbind(1)
        low, high = SPREAD
        log_spread_BKA = low + (high - low) * spread_BKA.sigmoid()
        return out_BX[:, :K].log_softmax(1), centre_BKA, log_spread_BKA

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        t = self.transition(batch, 1.0)
        log_weight_BK, centre_BKA, log_spread_BKA = self.mixture(t.state_BS)
        error_BKA = (t.chunk_BX[:, None] - centre_BKA).abs()
        log_density_BKA = -error_BKA / log_spread_BKA.exp() - log_spread_BKA - math.log(2)
        loss = -(log_weight_BK + log_density_BKA.sum(2)).logsumexp(1).mean()
        norm = apply_gradients(loss, optimizers["network"], self.config.max_grad_norm)
        with torch.no_grad():
            error = (t.chunk_BX - best(log_weight_BK, centre_BKA)).abs().mean()
        return {"loss": loss.detach(), "error": error, "grad_norm": norm}

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        """(B, 1, A) the centres of the most probable components; the seeds and the options change nothing."""
        self.calls += 1
        log_weight_BK, centre_BKA, _ = self.mixture(state_BS)
        return best(log_weight_BK, centre_BKA)[:, None].clamp(-1, 1)


def best(log_weight_BK: Tensor, centre_BKA: Tensor) -> Tensor:
    """(B, A) the centre of the most probable component."""
    index_B11 = log_weight_BK.argmax(1)[:, None, None]
    return centre_BKA.gather(1, index_B11.expand(-1, 1, centre_BKA.shape[2]))[:, 0]


class StudentActor(Actor):
    """The `Agent` of a student: it does what an `Actor` does, in a dozen tensor operations.

    The normalisation of the inputs, the position that the goal is relative to and the scale of the actions are folded
    into the weights once. The spreads are left out, as they do not matter for an action. Network calls are padded as
    everywhere, so that an action does not depend on the environments beside it.
    """

    def __init__(self, policy: Student, low_A: np.ndarray, high_A: np.ndarray,
                 options: SamplingOptions = DEFAULT_OPTIONS):
        super().__init__(policy, low_A, high_A, options)
        self.policy: Student = policy
        self.layers = folded(policy)
        device, act = policy.device, policy.act_scale
        reach_O = FAR * policy.obs.scale_D
        self.near_O, self.far_O = policy.obs.shift_D - reach_O, policy.obs.shift_D + reach_O
        self.low_A = self.low_A.to(device).maximum(act.unnormalize(-torch.ones_like(act.shift_D)))
        self.high_A = self.high_A.to(device).minimum(act.unnormalize(torch.ones_like(act.shift_D)))

    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        policy, batch, K = self.policy, len(obs_BO), self.policy.config.components
        x_BI = obs_BO.to(self.near_O.device).clamp(self.near_O, self.far_O)
        if policy.context is not None:
            x_BI = torch.cat([x_BI, require_goal(goal_BG).to(x_BI.device)], 1)
        h_BX = F.pad(x_BI, (0, 0, 0, padding(batch)))
        for weight, bias in self.layers[:-1]:
            h_BX = F.silu(torch.addmm(bias, h_BX, weight), inplace=True)
        weight, bias = self.layers[-1]
        out_BX = torch.addmm(bias, h_BX, weight)[:batch]
        policy.calls += 1
        centre_BKA = out_BX[:, K:].unflatten(1, (K, -1))
        return best(out_BX[:, :K], centre_BKA).clamp(self.low_A, self.high_A).cpu()


def require_goal(goal_BG: Tensor | None) -> Tensor:
    """The goals. Raises ValueError if there are none."""
    if goal_BG is None:
        raise ValueError("a student trained with a goal was given none; give `act` the goals (B, G)")
    return goal_BG


def folded(policy: Student) -> list[tuple[Tensor, Tensor]]:
    """The layers (weights (I, X), biases (X,)) that map observation and goal, joined, to log weights (K,) up to a
    constant and centres (K * A,), in environment units."""
    config, obs, context, act = policy.config, policy.obs, policy.context, policy.act_scale
    K, width = config.components, len(obs.shift_D)
    layers = [(layer.weight.detach().double(), layer.bias.detach().double()) for layer in policy.network
              if isinstance(layer, nn.Linear)]
    weight, bias = layers[0]
    parts = [weight[:, :width] / obs.scale_D]
    bias = bias - parts[0] @ obs.shift_D.double()
    if context is not None:
        parts.append(weight[:, width:] / context.scale_D)
        if config.goal_dims:
            parts[0][:, list(config.goal_dims)] -= parts[1]
        else:
            bias = bias - parts[1] @ context.shift_D.double()
    layers[0] = torch.cat(parts, 1), bias
    weight, bias = layers[-1]
    rows = K * (1 + len(act.shift_D))
    scale_X = torch.cat([torch.ones(K, device=policy.device), act.scale_D.repeat(K)])
    shift_X = torch.cat([torch.zeros(K, device=policy.device), act.shift_D.repeat(K)])
    layers[-1] = weight[:rows] * scale_X[:, None], bias[:rows] * scale_X + shift_X
    return [(weight.T.float().contiguous(), bias.float()) for weight, bias in layers]
