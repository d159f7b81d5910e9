"""The run of a planner: a model of trajectories, and the components that turn a plan into actions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from gentraj.agents.planning.arrival import Arrival, ArrivalConfig
from gentraj.agents.planning.deadline import Deadline, RealTimePlanner
from gentraj.agents.planning.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from gentraj.agents.planning.plan_critic import PlanCritic, PlanCriticConfig
from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.planner_config import VALUED, PlannerConfig
from gentraj.agents.planning.refine import BOTH_ENDS, level_specs
from gentraj.agents.planning.sampler import PlanSampler
from gentraj.agents.planning.tracker import PlanTracker
from gentraj.agents.planning.trust import Trust
from gentraj.envs.tasks.overview import default_horizon

from ..config import require, require_choice
from ..data import Episodes, Windows
from ..data.context import return_quantile
from ..diffusion import DiffusionConfig
from ..distillation import FewStepConfig
from ..families import FAMILIES, MODELS, Model, ModelConfig, family
from ..models.conditioning import ConditionMix
from ..models.sample_batch import Guidance, sampling_of
from ..normalize import STATISTICS, Normalizer, NormalizerName
from ..randomness import fold
from ..training.loop import TrainingConfig
from ..training.optimization import BATCH
from ..trajectory import DEFAULT_OPTIONS, Agent, Batch, SamplingOptions, TrajectorySpec
from .settings import ActingConfig, Component, DataFacts, RunSettings, normalizer, optional

if TYPE_CHECKING:
    from gymnasium.spaces import Box


FINER = "finer-"  # the models that fill in a coarse plan are called finer-1, finer-2, ..., the coarsest first
# A planner that is conditioned on returns aims at this quantile of the episodes' discounted returns by default.
GOOD_RETURN_QUANTILE = 0.95
CONTEXT_WINDOWS = 4096  # the contexts are normalised by the statistics of this number of windows


@dataclass(frozen=True)
class PlannerRunConfig(RunSettings):
    """All settings of a planner's run. A setting that is None is chosen from the data and saved with the run.

    Raises ValueError for a setting outside its range.
    """

    horizon: int | None = None
    """Timesteps of a trajectory. Without --horizon and --stride, a plan is as long as the longest way through a maze
    takes, and outside of mazes and OGBench's tasks it has 32 timesteps, one step apart."""
    stride: int | tuple[int, ...] | None = None
    """Environment steps between two timesteps of a trajectory. Several numbers, such as 1 2 4 8 16, are the environment
    steps from the first timestep to each later one, dense near and sparse far (Mixed-Density Diffuser, arXiv
    2510.23026); they decide the horizon."""
    refine: tuple[int, ...] = ()
    """Plan coarse to fine: each number adds a model that fills in the plan of the model before it, with timesteps that
    are this many times as dense. --horizon and --stride are those of the coarse plan; if they are chosen from the data,
    they are chosen so that the finest plan has the usual ones."""
    joint: bool = False
    """Model observations and actions (in the finest plan), instead of observations alone with inverse dynamics."""
    dynamics: bool = False
    """Train inverse dynamics even if trajectories have actions (--joint), so that --planner.actions may be inverse."""
    valued: bool = False
    """Train a critic of plans, which --planner.select value and --planner.guidance value need."""
    model: ModelConfig = FAMILIES["diffusion"]
    """The generative model of trajectories."""
    conditioning: ConditionMix = field(default_factory=ConditionMix)
    """Which entries of a trajectory the model is conditioned on in training."""
    context_dropout: float = 0.1
    """Fraction of the training trajectories whose context is dropped, for classifier-free guidance."""
    normalizer: NormalizerName = "limits"
    """How observations and actions are normalised for the model."""
    batch_size: int = 64
    """Windows in the batch of a training step, for each model (for each step of a GAN's discriminator)."""
    inverse: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    """The inverse dynamics, where there are any."""
    arrival: ArrivalConfig = field(default_factory=ArrivalConfig)
    """The arrival network, where there are goals."""
    critic: PlanCriticConfig = field(default_factory=PlanCriticConfig)
    """The critic of plans, where there is one."""
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    """How the planner acts. The training does not depend on these settings, so they may be changed after it."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The training loop."""

    NAME: ClassVar[str] = "planner"
    MAIN: ClassVar[str] = "model"
    MODEL_CARD: ClassVar[tuple[str, str, str]] = (
        "A generative model of trajectories for control",
        "x_BNHD = run.model.sample(gentraj.Condition.empty(run.model.spec), num_samples=16)", "planning")
    ACTING: ClassVar[str] = "planner"
    GENERATORS: ClassVar[Mapping[str, ModelConfig]] = FAMILIES

    def __post_init__(self) -> None:
        require_choice(self, normalizer=STATISTICS)
        require(self, context_dropout=(0, 1), **BATCH)
        for name in ("horizon", "stride"):
            if type(value := getattr(self, name)) is int and value < 1:
                raise ValueError(f"PlannerRunConfig.{name} is {value}; a whole number of at least 1 is expected")
        if any(factor < 2 for factor in self.refine):
            raise ValueError(f"PlannerRunConfig.refine is {self.refine}; whole numbers of at least 2 are expected")
        if isinstance(self.stride, tuple) and (not self.stride or self.horizon not in (None, len(self.stride) + 1)):
            fit = f"a horizon of None or {len(self.stride) + 1}" if self.stride else "a number at least as stride"
            raise ValueError(f"stride places {len(self.stride) + 1} timesteps, and horizon is {self.horizon}; give "
                             f"{fit}")
        if self.planner.actions == "joint" and not self.joint:
            raise ValueError("planner.actions is 'joint', but the model would have no actions; set "
                             "PlannerRunConfig.joint too")
        if self.planner.steps > (levels := self.model.max_steps or math.inf):
            raise ValueError(f"planner.steps is {self.planner.steps}, but the model would have {levels} levels of "
                             f"noise; set planner.steps too, 1 to {levels}")
        self._check_conditions(self.planner)
        for key in VALUED:
            if getattr(self.planner, key) == "value" and not self.valued:
                raise ValueError(f"planner.{key} is 'value', and no critic of plans would be trained; set "
                                 "PlannerRunConfig.valued too")

    def _check_conditions(self, planner: PlannerConfig) -> None:
        """Raises ValueError for settings of a planner that need a model conditioned on something else."""
        if planner.history and not self.conditioning.prefix:
            raise ValueError(f"planner.history is {planner.history}, but the model is not conditioned on earlier "
                             "timesteps; train one with --conditioning.prefix 0.5")
        if planner.target_return == "value" and self.context.kinds != ("return",):
            raise ValueError("planner.target_return is 'value', but the model is not conditioned on a return alone; "
                             "set planner.target_return to 'fixed', or train one with --context.kinds return")

    @property
    def summary(self) -> str:
        return f"planner, {family(self.model)}"

    def sampling(self, components: Mapping[str, Component], config: ActingConfig | None,
                 options: SamplingOptions) -> str:
        """How the agent samples its plans, in words; `config` is the planner's own by default."""
        steps = cast(PlannerConfig, config or self.planner).steps
        return sampling_of(self.model_of(components), replace(options, steps=steps))

    @property
    def generator(self) -> ModelConfig:
        return self.model

    def model_of(self, components: Mapping[str, Component]) -> Model:
        return cast(Model, components["model"])

    @property
    def planning(self) -> PlannerConfig:
        return self.planner

    def dry_goal(self, windows: Batch, obs_BO: torch.Tensor, goal_dims: tuple[int, ...]) -> torch.Tensor | None:
        return obs_BO[:, list(goal_dims)] + 1 if goal_dims else None  # far enough that the planner does not hold still

    def with_generator(self, model: ModelConfig) -> PlannerRunConfig:
        """These settings with another model. One of another family is trained as usual for that family, on the same
        conditions, and a critic of noisy plans becomes one of clean plans if the new family has no noise."""
        if type(model) is type(self.model):
            return replace(self, model=model)
        critic = self.critic if isinstance(model, DiffusionConfig) else replace(self.critic, noise_fraction=0.0)
        return replace(self, model=model, critic=critic, normalizer="limits", context_dropout=model.CONTEXT_DROPOUT,
                       batch_size=model.BATCH_SIZE)

    def distilled(self, student: FewStepConfig) -> PlannerRunConfig:
        return replace(self, model=student, planner=replace(self.planner, steps=student.steps))

    def resolve(self, episodes: Episodes) -> PlannerRunConfig:
        """These settings with everything filled in that the data decide.

        Raises ValueError if they do not suit the data, such as a planner for returns for data with goals.
        """
        rows, apart = default_horizon(self.env_id or episodes.env)
        dense = math.prod(self.refine)
        horizon, stride = 1 + -(-(rows - 1) // dense) if self.refine else rows, apart * dense
        if isinstance(self.stride, tuple):
            horizon = len(self.stride) + 1
        goal_dims = self.conditioning.goal_dims or episodes.goal_dims
        if goal_dims and not self.conditioning.goal and (self.valued or self.context.kinds == ("return",)):
            raise ValueError(f"{episodes.name} has goals, and these settings plan for returns "
                             "(conditioning.goal is 0); take a preset for goals, such as pointmaze, or "
                             "gentraj train veteran+")
        if self.planner.goal_dims not in ((), goal_dims):
            raise ValueError(f"planner.goal_dims are {self.planner.goal_dims}, but the data or "
                             f"conditioning.goal_dims say {goal_dims}; leave them out")
        mix = replace(self.conditioning, goal_dims=goal_dims)
        critic = replace(self.critic, normalizer=self.normalizer) if self.critic.noise_fraction else self.critic
        if self.planner.target_return == "value":
            critic = replace(critic, discount=self.context.discount)
        planner = replace(self.planner, goal_dims=goal_dims)
        if self.joint and not self.dynamics and planner.actions == "inverse":  # the default, without inverse dynamics
            planner = replace(planner, actions="joint")
        if not goal_dims:  # without a goal there is nothing to come to rest at
            planner = replace(planner, rest_dims=())
        if self.context.kinds == ("return",) and not planner.context:
            planner = replace(planner, context=(return_quantile(episodes, self.context, GOOD_RETURN_QUANTILE),))
        for key, dims in (("planner.rest_dims", planner.rest_dims), ("conditioning.goal_dims", goal_dims)):
            if any(not 0 <= dim < episodes.obs_dim for dim in dims):
                raise ValueError(f"{key} are {dims}; entries of an observation of width {episodes.obs_dim} are "
                                 "expected")
        horizon = horizon if self.horizon is None else self.horizon
        stride = stride if self.stride is None else self.stride
        _check_span(horizon, stride, episodes)
        return replace(self, horizon=horizon, stride=stride, conditioning=mix, planner=planner, critic=critic)

    def build(self, data: DataFacts, episodes: Episodes | None) -> dict[str, Component]:
        """The components, with the statistics of `episodes`, or blank without them, ready to load saved weights.

        Raises ValueError if the settings are not resolved yet.
        """
        if self.horizon is None or self.stride is None:
            raise ValueError("the horizon or the stride is not chosen yet; call config.resolve(episodes) first")
        act_dim = data.act_dim if self.joint else 0
        stride, offsets = (self.stride[0], self.stride) if isinstance(self.stride, tuple) else (self.stride, None)
        spec = TrajectorySpec(data.obs_dim, 0 if self.refine else act_dim, self.horizon, stride, offsets)
        context = self._context_normalizer(spec, data, episodes)

        def model(layout: TrajectorySpec, conditioning: ConditionMix) -> Model:
            units = normalizer(self.normalizer, layout.act_dim, data, episodes)
            return MODELS.made_of(self.model)(layout, self.model, units, context, conditioning=conditioning,
                                              batch_size=self.batch_size, context_dropout=self.context_dropout)

        components: dict[str, Component] = {"model": model(spec, self.conditioning)}
        for level, finer in enumerate(level_specs(spec, self.refine, act_dim), 1):
            components[f"{FINER}{level}"] = model(finer, BOTH_ENDS)
        if self.dynamics or not self.joint:
            components["inverse"] = (InverseDynamics.blank(data.obs_dim, data.act_dim, self.inverse) if episodes is None
                                     else InverseDynamics.fit(episodes, self.inverse))
        if goal_dims := self.conditioning.goal_dims:
            obs = normalizer("limits", 0, data, episodes)
            components["arrival"] = Arrival(replace(spec, act_dim=0), goal_dims, self.arrival, obs)
        if self.valued:
            components["critic"] = (PlanCritic.blank(spec, self.critic) if episodes is None
                                    else PlanCritic.fit(episodes, spec, self.critic))
        return components

    def _context_normalizer(self, spec: TrajectorySpec, data: DataFacts,
                            episodes: Episodes | None) -> Normalizer | None:
        if not data.context_dim:
            return None
        if episodes is None:
            return Normalizer.identity(data.context_dim)
        sample = Windows(episodes, spec, self.context).batch(0, fold(self.training.seed, 2), CONTEXT_WINDOWS)
        return Normalizer.fit("gaussian", [cast(torch.Tensor, sample.context_BC).numpy()])

    def agent(self, components: Mapping[str, Component], reference: Batch, space: Box, config: ActingConfig | None,
              guide: Guidance, options: SamplingOptions = DEFAULT_OPTIONS, deadline: Deadline | None = None) -> Agent:
        """The planner as an agent, with its own settings by default. With a deadline, this takes some seconds, in which
        the planner measures how long its plans take. Raises ValueError for settings that the components do not suit."""
        model, config = self.model_of(components), cast(PlannerConfig, config or self.planner)
        self._check_conditions(config)
        if config.target_return == "value" and self.critic.discount != self.context.discount:
            raise ValueError(f"planner.target_return is 'value', but the critic's discount is {self.critic.discount} "
                             f"and that of the model's returns {self.context.discount}; train the planner with "
                             "--planner.target-return value, which makes them equal")
        data = reference if config.context else replace(reference, context_BC=None)  # as the plans are sampled
        trust = Trust(model, data, config.trust, config.history) if config.arrival == "earliest" else None
        finer = [cast(Model, components[f"{FINER}{level + 1}"]) for level in range(len(self.refine))]
        sampler = PlanSampler(model, config, trust, optional(components, "arrival", Arrival),
                              optional(components, "critic", PlanCritic), finer, guide, options)
        inverse = optional(components, "inverse", InverseDynamics)
        tracker = PlanTracker(sampler.executed, config, space.low, space.high, inverse)
        if deadline is None:
            return Planner(sampler, tracker)
        agent = RealTimePlanner(sampler, tracker, deadline)
        obs_BO = reference.x_BHD[:1, 0, : model.spec.obs_dim]
        agent.warm_up(obs_BO, self.dry_goal(reference, obs_BO, config.goal_dims))
        return agent

    def facts(self, components: Mapping[str, Component]) -> dict[str, Any]:
        """The main component in words and numbers, for tables about the run."""
        model = self.model_of(components)
        return {"kind": type(model).__name__, "timesteps of a trajectory": model.spec.horizon,
                "environment steps between timesteps": model.spec.spacing,
                "actions in a trajectory": model.spec.act_dim > 0, "sampling steps of the planner": self.planner.steps}


def _check_span(horizon: int, stride: int | tuple[int, ...], episodes: Episodes) -> None:
    """Warns if a trajectory is longer than every episode."""
    span = stride[-1] if isinstance(stride, tuple) else (horizon - 1) * stride
    longest = int(episodes.lengths.max())
    if span > longest:
        warnings.warn(f"{episodes.name}: {horizon} timesteps span {span} environment steps, and the longest episode "
                      f"has {longest}, so that the end of each trajectory is padding; give a shorter --horizon or a "
                      "smaller --stride", stacklevel=3)
