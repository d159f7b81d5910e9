"""Plans are sampled, scored, and one of them is chosen; this depends on nothing but what is given.

In coarse-to-fine planning, models of finer time resolution fill in the part of a plan that is carried out. One finer
level is Hierarchical Diffuser (Chen et al. 2024, section 3), two are DiffuserLite (Dong et al. 2024, section 4).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Interval
from einops import rearrange, repeat
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from gentraj.config import Fraction, settings
from gentraj.device import constant, device_of, to_device
from gentraj.diffusion.guidance import ClassifierFree
from gentraj.models.conditioning import ConditionMix
from gentraj.models.model import TrajectoryModel
from gentraj.models.sampling import Guidance, Preference, as_plugins
from gentraj.networks.embedding import padded
from gentraj.randomness import Noise, Seeds, as_noise, fold, unfold
from gentraj.ranges import DataRanges
from gentraj.trajectory import (
    DEFAULT_OPTIONS,
    Condition,
    Observer,
    SamplingOptions,
    TrajectorySpec,
    calls_of,
)

from ..episodic import aimed_at, observed
from ..roadmap.courses import Courses, courses
from ..roadmap.far_goals import FarGoals, Waypoints
from ..roadmap.graph import Route
from .arrival import Arrival
from .plan_critic import PlanCritic
from .trust import Trust

BOTH_ENDS = ConditionMix(goal=1.0, goal_at="end")  # a finer model is conditioned on both ends


@settings
class PlannerConfig:
    """How a `Planner` plans and acts. Raises ValueError for a setting outside its range."""

    REMOVED: ClassVar[dict[str, object]] = {"shifted": False, "history": 0}

    arrival: Literal["earliest", "fixed"] = "earliest"
    """When a plan is to arrive at the goal: at the earliest trusted timestep, or always at the last one."""
    replan: PositiveInt = 12
    """Environment steps between two plans. A goal that moves by more than hold_radius is planned for at once."""
    steps: PositiveInt = 5
    """Sampling steps of each plan."""
    arrival_thresholds: tuple[Annotated[float, Interval(gt=0, le=1)], ...] = (0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
    """Fractions in (0, 1]. For each, the planner tries the earliest arrival that is at least this fraction as probable
    as the most probable one; it samples the others only where the earliest is not trusted. Without any, it tries every
    second timestep."""
    candidates: PositiveInt = 1
    """Plans that are sampled for each arrival, or in all where there is no goal."""
    select: Literal["trust", "value"] = "trust"
    """Which of the trusted plans is taken: with trust the one that arrives first, with value the one with the highest
    value under the critic (Lu et al. 2025). If no plan is trusted, the most trusted one is taken."""
    guidance: Literal["none", "value", "classifier-free"] = "none"
    """What guides the sampling of plans: the critic's value, or the context by classifier-free guidance."""
    scale: float = 1.0
    """Scale of the guidance. With value guidance, plans become exp(scale * value) times as likely, where values are in
    standard deviations of the returns in the data. With classifier-free guidance, 1 is the conditional model, and more
    amplifies the context."""
    trust: Fraction = 0.98
    """A plan is trusted if its out-of-distribution score and, where there are goals, its distance from recorded
    positions are within this quantile of those of the data."""
    temperature: NonNegativeFloat = 1.0
    """Scale of the noise that a plan is sampled from."""
    actions: Literal["inverse", "joint", "track"] = "inverse"
    """Where actions come from: the inverse dynamics, the plan itself (joint), whose actions are 0 after its arrival, or
    a PD controller that tracks the plan's positions (goal_dims) and velocities (rest_dims), as Diffuser acts in
    mazes."""
    lookahead: PositiveInt = 12
    """Environment steps that the inverse dynamics or the PD controller look ahead along the plan."""
    pace: Annotated[float, Ge(1)] = 1.0
    """A plan is followed this many times as fast as it was planned. Above 1 suits data of noisy actions, which are
    slower than the robot can be; it excludes joint actions."""
    context: tuple[float, ...] = ()
    """Context that the model is conditioned on; empty for a model without one. By default, a model conditioned on
    returns is given a high return of its data."""
    goal_dims: tuple[int, ...] = ()
    """Indices of the observation entries that a goal consists of; none means all."""
    rest_dims: tuple[int, ...] = ()
    """Indices of the observation entries that are 0 at rest (velocities), for holding the goal after the arrival."""
    hold_radius: NonNegativeFloat = 0.0
    """Distance to the goal, in environment units, within which the planner holds the goal instead of planning. It
    should be at most the distance that counts as success, as the goal is held along a straight line, even round a
    corner."""

    def __post_init__(self) -> None:
        if self.pace != 1 and self.actions == "joint":
            raise ValueError(f"planner.pace is {self.pace:g}, and a plan with joint actions is followed as fast as it "
                             "says; set pace to 1")

    def needs_trust(self, arrival: Arrival | None) -> bool:
        """Whether there is more than one plan to choose from by its trust, where this network proposes arrivals."""
        one = arrival is not None and len(self.arrival_thresholds) == 1
        return self.arrival == "earliest" and (not one or self.candidates > 1)


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
    aim: Waypoints | None = None
    """The place on the way to a goal that they were made for, and how far it is to the goal; None without a
    roadmap."""

    def chosen(self) -> tuple[Tensor, Tensor]:
        """The plans to execute (B, H, D) and their arrival timesteps (B,)."""
        b = torch.arange(len(self.chosen_B), device=self.chosen_B.device)
        return self.x_BNHD[b, self.chosen_B], self.arrival_step_BN[b, self.chosen_B]

    def with_others(self, where: list[int], others: Plans) -> Plans:
        """The same with N other plans in these environments; in the rest, the only plan is there N times."""
        found = []
        for mine, other in ((self.x_BNHD, others.x_BNHD), (self.arrival_step_BN, others.arrival_step_BN),
                            (self.ratio_BN, others.ratio_BN)):
            mine = mine.repeat_interleave(other.shape[1], 1)
            mine[where] = other
            found.append(mine)
        chosen_B = self.chosen_B.clone()
        chosen_B[where] = others.chosen_B
        return Plans(*found, chosen_B, aim=self.aim)

    def with_whole(self, ways: Sequence[WholePlan]) -> Plans:
        """The same with whole ways, one for each environment, in the place of the chosen plans, and the largest trust
        ratio of their windows. The last timestep of shorter plans repeats."""
        horizon = max(self.x_BNHD.shape[2], *(way.spec.horizon for way in ways))
        x_BNHD = self.x_BNHD[:, :, torch.arange(horizon).clamp(max=self.x_BNHD.shape[2] - 1)]
        arrival_step_BN, ratio_BN = self.arrival_step_BN.clone(), self.ratio_BN.clone()
        for b, (n, way) in enumerate(zip(self.chosen_B.tolist(), ways, strict=True)):
            x_BNHD[b, n] = way.padded(horizon)
            arrival_step_BN[b, n] = len(way.x_TD) - 1
            ratio_BN[b, n] = way.ratio_T.max()
        return replace(self, x_BNHD=x_BNHD, arrival_step_BN=arrival_step_BN, ratio_BN=ratio_BN)


@dataclass(frozen=True)
class WholePlan:
    """A plan of the whole way to a goal, whose windows are plans of the model."""

    x_TD: Tensor
    """The T timesteps, in environment units."""
    spec: TrajectorySpec
    """Their layout, with a horizon of T, for which constraints certify them."""
    ratio_T: Tensor
    """The trust ratio of the window that each timestep belongs to; a window is trusted up to 1."""

    def padded(self, horizon: int) -> Tensor:
        """(horizon, D) the plan, whose last timestep repeats."""
        return self.x_TD[torch.arange(horizon).clamp(max=len(self.x_TD) - 1)]


def joined(spec: TrajectorySpec, windows: Sequence[Tensor], ratios: Sequence[float]) -> WholePlan:
    """Joins windows (h, D), each of which begins at the last timestep of the one before it."""
    x_TD = torch.cat([windows[0], *(x_hD[1:] for x_hD in windows[1:])])
    ratio_T = torch.cat([torch.full((len(x_hD) - 1,), ratio) for x_hD, ratio in zip(windows, ratios, strict=True)])
    return WholePlan(x_TD, replace(spec, horizon=len(x_TD)), F.pad(ratio_T, (1, 0), value=ratios[0]))


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
    """What judges plans; None where no choice needs it."""
    arrival: Arrival | None = None
    """What proposes the arrivals at a goal."""
    critic: PlanCritic | None = None
    """What values plans."""
    finer: Sequence[TrajectoryModel] = ()
    """Models that fill in the part of a plan that is carried out, each one between the timesteps of the level before
    it; joint actions are then those of the last one."""
    guide: Guidance = None
    """Passed to the model's `sample`: a guide or a plug-in, such as constraints, that shapes every plan. It cannot be
    combined with `finer` models, as it would not shape their timesteps."""
    options: SamplingOptions = DEFAULT_OPTIONS
    """How plans are sampled; their steps and temperature are those of the config."""
    far: FarGoals | None = None
    """What leads to goals beyond a plan."""
    ranges: DataRanges | None = None
    """The ranges of the data, with which observations and goals are compared."""
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
        if not self.config.needs_trust(self.arrival):
            self.trust = None
        self._check_parts()
        self.goal_dims = list(self.config.goal_dims or range(self.spec.obs_dim))
        self._guide = self._combined_guide()
        self._told = False  # that a goal is missing
        self._far = None
        if self.far is not None:
            self._far = self.far.outside(self.guide)
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
        """The observations and goals, checked, in float32, on the CPU.

        Raises ValueError for observations or goals of another shape, and for NaN and infinity in them.
        """
        obs_BO = observed(obs_BO, self.spec.obs_dim, self.ranges).cpu()
        goal_BG = aimed_at(goal_BG, len(self.goal_dims), self.ranges)
        if goal_BG is None:
            if self.arrival is not None and not self._told:
                self._told = True
                warnings.warn("a planner for goals was given none, and goes wherever its data go; give `act` the goals "
                              f"(B, {len(self.goal_dims)}) as its second argument", stacklevel=4)
            return obs_BO, None
        if len(goal_BG) != len(obs_BO):
            raise ValueError(f"{len(goal_BG)} goals were given for {len(obs_BO)} observations; give one for each")
        return obs_BO, goal_BG.cpu()

    def courses(self, batch: int) -> Courses | None:
        """Memory of the ways of so many environments round what they get stuck at; None without a roadmap."""
        if self._far is None:
            return None
        return courses(self._far, self.config.replan, batch)

    def route(self, obs_O: Tensor, goal_G: Tensor) -> Route | None:
        """The way from an observation to a goal, round the guide's obstacles; None without a roadmap, and where no
        way leads from there."""
        if self._far is None:
            return None
        return self._far.route(obs_O[self.goal_dims].cpu().numpy(), goal_G.cpu().numpy())

    @torch.no_grad()
    def sample(self, obs_BO: Tensor, goal_BG: Tensor | None, seeds_B: Seeds,
               observe: Observer | None = None, aim: Waypoints | None = None, multiple: int = 1) -> Plans:
        """Samples the candidates of each environment, scores them, and chooses one of them.

        `observe` is called with the unfinished candidates after each sampling step, as in the model's `sample`. `aim`
        are the places to plan for on a roadmap, by default those ahead on the way to the goals. Networks are called
        with a `multiple` of so many rows, and `observe` sees those that fill it up, too.
        """
        obs_BO, goal_BG, aim = self._aimed(obs_BO, goal_BG, aim)
        arrival_step_BN, noise = self._proposed(obs_BO, goal_BG, seeds_B, multiple)
        return self._candidates(obs_BO, goal_BG, arrival_step_BN, noise, aim, multiple, observe)

    @torch.no_grad()
    def decide(self, obs_BO: Tensor, goal_BG: Tensor | None, seeds_B: Seeds, aim: Waypoints | None = None,
               multiple: int = 1) -> Plans:
        """What `sample` chooses, by sampling no more candidates than the choice takes.

        Where the arrival network proposes arrivals and the earliest trusted plan is taken, the earliest candidate is
        sampled alone, and the others only in the environments in which it is not trusted.
        """
        if goal_BG is None or self.arrival is None or self.trust is None or self.config.select == "value":
            return self.sample(obs_BO, goal_BG, seeds_B, aim=aim, multiple=multiple)
        obs_BO, goal_BG, aim = self._aimed(obs_BO, goal_BG, aim)
        arrival_step_BN, noise = self._proposed(obs_BO, goal_BG, seeds_B, multiple)
        num = arrival_step_BN.shape[1]
        plans = self._candidates(obs_BO, goal_BG, arrival_step_BN[:, :1], noise[::num], aim, multiple)
        doubtful = (plans.ratio_BN[:, 0] > 1).nonzero()[:, 0].tolist()
        if not doubtful:
            return plans
        own = noise[[b * num + n for b in doubtful for n in range(num)]]
        return plans.with_others(doubtful, self._candidates(obs_BO[doubtful], goal_BG[doubtful],
                                                            arrival_step_BN[doubtful], own, None, multiple))

    def _aimed(self, obs_BO: Tensor, goal_BG: Tensor | None,
               aim: Waypoints | None) -> tuple[Tensor, Tensor | None, Waypoints | None]:
        """The observations and the goals within reach, where the model is, and the places on a roadmap."""
        if goal_BG is not None and self._far is not None:
            aim = aim or self._far.aim(obs_BO, goal_BG)
            goal_BG = aim.place_BG
        if goal_BG is not None:
            goal_BG = to_device(goal_BG, self.device)
        return to_device(obs_BO, self.device), goal_BG, aim

    def _proposed(self, obs_BO: Tensor, goal_BG: Tensor | None, seeds_B: Seeds, multiple: int) -> tuple[Tensor, Noise]:
        """The arrivals (B, N) of the candidates, and the noise of the B * N."""
        arrival_BJ = self._arrivals(obs_BO, goal_BG, multiple)
        noise = as_noise(seeds_B, len(obs_BO), "observations")
        noise = noise.derived(lambda seed: seeds_of(seed, arrival_BJ.shape[1], self.config.candidates))
        return arrival_BJ.repeat_interleave(self.config.candidates, 1), noise

    def _candidates(self, obs_BO: Tensor, goal_BG: Tensor | None, arrival_step_BN: Tensor, noise: Noise,
                    aim: Waypoints | None, multiple: int, observe: Observer | None = None) -> Plans:
        """Samples candidates with these arrivals, scores them, and chooses one of them."""
        num, rows = arrival_step_BN.shape[1], arrival_step_BN.numel()
        missing = -rows % multiple
        noise = noise.padded(missing)
        condition = self._condition(obs_BO, goal_BG, arrival_step_BN).padded(missing)
        x_RHD = self.model.sample(condition, guide=self._guide, seed=noise, options=self._options, observe=observe)
        x_RHD = x_RHD[:, 0].float()  # whatever the model computes in
        ratio_BN, value_BN = torch.zeros(arrival_step_BN.shape, device=self.device), None
        if self.trust is not None and (num > 1 or goal_BG is not None):
            arrival_step_R = padded(arrival_step_BN.flatten(), multiple)
            ratio_R = self.trust.ratio(x_RHD, arrival_step_R, noise, condition.context_BC)
            ratio_BN = rearrange(ratio_R[:rows], "(b n) -> b n", n=num)
        if self.critic is not None and self.config.select == "value":
            goal_RG = None
            if goal_BG is not None:
                goal_RG = padded(repeat(goal_BG, "b g -> (b n) g", n=num), multiple)
            value_BN = rearrange(self.critic(x_RHD, goal_RG)[:rows], "(b n) -> b n", n=num)
        chosen_B = choice(arrival_step_BN, ratio_BN, value_BN)
        x_BNHD = rearrange(x_RHD[:rows], "(b n) h d -> b n h d", n=num)
        return Plans(x_BNHD, arrival_step_BN, ratio_BN, chosen_B, value_BN, aim)

    def whole(self, obs_BO: Tensor, goal_BG: Tensor, seeds_B: Seeds) -> list[WholePlan]:
        """Plans the whole way from each observation to its goal, however far it is: the last plans of `growing`."""
        *_, ways = self.growing(obs_BO, goal_BG, seeds_B)
        return ways

    def growing(self, obs_BO: Tensor, goal_BG: Tensor, seeds_B: Seeds) -> Iterator[list[WholePlan]]:
        """Yields plans from each observation towards its goal, which are longer by a window each time.

        Each window, a plan as `decide` chooses it, begins where the one before it arrived, at a place on the way, and
        the last one arrives at the goal. The guide shapes each window. Raises ValueError for a goal that is farther
        than a plan if the timesteps are not evenly spaced.
        """
        goal_BG = goal_BG.to(self.device)
        at_BO, going = obs_BO.to(self.device).clone(), list(range(len(obs_BO)))
        noise_B = as_noise(seeds_B, len(obs_BO), "observations")
        windows: list[list[Tensor]] = [[] for _ in going]
        ratios: list[list[float]] = [[] for _ in going]
        while going:
            noise = noise_B[going]
            if windows[going[0]]:
                noise = noise.anew(len(windows[going[0]]))
            plans = self.decide(at_BO[going], goal_BG[going], noise)
            ratio_B = plans.ratio_BN.gather(1, plans.chosen_B[:, None])[:, 0]
            for b, x_HD, arrival, ratio in zip(going, *plans.chosen(), ratio_B.tolist(), strict=True):
                windows[b].append(x_HD[: arrival + 1])
                ratios[b].append(ratio)
                at_BO[b] = self.spec.split(x_HD[arrival])[0]
            is_there_B = (at_BO[going][:, self.goal_dims] == goal_BG[going]).all(1)
            going = [b for b, is_there in zip(going, is_there_B.tolist(), strict=True) if not is_there]
            yield [joined(self.spec, *parts) for parts in zip(windows, ratios, strict=True)]

    def filled(self, plans: Plans, ahead: int, seeds_B: Seeds, multiple: int = 1) -> tuple[Tensor, Tensor]:
        """The chosen plans (B, H', D') in the layout `executed`, as far as `ahead` environment steps, and their arrival
        timesteps (B,). `multiple` is as in `sample`."""
        x_BHD, arrival_step_B = plans.chosen()
        for fine in self.finer:
            x_BHD = self._filled_in(fine, x_BHD, ahead, seeds_B, multiple)
            arrival_step_B = arrival_step_B * (fine.spec.horizon - 1)  # in timesteps of the finer model
        return x_BHD, arrival_step_B

    def _filled_in(self, fine: TrajectoryModel, x_BHD: Tensor, ahead: int, seeds_B: Seeds, multiple: int) -> Tensor:
        """(B, H', D') plans in the time resolution of `fine`, as far as `ahead` environment steps.

        A leg is the time between two timesteps of the coarse plan. `fine` samples all legs that start within `ahead`
        environment steps, conditioned on both of their ends and on the context.
        """
        span = (fine.spec.horizon - 1) * fine.spec.stride
        legs = min(math.ceil(ahead / span), x_BHD.shape[1] - 1)
        obs_BHO = x_BHD[:, : legs + 1, : fine.spec.obs_dim]
        ends = Condition.empty(fine.spec, len(x_BHD) * legs, device=x_BHD.device)
        first_RO, last_RO = (rearrange(obs, "b leg o -> (b leg) o") for obs in (obs_BHO[:, :-1], obs_BHO[:, 1:]))
        ends = ends.with_obs(0, first_RO).with_obs(-1, last_RO)
        noise = as_noise(seeds_B, len(x_BHD), "plans")
        noise = noise.derived(lambda seed: [fold(seed, leg, fine.spec.stride) for leg in range(legs)])
        missing = -len(noise) % multiple
        ends = with_context(ends, self.config.context).padded(missing)
        x_RHD = fine.sample(ends, seed=noise.padded(missing), options=self._options)[: len(noise), 0].float()
        # A leg begins where the last one ended.
        joined_BTD = rearrange(x_RHD[:, :-1], "(b leg) h d -> b (leg h) d", leg=legs)
        return torch.cat([joined_BTD, x_RHD[legs - 1 :: legs, -1:]], 1)

    def _arrivals(self, obs_BO: Tensor, goal_BG: Tensor | None, multiple: int) -> Tensor:
        """(B, J) the timesteps at which plans are to arrive."""
        batch, last = len(obs_BO), self.spec.horizon - 1
        if goal_BG is None or self.config.arrival == "fixed":
            return torch.full((batch, 1), last, device=obs_BO.device)
        if self.arrival is not None and self.config.arrival_thresholds:
            obs_RO, goal_RG = padded(obs_BO, multiple), padded(goal_BG, multiple)
            return self.arrival.propose(obs_RO, goal_RG, self.config.arrival_thresholds)[:batch]
        # a plan of two timesteps can only arrive at the last one
        return torch.arange(min(2, last), last + 1, 2, device=obs_BO.device).expand(batch, -1)

    def _condition(self, obs_BO: Tensor, goal_BG: Tensor | None, arrival_step_BN: Tensor) -> Condition:
        """The condition of the B * N plans that arrive then."""
        num = arrival_step_BN.shape[1]
        condition = Condition.empty(self.spec, len(obs_BO), device=obs_BO.device).with_obs(0, obs_BO).repeat(num)
        if goal_BG is not None:
            goal_RG = repeat(goal_BG, "b g -> (b n) g", n=num)
            condition = condition.with_obs(arrival_step_BN.flatten(), goal_RG, self.goal_dims)
        return with_context(condition, self.config.context)

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
        if config.needs_trust(self.arrival) and self.trust is None:
            raise ValueError("arrival='earliest' needs a trust score; give one or set arrival='fixed'")
        if config.candidates > 1 and config.select != "value" and config.arrival != "earliest":
            raise ValueError(f"candidates={config.candidates} needs something to choose by; set select='value' or "
                             "arrival='earliest'")
        if "value" in (config.select, config.guidance) and self.critic is None:
            raise ValueError(f"select is '{config.select}' and guidance '{config.guidance}'; 'value' needs a critic of "
                             "plans: train one, or set another")
        if config.guidance == "classifier-free" and not config.context:
            raise ValueError("guidance='classifier-free' needs a context to amplify, such as the return to aim at; set "
                             "context")
        if self.finer and self.guide is not None:
            raise ValueError("a guide shapes only the coarse timesteps of a plan, and finer models fill in what is "
                             "carried out; guide a planner without refine")
        check_dims("goal_dims", config.goal_dims, self.spec.obs_dim)


def with_context(condition: Condition, context: tuple[float, ...]) -> Condition:
    """The condition, with the same context in every row; as it is for a model without one."""
    if not context:
        return condition
    row_C = constant(context, condition.values_BHD.device, torch.get_default_dtype())
    return replace(condition, context_BC=row_C.repeat(condition.batch, 1))


def check_dims(name: str, dims: tuple[int, ...], obs_dim: int) -> None:
    """Raises ValueError for entries that an observation does not have."""
    if any(not 0 <= dim < obs_dim for dim in dims):
        raise ValueError(f"{name} are {dims}; entries of an observation of width {obs_dim} are expected")


def seeds_of(seed: int, arrivals: int, candidates: int) -> list[int]:
    """A seed for each candidate of each arrival timestep. The seed of the first candidate does not depend on their
    number."""
    seeds = []
    for first in unfold(arrivals, seed):
        seeds += [first, *unfold(candidates - 1, first)]
    return seeds


# -- finer levels


def level_specs(coarse: TrajectorySpec, factors: Sequence[int], act_dim: int) -> list[TrajectorySpec]:
    """The layouts of the finer levels, one for each factor.

    A level fills in the time between two timesteps of the level above, and its timesteps are `factor` times as dense.
    Only the last level has actions. Raises ValueError where a stride is not divisible by its factor.
    """
    specs, above = [], coarse
    for factor in factors:
        if above.stride % factor:
            raise ValueError(f"refine is {tuple(factors)}, and timesteps {coarse.stride} environment steps apart "
                             "cannot be divided by these factors; give factors whose product divides the stride")
        above = replace(above, act_dim=0, horizon=factor + 1, stride=above.stride // factor)
        specs.append(above)
    if specs:
        specs[-1] = replace(specs[-1], act_dim=act_dim)
    return specs
