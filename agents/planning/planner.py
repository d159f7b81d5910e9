"""A closed-loop planner: it samples plans, keeps those that it trusts, acts along the best one, and replans."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from gentraj.config import require
from gentraj.device import device_of
from gentraj.diffusion.composition import ClassifierFree
from gentraj.models.plugin import Preference
from gentraj.models.sampling import Guidance, as_plugins
from gentraj.trajectory import (
    DEFAULT_OPTIONS,
    Condition,
    Observer,
    SamplingOptions,
    TrajectoryModel,
    TrajectorySpec,
    calls_of,
)

from ..episodic import EpisodicAgent, aimed_at, observed
from .arrival import Arrival
from .execution import History, Past, Previous, at_rest, seeds_of, shift_time, targets
from .inverse_dynamics import InverseDynamics
from .plan_critic import PlanCritic
from .refine import check_levels, filled_in
from .trust import Trust

VALUED = ("select", "guidance", "target_return")  # settings that need a critic where they are "value"


@dataclass(frozen=True)
class PlannerConfig:
    """How a `Planner` plans and acts. Raises ValueError for a setting outside its range."""

    arrival: Literal["earliest", "fixed"] = "earliest"
    """When a plan is to arrive at the goal: at the earliest trusted timestep, or always at the last one."""
    replan: int = 12
    """Environment steps between two plans. A goal that moves by more than hold_radius is planned for at once."""
    steps: int = 5
    """Sampling steps of each plan."""
    arrival_thresholds: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
    """Fractions in (0, 1]. For each, the planner tries the earliest arrival that is at least this fraction as probable
    as the most probable one. Without any, it tries every second timestep."""
    candidates: int = 1
    """Plans that are sampled for each arrival, or in all where there is no goal."""
    shifted: bool = False
    """Add what is left of the previous plan, completed by the model, to the candidates; it wins ties. The model should
    have been trained with prefixes (--conditioning.prefix)."""
    history: int = 0
    """Timesteps before the present that the model is conditioned on. They belong to its horizon, so that it plans fewer
    timesteps ahead. The model must have been trained with prefixes (--conditioning.prefix)."""
    select: Literal["trust", "value"] = "trust"
    """Which of the trusted plans is taken: with trust the one that arrives first, with value the one with the highest
    value under the critic (Lu et al. 2025). If no plan is trusted, the most trusted one is taken."""
    guidance: Literal["none", "value", "classifier-free"] = "none"
    """What guides the sampling of plans: the critic's value, or the context by classifier-free guidance."""
    scale: float = 1.0
    """Scale of the guidance. With value guidance, plans become exp(scale * value) times as likely, where values are in
    standard deviations of the returns in the data. With classifier-free guidance, 1 is the conditional model, and more
    amplifies the context."""
    trust: float = 0.98
    """Quantile of the out-of-distribution scores of data below which a plan is trusted."""
    temperature: float = 1.0
    """Scale of the noise that a plan is sampled from."""
    actions: Literal["inverse", "joint", "track"] = "inverse"
    """Where actions come from: the inverse dynamics, the plan itself (joint), whose actions are 0 after its arrival, or
    a PD controller that tracks the plan's positions (goal_dims) and velocities (rest_dims), as Diffuser acts in
    mazes."""
    lookahead: int = 12
    """Environment steps that the inverse dynamics or the PD controller look ahead along the plan."""
    context: tuple[float, ...] = ()
    """Context that the model is conditioned on; empty for a model without one. By default, a model conditioned on
    returns is given a high return of its data."""
    target_return: Literal["fixed", "value"] = "fixed"
    """The return that a model conditioned on returns is given: with fixed it is the context in every state, with value
    the critic's estimate V(s) of what good trajectories of the data return from the present state."""
    goal_dims: tuple[int, ...] = ()
    """Indices of the observation entries that a goal consists of; none means all."""
    rest_dims: tuple[int, ...] = ()
    """Indices of the observation entries that are 0 at rest (velocities), for holding the goal after the arrival."""
    hold_radius: float = 0.0
    """Distance to the goal, in environment units, within which the planner holds the goal instead of planning. It
    should be at most the distance that counts as success, as the goal is held along a straight line, even round a
    corner."""

    @property
    def ahead(self) -> int:
        """Environment steps of a plan that are carried out or looked ahead to."""
        return self.replan - 1 + (1 if self.actions == "joint" else self.lookahead)

    def __post_init__(self) -> None:
        require(self, replan=(1, 1e6), steps=(1, 1e6), trust=(0, 1), temperature=(0, math.inf), lookahead=(1, 1e6),
                hold_radius=(0, math.inf), candidates=(1, 1e6), scale=(-1e6, 1e6), history=(0, 1e6))
        if not all(0 < threshold <= 1 for threshold in self.arrival_thresholds):
            raise ValueError(f"PlannerConfig.arrival_thresholds are {self.arrival_thresholds}; fractions above 0 and "
                             "up to 1 are expected")


@dataclass(frozen=True)
class Plans:
    """The N plans that one decision considered in each environment, and the chosen one.

    `row_BN` are their arrival timesteps, `ratio_BN` their trust ratios (a plan is trusted up to 1), `chosen_B` the
    index of the chosen plan, and `value_BN` their values if the planner selects by value.
    """

    x_BNHD: Tensor
    """The plans, in environment units."""
    row_BN: Tensor
    ratio_BN: Tensor
    chosen_B: Tensor
    value_BN: Tensor | None = None

    def chosen(self) -> tuple[Tensor, Tensor]:
        """The plans to execute (B, H, D) and their arrival timesteps (B,)."""
        b = torch.arange(len(self.chosen_B), device=self.chosen_B.device)
        return self.x_BNHD[b, self.chosen_B], self.row_BN[b, self.chosen_B]


class Planner(EpisodicAgent):
    """An `Agent` that plans with a model of trajectories.

    All candidates of all environments that need a new plan are sampled in one batch.

    `guide` is passed to the model's `sample`: a function or a plug-in, such as constraints, that shapes every plan. A
    guide cannot be combined with `finer` models, as it would not shape their timesteps, nor with a history, as it
    cannot shape the past. `options` say how plans are sampled; their steps and temperature are those of the config. The
    `finer` models fill in the part of a plan that is carried out, each one between the timesteps of the level before
    it; joint actions are then those of the last one. Raises ValueError for settings that need a component which is not
    given, for components that do not fit each other, and for options with other steps or another temperature.
    """

    def __init__(self, model: TrajectoryModel, config: PlannerConfig, low_A: np.ndarray, high_A: np.ndarray, *,
                 trust: Trust | None = None, inverse: InverseDynamics | None = None, arrival: Arrival | None = None,
                 critic: PlanCritic | None = None, finer: Sequence[TrajectoryModel] = (), guide: Guidance = None,
                 options: SamplingOptions = DEFAULT_OPTIONS):
        self.trust = trust if config.arrival == "earliest" else None
        levels = [model.spec, *(fine.spec for fine in finer)]
        check(config, levels, len(low_A), trust, inverse, critic)
        if finer and guide is not None:
            raise ValueError("a guide shapes only the coarse timesteps of a plan, and finer models fill in what is "
                             "carried out; guide a planner without refine")
        if config.history and guide is not None:
            raise ValueError("a guide shapes a whole trajectory, but the first timesteps of a planner with history are "
                             "in the past; guide a planner with a history of 0")
        self.finer, self.executed = finer, levels[-1]
        self.model, self.config, self.inverse, self.arrival, self.critic = model, config, inverse, arrival, critic
        self.guide = guidance_of(config, critic, guide)
        self.options = options_of(config, options)
        self.low_A, self.high_A = torch.as_tensor(low_A).float(), torch.as_tensor(high_A).float()
        self.goal_dims = list(config.goal_dims or range(model.spec.obs_dim))
        self._begin(0)

    @property
    def spec(self) -> TrajectorySpec:
        """The layout of the plans, to be compared with the environment."""
        return self.model.spec

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return device_of(self.model)

    @property
    def network_calls(self) -> int:
        """Calls of the models' networks so far, including those for the trust."""
        return calls_of((self.model, *self.finer))

    @property
    def longest(self) -> int:
        """The number of targets of a plan, one for each environment step."""
        return self.config.replan + self.config.lookahead

    def with_config(self, config: PlannerConfig) -> Self:
        """This planner with other settings, which need no other components."""
        other = copy.copy(self)
        other.config = config
        other.options = replace(self.options, steps=config.steps, temperature=config.temperature)
        return other

    def _allocate(self, batch: int) -> None:
        self.target_BTD = torch.zeros(batch, self.longest, self.executed.dim, device=self.device)
        self.previous = Previous.none(self.spec, batch, self.device)
        self.history = History(self.spec, self.config.history, batch, self.device)
        self.age_B = torch.full((batch,), self.config.replan)
        self.aim_BG = torch.full((batch, len(self.goal_dims)), torch.nan, device=self.device)

    def _forget(self, mask_B: Tensor) -> None:
        self.age_B[mask_B] = self.config.replan
        self.previous.forget(mask_B)
        self.history.forget(mask_B)

    @torch.no_grad()
    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        """(B, A) actions inside the action space. Without `goal_BG`, the goal's entries, plans have no goal.

        Raises ValueError for observations or goals of another shape, and for NaN and infinity in them.
        """
        obs_BO, goal_BG = self._given(obs_BO, goal_BG)
        self._resize(len(obs_BO))
        due_B = (self.age_B >= self.config.replan) | self._moved(obs_BO, goal_BG)
        if due_B.any():
            self._replan(due_B, obs_BO, goal_BG)
        act_BA = self.follow(obs_BO, self.target_BTD, self.age_B)
        self.age_B += 1
        self.history.add(obs_BO, act_BA.to(self.device))
        return act_BA

    def _given(self, obs_BO: Tensor, goal_BG: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The observations and goals, checked, in float32 and on the planner's device."""
        obs_BO, goal_BG = observed(obs_BO, self.spec.obs_dim), aimed_at(goal_BG)
        return obs_BO.to(self.device), None if goal_BG is None else goal_BG.to(self.device)

    def follow(self, obs_BO: Tensor, target_BTD: Tensor, age_B: Tensor) -> Tensor:
        """(B, A) actions inside the action space along targets, which are those of a plan made `age_B` steps ago.

        Raises ValueError for actions that are not finite.
        """
        rows = torch.arange(len(obs_BO))
        if self.config.actions == "joint":
            act_BA = self.executed.split(target_BTD[rows, age_B])[1]
        else:
            target_BD = target_BTD[rows, age_B + self.config.lookahead - 1]
            act_BA = self.action_towards(obs_BO, self.executed.split(target_BD)[0])
        act_BA = act_BA.cpu().float().clamp(self.low_A, self.high_A)
        if not math.isfinite(act_BA.sum()):
            raise ValueError("an action of the planner is not finite; the observation may be too far from the data, or "
                             "a weight is not finite; give observations like the data's, or load another checkpoint")
        return act_BA

    def decide(self, obs_BO: Tensor, goal_BG: Tensor | None, seeds: Sequence[int]) -> Tensor:
        """(B, E, A) actions inside the action space, which are carried out before the next decision.

        This is a function of its arguments alone, as `gentraj export` needs it. E is `replan` for joint actions;
        otherwise it is 1, as the later actions depend on later observations. Raises ValueError for a planner with a
        history.
        """
        if self.config.history:
            raise ValueError(f"the planner's history is {self.config.history} timesteps, and an exported planner "
                             "remembers nothing; set history to 0 under planner in config.json")
        obs_BO, goal_BG = obs_BO.to(self.device), None if goal_BG is None else goal_BG.to(self.device)
        target_BTD = self.targets_along(self.propose(obs_BO, goal_BG, seeds), goal_BG, seeds)
        if goal_BG is not None:
            near_B = self.is_near_goal(obs_BO, goal_BG)
            target_BTD = torch.where(near_B[:, None, None], self.hold_goal(obs_BO, goal_BG)[:, None], target_BTD)
        if self.config.actions == "joint":
            act_BEA = self.executed.split(target_BTD[:, : self.config.replan])[1]
        else:
            target_BO = self.executed.split(target_BTD[:, self.config.lookahead - 1])[0]
            act_BEA = self.action_towards(obs_BO, target_BO)[:, None]
        return act_BEA.clamp(self.low_A.to(self.device), self.high_A.to(self.device))

    def action_towards(self, obs_BO: Tensor, target_BO: Tensor) -> Tensor:
        """(B, A) actions towards the plan's observation `lookahead` environment steps ahead."""
        if self.inverse is not None and self.config.actions == "inverse":
            return self.inverse(obs_BO, target_BO, self.config.lookahead)
        missing_BO = target_BO - obs_BO  # gains of 1, as in the maze2d code of Diffuser's authors
        return missing_BO[:, self.goal_dims] + missing_BO[:, list(self.config.rest_dims)]

    @torch.no_grad()
    def propose(self, obs_BO: Tensor, goal_BG: Tensor | None, seeds_B: Sequence[int],
                previous: Previous | None = None, past: Past | None = None,
                observe: Observer | None = None) -> Plans:
        """Samples the candidates of each environment, scores them, and chooses one of them.

        With `previous` plans, the first candidate is what is left of them. The returned plans begin at the present; if
        they have a `past`, their last timestep repeats to fill the horizon. `select` says which one is chosen.
        `observe` is called with the unfinished candidates after each sampling step, as in the model's `sample`.
        """
        obs_BO, goal_BG = obs_BO.to(self.device), None if goal_BG is None else goal_BG.to(self.device)
        past = Past.none(self.spec, len(obs_BO), self.device) if past is None else past
        start, row_BN, seeds = self._conditions(obs_BO, goal_BG, seeds_B, previous, past)
        now_R = past.now_B.repeat_interleave(row_BN.shape[1])
        x_RHD = self.model.sample(start, guide=self.guide, seed=seeds, options=self.options, observe=observe)[:, 0]
        x_RHD = x_RHD.float()  # whatever the model computes in
        ratio_BN, value_BN = torch.zeros(row_BN.shape, device=self.device), None
        if self.trust is not None and row_BN.shape[1] > 1:
            ratio_R = self.trust.ratio(x_RHD, row_BN.flatten(), seeds, now_R, start.context_BC)
            ratio_BN = ratio_R.view(row_BN.shape)
        if self.critic is not None and self.config.select == "value":
            value_BN = self.critic(x_RHD).view(row_BN.shape)
        chosen_B = choice(row_BN, ratio_BN, value_BN)
        x_RHD = shift_time(x_RHD, now_R)
        return Plans(x_RHD.view(*row_BN.shape, *x_RHD.shape[1:]), row_BN, ratio_BN, chosen_B, value_BN)

    def _conditions(self, obs_BO: Tensor, goal_BG: Tensor | None, seeds_B: Sequence[int],
                    previous: Previous | None, past: Past) -> tuple[Condition, Tensor, list[int]]:
        """The conditions of B * N plans, their arrival timesteps (B, N) from the present, and their seeds."""
        row_BN = self._rows(obs_BO, goal_BG, past)
        seeds_BN = [seeds_of(seed, row_BN.shape[1], self.config.candidates) for seed in seeds_B]
        row_BN = row_BN.repeat_interleave(self.config.candidates, 1)
        left = None
        if previous is not None:  # the first candidate is sampled twice, once as what is left of the previous plan
            left = previous.left(self.config.replan / self.spec.stride, row_BN[:, 0], goal_BG is not None)
            row_BN = torch.cat([left.row_B[:, None].minimum(self._last(past)), row_BN], 1)
            seeds_BN = [[seeds[0], *seeds] for seeds in seeds_BN]
        num = row_BN.shape[1]
        start = past.condition(self.spec, obs_BO).repeat(num)
        if goal_BG is not None:
            at_BN = past.now_B[:, None] + row_BN
            start = start.with_obs(at_BN.flatten(), goal_BG.repeat_interleave(num, 0), self.goal_dims)
        if left is not None:
            start = left.add_to(start, past.now_B)
        if (context_BC := self._context(obs_BO)) is not None:
            start = replace(start, context_BC=context_BC.repeat_interleave(num, 0))
        return start, row_BN, [seed for seeds in seeds_BN for seed in seeds]

    def _context(self, obs_BO: Tensor) -> Tensor | None:
        """(B, C) the context of the model in each environment, or None."""
        if self.critic is not None and self.config.target_return == "value":
            return self.critic.state_value(obs_BO)[:, None]
        context = self.config.context
        return torch.tensor(context, device=self.device).expand(len(obs_BO), -1) if context else None

    def _rows(self, obs_BO: Tensor, goal_BG: Tensor | None, past: Past) -> Tensor:
        """(B, N) arrival timesteps to try, counted from the present."""
        if goal_BG is None or self.trust is None:
            return self._last(past)
        if self.arrival is not None and self.config.arrival_thresholds:
            row_BN = self.arrival.propose(obs_BO, goal_BG, self.config.arrival_thresholds)
        else:
            first = min(2, self.spec.horizon - 1)  # a plan of two timesteps can only arrive at the last one
            row_BN = torch.arange(first, self.spec.horizon, 2, device=obs_BO.device).expand(len(obs_BO), -1)
        return row_BN.minimum(self._last(past))

    def _last(self, past: Past) -> Tensor:
        """(B, 1) the last timestep that is planned, counted from the present."""
        return (self.spec.horizon - 1 - past.now_B)[:, None]

    def _replan(self, due_B: Tensor, obs_BO: Tensor, goal_BG: Tensor | None) -> None:
        """Sets new targets in the environments that are due: those near their goal hold it, the others plan."""
        near_B = due_B & self.is_near_goal(obs_BO, goal_BG).cpu()
        if (far_B := due_B & ~near_B).any():
            goal, seeds = None if goal_BG is None else goal_BG[far_B], self._seeds(far_B)
            previous, past = self.previous.of(far_B) if self.config.shifted else None, self.history.of(far_B)
            self.last = self.propose(obs_BO[far_B], goal, seeds, previous, past)
            self.previous.keep(far_B, *self.last.chosen(), self.spec.horizon - past.now_B)
            self.target_BTD[far_B] = self.targets_along(self.last, goal, seeds)
        if goal_BG is not None and near_B.any():
            self.target_BTD[near_B] = self.hold_goal(obs_BO[near_B], goal_BG[near_B])[:, None]
            self.previous.forget(near_B)
        self.age_B[due_B] = 0
        self.decision_B[due_B] += 1

    def targets_along(self, plans: Plans, goal_BG: Tensor | None, seeds: Sequence[int]) -> Tensor:
        """(B, T, D) targets 1 .. T environment steps ahead, along the chosen plans as the finer models fill them in."""
        x_BHD, row_B = plans.chosen()
        context_BC = self._context(x_BHD[:, 0, : self.spec.obs_dim]) if self.finer else None
        for fine in self.finer:
            x_BHD = filled_in(fine, x_BHD, self.config.ahead, seeds, self.options, context_BC)
            row_B = row_B * (fine.spec.horizon - 1)  # in timesteps of the finer model
        arrival_B = None if goal_BG is None else row_B
        return targets(self.executed, x_BHD, self.longest, arrival_B, self.config.rest_dims)

    def is_near_goal(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """(B,) true where the observation is within `hold_radius` of the goal.

        Raises ValueError for goals of another width or number.
        """
        if goal_BG is None:
            return torch.zeros(len(obs_BO), dtype=torch.bool, device=obs_BO.device)
        if goal_BG.shape[1] != len(self.goal_dims):
            raise ValueError(f"a goal of {goal_BG.shape[1]} numbers was given to a planner whose goals are "
                             f"{len(self.goal_dims)} entries of an observation; train it with --conditioning.goal-dims")
        if len(goal_BG) != len(obs_BO):
            raise ValueError(f"{len(goal_BG)} goals were given for {len(obs_BO)} observations; give one for each")
        return (obs_BO[:, self.goal_dims] - goal_BG).norm(dim=-1) <= self.config.hold_radius

    def _moved(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """(B,) true, on the CPU, where the goal has moved by more than `hold_radius` since the planner aimed at it.

        The planner aims at the new goal from now on, and its next plan does not continue the previous one.
        """
        if goal_BG is None:
            return torch.zeros(len(obs_BO), dtype=torch.bool)
        aim_BO = obs_BO.clone()
        aim_BO[:, self.goal_dims] = self.aim_BG
        moved_B = ~self.is_near_goal(aim_BO, goal_BG)
        self.aim_BG = torch.where(moved_B[:, None], goal_BG, self.aim_BG)
        self.previous.forget(moved_B)
        return moved_B.cpu()

    def hold_goal(self, obs_BO: Tensor, goal_BG: Tensor) -> Tensor:
        """(B, D) the observation with the goal's entries in place of its own, at rest."""
        obs_BO = obs_BO.clone()
        obs_BO[:, self.goal_dims] = goal_BG
        return at_rest(self.executed, obs_BO, self.config.rest_dims)


def choice(row_BN: Tensor, ratio_BN: Tensor, value_BN: Tensor | None) -> Tensor:
    """(B,) indices of the trusted plans with the highest value, or without values with the earliest arrival.

    If no plan is trusted, it is the most trusted one. Among equal plans it is the first.
    """
    score_BN = -row_BN.float() if value_BN is None else value_BN
    trusted_BN = ratio_BN <= 1
    score_BN = torch.where(trusted_BN, score_BN, -torch.inf)
    return torch.where(trusted_BN.any(1, keepdim=True), score_BN, -ratio_BN).argmax(1)


def options_of(config: PlannerConfig, options: SamplingOptions) -> SamplingOptions:
    """The options with the steps and the temperature of the config. Raises ValueError where they have others."""
    if options.steps not in (None, config.steps) or options.temperature not in (1, config.temperature):
        raise ValueError(f"SamplingOptions with steps {options.steps} and temperature {options.temperature:g} were "
                         "given to a planner, which has its own settings of both; change these, as in "
                         "replace(run.planning, steps=2, temperature=0.5), and leave both out of the options")
    return replace(options, steps=config.steps, temperature=config.temperature)


def guidance_of(config: PlannerConfig, critic: PlanCritic | None, guide: Guidance) -> Guidance:
    """The user's guide combined with the guidance of the config."""
    if config.guidance == "value" and critic is not None:
        return [*as_plugins(guide, Preference), critic.guide(config.scale)]
    if config.guidance == "classifier-free":
        return [ClassifierFree(config.scale), *as_plugins(guide, Preference)]
    return guide


def check(config: PlannerConfig, levels: Sequence[TrajectorySpec], act_dim: int, trust: Trust | None,
          inverse: InverseDynamics | None, critic: PlanCritic | None) -> None:
    """Raises ValueError for settings that need a missing component, and for components that do not fit each other.

    `levels` are the layouts of the plans and of the finer models, `act_dim` is the width of the action space.
    """
    spec = levels[0]
    if config.actions == "track" and not len(config.goal_dims) == len(config.rest_dims) == act_dim:
        raise ValueError(f"planner.actions is 'track', which needs a position and a velocity for each of {act_dim} "
                         f"actions; planner.goal_dims are {config.goal_dims} and planner.rest_dims {config.rest_dims}")
    if config.actions == "joint" and not levels[-1].act_dim:
        raise ValueError("planner.actions is 'joint', which needs a model of observations and actions; this "
                         "model has no actions, so leave it out, or train with --joint")
    if config.actions == "inverse" and inverse is None:
        raise ValueError("planner.actions is 'inverse', which needs inverse dynamics; train with --dynamics, or set "
                         "it to 'joint'")
    if config.actions == "inverse" and inverse is not None and config.lookahead > inverse.config.lookahead:
        raise ValueError(f"lookahead is {config.lookahead}; the inverse dynamics were trained to look "
                         f"{inverse.config.lookahead} steps ahead; give at most that")
    if config.arrival == "earliest" and trust is None:
        raise ValueError("arrival='earliest' needs a trust score; give one or set arrival='fixed'")
    for name in VALUED:
        if getattr(config, name) == "value" and critic is None:
            raise ValueError(f"{name}='value' needs a critic of plans; train one, or set another {name}")
    if critic is not None and critic.plan_spec != spec:
        raise ValueError(f"the critic values plans of {critic.plan_spec}; the plans of the model are of {spec}")
    if config.guidance == "classifier-free" and not config.context and config.target_return == "fixed":
        raise ValueError("guidance='classifier-free' needs a context to amplify, such as the return to aim at; set "
                         "context")
    for name, dims in (("goal_dims", config.goal_dims), ("rest_dims", config.rest_dims)):
        if any(not 0 <= dim < spec.obs_dim for dim in dims):
            raise ValueError(f"{name} are {dims}; entries of an observation of width {spec.obs_dim} are expected")
    if config.history:
        spec.require_even("history")
    ahead = max(config.ahead - (config.actions == "joint"), 1)
    if config.history and ahead > (left := (spec.horizon - 1 - config.history) * spec.stride):
        raise ValueError(f"history is {config.history} of {spec.horizon} timesteps, which leaves {left} environment "
                         f"steps to plan, and replan and lookahead need {ahead}; reduce one of them")
    check_levels(levels)
    _check_candidates(config, spec)


def _check_candidates(config: PlannerConfig, spec: TrajectorySpec) -> None:
    several = "shifted=True" if config.shifted else f"candidates={config.candidates}"
    chosen = config.select == "value" or config.arrival == "earliest"
    if (config.shifted or config.candidates > 1) and not chosen:
        raise ValueError(f"{several} needs something to choose by; set select='value' or arrival='earliest'")
    if config.shifted:
        spec.require_even("shifted=True")
    longest = (spec.horizon - config.history - 2) * spec.stride
    if config.shifted and config.replan > longest:
        raise ValueError(f"shifted=True needs something left of a plan; replan is {config.replan}, at most {longest} "
                         f"is expected for a horizon of {spec.horizon} timesteps and a history of {config.history}")
