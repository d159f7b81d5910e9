"""Imagination: any policy or planner, whose decisions are tried in a world model before one is carried out.

N candidates are rolled out for T steps from what the agent decides with N seeds, deciding again in each imagined state.
That with the highest score is begun:

    score = sum_(t < T) gamma^t p_t (r_t - penalty u_t) + gamma^T p_T V(s_T)

p_t is the probability that the episode has not ended, u_t the world model's uncertainty, V a value if there is one, and
r_t the reward that the world model predicts or one that is only known now. This is the sampling, scoring and ranking of
Zhou et al. 2025, "Diffusion Model Predictive Control" (arXiv 2410.05364), with any agent in the place of their model of
actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Interval
from einops import rearrange, repeat
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from gentraj.config import settings
from gentraj.device import device_of, to_device
from gentraj.models.sampling import Checks, one_each
from gentraj.randomness import RowNoise
from gentraj.trajectory import Agent
from gentraj.worlds.model import WorldModel

from .episodic import EpisodicAgent, aimed_at, observed
from .memory import ObservationBuffer
from .planning.planner import PlanFollower
from .policies.actor import Actor
from .policies.critic import MAX_DISCOUNT, Critic
from .policies.policy import Policy

Judge = Callable[[Tensor, Tensor | None], Tensor]
"""Rewards or values (B,) of the observations (B, O) that steps lead to, and the goals (B, G) if there are any, on the
device of the world model."""


@settings
class ImaginationConfig:
    """The settings of `Imagination`. Raises ValueError for a setting outside its range."""

    candidates: PositiveInt = 16
    """Decisions that are imagined each time; an agent that acts without noise needs a temperature to have several."""
    horizon: PositiveInt = 16
    """Environment steps that are imagined of each."""
    discount: Annotated[float, Interval(ge=0, le=MAX_DISCOUNT)] = 0.99
    """Discount of imagined rewards per environment step."""
    penalty: NonNegativeFloat = 0.0
    """Reward that each unit of the world model's uncertainty costs."""


class Imagination(EpisodicAgent):
    """An `Agent` that carries out the best of another agent's decisions by what they lead to in a world model."""

    def __init__(self, agent: Agent, world: WorldModel, config: ImaginationConfig, reward: Judge | None = None,
                 value: Judge | None = None):
        """`reward` replaces the rewards that the world model predicts, and `value` is that of the last states. That of
        a policy may be for rewards that are less by a constant, which are then counted.

        A world model with a history is given the steps that were carried out. Raises ValueError for an agent that
        remembers earlier observations or actions, which it never made here.
        """
        past = 0 if agent.spec is None else agent.spec.past
        if isinstance(agent, PlanFollower):
            past = agent.config.history
        if past:
            raise ValueError("imagination lets an agent decide anew in each state, and this one remembers the steps "
                             "before it; give one that was trained with history=1 and past_actions=0, or a planner "
                             "with planner.history=0")
        self.agent, self.world = agent, world
        self.ranges = agent.ranges
        self.device = device_of(world)
        self.config = config
        self.reward = reward
        self.value = value
        self.shift = value.shift if isinstance(value, PolicyValue) else 0.0
        self._begin(0)

    def _allocate(self, batch: int) -> None:
        self.observations = ObservationBuffer(self.world.spec, self.world.spec.past, batch)

    def pad_batches(self, padded: bool = True) -> None:
        self.agent.pad_batches(padded)

    @torch.no_grad()
    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        obs_BO, goal_BG = observed(obs_BO).cpu(), aimed_at(goal_BG)
        act_BNA, score_BN = self.imagine(obs_BO, goal_BG)
        act_BA = act_BNA[torch.arange(len(obs_BO)), score_BN.argmax(1)]
        self.decision_B += 1
        self.observations.add(obs_BO, act_BA)
        return act_BA

    def imagine(self, obs_BO: Tensor, goal_BG: Tensor | None) -> tuple[Tensor, Tensor]:
        """The first actions (B, N, A) of the candidates, and their scores (B, N), on the CPU.

        All is imagined on the device of the world model, where policies are asked for their actions, too.
        """
        number = self.config.candidates
        noise = RowNoise(self._seeds(torch.ones(len(obs_BO), dtype=torch.bool))).several(number)
        if isinstance(self.agent, Actor):
            self.agent.given(obs_BO, goal_BG)  # raises for others than it was trained with
        spec, seen_BW = self.world.spec, self.observations.seen(obs_BO)
        obs_RO, past_RPD = spec.past_of(repeat(to_device(seen_BW, self.device), "b w -> (b n) w", n=number))
        goal_RG = None
        if goal_BG is not None:
            goal_RG = repeat(to_device(goal_BG, self.device), "b g -> (b n) g", n=number)
        self.agent.reset(noise.seeds)
        checks = Checks()
        act_RA, score_R = self._imagine(obs_RO, goal_RG, past_RPD, checks)
        act_score_RX = torch.cat([act_RA, score_R[:, None]], 1).cpu()  # one copy, as each waits for an accelerator
        checks.read()
        act_score_BNX = rearrange(act_score_RX, "(b n) x -> b n x", n=number)
        act_BNA, score_BN = act_score_BNX[..., :-1], act_score_BNX[..., -1]
        if not score_BN.isfinite().all():
            raise ValueError("imagination gave scores that are not finite; give finite rewards and values, or train "
                             "the world model for longer")
        return act_BNA, score_BN

    def _imagine(self, obs_RO: Tensor, goal_RG: Tensor | None, past_RPD: Tensor | None,
                 checks: Checks) -> tuple[Tensor, Tensor]:
        """The first actions (R, A) of the rollouts from these observations, and their scores (R,)."""
        config = self.config
        spec = self.world.spec
        firsts = list[Tensor]()
        alive_R, score_R = obs_RO.new_ones(len(obs_RO)), obs_RO.new_zeros(len(obs_RO))
        for t in range(config.horizon):
            act_RA = self._decided(obs_RO, goal_RG, checks)
            firsts = firsts or [act_RA]
            made = self.world.imagine(obs_RO, act_RA[:, None], goal_RG if self.world.facts.goal_dim else None,
                                      past_BPD=past_RPD)
            if past_RPD is not None:
                past_RPD = torch.cat([past_RPD, spec.join(obs_RO, act_RA)[:, None]], 1)[:, 1:]
            obs_RO, reward_R = made.obs_BTO[:, 0], made.reward_BT[:, 0]
            if self.reward is not None:
                reward_R = self._judged(self.reward, obs_RO, goal_RG)
            gain_R = reward_R - self.shift - config.penalty * made.uncertainty_BT[:, 0]
            score_R = score_R + config.discount**t * alive_R * gain_R
            alive_R = alive_R * (1 - made.end_BT[:, 0])
        if self.value is not None:
            score_R = score_R + config.discount**config.horizon * alive_R * self._judged(self.value, obs_RO, goal_RG)
        return firsts[0], score_R

    def _decided(self, obs_RO: Tensor, goal_RG: Tensor | None, checks: Checks) -> Tensor:
        """The agent's actions (R, A), on the device of the world model; only a policy is asked for them there."""
        if isinstance(self.agent, Actor):
            obs_RO = checks.finite(obs_RO, "an imagined observation is", "; train the world model for longer")
            return self.agent.acted(obs_RO, goal_RG, checks.finite)
        if goal_RG is not None:
            goal_RG = goal_RG.cpu()
        return to_device(self.agent.act(obs_RO.cpu(), goal_RG), self.device)

    def _judged(self, judge: Judge, obs_RO: Tensor, goal_RG: Tensor | None) -> Tensor:
        """(R,) rewards or values. Raises ValueError unless there is one for each observation."""
        given_R = one_each(judge(obs_RO, goal_RG), obs_RO, "a reward or a value", "observations")
        return to_device(given_R, self.device)


class PolicyValue:
    """The value of a policy's own actions, by its critic: a `Judge` for rewards that are less by `shift`.

    A policy that learns from shifted rewards has no value of the rewards themselves, as it does not know when episodes
    end.
    """

    def __init__(self, policy: Policy, critic: Critic):
        self.policy, self.critic = policy, critic
        self.shift = float(policy.scales.reward.shift_D)

    @classmethod
    def of(cls, policy: Policy) -> PolicyValue | None:
        """The value of a policy; None for a policy without Q(s, a)."""
        critic = policy._modules.get("critic")
        return cls(policy, critic) if isinstance(critic, Critic) else None

    def __call__(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        scales = self.policy.scales
        state_BS = scales.state(obs_BO, goal_BG if scales.context_dim else None)
        act_BKA = self.policy.sample_actions(state_BS, [0] * len(state_BS))
        return self.critic.target_value(state_BS, act_BKA.flatten(1)) * scales.reward.scale_D
