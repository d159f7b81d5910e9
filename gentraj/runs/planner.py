"""A planner's run: a model of trajectories, and what makes actions of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from agents.planning.arrival import Arrival, ArrivalConfig
from agents.planning.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from agents.planning.plan_critic import PlanCritic, PlanCriticConfig
from agents.planning.planner import Planner, PlannerConfig
from agents.planning.refine import BOTH_ENDS, level_specs
from agents.planning.trust import Trust
from envs.tasks.overview import default_horizon

from ..config import require, require_choice
from ..data import Episodes, Windows
from ..data.context import return_quantile
from ..diffusion import DiffusionConfig
from ..families import FAMILIES, MODELS, Model, ModelConfig, family
from ..models.conditioning import ConditionMix
from ..models.gaussian import GaussianConfig
from ..models.sampling import Guidance
from ..normalize import STATISTICS, Normalizer, NormalizerName
from ..randomness import fold
from ..training.loop import TrainingConfig
from ..training.optimization import BATCH
from ..trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions, TrajectorySpec
from .data_facts import DataFacts, normalizer
from .settings import Component, RunSettings

if TYPE_CHECKING:
    from gymnasium.spaces import Box


FINER = "finer-"  # begins the names of the models that fill in, the coarsest first
# How a family is usually trained, where a planner is given another one than its own.
ITERATIVE, ONE_CALL = {"context_dropout": 0.1, "batch_size": 64}, {"context_dropout": 0.0, "batch_size": 256}
# quantile of the data's discounted returns to go that a planner aims at where nothing is said
GOOD_RETURN_QUANTILE = 0.95
CONTEXT_WINDOWS = 4096  # give the statistics of the contexts


@dataclass(frozen=True)
class PlannerRunConfig(RunSettings):
    """Everything that decides a planner's run. What is None is chosen from the data and written down."""

    horizon: int | None = None
    """Rows of a trajectory."""
    stride: int | tuple[int, ...] | None = None
    """Environment steps between two rows; or from the first row to each other one, 1 2 4 8 16: dense near, sparse far
    (Mixed-Density Diffuser, arXiv 2510.23026). The horizon is then as many rows."""
    refine: tuple[int, ...] = ()
    """Coarse to fine: for each number a further model, which fills in the rows of the one before with so many times as
    dense ones. Horizon and stride are the coarse plan's; what the data choose is spread over the finest rows."""
    joint: bool = False
    """Trajectories, the finest ones, of observations and actions; else of observations, with inverse dynamics."""
    dynamics: bool = False
    """Train inverse dynamics beside trajectories with actions too, for planner.actions inverse."""
    valued: bool = False
    """Train a critic of plans too, for planner.select and planner.guidance."""
    model: ModelConfig = FAMILIES["diffusion"]
    mix: ConditionMix = field(default_factory=ConditionMix)
    """What the model is trained to be given of a trajectory."""
    context_dropout: float = 0.1
    """Share of the trajectories that the model is trained on without their context, for classifier-free guidance."""
    normalizer: NormalizerName = "limits"
    """How observations and actions are normalised for the model."""
    batch_size: int = 64
    """Windows that each model learns from in a training step (for each step of a GAN's discriminator)."""
    inverse: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    arrival: ArrivalConfig = field(default_factory=ArrivalConfig)
    critic: PlanCriticConfig = field(default_factory=PlanCriticConfig)
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    NAME: ClassVar[str] = "planner"
    MAIN: ClassVar[str] = "model"
    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("planner", "training", "dataset")
    GENERATORS: ClassVar[Mapping[str, ModelConfig]] = FAMILIES

    def __post_init__(self) -> None:
        require_choice(self, normalizer=STATISTICS)
        require(self, context_dropout=(0, 1), **BATCH)
        if any(factor < 2 for factor in self.refine):
            raise ValueError(f"refine is {self.refine}; whole numbers of at least 2 are expected")
        if isinstance(self.stride, tuple) and (not self.stride or self.horizon not in (None, len(self.stride) + 1)):
            raise ValueError(f"stride says where {len(self.stride) + 1} rows are, and horizon is {self.horizon}; leave "
                             "the horizon out, and give a number at least")
        if self.planner.actions == "joint" and not self.joint:
            raise ValueError("planner.actions is 'joint', and the model would have no actions; set joint too")
        if self.planner.steps > (levels := getattr(self.model, "levels", None) or math.inf):
            raise ValueError(f"planner.steps is {self.planner.steps}, and the model would have {levels} levels of "
                             f"noise; set planner.steps too, 1 to {levels}")
        self._check_history(self.planner)
        for key in ("select", "guidance"):
            if getattr(self.planner, key) == "value" and not self.valued:
                raise ValueError(f"planner.{key} is 'value', and no critic of plans would be trained; set valued too")

    def _check_history(self, planner: PlannerConfig) -> None:
        if planner.history and not self.mix.prefix:
            raise ValueError(f"planner.history is {planner.history}, and the model knows nothing of rows before the "
                             "present; train one with --mix.prefix 0.5")

    @property
    def kind(self) -> str:
        return f"planner, {family(self.model)}"

    def sampling(self, components: Mapping[str, Component], config: PlannerConfig | None,
                 options: SamplingOptions) -> str:
        """How what acts draws its plans, in words; with settings of its own by default."""
        return cast(Model, components["model"]).sampling(replace(options, steps=(config or self.planner).steps))

    @property
    def generator(self) -> ModelConfig:
        return self.model

    def model_of(self, components: Mapping[str, Component]) -> Model:
        return cast(Model, components["model"])

    @property
    def planning(self) -> PlannerConfig:
        return self.planner

    def dry_goal(self, windows: Batch, obs_BO: torch.Tensor, goal_dims: tuple[int, ...]) -> torch.Tensor | None:
        return obs_BO[:, list(goal_dims)] + 1 if goal_dims else None  # not so near that it is held

    def with_generator(self, model: ModelConfig) -> PlannerRunConfig:
        """Another family is trained as it usually is, on the same conditions. No critic learns of noise where there is
        none."""
        if type(model) is type(self.model):
            return replace(self, model=model)
        critic = self.critic if isinstance(model, DiffusionConfig) else replace(self.critic, noised=0.0)
        usual = ONE_CALL if isinstance(model, GaussianConfig) else ITERATIVE
        return replace(self, model=model, critic=critic, normalizer="limits", **usual)

    def refuse(self, changed: str) -> None:
        super().refuse(changed)
        if changed == "planner.actions" and self.planner.actions == "inverse" and self.joint and not self.dynamics:
            raise ValueError("planner.actions is 'inverse', and plans with actions (joint) have no inverse dynamics "
                             "beside them; set dynamics too, or leave it out")

    def unused(self) -> dict[str, str]:
        found = {"planner.goal_dims": "the data say them, or mix.goal_dims"}
        if not self.joint:
            found |= dict.fromkeys(("dynamics", "mix.actions"), "the plans have no actions (joint)")
        elif not self.dynamics:
            found["inverse"] = "plans with actions (joint) have no inverse dynamics beside them; set dynamics too"
        if not self.valued:
            found["planner.select"] = "no critic of plans is trained; set valued too"
            if not self.context.kinds:
                found["planner.guidance"] = "neither a critic is trained (valued) nor a context told (context.kinds)"
            found["critic"] = "no critic of plans is trained; set valued too"
        elif self.critic.noised:
            found["critic.normalizer"] = "a critic of noisy plans takes the model's; change normalizer instead"
        elif not self.joint or self.refine:
            found["critic.sees"] = "a plan without actions is seen whole"
        if not self.mix.goal:
            found |= dict.fromkeys(("arrival", "mix.goal_at", "mix.goal_dims", "planner.arrival_thresholds",
                                    "planner.rest_dims",
                                    "planner.hold_radius"), "these plans are for returns and have no goal (mix.goal)")
        if not self.context.kinds:
            found |= dict.fromkeys(("context_dropout", "planner.context"), "no context is told (context.kinds)")
        if not self.mix.prefix:
            found["planner.history"] = "the model knows nothing of rows before the present; set mix.prefix too"
        if not hasattr(self.model, "levels"):
            found["planner.steps"] = "the model samples in one call"
        return found

    def resolve(self, episodes: Episodes) -> PlannerRunConfig:
        """With everything the data decide filled in."""
        rows, apart = default_horizon(self.env_id or episodes.env)
        dense = math.prod(self.refine)
        horizon, stride = 1 + -(-(rows - 1) // dense) if self.refine else rows, apart * dense
        if isinstance(self.stride, tuple):
            horizon = len(self.stride) + 1
        goal_dims = self.mix.goal_dims or episodes.goal_dims
        if goal_dims and not self.mix.goal and (self.valued or self.context.kinds == ("return",)):
            raise ValueError(f"{episodes.name} has goals, and these settings plan for returns (mix.goal is 0); "
                             "take a preset for goals, such as pointmaze, or gentraj train veteran+")
        if self.planner.goal_dims not in ((), goal_dims):
            raise ValueError(f"planner.goal_dims are {self.planner.goal_dims}, and the data or mix.goal_dims say "
                             f"{goal_dims}; leave them out")
        mix = replace(self.mix, goal_dims=goal_dims)
        critic = replace(self.critic, normalizer=self.normalizer) if self.critic.noised else self.critic
        planner = replace(self.planner, goal_dims=goal_dims)
        if self.joint and not self.dynamics and planner.actions == "inverse":  # the usual, and there are none
            planner = replace(planner, actions="joint")
        if not goal_dims:  # then there is nothing to come to rest at
            planner = replace(planner, rest_dims=())
        if self.context.kinds == ("return",) and not planner.context:
            planner = replace(planner, context=(return_quantile(episodes, self.context, GOOD_RETURN_QUANTILE),))
        for key, dims in (("planner.rest_dims", planner.rest_dims), ("mix.goal_dims", goal_dims)):
            if any(not 0 <= dim < episodes.obs_dim for dim in dims):
                raise ValueError(f"{key} are {dims}; entries of an observation of width {episodes.obs_dim} are "
                                 "expected")
        horizon = horizon if self.horizon is None else self.horizon
        stride = stride if self.stride is None else self.stride
        _check_span(horizon, stride, episodes)
        return replace(self, horizon=horizon, stride=stride, mix=mix, planner=planner, critic=critic)

    def build(self, data: DataFacts, episodes: Episodes | None) -> dict[str, Component]:
        """The components, with the statistics of `episodes` or with room to load saved ones into."""
        if self.horizon is None or self.stride is None:
            raise ValueError("the horizon or the stride is not chosen yet; call resolve(config, episodes) first")
        act_dim = data.act_dim if self.joint else 0
        stride, offsets = (self.stride[0], self.stride) if isinstance(self.stride, tuple) else (self.stride, None)
        spec = TrajectorySpec(data.obs_dim, 0 if self.refine else act_dim, self.horizon, stride, offsets)
        context = self._context_normalizer(spec, data, episodes)

        def model(of: TrajectorySpec, mix: ConditionMix) -> Model:
            units = normalizer(self.normalizer, of.act_dim, data, episodes)
            return MODELS.made_of(self.model)(of, self.model, units, context, mix=mix, batch_size=self.batch_size,
                                              context_dropout=self.context_dropout)

        components: dict[str, Component] = {"model": model(spec, self.mix)}
        for level, finer in enumerate(level_specs(spec, self.refine, act_dim), 1):
            components[f"{FINER}{level}"] = model(finer, BOTH_ENDS)
        if self.dynamics or not self.joint:
            components["inverse"] = (InverseDynamics.blank(data.obs_dim, data.act_dim, self.inverse) if episodes is None
                                     else InverseDynamics.fit(episodes, self.inverse))
        if goal_dims := self.mix.goal_dims:
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

    def agent(self, components: Mapping[str, Component], reference: Batch, space: Box, config: PlannerConfig | None,
              guide: Guidance, options: SamplingOptions = DEFAULT_OPTIONS) -> Planner:
        model, inverse = cast(Model, components["model"]), cast(InverseDynamics, components.get("inverse"))
        config = config or self.planner
        self._check_history(config)
        trust = Trust(model, reference, config.trust, config.history) if config.arrival == "earliest" else None
        return Planner(model, config, space.low, space.high, trust=trust, inverse=inverse,
                       arrival=cast(Arrival, components.get("arrival")),
                       critic=cast(PlanCritic, components.get("critic")),
                       finer=[cast(Model, components[f"{FINER}{level + 1}"]) for level in range(len(self.refine))],
                       guide=guide, options=options)

    def facts(self, components: Mapping[str, Component]) -> dict[str, Any]:
        """For tables of a run: what its main component is, in words and numbers."""
        model = cast(Model, components["model"])
        return {"kind": type(model).__name__, "timesteps of a trajectory": model.spec.horizon,
                "environment steps between rows": model.spec.spacing, "actions in a trajectory": model.spec.act_dim > 0,
                "sampling steps of the planner": self.planner.steps}


def _check_span(horizon: int, stride: int | tuple[int, ...], episodes: Episodes) -> None:
    """Warns of trajectories that no episode is long enough for."""
    span = stride[-1] if isinstance(stride, tuple) else (horizon - 1) * stride
    longest = int(episodes.lengths.max())
    if span > longest:
        warnings.warn(f"{episodes.name}: {horizon} rows span {span} steps, and the longest episode has {longest}, so "
                      "that the end of each trajectory is padding; give a shorter --horizon or a smaller --stride",
                      stacklevel=3)
