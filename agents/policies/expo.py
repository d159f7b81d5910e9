"""EXPO: the actions that a frozen prior proposes, small edits of them, and the best of both by an ensemble of critics.

    C(s) = {a_n} u {a_n + f(s, a_n)},   a_n ~ prior(. | s),   f(s, a) = b tanh(g(s, a))     the candidates
    bound_M(s, a) = mean d_i - k std d_i,   d_i = Q_i(s, a) - Q_i(s, a_0),   i in M          how much better than a_0
    L_Q(theta_i) = E[(r + gamma min_{i in M} Q'_i(s', a*) - Q_i(s, a))^2],   a* = argmax bound'_M over C(s')
    L_f(phi) = -E[bound_M(s, a_0 + f(s, a_0))]                                               the edits

The prior is any policy, whose proposals are drawn once for each state and kept with the transition, so that no update
samples it; M are two members of the ensemble, drawn anew in each update. This is EXPO (Dong et al. 2025, "EXPO: Stable
Reinforcement Learning with Expressive Policies", arXiv 2507.07986) with the critics of RLPD (Ball et al. 2023,
"Efficient Online Reinforcement Learning with Offline Data", arXiv 2302.02948).

Ours is what keeps it from falling below its prior. The critics are compared on the prior's own action a_0, whose bound
is 0: it is a candidate, and wins ties. Each transition is held out from one member of the ensemble, and k, the *doubt*,
is the size of the held-out errors relative to the spread of the members, at least 1: edits and choice count as far as
the critics are right about what they have not seen. Last, there are three behaviours (`ExpoConfig.by`): the prior, the
newest one, and the best one, which is the newest one at the last time that it was accepted (`accept`).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import field
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Interval
from einops import rearrange, repeat
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import Fraction, settings
from gentraj.device import to_device
from gentraj.models.sampling import by_blocks
from gentraj.networks.mlp import mlp
from gentraj.randomness import OneStream, Seeds, as_noise
from gentraj.training.optimization import LearningConfig, MovingAverage, Schedule, Updates, adamw
from gentraj.training.step import TrainingStep
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions

from .bc import BCConfig
from .critic import ValueConfig, ensemble
from .policy import POLICIES, ActionModel, Policy, PolicyConfig
from .scales import StateActionScales

SMALL = 0.01  # factor of the last weights of the edits before training, which are near 0
MEMORY = 0.99  # decay of the means of squares that the doubt is made of

By = Literal["best", "newest", "prior"]


@settings
class EditConfig(LearningConfig):
    """Settings of the network from a state and an action to an edit of the action."""

    bound: Annotated[float, Interval(ge=0, le=2)] = 0.3
    """The largest edit of an entry of an action, in units of half its range."""
    width: PositiveInt = 256
    """Units of each hidden layer."""
    depth: PositiveInt = 2
    """Number of hidden layers."""
    learning_rate: Fraction = 3e-4
    """Learning rate of AdamW."""
    weight_decay: Fraction = 0.0
    schedule: Schedule = "constant"


@settings
class CriticsConfig(ValueConfig):
    """Settings of the ensemble of critics, which are those of RLPD."""

    n_step: PositiveInt = 1
    """Environment steps of a transition, at least those of a chunk."""
    members: Annotated[int, Ge(2)] = 10
    """Number of critics in the ensemble."""
    tau: Fraction = 0.005
    """Rate at which the target networks follow the critics."""
    learning_rate: Fraction = 3e-4
    """Learning rate of AdamW."""
    schedule: Schedule = "constant"


@settings
class ExpoConfig(PolicyConfig):
    """The settings of `Expo`. Raises ValueError for a setting outside its range."""

    batch_size: PositiveInt = 128
    frozen: PolicyConfig = field(default_factory=BCConfig)
    """The settings of the prior, whose weights are frozen."""
    critic: CriticsConfig = field(default_factory=CriticsConfig)
    """The ensemble of critics."""
    drawn: Annotated[int, Ge(2)] = 2
    """Members of the ensemble that are drawn in each update, for the value of the next state, which is their minimum,
    and for the edits."""
    edit: EditConfig = field(default_factory=EditConfig)
    """The edits."""
    proposals: PositiveInt = 4
    """Actions that the prior proposes in each state; with their edits there are twice as many candidates."""
    delay: PositiveInt = 2
    """Number of updates of the critics for each of the edits."""
    caution: NonNegativeFloat = 1.0
    """Factor of the doubt by which the spread of the critics counts against an action; 0 acts by their mean."""
    by: By = "best"
    """Which behaviour acts: the best one that proved better than the prior, and else the prior; the newest one; or the
    prior."""

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "caution", "by")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunk > self.frozen.chunk:
            raise ValueError(f"ExpoConfig.chunk is {self.chunk}, and that of the prior is {self.frozen.chunk}; give at "
                             "most that")
        if self.drawn > self.critic.members:
            raise ValueError(f"ExpoConfig.drawn is {self.drawn}, and the ensemble has {self.critic.members} members; "
                             "give at most as many")
        if self.observations != self.frozen.observations:
            raise ValueError(f"ExpoConfig.observations is '{self.observations}', and the prior sees them as "
                             f"'{self.frozen.observations}'; leave it out")

    @property
    def summary(self) -> str:
        return f"edited {self.frozen.summary}"


class Edits(nn.Module):
    """f(s, a), which is about 0 before training."""

    def __init__(self, state_dim: int, chunk_dim: int, config: EditConfig):
        super().__init__()
        self.bound = config.bound
        self.network = mlp([state_dim + chunk_dim, *[config.width] * config.depth, chunk_dim])
        with torch.no_grad():
            for parameter in self.network[-1].parameters():
                parameter.mul_(SMALL)

    def forward(self, state_BS: Tensor, act_BNX: Tensor) -> Tensor:
        """(B, N, X) the edited actions, in [-1, 1]."""
        state_BNS = repeat(state_BS, "b s -> b n s", n=act_BNX.shape[1])
        edit_BNX = self.bound * self.network(torch.cat([state_BNS, act_BNX], -1)).tanh()
        return (act_BNX + edit_BNX).clamp(-1, 1)


class Expo(Policy[ExpoConfig]):
    """The best of a prior's proposals and of their edits, by an ensemble of critics that learns online."""

    error: Tensor
    spread: Tensor
    best_doubt: Tensor
    standing: Tensor
    """The mean return of the behaviour that acts, and its 95 % interval; of the prior at first."""

    def __init__(self, config: ExpoConfig, scales: StateActionScales):
        super().__init__(config, scales, config.critic.n_step)
        self.frozen: Policy = POLICIES.made_of(config.frozen)(config.frozen, deepcopy(scales)).requires_grad_(False)
        chunk_dim = self.chunk * self.spec.act_dim
        self.q = ensemble(config.critic, self.state_dim + chunk_dim, config.critic.members,
                          scales.initial_value(config.critic.discount))
        self.target = MovingAverage(self.q, 1 - config.critic.tau)
        self.edits = Edits(self.state_dim, chunk_dim, config.edit)
        self.best_q = deepcopy(self.q).requires_grad_(False)
        self.best_edits = deepcopy(self.edits).requires_grad_(False)
        self.updates = Updates()
        self.accepted = Updates()  # the number of the update whose behaviour is the best; 0 is the prior
        self.register_buffer("error", torch.zeros(()))  # of the held-out member, squared
        self.register_buffer("spread", torch.zeros(()))  # of the members, squared
        self.register_buffer("best_doubt", torch.ones(()))
        self.register_buffer("standing", torch.zeros(3))

    def freeze(self, policy: Policy) -> None:
        """Takes over the weights and the units of the prior. Rewards keep their own unit, which is that of the data
        that the critics learn from."""
        self.frozen.load_state_dict(policy.state_dict())
        reward = deepcopy(self.scales.reward)
        self.scales.load_state_dict(policy.scales.state_dict())
        self.scales.reward = reward

    @property
    def action_model(self) -> ActionModel | None:
        """The generative model of the prior."""
        return self.frozen.action_model

    @property
    def noise_dim(self) -> int:
        return 0

    @property
    def network_calls(self) -> int | None:
        return self.frozen.network_calls

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        return f"{self.frozen.sampling(options)}, the best of {self.config.proposals} and of their edits"

    def optimizers(self) -> dict[str, Optimizer]:
        return {"critic": adamw(self.q, self.config.critic), "actor": adamw(self.edits, self.config.edit)}

    @property
    def acts(self) -> str:
        """The best behaviour, in words."""
        if self.accepted.done:
            return f"the behaviour of update {self.accepted.done}"
        return "its start, as nothing proved better"

    @property
    def doubt(self) -> Tensor:
        """k, a scalar: the root mean square of the held-out errors, in standard deviations of the ensemble."""
        tiny = torch.finfo(self.spread.dtype).tiny
        return (self.error / self.spread.clamp(min=tiny)).sqrt().clamp(1, 1 / SMALL)

    @torch.no_grad()
    def propose(self, state_BS: Tensor, seeds: Seeds, options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        """(B, N, X) the chunks that the prior proposes in each state."""
        state_RS = repeat(state_BS, "b s -> (b n) s", n=self.config.proposals)
        noise = as_noise(seeds, len(state_BS), "states").several(self.config.proposals)
        act_RKA = by_blocks(lambda state, noise: self.frozen.sample_actions(state, noise, options), state_RS, noise)
        return rearrange(act_RKA[:, : self.chunk].float(), "(b n) k a -> b n (k a)", n=self.config.proposals)

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        """One step of the critics, and in every `delay`-th one of the edits. The proposals are those of the batch, and
        drawn where it has none."""
        t = self.transition(step.batch, self.config.critic.discount)
        now_BNX, next_BNX = self.proposals(step.batch, t.state_BS, t.next_BS, step.generator)

        # the value of what follows, by two members
        drawn_M = to_device(torch.randperm(self.config.critic.members, generator=step.generator)[: self.config.drawn],
                            t.state_BS.device)
        with torch.no_grad():
            act_BCX = candidates(self.edits, t.next_BS, next_BNX)
            q_MBC = values(self.target, t.next_BS, act_BCX, drawn_M)
            next_B = chosen(q_MBC.amin(0), lower_bound(q_MBC, self.doubt * self.config.caution).argmax(1))
            target_B = t.reward_B + t.discount_B * next_B

        # the critics, each without the episodes that are held out from it
        q_EB = self.q(torch.cat([t.state_BS, t.chunk_BX], -1))
        members_E1 = torch.arange(len(q_EB), device=q_EB.device)[:, None]
        held_EB = (t.episode_B % len(q_EB) == members_E1) & t.whole_B
        learns_EB = ~held_EB & t.whole_B
        error_EB = ((q_EB - target_B) / self.q.unit) ** 2
        loss = (error_EB * learns_EB).sum() / learns_EB.sum().clamp(min=1)
        norm = step.descend(loss, "critic", self.config.critic.max_grad_norm)
        step.follow(self.target, self.q)
        with torch.no_grad():
            error = (error_EB * held_EB).sum() / held_EB.sum().clamp(min=1)
            spread = (q_EB / self.q.unit).var(0).mean()
            self.error.lerp_(error, 1 - MEMORY)
            self.spread.lerp_(spread, 1 - MEMORY)
        metrics = {"critic_loss": loss.detach(), "held_out_loss": error, "q": q_EB.detach().mean(),
                   "doubt": self.doubt, "critic_grad_norm": norm.detach()}
        if self.updates.next() % self.config.delay:
            return metrics

        # the edits
        a_B1X = now_BNX[:, :1]
        act_BCX = torch.cat([a_B1X, self.edits(t.state_BS, a_B1X)], 1)
        self.q.requires_grad_(False)
        q_MBC = values(self.q, t.state_BS, act_BCX, drawn_M)
        self.q.requires_grad_(True)
        bound_B = lower_bound(q_MBC, self.doubt * self.config.caution)[:, 1]
        loss = -(bound_B / self.q.unit * t.weight_B).mean()
        norm = step.descend(loss, "actor", self.config.edit.max_grad_norm)
        edit = (act_BCX[:, 1] - act_BCX[:, 0]).detach().abs().mean()
        return metrics | {"bound": bound_B.detach().mean(), "edit": edit, "actor_grad_norm": norm.detach()}

    def proposals(self, batch: Batch, state_BS: Tensor, next_BS: Tensor,
                  generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(B, N, X) the proposals in the first and in the last states of a batch."""
        if batch.proposals_B2Y is None:
            both_RS = torch.cat([state_BS, next_BS])
            now_BNX, next_BNX = self.propose(both_RS, OneStream(len(both_RS), generator)).chunk(2)
            return now_BNX, next_BNX
        now_BNX, next_BNX = rearrange(batch.proposals_B2Y, "b s (n x) -> s b n x", n=self.config.proposals)
        return now_BNX, next_BNX

    def accept(self, mean: float, low: float, high: float) -> None:
        """Makes the newest behaviour, of this mean return with this interval, the best one."""
        self.standing.copy_(torch.tensor([mean, low, high]))
        self.best_q.load_state_dict(self.q.state_dict())
        self.best_edits.load_state_dict(self.edits.state_dict())
        self.best_doubt.copy_(self.doubt)
        self.accepted.number.copy_(self.updates.number)

    def sample_actions(self, state_BS: Tensor, seeds: Seeds,
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        by = self.config.by
        if by == "prior" or (by == "best" and not self.accepted.done):
            return self.frozen.sample_actions(state_BS, seeds, options)[:, : self.chunk]
        q, edits, doubt = self.q, self.edits, self.doubt
        if by == "best":
            q, edits, doubt = self.best_q, self.best_edits, self.best_doubt
        act_BCX = candidates(edits, state_BS, self.propose(state_BS, seeds, options))
        bound_BC = lower_bound(values(q, state_BS, act_BCX), doubt * self.config.caution)
        return chosen(act_BCX, bound_BC.argmax(1)).unflatten(1, (self.chunk, -1))

    def generated(self, state_BS: Tensor, seeds: Seeds, options: SamplingOptions) -> Tensor:
        """(B, K, A) chunks of actions that the prior generates."""
        return self.frozen.generated(state_BS, seeds, options)[:, : self.chunk]


def candidates(edits: Edits, state_BS: Tensor, act_BNX: Tensor) -> Tensor:
    """(B, C, X) the proposals, the prior's own action first, and then their edits."""
    return torch.cat([act_BNX, edits(state_BS, act_BNX)], 1)


def values(q: nn.Module, state_BS: Tensor, act_BCX: Tensor, members_M: Tensor | None = None) -> Tensor:
    """(M, B, C) the values of C actions in each state, by some members of an ensemble or by all."""
    state_BCS = repeat(state_BS, "b s -> b c s", c=act_BCX.shape[1])
    pair_RF = torch.cat([state_BCS, act_BCX], -1).flatten(0, 1)
    return q(pair_RF, members_M).unflatten(1, act_BCX.shape[:2])


def lower_bound(q_MBC: Tensor, doubt: Tensor | float) -> Tensor:
    """(B, C) how much better than the first action each one is, less `doubt` times the members' standard deviation.

    It is 0 for the first action.
    """
    d_MBC = q_MBC - q_MBC[..., :1]
    spread_BC = (d_MBC.var(0) + torch.finfo(d_MBC.dtype).tiny).sqrt()  # whose gradient is finite at 0
    return d_MBC.mean(0) - doubt * (spread_BC - spread_BC[:, :1])


def chosen(x: Tensor, which_B: Tensor) -> Tensor:
    """(B, ...) the entry of each row of (B, C, ...)."""
    return x[torch.arange(len(x), device=x.device), which_B]


POLICIES["expo"] = ExpoConfig, Expo
