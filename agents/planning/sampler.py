"""Plans are sampled, scored, and one of them is chosen; this depends on nothing but what is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gentraj.device import device_of
from gentraj.diffusion.composition import ClassifierFree
from gentraj.models.plugin import Preference
from gentraj.models.sample_batch import Guidance, as_plugins
from gentraj.randomness import unfold
from gentraj.trajectory import (
    DEFAULT_OPTIONS,
    Condition,
    Observer,
    SamplingOptions,
    TrajectoryModel,
    TrajectorySpec,
    calls_of,
)

from ..episodic import aimed_at, observed
from .arrival import Arrival
from .memory import ObservedPrefix, PlanTail, shift_time
from .plan_critic import PlanCritic
from .planner_config import PlannerConfig
from .refine import filled_in
from .trust import Trust


@dataclass(frozen=True)
class Plans:
    """The N plans that one decision considered in each environment, and the chosen one."""

    x_BNHD: Tensor
    """The plans, in environment units."""
    arrival_step_BN: Tensor
    """The timesteps at which they arrive."""
    ratio_BN: Tensor
    """Their trust ratios; a plan is trusted up to 1."""
    chosen_B: Tensor
    """The index of the chosen plan."""
    value_BN: Tensor | None = None
    """Their values, if the planner selects by value."""

    def chosen(self) -> tuple[Tensor, Tensor]:
        """The plans to execute (B, H, D) and their arrival timesteps (B,)."""
        b = torch.arange(len(self.chosen_B), device=self.chosen_B.device)
        return self.x_BNHD[b, self.chosen_B], self.arrival_step_BN[b, self.chosen_B]


def choice(arrival_step_BN: Tensor, ratio_BN: Tensor, value_BN: Tensor | None) -> Tensor:
    """(B,) indices of the trusted plans with the highest value, or without values with the earliest arrival.

    If no plan is trusted, it is the most trusted one. Among equal plans it is the first.
    """
    score_BN = value_BN
    if score_BN is None:
        score_BN = -arrival_step_BN.float()
    trusted_BN = ratio_BN <= 1
    score_BN = torch.where(trusted_BN, score_BN, -torch.inf)
    return torch.where(trusted_BN.any(1, keepdim=True), score_BN, -ratio_BN).argmax(1)


@dataclass(eq=False)
class PlanSampler:
    """Samples plans with a model of trajectories, scores them, and chooses one for each environment.

    Raises ValueError for settings that need a component which is not given, and for options with other steps or another
    temperature than the settings have. `dataclasses.replace` makes a sampler with other settings, which are checked as
    well.
    """

    model: TrajectoryModel
    config: PlannerConfig
    """How plans are made and chosen."""
    trust: Trust | None = None
    """What judges plans; None where the arrival is fixed."""
    arrival: Arrival | None = None
    """What proposes the arrivals at a goal."""
    critic: PlanCritic | None = None
    """What values plans."""
    finer: Sequence[TrajectoryModel] = ()
    """Models that fill in the part of a plan that is carried out, each one between the timesteps of the level before
    it; joint actions are then those of the last one."""
    guide: Guidance = None
    """Passed to the model's `sample`: a guide or a plug-in, such as constraints, that shapes every plan. It cannot be
    combined with `finer` models, as it would not shape their timesteps, nor with a history, as it cannot shape the
    past."""
    options: SamplingOptions = DEFAULT_OPTIONS
    """How plans are sampled; their steps and temperature are those of the config."""
    spec: TrajectorySpec = field(init=False)
    """The layout of the plans."""
    executed: TrajectorySpec = field(init=False)
    """The layout of the plans that are carried out, as the finer models fill them in."""
    goal_dims: list[int] = field(init=False)
    """The entries of an observation that a goal consists of."""

    def __post_init__(self) -> None:
        self.spec = self.executed = self.model.spec
        if self.finer:
            self.executed = self.finer[-1].spec
        if self.config.arrival == "fixed":
            self.trust = None
        self._check_parts()
        self._check_history()
        self._check_candidates()
        self.goal_dims = list(self.config.goal_dims or range(self.spec.obs_dim))
        self._guide = self._combined_guide()
        self._options = replace(self.options, steps=self.config.steps, temperature=self.config.temperature)

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return device_of(self.model)

    @property
    def network_calls(self) -> int:
        """Calls of the models' networks so far, including those for the trust."""
        return calls_of((self.model, *self.finer))

    def given(self, obs_BO: Tensor, goal_BG: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The observations and goals, checked, in float32 and on the sampler's device.

        Raises ValueError for observations or goals of another shape, and for NaN and infinity in them.
        """
        obs_BO, goal_BG = observed(obs_BO, self.spec.obs_dim), aimed_at(goal_BG)
        if goal_BG is None:
            return obs_BO.to(self.device), None
        if goal_BG.shape[1] != len(self.goal_dims):
            raise ValueError(f"a goal of {goal_BG.shape[1]} numbers was given to a planner whose goals are "
                             f"{len(self.goal_dims)} entries of an observation; train it with --conditioning.goal-dims")
        if len(goal_BG) != len(obs_BO):
            raise ValueError(f"{len(goal_BG)} goals were given for {len(obs_BO)} observations; give one for each")
        return obs_BO.to(self.device), goal_BG.to(self.device)

    @torch.no_grad()
    def sample(self, obs_BO: Tensor, goal_BG: Tensor | None, seeds_B: Sequence[int],
               prefix: ObservedPrefix | None = None, tail: PlanTail | None = None,
               observe: Observer | None = None) -> Plans:
        """Samples the candidates of each environment, scores them, and chooses one of them.

        With the `tail` of earlier plans, the first candidate completes it. The returned plans begin at the present; if
        they have a `prefix`, their last timestep repeats to fill the horizon. `observe` is called with the unfinished
        candidates after each sampling step, as in the model's `sample`.
        """
        obs_BO = obs_BO.to(self.device)
        if goal_BG is not None:
            goal_BG = goal_BG.to(self.device)
        if prefix is None:
            prefix = ObservedPrefix.none(self.spec, len(obs_BO), self.device)
        condition, arrival_step_BN, seeds = self._conditions(obs_BO, goal_BG, seeds_B, prefix, tail)
        x_RHD = self.model.sample(condition, guide=self._guide, seed=seeds, options=self._options, observe=observe)
        x_RHD = x_RHD[:, 0].float()  # whatever the model computes in
        shape_BN = arrival_step_BN.shape
        present_R = prefix.present_B.repeat_interleave(shape_BN[1])
        ratio_BN, value_BN = torch.zeros(shape_BN, device=self.device), None
        if self.trust is not None and shape_BN[1] > 1:
            ratio_R = self.trust.ratio(x_RHD, arrival_step_BN.flatten(), seeds, present_R, condition.context_BC)
            ratio_BN = ratio_R.view(shape_BN)
        if self.critic is not None and self.config.select == "value":
            value_BN = self.critic(x_RHD).view(shape_BN)
        x_RHD = shift_time(x_RHD, present_R)
        chosen_B = choice(arrival_step_BN, ratio_BN, value_BN)
        return Plans(x_RHD.view(*shape_BN, *x_RHD.shape[1:]), arrival_step_BN, ratio_BN, chosen_B, value_BN)

    def filled(self, plans: Plans, ahead: int, seeds_B: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The chosen plans (B, H', D') in the layout `executed`, as far as `ahead` environment steps, and their arrival
        timesteps (B,)."""
        x_BHD, arrival_step_B = plans.chosen()
        if not self.finer:
            return x_BHD, arrival_step_B
        context_BC = self._context(x_BHD[:, 0, : self.spec.obs_dim])
        for fine in self.finer:
            x_BHD = filled_in(fine, x_BHD, ahead, seeds_B, self._options, context_BC)
            arrival_step_B = arrival_step_B * (fine.spec.horizon - 1)  # in timesteps of the finer model
        return x_BHD, arrival_step_B

    def _conditions(self, obs_BO: Tensor, goal_BG: Tensor | None, seeds_B: Sequence[int], prefix: ObservedPrefix,
                    tail: PlanTail | None) -> tuple[Condition, Tensor, list[int]]:
        """The conditions of B * N plans, their arrival timesteps (B, N) from the present, and their seeds."""
        arrival_step_BN = last_B1 = (self.spec.horizon - 1 - prefix.present_B)[:, None]  # counted from the present
        if goal_BG is not None and self.trust is not None:
            if self.arrival is not None and self.config.arrival_thresholds:
                arrival_step_BN = self.arrival.propose(obs_BO, goal_BG, self.config.arrival_thresholds)
            else:  # a plan of two timesteps can only arrive at the last one
                every_second = torch.arange(min(2, self.spec.horizon - 1), self.spec.horizon, 2, device=obs_BO.device)
                arrival_step_BN = every_second.expand(len(obs_BO), -1)
            arrival_step_BN = arrival_step_BN.minimum(last_B1)
        seeds: list[int] = []
        for seed in seeds_B:
            own = seeds_of(seed, arrival_step_BN.shape[1], self.config.candidates)
            if tail is not None:
                seeds.append(own[0])  # the first one is sampled twice, once with the tail
            seeds += own
        arrival_step_BN = arrival_step_BN.repeat_interleave(self.config.candidates, 1)
        if tail is not None:
            first_B1 = tail.arrival_or(arrival_step_BN[:, 0])[:, None].minimum(last_B1)
            arrival_step_BN = torch.cat([first_B1, arrival_step_BN], 1)
        num = arrival_step_BN.shape[1]
        condition = prefix.condition(self.spec, obs_BO).repeat(num)
        if goal_BG is not None:
            at_BN = prefix.present_B[:, None] + arrival_step_BN
            condition = condition.with_obs(at_BN.flatten(), goal_BG.repeat_interleave(num, 0), self.goal_dims)
        if tail is not None:
            condition = tail.add_to(condition, prefix.present_B)
        context_BC = self._context(obs_BO)
        if context_BC is not None:
            condition = replace(condition, context_BC=context_BC.repeat_interleave(num, 0))
        return condition, arrival_step_BN, seeds

    def _context(self, obs_BO: Tensor) -> Tensor | None:
        """(B, C) the context of the model in each environment, or None."""
        if self.critic is not None and self.config.target_return == "value":
            return self.critic.state_value(obs_BO)[:, None]
        if not self.config.context:
            return None
        return torch.tensor(self.config.context, device=self.device).expand(len(obs_BO), -1)

    def _combined_guide(self) -> Guidance:
        """The user's guide together with the guidance of the config."""
        if self.config.guidance == "value" and self.critic is not None:
            return [*as_plugins(self.guide, Preference), self.critic.guide(self.config.scale)]
        if self.config.guidance == "classifier-free":
            return [ClassifierFree(self.config.scale), *as_plugins(self.guide, Preference)]
        return self.guide

    def _check_parts(self) -> None:
        config, options = self.config, self.options
        if options.steps not in (None, config.steps) or options.temperature not in (1, config.temperature):
            raise ValueError(f"SamplingOptions with steps {options.steps} and temperature {options.temperature:g} were "
                             "given to a planner, which has its own settings of both; change these, as in "
                             "replace(run.planning, steps=2, temperature=0.5), and leave both out of the options")
        if config.arrival == "earliest" and self.trust is None:
            raise ValueError("arrival='earliest' needs a trust score; give one or set arrival='fixed'")
        if "value" in (config.select, config.guidance, config.target_return) and self.critic is None:
            raise ValueError(f"select is '{config.select}', guidance '{config.guidance}' and target_return "
                             f"'{config.target_return}'; 'value' needs a critic of plans: train one, or set another")
        if config.guidance == "classifier-free" and not config.context and config.target_return == "fixed":
            raise ValueError("guidance='classifier-free' needs a context to amplify, such as the return to aim at; set "
                             "context")
        if self.finer and self.guide is not None:
            raise ValueError("a guide shapes only the coarse timesteps of a plan, and finer models fill in what is "
                             "carried out; guide a planner without refine")
        check_dims("goal_dims", config.goal_dims, self.spec)

    def _check_history(self) -> None:
        config, spec = self.config, self.spec
        if not config.history:
            return
        if self.guide is not None:
            raise ValueError("a guide shapes a whole trajectory, but the first timesteps of a planner with history are "
                             "in the past; guide a planner with a history of 0")
        spec.require_even("history")
        left = (spec.horizon - 1 - config.history) * spec.stride
        needed = max(config.replan - 1, 1)
        if config.actions != "joint":
            needed = config.replan - 1 + config.lookahead
        if needed > left:
            raise ValueError(f"history is {config.history} of {spec.horizon} timesteps, which leaves {left} "
                             f"environment steps to plan, and replan and lookahead need {needed}; reduce one of them")

    def _check_candidates(self) -> None:
        config, spec = self.config, self.spec
        chosen = config.select == "value" or config.arrival == "earliest"
        if (config.shifted or config.candidates > 1) and not chosen:
            raise ValueError(f"candidates={config.candidates} with shifted={config.shifted} needs something to choose "
                             "by; set select='value' or arrival='earliest'")
        if not config.shifted:
            return
        spec.require_even("shifted=True")
        longest = (spec.horizon - config.history - 2) * spec.stride
        if config.replan > longest:
            raise ValueError(f"shifted=True needs something left of a plan; replan is {config.replan}, at most "
                             f"{longest} is expected for a horizon of {spec.horizon} timesteps and a history of "
                             f"{config.history}")


def check_dims(name: str, dims: tuple[int, ...], spec: TrajectorySpec) -> None:
    """Raises ValueError for entries that an observation does not have."""
    if any(not 0 <= dim < spec.obs_dim for dim in dims):
        raise ValueError(f"{name} are {dims}; entries of an observation of width {spec.obs_dim} are expected")


def seeds_of(seed: int, arrivals: int, candidates: int) -> list[int]:
    """A seed for each candidate of each arrival timestep. The seed of the first candidate does not depend on their
    number."""
    seeds = []
    for first in unfold(arrivals, seed):
        seeds += [first, *unfold(candidates - 1, first)]
    return seeds
