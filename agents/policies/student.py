"""The student: a small network that learns what another agent does from what that agent did, and acts much faster.

A planner or an iterative policy may answer the same state in several ways. The student models its actions by a mixture
of distributions (Bishop 1994, "Mixture Density Networks") and acts by its mode, so that it does not take the average of
two ways round an obstacle. Where the teacher plans at random, it acts by a component that is drawn anew in each
decision, so that it does not stand still where the mode is wrong.
"""

from __future__ import annotations

import math
from copy import copy, deepcopy
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import Fraction, settings
from gentraj.device import running_sum, to_device
from gentraj.networks.embedding import padded
from gentraj.networks.mlp import mlp
from gentraj.randomness import Noise, RowNoise, Seeds, as_noise
from gentraj.ranges import DataRanges
from gentraj.training.optimization import LearningConfig, adamw
from gentraj.training.step import TrainingStep
from gentraj.trajectory import DEFAULT_OPTIONS, SamplingOptions, refuse_options

from ..roadmap.far_goals import FarGoals
from .actor import Actor
from .policy import POLICIES, Policy, PolicyConfig, Transition
from .scales import StateActionScales

# In units of half the range of actions: how far the entries of like actions are apart on average, and the bounds on a
# component's spread. With narrower components, the actions that are learnt already would dominate the loss.
NEAR_DISTANCE = 0.1
LOG_SPREAD_BOUNDS = (math.log(0.05), 0.0)
DRAWN_AHEAD = 64  # decisions whose random numbers are drawn together
ONE_CALL = "a student of decisions acts by one call of its network"


@settings
class StudentConfig(PolicyConfig, LearningConfig):
    """The settings of `Student`. Raises ValueError for a setting outside its range."""

    width: PositiveInt = 256
    """Units of each hidden layer."""
    depth: PositiveInt = 3
    """Number of hidden layers."""
    components: PositiveInt = 4
    """Number of components of the mixture that models the teacher's actions in a state; 1 acts by their median."""
    sample: bool = False
    """Act by a component that is sampled by its weight instead of by the mixture's mode. A student of a planner that
    follows each plan for several steps always does so."""
    goal_dims: tuple[int, ...] = ()
    """Entries of an observation that are subtracted from the goal, so that the network sees where the goal lies from
    here; none if the goal is not made of such entries. A distillation takes them from the data."""
    batch_size: PositiveInt = 256
    """Number of decisions in a batch."""
    learning_rate: Fraction = 3e-3
    """Peak learning rate of AdamW."""
    max_grad_norm: PositiveFloat = 10.0

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "sample")


class Mixture(NamedTuple):
    """M components of chunks of actions in each of B states."""

    log_weight_BM: Tensor
    centre_BMX: Tensor
    log_spread_BMX: Tensor


class Student(Policy[StudentConfig]):
    """A perceptron from observations, and goals relative to them, to mixtures of M Laplace distributions of actions.

    The X = K * A entries of a chunk are independent within a component. A Laplace distribution makes the loss an
    absolute error, whose best answer is the median: actions at the bounds of the action space stay there. Raises
    ValueError for `goal_dims` that do not fit the goals of the data.
    """

    def __init__(self, config: StudentConfig, scales: StateActionScales):
        scales = copy(scales)
        scales.goal_dims = config.goal_dims
        super().__init__(config, scales)
        if scales.context_dim and len(config.goal_dims) not in (0, scales.context_dim):
            raise ValueError(f"StudentConfig.goal_dims are {config.goal_dims}, and a goal has {scales.context_dim} "
                             "numbers; give an entry of the observation for each, or none")
        outputs = config.components * (1 + 2 * config.chunk * scales.act_dim)
        self.network = mlp([self.state_dim, *[config.width] * config.depth, outputs])

    def optimizers(self) -> dict[str, Optimizer]:
        return {"network": adamw(self.network, self.config)}

    def mixture(self, state_BS: Tensor) -> Mixture:
        """The mixtures of normalised chunks of actions in these states."""
        M = self.config.components
        out_BY = self.network(state_BS)
        centre_BMX, spread_BMX = rearrange(out_BY[:, M:], "b (two m x) -> two b m x", two=2, m=M)
        low, high = LOG_SPREAD_BOUNDS
        return Mixture(out_BY[:, :M].log_softmax(1), centre_BMX, low + (high - low) * spread_BMX.sigmoid())

    def loss(self, t: Transition) -> tuple[Tensor, Tensor]:
        """L(theta) = -E[log sum_m w_m(s) p_m(a | s)] / K, and the error (B,) of the modes.

        p_m is a product of Laplace densities exp(-|a - c_m| / b_m) / (2 b_m) over the entries before the episode's end.
        """
        p = self.mixture(t.state_BS)
        real_BX = t.real_entries()
        error_BMX = (t.chunk_BX[:, None] - p.centre_BMX).abs()
        log_density_BMX = -error_BMX / p.log_spread_BMX.exp() - p.log_spread_BMX - math.log(2)
        log_density_BM = (log_density_BMX * real_BX[:, None]).sum(2)
        loss = -((p.log_weight_BM + log_density_BM).logsumexp(1) * t.weight_B).mean() / self.chunk
        with torch.no_grad():
            error_BX = (t.chunk_BX - mode(p.log_weight_BM, p.centre_BMX)).abs() * real_BX
        return loss, error_BX.mean(1)

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        t = self.transition(step.batch, 1.0)
        loss, error_B = self.loss(t)
        norm = step.descend(loss, "network", self.config.max_grad_norm)
        return {"loss": loss.detach(), "error": (error_B * t.weight_B).mean(), "grad_norm": norm}

    def sample_actions(self, state_BS: Tensor, seeds: Seeds,
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        """(B, K, A) the mixtures' modes, or components drawn by the seeds. The temperature changes nothing."""
        refuse_options(options, ONE_CALL)
        p = self.mixture(state_BS)
        uniform_B1 = uniform(as_noise(seeds, len(state_BS), "states"), 1) if self.config.sample else None
        return chosen(p.log_weight_BM, p.centre_BMX, uniform_B1).unflatten(1, (self.chunk, -1)).clamp(-1, 1)


def mode(log_weight_BM: Tensor, centre_BMX: Tensor) -> Tensor:
    """(B, X) the centre with the most probability near it, as several components may describe one way to act: the
    weights of all of them, less the further away they are."""
    near_BMM = torch.cdist(centre_BMX, centre_BMX, p=1.0).mul_(-1 / (NEAR_DISTANCE * centre_BMX.shape[2])).exp_()
    index_B11 = torch.bmm(near_BMM, log_weight_BM.softmax(1)[:, :, None]).argmax(1, keepdim=True)
    return centre_BMX.gather(1, index_B11.expand(-1, 1, centre_BMX.shape[2])).squeeze(1)


def chosen(log_weight_BM: Tensor, centre_BMX: Tensor, uniform_B1: Tensor | None) -> Tensor:
    """(B, X) a centre that is drawn by the weights with numbers in [0, 1], or the mode without them. The log weights
    may lack a constant."""
    if uniform_B1 is None:
        return mode(log_weight_BM, centre_BMX)
    below_BM = running_sum(log_weight_BM.softmax(1))[:, :-1] < to_device(uniform_B1, log_weight_BM.device)
    index_B1 = below_BM.sum(1, keepdim=True)
    return centre_BMX.gather(1, index_B1[:, :, None].expand(-1, 1, centre_BMX.shape[2])).squeeze(1)


def uniform(noise: Noise, number: int) -> Tensor:
    """(B, number) random numbers in [0, 1] for each row, from normal noise, which an exported decision is given."""
    return torch.special.ndtr(noise.normal(number))


class StudentActor(Actor):
    """The `Agent` of a student: it does what an `Actor` does, in twenty tensor operations.

    The normalisation of the inputs and the position that the goal is relative to are folded into the weights once. The
    spreads are left out, as they do not matter for an action.
    """

    def __init__(self, policy: Student, low_A: np.ndarray, high_A: np.ndarray,
                 options: SamplingOptions = DEFAULT_OPTIONS, ahead: FarGoals | None = None,
                 ranges: DataRanges | None = None):
        super().__init__(policy, low_A, high_A, options, ahead, ranges)
        refuse_options(options, ONE_CALL)
        self.policy: Student = policy
        scales = policy.scales
        low_O, high_O = scales.bounds()
        self.low_O = low_O.float()
        self.high_O = high_O.float()
        self.layers = folded(policy)
        self.shift_A = scales.act.shift_D.float()
        self.scale_A = scales.act.scale_D.float()
        # The data's bounds are bounds, too.
        self.low_A = self.low_A.maximum(self.shift_A - self.scale_A)
        self.high_A = self.high_A.minimum(self.shift_A + self.scale_A)

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        if self.policy.execute > 1:
            return super()._act(obs_BO, goal_BG)
        obs_BO, goal_BG = self.given(obs_BO, goal_BG)
        if goal_BG is not None:
            goal_BG = self._aim(torch.ones(len(obs_BO), dtype=torch.bool), obs_BO, goal_BG)
        uniform_B1 = self._uniform() if self.policy.config.sample else None
        act_BA = self._chunks(self.observations.seen(obs_BO), goal_BG, uniform_B1)[:, 0].to(obs_BO.device)
        self.observations.add(obs_BO, act_BA)
        return act_BA

    def _uniform(self) -> Tensor:
        """(B, 1) random numbers for the next decision, of which many are drawn at a time, as that takes long."""
        at_B = self.decision_B % DRAWN_AHEAD
        new_B = at_B == 0
        if new_B.any():
            self.uniform_BT[new_B] = uniform(RowNoise(self._seeds(new_B)), DRAWN_AHEAD)
        self.decision_B += 1
        return self.uniform_BT.gather(1, at_B[:, None])

    def _allocate(self, batch: int) -> None:
        super()._allocate(batch)
        self.uniform_BT = torch.zeros(batch, DRAWN_AHEAD)

    def chunk(self, obs_BO: Tensor, goal_BG: Tensor | None, seeds: Seeds,
              first_BLA: Tensor | None = None) -> Tensor:
        uniform_B1 = uniform(as_noise(seeds, len(obs_BO)), 1) if self.policy.config.sample else None
        return self._chunks(obs_BO, goal_BG, uniform_B1)

    def _chunks(self, obs_BO: Tensor, goal_BG: Tensor | None, uniform_B1: Tensor | None) -> Tensor:
        """(B, K, A) chunks of actions inside the action space."""
        chunk_BX = chosen(*self._mixture(obs_BO, goal_BG), uniform_B1)
        act_BKA = torch.addcmul(self.shift_A, chunk_BX.view(len(obs_BO), self.policy.chunk, -1), self.scale_A)
        return act_BKA.clamp(self.low_A, self.high_A)

    def _mixture(self, obs_BO: Tensor, goal_BG: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log weights (B, M), up to a constant, and centres (B, M, X) of normalised chunks of actions."""
        batch = len(obs_BO)
        M = self.policy.config.components
        self.decisions += 1
        x_BI = to_device(obs_BO, self.low_O.device).clamp(self.low_O, self.high_O)
        if goal_BG is not None:
            x_BI = torch.cat([x_BI, to_device(goal_BG, x_BI.device)], 1)
        *hidden, (weight, bias) = self.layers
        h_RY = padded(x_BI, self.multiple)
        for w, b in hidden:
            h_RY = F.silu(torch.addmm(b, h_RY, w), inplace=True)
        out_BY = torch.addmm(bias, h_RY, weight)[:batch]
        return out_BY[:, :M], out_BY[:, M:].view(batch, M, -1)


def folded(policy: Student) -> list[tuple[Tensor, Tensor]]:
    """The layers, weights (I, Y) and biases (Y,), from an observation joined with its goal to log weights (M,), up to a
    constant, and centres (M * X,)."""
    layers = [(layer.weight.detach().cpu().double().T, layer.bias.detach().cpu().double()) for layer in policy.network
              if isinstance(layer, nn.Linear)]
    scales = deepcopy(policy.scales).cpu().double()
    scales.max_obs = torch.inf  # `StudentActor` clamps the observations
    x_RI = torch.cat([torch.zeros(1, policy.state_dim), torch.eye(policy.state_dim)]).double()
    obs, goal = x_RI.split([scales.obs_dim, scales.context_dim], 1)
    state_RS = scales.state(obs, goal if scales.context_dim else None)  # an affine function of both
    weight, bias = layers[0]
    layers[0] = (state_RS[1:] - state_RS[0]) @ weight, bias + state_RS[0] @ weight
    used = policy.config.components * (1 + policy.chunk * policy.spec.act_dim)
    weight, bias = layers[-1]
    layers[-1] = weight[:, :used], bias[:used]
    return [(weight.float().contiguous().to(policy.device), bias.float().to(policy.device)) for weight, bias in layers]


POLICIES["student"] = StudentConfig, Student
ACTORS: dict[type[Policy], type[Actor]] = {Student: StudentActor}
"""The agents of policies for which there is a faster way to act than an `Actor`."""
