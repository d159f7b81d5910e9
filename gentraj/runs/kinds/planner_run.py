"""The run of a planner: a model of trajectories, and the parts that turn a plan into actions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from annotated_types import Ge, Interval
from pydantic import PositiveInt
from torch import Tensor

from gentraj.agents.planning.arrival import Arrival, ArrivalConfig
from gentraj.agents.planning.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from gentraj.agents.planning.plan_critic import PlanCritic, PlanCriticConfig
from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.sampler import BOTH_ENDS, PlannerConfig, PlanSampler, check_dims, level_specs
from gentraj.agents.planning.tracker import PlanTracker
from gentraj.agents.planning.trust import Trust
from gentraj.agents.realtime.background import Deadline
from gentraj.agents.realtime.planner import RealTimePlanner
from gentraj.agents.roadmap.far_goals import RoadmapConfig, roadmap_of_episodes, roadmap_of_tensors
from gentraj.envs.making import default_horizon

from ...config import JsonObject, settings
from ...data import ContextConfig, Episodes, windows_of
from ...data.goals import goal_entries
from ...data.windows import return_quantile
from ...families import FAMILIES, MODELS, Model, ModelConfig, family
from ...models.conditioning import ConditionMix
from ...models.sampling import Guidance, sampling_of
from ...normalize import Normalizer, NormalizerName
from ...randomness import fold
from ...trajectory import DEFAULT_OPTIONS, Agent, Batch, SamplingOptions, TrajectorySpec
from .run import ActingConfig, Component, DataFacts, Run, RunConfig, acting_settings, ahead_of

if TYPE_CHECKING:
    from gymnasium.spaces import Box


FINER = "finer-"  # the models that fill in a coarse plan are called finer-1, finer-2, ..., the coarsest first
# A planner that is conditioned on returns aims at this quantile of the episodes' discounted returns by default.
GOOD_RETURN_QUANTILE = 0.95
CONTEXT_WINDOWS = 4096  # the contexts are normalised by the statistics of this number of windows


@settings
class PlannerRunConfig(RunConfig):
    """All settings of a planner's run. A setting that is None is chosen from the data and saved with the run.

    Raises ValueError for a setting outside its range, and for settings that contradict each other.
    """

    context: ContextConfig = field(default_factory=ContextConfig)
    """What the model is conditioned on in addition to the entries of the trajectory: returns, tasks or goals."""
    horizon: Annotated[int, Ge(2)] | None = None
    """Timesteps of a trajectory. Without --horizon and --stride, a plan is as long as the longest way through a maze
    takes, and outside of mazes and OGBench's tasks it has 32 timesteps, one step apart."""
    stride: PositiveInt | None = None
    """Environment steps between two timesteps of a trajectory."""
    refine: tuple[Annotated[int, Ge(2)], ...] = ()
    """Plan coarse to fine: each number adds a model that fills in the plan of the model before it, with timesteps that
    are this many times as dense. --horizon and --stride are those of the coarse plan; if they are chosen from the data,
    they are chosen so that the finest plan has the usual ones."""
    joint: bool = False
    """Model observations and actions (in the finest plan), instead of observations alone."""
    model: ModelConfig = FAMILIES["diffusion"]
    """The generative model of trajectories."""
    conditioning: ConditionMix = field(default_factory=ConditionMix)
    """Which entries of a trajectory the model is conditioned on in training."""
    context_dropout: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Fraction of the training trajectories whose context is dropped, for classifier-free guidance."""
    normalizer: NormalizerName = "limits"
    """How observations and actions are normalised for the model."""
    batch_size: PositiveInt = 64
    """Windows in the batch of a training step, for each model (for each step of a GAN's discriminator)."""
    inverse: InverseDynamicsConfig | None = None
    """The inverse dynamics; None trains them where plans have no actions (--joint), towards a goal's entries only if
    there is a roadmap."""
    arrival: ArrivalConfig = field(default_factory=ArrivalConfig)
    """The arrival network, where there are goals."""
    roadmap: RoadmapConfig | None = None
    """The roadmap of the data, which leads to goals that are farther than a plan; None plans straight for them."""
    critic: PlanCriticConfig | None = None
    """The critic of plans, which --planner.select value and --planner.guidance value need; None trains none."""
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    """How the planner acts. The training does not depend on these settings, so they may be changed after it."""

    @property
    def goal_dims(self) -> tuple[int, ...]:
        return self.planner.goal_dims

    @property
    def whole_goals(self) -> bool:
        return self.context.goals is not None and self.context.goals.whole

    @property
    def learns_from_rewards(self) -> bool:
        return "return" in self.context.kinds or (self.critic is not None and not self.context.goals)

    def __post_init__(self) -> None:
        if self.planner.actions == "joint" and not self.joint:
            raise ValueError("planner.actions is 'joint', but the model would have no actions; set "
                             "joint too")
        if self.planner.steps > (levels := self.model.max_steps or math.inf):
            raise ValueError(f"planner.steps is {self.planner.steps}, but the model would have {levels} levels of "
                             f"noise; set planner.steps too, 1 to {levels}")
        for key in ("select", "guidance"):
            if getattr(self.planner, key) == "value" and self.critic is None:
                raise ValueError(f"planner.{key} is 'value', and no critic of plans would be trained; set critic too")
        if self.roadmap is not None and not self.conditioning.goal:
            raise ValueError("a roadmap leads to goals, and conditioning.goal is 0; leave the roadmap out, or take a "
                             "preset for goals, such as pointmaze")
        if self.context.goals:
            self._check_hindsight()
        check_conditions(self, self.planner)

    def _check_hindsight(self) -> None:
        """Raises ValueError if goals in hindsight would be for nothing, or would have values without bounds."""
        if self.critic is None and "goal" not in self.context.kinds:
            raise ValueError("context.goals draws goals for a critic of plans, which would not be trained, or for "
                             "context.kinds goal; set critic too, or leave context.goals out")
        if self.critic is not None and self.critic.discount == 1:
            raise ValueError("critic.discount is 1, and a goal that is never reached costs 1 in each step, so that "
                             "values would have no bound; give a critic.discount below 1")


def check_conditions(config: PlannerRunConfig, planner: PlannerConfig) -> None:
    """Raises ValueError for settings of a planner that need a run with other parts, or a model conditioned on something
    else."""
    if config.context.goals and planner.guidance == "value":
        raise ValueError("planner.guidance is 'value', and a critic of goals in hindsight only chooses plans; set "
                         "planner.select to 'value' in its place")
    if planner.guidance == "classifier-free" and config.model.DIRECT:
        raise ValueError("planner.guidance is 'classifier-free', which changes what a model denoises, and a model of "
                         f"the family {family(config.model)} does not denoise; set another guidance, or take a "
                         "diffusion model")


class PlannerRun(Run[PlannerRunConfig]):
    """A planner: a model of trajectories, and what chooses a plan and follows it."""

    NAME: ClassVar[str] = "planner"
    MAIN: ClassVar[str] = "model"
    ACTS_BY: ClassVar[str] = "planner"
    MODEL: ClassVar[str] = "model"
    MODELS: ClassVar[Mapping[str, ModelConfig]] = FAMILIES
    CARD: ClassVar[tuple[str, str, str]] = (
        "A generative model of trajectories for control",
        "x_BNHD = run.model.sample(gentraj.Condition.empty(run.model.spec), num_samples=16)", "planning")

    finer: list[Model]
    """The models that fill in the plans of the model before them."""
    inverse: InverseDynamics | None = None
    """The inverse dynamics, which find the actions between the observations of a plan."""
    arrival: Arrival | None = None
    """The network of arrival times, where there are goals."""
    critic: PlanCritic | None = None
    """The critic of plans."""

    def __init__(self, config: PlannerRunConfig, data: DataFacts, episodes: Episodes | None = None):
        super().__init__(config, data, episodes)
        if config.horizon is None or config.stride is None:
            raise ValueError("the horizon or the stride is not chosen yet; call PlannerRun.resolve first")
        self.context = config.context
        self.acting, self.roadmap = config.planner, config.roadmap
        self.summary = f"planner, {family(config.model)}"
        act_dim = data.act_dim if config.joint else 0
        spec = TrajectorySpec(data.obs_dim, 0 if config.refine else act_dim, config.horizon, config.stride,
                              obs_names=data.obs_names, act_names=data.act_names)
        context = self._context_normalizer(spec, episodes)
        self._model = self._model_of(spec, config.conditioning, context, episodes)
        self.finer = [self._model_of(finer, BOTH_ENDS, context, episodes)
                      for finer in level_specs(spec, config.refine, act_dim)]
        components: dict[str, Component] = {"model": self._model}
        components |= {f"{FINER}{level}": model for level, model in enumerate(self.finer, 1)}
        if config.inverse is not None:
            if episodes is None:
                self.inverse = InverseDynamics.blank(data.obs_dim, data.act_dim, config.inverse,
                                                     config.conditioning.goal_dims)
            else:
                self.inverse = InverseDynamics.fit(episodes, config.inverse, config.conditioning.goal_dims)
            components["inverse"] = self.inverse
        if goal_dims := config.conditioning.goal_dims:
            obs = self._normalizer("limits", 0, episodes)
            self.arrival = Arrival(replace(spec, act_dim=0), goal_dims, config.arrival, obs)
            components["arrival"] = self.arrival
        if config.critic is not None:
            critic_goal = config.conditioning.goal_dims if config.context.goals else ()
            if episodes is None:
                self.critic = PlanCritic.blank(spec, config.critic, critic_goal)
            else:
                self.critic = PlanCritic.fit(episodes, spec, config.critic, critic_goal)
            components["critic"] = self.critic
        self.components = components
        if config.roadmap is not None and episodes is not None:
            self.kept = roadmap_of_episodes(episodes, config.conditioning.goal_dims, config.roadmap).tensors()

    @classmethod
    def resolve(cls, config: PlannerRunConfig, episodes: Episodes) -> tuple[PlannerRunConfig, ContextConfig]:
        """The settings with everything filled in that the data decide, and what the model is conditioned on.

        Raises ValueError if they do not suit the data, such as a planner for returns for data with goals.
        """
        goal_dims = config.conditioning.goal_dims or episodes.goal_dims
        if config.conditioning.goal and not goal_dims:
            raise ValueError(f"{episodes.name} does not say which entries of an observation make a goal, and these "
                             f"settings plan for goals (conditioning.goal is {config.conditioning.goal:g}); take "
                             "veteran+ or diffuser, which plan for returns, name the entries by "
                             "conditioning.goal_dims=, or plan without goals by conditioning.goal=0")
        if config.context.goals and list(goal_dims) != goal_entries(episodes):
            raise ValueError(f"goals in hindsight have the entries {goal_entries(episodes)} of an observation, which "
                             f"{episodes.name} names, and the planner's goals {list(goal_dims)}; name the same in both")
        for_returns = config.critic is not None or config.context.kinds == ("return",)
        if goal_dims and not config.conditioning.goal and for_returns:
            raise ValueError(f"{episodes.name} has goals, and these settings plan for returns "
                             "(conditioning.goal is 0); take a preset for goals: pointmaze in mazes, goals "
                             "elsewhere")
        if config.planner.goal_dims not in ((), goal_dims):
            raise ValueError(f"planner.goal_dims are {config.planner.goal_dims}, but the data or "
                             f"conditioning.goal_dims say {goal_dims}; leave them out")
        critic, inverse = config.critic, config.inverse
        if critic is not None and critic.noise_fraction:
            critic = replace(critic, normalizer=config.normalizer)
        if inverse is None and not config.joint:
            inverse = InverseDynamicsConfig()
            if config.roadmap is not None:
                inverse = InverseDynamicsConfig(towards="goal")
        if inverse is not None and inverse.towards == "goal" and not goal_dims:
            raise ValueError("inverse.towards is 'goal', and these settings plan without goals; leave it out")
        planner = replace(config.planner, goal_dims=goal_dims)
        if inverse is None and planner.actions == "inverse":  # the default
            planner = replace(planner, actions="joint")
        if not goal_dims:  # without a goal there is nothing to come to rest at
            planner = replace(planner, rest_dims=())
        if config.context.kinds == ("return",) and not planner.context:
            planner = replace(planner, context=(return_quantile(episodes, config.context, GOOD_RETURN_QUANTILE),))
        check_dims("planner.rest_dims", planner.rest_dims, episodes.obs_dim)
        check_dims("conditioning.goal_dims", goal_dims, episodes.obs_dim)
        horizon, stride = timesteps(config, episodes)
        config = replace(config, horizon=horizon, stride=stride, planner=planner, critic=critic, inverse=inverse,
                         conditioning=replace(config.conditioning, goal_dims=goal_dims))
        return config, config.context

    @property
    def model(self) -> Model:
        """The generative model of trajectories; of several, that of the coarsest plan."""
        return self._model

    @property
    def planning(self) -> PlannerConfig:
        """The settings of the planner."""
        return self.config.planner

    def _agent(self, space: Box, config: ActingConfig | None, guide: Guidance, options: SamplingOptions,
               deadline: Deadline | None) -> Agent:
        """The planner as an agent, with its own settings by default. With a deadline, this takes some seconds, in which
        the planner measures how long its plans take. Raises ValueError for settings that the parts do not suit."""
        sampler = self.sampler(config, guide, options)
        tracker = PlanTracker(sampler.executed, sampler.config, space.low, space.high, self.inverse)
        if deadline is None:
            return Planner(sampler, tracker)
        agent = RealTimePlanner(sampler, tracker, deadline)
        obs_BO = self.reference.x_BHD[:1, 0, : self.data.obs_dim]
        agent.warm_up(obs_BO, self.example_goal(self.reference, obs_BO))
        return agent

    def sampler(self, config: ActingConfig | None = None, guide: Guidance = None,
                options: SamplingOptions = DEFAULT_OPTIONS) -> PlanSampler:
        """What samples and chooses the agent's plans, with the run's own settings by default. Raises ValueError for
        settings that the parts do not suit."""
        planning = acting_settings(self, config, PlannerConfig)
        check_conditions(self.config, planning)
        trust = None
        if planning.needs_trust(self.arrival):
            data = self.reference if planning.context else replace(self.reference, context_BC=None)  # as plans are
            trust = Trust(self.model, data, planning.trust, planning.goal_dims, self.kept.get("place"))
        return PlanSampler(self.model, planning, trust, self.arrival, self.critic, self.finer, guide, options,
                           ahead_of(self), self.ranges())

    def example_goal(self, windows: Batch, obs_BO: Tensor) -> Tensor | None:
        """(B, G) goals for decisions in these states, far enough that the planner does not hold still."""
        if self.roadmap is not None:
            goal_G = torch.from_numpy(roadmap_of_tensors(self.kept).core_PG[0])
            return goal_G.expand(len(obs_BO), -1).to(obs_BO)
        ranges = self.ranges().goal
        if ranges is None:
            return None
        here_BG = obs_BO[:, list(self.data.goal_dims)]
        low_G, high_G, mid_G = (bound.to(here_BG) for bound in (ranges.low_O, ranges.high_O, ranges.mid_O))
        return torch.where(here_BG < mid_G, high_G, low_G)

    def sampling(self, config: ActingConfig | None = None, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        """How the agent samples its plans, in words."""
        planning = acting_settings(self, config, PlannerConfig)
        return sampling_of(self.model, replace(options, steps=planning.steps))

    def facts(self) -> JsonObject:
        """The model in words and numbers, for tables about the run."""
        spec = self.model.spec
        return {"kind": type(self.model).__name__, "timesteps of a trajectory": spec.horizon,
                "environment steps between timesteps": spec.stride, "actions in a trajectory": spec.act_dim > 0,
                "sampling steps of the planner": self.planning.steps}

    def likeliest_arrival(self, obs_BO: Tensor, goal_BG: Tensor) -> Tensor:
        """(B,) the timestep at which the goal is most probably reached, on the run's device; the last one without an
        arrival network."""
        if self.arrival is None:
            return torch.full((len(obs_BO),), self.model.spec.horizon - 1, device=self.device)
        return self.arrival.propose(obs_BO.to(self.device), goal_BG.to(self.device), (1.0,))[:, 0]

    def _model_of(self, spec: TrajectorySpec, conditioning: ConditionMix, context: Normalizer | None,
                  episodes: Episodes | None) -> Model:
        config, units = self.config, self._normalizer(self.config.normalizer, spec.act_dim, episodes)
        return MODELS.made_of(config.model)(spec, config.model, units, context, conditioning=conditioning,
                                            batch_size=config.batch_size, context_dropout=config.context_dropout)

    def _normalizer(self, kind: str, act_dim: int, episodes: Episodes | None) -> Normalizer:
        """A normaliser of observations, and of actions too unless `act_dim` is 0; without `episodes`, the identity.

        It holds what never varies in the data, so that plans do.
        """
        data = self.data
        constant = [low == high for low, high in zip(data.obs_low, data.obs_high, strict=True)]
        constant = constant or [False] * data.obs_dim
        if act_dim:
            constant += [value is not None for value in data.constant_actions] or [False] * act_dim
        if episodes is None:
            return Normalizer.identity(data.obs_dim + act_dim).holding(constant)
        arrays = [episodes.obs, episodes.act] if act_dim else [episodes.obs]
        return Normalizer.fit(kind, arrays).holding(constant)

    def _context_normalizer(self, spec: TrajectorySpec, episodes: Episodes | None) -> Normalizer | None:
        if not self.data.context_dim:
            return None
        if episodes is None:
            return Normalizer.identity(self.data.context_dim)
        sample = windows_of(episodes, spec, self.context).batch(0, fold(self.config.training.seed, 2), CONTEXT_WINDOWS)
        assert sample.context_BC is not None  # noqa: S101  windows with a context
        return Normalizer.fit("gaussian", [sample.context_BC.numpy()])


def timesteps(config: PlannerRunConfig, episodes: Episodes) -> tuple[int, int]:
    """The horizon and the stride: those of the settings, or else those that suit the data.

    Warns if a trajectory is longer than every episode.
    """
    rows, apart = default_horizon(config.env_id or episodes.env)
    dense = math.prod(config.refine)
    horizon, stride = rows, apart * dense
    if config.refine:
        horizon = 1 + -(-(rows - 1) // dense)
    if config.stride is not None:
        stride = config.stride
    if config.horizon is not None:
        horizon = config.horizon
    span = (horizon - 1) * stride
    longest = int(episodes.lengths.max())
    if span > longest:
        warnings.warn(f"{episodes.name}: {horizon} timesteps span {span} environment steps, and the longest episode "
                      f"has {longest}, so that the end of each trajectory is padding; give a shorter horizon= or a "
                      "smaller stride=", stacklevel=3)
    return horizon, stride
