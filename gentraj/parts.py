"""What a run is made of, a planner's models or a policy: settings that know how to make it.

`resolve` fills in what the data decide, `build` makes the parts that are trained, `agent` lets trained parts act, and
`facts` tells of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast, get_type_hints

import torch

from agents import policies
from agents.arrival import Arrival, ArrivalConfig
from agents.bc import BCConfig
from agents.generators import GENERATORS
from agents.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from agents.plan_critic import PlanCritic, PlanCriticConfig
from agents.planner import Planner, PlannerConfig
from agents.policy import Actor, Policy, Scales
from agents.refine import LEG, level_specs
from agents.trust import Trust
from envs.advice import horizon_advice
from envs.making import environment_factory
from envs.scores import DataReturns

from .data import ContextConfig, Episodes, Windows
from .data.context import return_quantile
from .diffusion import DiffusionConfig
from .generation import Guidance
from .models import FAMILIES, MODELS, Model, ModelConfig, family
from .normalize import Normalizer
from .randomness import fold
from .training import TrainingConfig
from .trajectory import Batch, TrajectorySpec

if TYPE_CHECKING:
    from gymnasium.spaces import Box

Part = Model | InverseDynamics | Arrival | PlanCritic | Policy
FINER = "finer-"  # begins the names of the models that fill in, the coarsest first
GOOD = 0.95  # quantile of the data's discounted returns to go that a planner aims at where nothing is said
CONTEXT_WINDOWS = 4096  # give the statistics of the contexts


@dataclass(frozen=True)
class DataFacts:
    """What a run must remember of its data to be used without it."""

    obs_dim: int
    act_dim: int
    context_dim: int
    goal_dims: tuple[int, ...]
    obs_keys: tuple[str, ...]
    env: str | None
    """Gymnasium's EnvSpec as JSON: of the run's `env_id`, else the data's."""
    recorded: str | None = None
    """That of the data, where they say it."""
    returns: tuple[DataReturns, ...] = ()
    """Of each dataset that was joined, in their order."""

    @classmethod
    def of(cls, episodes: Episodes, context: ContextConfig, env_id: str | None = None,
           returns: Sequence[DataReturns] = ()) -> DataFacts:
        """`returns` are those of the datasets that were joined, by default of `episodes` as they are."""
        env = environment_factory(env_id).spec_json if env_id else episodes.env
        return cls(episodes.obs_dim, episodes.act_dim, context.width(episodes), episodes.goal_dims, episodes.obs_keys,
                   env, episodes.env, tuple(returns or [DataReturns.of(episodes)]))


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a planner's run. What is None is chosen from the data and written down."""

    dataset: str = ""
    """A Minari id, a D4RL id, or a file (.hdf5 of D4RL's layout, .npz of gentraj or OGBench); '+' joins several."""
    env_id: str | None = None
    """The environment, where the data do not say or another is wanted: a Gymnasium id or a task name."""
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
    stitch: bool = True
    """Join episodes that continue each other: one endless run that was cut at its goals."""
    context: ContextConfig = field(default_factory=ContextConfig)
    """What the model is told beside the trajectory, to be asked for when it samples."""
    valued: bool = False
    """Train a critic of plans too, for planner.select and planner.guidance."""
    model: ModelConfig = FAMILIES["diffusion"]
    inverse: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    arrival: ArrivalConfig = field(default_factory=ArrivalConfig)
    critic: PlanCriticConfig = field(default_factory=PlanCriticConfig)
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    MAIN: ClassVar[str] = "model"  # the part that gives a run its name, and whose windows it keeps
    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("planner", "training", "dataset")  # checkpoints do not depend on these
    GENERATORS: ClassVar[Mapping[str, ModelConfig]] = FAMILIES

    def __post_init__(self) -> None:
        if isinstance(self.stride, tuple) and (not self.stride or self.horizon not in (None, len(self.stride) + 1)):
            raise ValueError(f"stride says where {len(self.stride) + 1} rows are, and horizon is {self.horizon}; leave "
                             "the horizon out, and give a number at least")
        if self.planner.actions == "joint" and not self.joint:
            raise ValueError("planner.actions is 'joint', and the model would have no actions; set joint too")
        for key in ("select", "guidance"):
            if getattr(self.planner, key) == "value" and not self.valued:
                raise ValueError(f"planner.{key} is 'value', and no critic of plans would be trained; set valued too")

    @property
    def kind(self) -> str:
        return f"planner, {family(self.model)}"

    @property
    def generator(self) -> ModelConfig:
        return self.model

    def with_generator(self, model: ModelConfig) -> RunConfig:
        return replace(self, model=model)

    def resolve(self, episodes: Episodes) -> RunConfig:
        """With everything the data decide filled in."""
        rows, apart = horizon_advice(self.env_id or episodes.env)
        dense = math.prod(self.refine)
        horizon, stride = 1 + -(-(rows - 1) // dense) if self.refine else rows, apart * dense
        if isinstance(self.stride, tuple):
            horizon = len(self.stride) + 1
        goal_dims = self.model.mix.goal_dims or episodes.goal_dims
        if goal_dims and not self.model.mix.goal and (self.valued or self.context.kinds == ("return",)):
            raise ValueError(f"{episodes.name} has goals, and these settings plan for returns (model.mix.goal is 0); "
                             "take a preset for goals, such as pointmaze, or gentraj train veteran+")
        mix = replace(self.model.mix, goal_dims=goal_dims)
        actions = "joint" if self.joint else "inverse"
        planner = replace(self.planner, goal_dims=goal_dims,
                          actions="track" if self.planner.actions == "track" else actions)
        if not goal_dims:  # then there is nothing to come to rest at
            planner = replace(planner, rest_dims=())
        if self.context.kinds == ("return",) and not planner.context:
            planner = replace(planner, context=(return_quantile(episodes, self.context, GOOD),))
        if any(not 0 <= dim < episodes.obs_dim for dim in planner.rest_dims):
            raise ValueError(f"planner.rest_dims are {planner.rest_dims}; entries of an observation of width "
                             f"{episodes.obs_dim} are expected")
        return replace(self, horizon=horizon if self.horizon is None else self.horizon,
                       stride=stride if self.stride is None else self.stride,
                       model=self.model.with_mix(mix), planner=planner)

    def build(self, data: DataFacts, episodes: Episodes | None) -> dict[str, Part]:
        """The parts, with the statistics of `episodes` or with room to load saved ones into."""
        if self.horizon is None or self.stride is None:
            raise ValueError("the horizon or the stride is not chosen yet; call resolve(config, episodes) first")
        act_dim = data.act_dim if self.joint else 0
        stride, offsets = (self.stride[0], self.stride) if isinstance(self.stride, tuple) else (self.stride, None)
        spec = TrajectorySpec(data.obs_dim, 0 if self.refine else act_dim, self.horizon, stride, offsets)
        context = self._context_normalizer(spec, data, episodes)

        def model(of: TrajectorySpec, config: ModelConfig) -> Model:
            return MODELS[type(config)](of, config, _normalizer(config.normalizer, of.act_dim, data, episodes), context)

        parts: dict[str, Part] = {"model": model(spec, self.model)}
        for level, finer in enumerate(level_specs(spec, self.refine, act_dim), 1):
            parts[f"{FINER}{level}"] = model(finer, self.model.with_mix(LEG))
        if not self.joint:
            parts["inverse"] = (InverseDynamics.blank(data.obs_dim, data.act_dim, self.inverse) if episodes is None
                                else InverseDynamics.fit(episodes, self.inverse))
        if goal_dims := self.model.mix.goal_dims:
            obs = _normalizer("limits", 0, data, episodes)
            parts["arrival"] = Arrival(replace(spec, act_dim=0), goal_dims, self.arrival, obs)
        if self.valued:
            parts["critic"] = (PlanCritic.blank(spec, self.critic) if episodes is None
                               else PlanCritic.fit(episodes, spec, self.critic))
        return parts

    def _context_normalizer(self, spec: TrajectorySpec, data: DataFacts,
                            episodes: Episodes | None) -> Normalizer | None:
        if not data.context_dim:
            return None
        if episodes is None:
            return Normalizer.identity(data.context_dim)
        sample = Windows(episodes, spec, self.context).batch(0, fold(self.training.seed, 2), CONTEXT_WINDOWS)
        return Normalizer.fit("gaussian", [cast(torch.Tensor, sample.context_BC).numpy()])

    def agent(self, parts: Mapping[str, Part], reference: Batch, space: Box, config: PlannerConfig | None,
              guide: Guidance) -> Planner:
        model, inverse = cast(Model, parts["model"]), cast(InverseDynamics, parts.get("inverse"))
        config = config or self.planner
        trust = Trust(model, reference, config.trust) if config.arrival == "earliest" else None
        return Planner(model, config, space.low, space.high, trust=trust, inverse=inverse,
                       arrival=cast(Arrival, parts.get("arrival")), critic=cast(PlanCritic, parts.get("critic")),
                       finer=[cast(Model, parts[f"{FINER}{level + 1}"]) for level in range(len(self.refine))],
                       guide=guide)

    def facts(self, parts: Mapping[str, Part]) -> dict[str, Any]:
        """For tables of a run: what its main part is, in words and numbers."""
        model = cast(Model, parts["model"])
        return {"kind": type(model).__name__, "rows of a trajectory": model.spec.horizon,
                "environment steps between rows": model.spec.spacing, "actions in a trajectory": model.spec.act_dim > 0,
                "sampling steps of the planner": self.planner.steps}


@dataclass(frozen=True)
class PolicyRunConfig:
    """Everything that decides a policy's run. The data decide whether it is told a goal, and that is written down."""

    dataset: str = ""
    """A Minari id, a D4RL id, or a file (.hdf5 of D4RL's layout, .npz of gentraj or OGBench); '+' joins several."""
    env_id: str | None = None
    """The environment, where the data do not say or another is wanted: a Gymnasium id or a task name."""
    stitch: bool = True
    """Join episodes that continue each other: one endless run that was cut at its goals."""
    context: ContextConfig = field(default_factory=ContextConfig)
    """What the policy is told beside the observation: the goal, where the data have goals."""
    policy: policies.PolicyConfig = field(default_factory=BCConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    MAIN: ClassVar[str] = "policy"
    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("training", "dataset")
    GENERATORS: ClassVar[Mapping[str, ModelConfig]] = GENERATORS

    def __post_init__(self) -> None:
        if set(self.context.kinds) - {"goal"}:
            raise ValueError(f"context.kinds is {self.context.kinds}; a policy is told goals alone: give goal, or none "
                             "for what the data decide")

    @property
    def kind(self) -> str:
        name = type(self.policy).__name__.removesuffix("Config")
        model = getattr(self.policy, "model", None)
        return name if model is None else f"{name}, {family(model)}"

    @property
    def generator(self) -> ModelConfig | None:
        """None for a policy without one."""
        return getattr(self.policy, "model", None)

    def with_generator(self, model: ModelConfig) -> PolicyRunConfig:
        """Raises ValueError for a generator that this policy cannot be made of."""
        hints = get_type_hints(type(self.policy))
        if "model" not in {f.name for f in fields(self.policy)} or not isinstance(model, hints["model"]):
            raise ValueError(f"a policy of the kind {self.kind} cannot act by a model of {type(model).__name__}; leave "
                             "--family out, or take another policy")
        own = cast(Any, self.policy)
        if isinstance(model, DiffusionConfig) and isinstance(own.model, DiffusionConfig):
            model = replace(model, context_dropout=own.model.context_dropout)  # what it is told is the policy's affair
        return replace(self, policy=replace(own, model=model))

    def resolve(self, episodes: Episodes) -> PolicyRunConfig:
        """With everything the data decide filled in."""
        if "goal" in episodes.extras:
            return replace(self, context=replace(self.context, kinds=("goal",)))
        if episodes.goal_dims:  # where a window of two steps ends is no goal
            raise ValueError(f"{episodes.name}: a policy has to be told its goal, and these data do not record where "
                             "their episodes were sent (extras 'goal'); train a planner, or add it")
        return self

    def build(self, data: DataFacts, episodes: Episodes | None) -> dict[str, Part]:
        """The policy, with the statistics of `episodes` or with room to load saved ones into."""
        scales = (Scales.blank(data.obs_dim, data.act_dim, data.context_dim) if episodes is None
                  else Scales.fit(episodes, self.context))
        return {"policy": policies.POLICIES[type(self.policy)](data.obs_dim, data.act_dim, self.policy, scales)}

    def agent(self, parts: Mapping[str, Part], reference: Batch, space: Box, config: PlannerConfig | None,
              guide: Guidance) -> Actor:
        """Raises ValueError for what only planners take."""
        if config is not None or guide is not None:
            raise ValueError(f"a planner's settings or a guide were given to a policy ({self.kind}), which plans "
                             "nothing; leave them out")
        return Actor(cast(Policy, parts["policy"]), space.low, space.high)

    def facts(self, parts: Mapping[str, Part]) -> dict[str, Any]:
        """For tables of a run: what its main part is, in words and numbers."""
        policy = cast(Policy, parts["policy"])
        return {"kind": self.kind, "told beside the observation": ", ".join(self.context.kinds) or "nothing",
                "actions decided together": policy.chunk, "actions carried out before the next": policy.execute}


AnyRunConfig = RunConfig | PolicyRunConfig


def _normalizer(kind: Any, act_dim: int, data: DataFacts, episodes: Episodes | None) -> Normalizer:
    if episodes is None:
        return Normalizer.identity(data.obs_dim + act_dim)
    return Normalizer.fit(kind, [episodes.obs, episodes.act] if act_dim else [episodes.obs])
