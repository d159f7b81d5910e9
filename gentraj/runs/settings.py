"""What the settings of all kinds of runs share, and what a run remembers of its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Self, TypeVar

import numpy as np
from gymnasium.spaces import Box
from torch import Tensor, nn

from gentraj.agents.mpc import MPCConfig
from gentraj.agents.planning.arrival import Arrival
from gentraj.agents.planning.inverse_dynamics import InverseDynamics
from gentraj.agents.planning.plan_critic import PlanCritic
from gentraj.agents.planning.planner_config import PlannerConfig
from gentraj.agents.policies.policy import Policy, PolicyConfig
from gentraj.envs.evaluation.scores import DataReturns
from gentraj.envs.making import environment_factory

from ..config import require
from ..data import ContextConfig, Episodes
from ..distillation import FewStepConfig
from ..families import Model, ModelConfig
from ..normalize import Normalizer
from ..trajectory import Batch
from ..worlds.model import WorldModel

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class DataFacts:
    """What a run must remember of its data to be used without them. Raises ValueError for sizes that no data have."""

    obs_dim: int
    """Width O of an observation."""
    act_dim: int
    """Width A of an action."""
    context_dim: int
    """Width C of the context; 0 without one."""
    goal_dims: tuple[int, ...]
    """The entries of an observation that a goal gives values for; empty without goals."""
    obs_keys: tuple[str, ...]
    """The keys of the dict observations that were joined; empty for plain ones."""
    env: str | None
    """Gymnasium's EnvSpec as JSON: that of the run's `env_id`, or else the one that the data name."""
    recorded: str | None = None
    """The EnvSpec that the data name, as JSON; None if they name none."""
    returns: tuple[DataReturns, ...] = ()
    """The returns of each dataset that was joined, in the order in which they were joined."""
    still: tuple[float | None, ...] = ()
    """The value of each entry of an action that never varies, and None for the others; empty if all vary."""

    def __post_init__(self) -> None:
        require(self, obs_dim=(1, 1e6), act_dim=(1, 1e6), context_dim=(0, 1e6))
        for dim in self.goal_dims:
            if not 0 <= dim < self.obs_dim:
                raise ValueError(f"DataFacts.goal_dims are {self.goal_dims}; entries of an observation of width "
                                 f"{self.obs_dim} are expected")
        if len(self.still) not in (0, self.act_dim):
            raise ValueError(f"DataFacts.still has {len(self.still)} entries; one for each of the {self.act_dim} of an "
                             "action is expected, or none")

    @classmethod
    def of(cls, episodes: Episodes, context: ContextConfig, env_id: str | None = None,
           returns: Sequence[DataReturns] = ()) -> DataFacts:
        """The facts of `episodes`. `returns` are those of each joined dataset, by default those of `episodes`."""
        env = environment_factory(env_id).spec_json if env_id else episodes.env
        low_A, high_A = episodes.act.min(0).tolist(), episodes.act.max(0).tolist()
        still = tuple(low if low == high else None for low, high in zip(low_A, high_A, strict=True))
        return cls(episodes.obs_dim, episodes.act_dim, context.width(episodes), episodes.goal_dims, episodes.obs_keys,
                   env, episodes.env, tuple(returns or [DataReturns.of(episodes)]),
                   () if set(still) == {None} else still)

    def allowed(self, space: Box) -> Box:
        """The actions of a space among which an agent chooses: what never varies in the data stays as it is.

        Raises ValueError for a space whose actions have another width than the data's.
        """
        if space.shape != (self.act_dim,):
            raise ValueError(f"the action space is {space}, and the agent was trained on actions of width "
                             f"{self.act_dim}; give it the space of such actions, Box(low, high, ({self.act_dim},))")
        if not self.still:
            return space
        held_A = np.array([np.nan if value is None else value for value in self.still], np.float32)
        varies_A, held_A = np.isnan(held_A), held_A.clip(space.low, space.high)
        return Box(np.where(varies_A, space.low, held_A), np.where(varies_A, space.high, held_A), dtype=np.float32)


class Split(NamedTuple):
    """The data of a run in three parts: training data, data whose windows the run keeps, and data that it is tested on.

    Planners and policies train on everything, and the other two parts are the real episodes of the training data. A
    world model never trains on the other two parts: its uncertainty is calibrated on one and it is tested on the other.
    """

    train: Episodes
    reference: Episodes
    test: Episodes


Component = Model | InverseDynamics | Arrival | PlanCritic | Policy | WorldModel
"""What a run is made of: a part that is trained, such as a generative model or a critic."""

ActingConfig = PlannerConfig | PolicyConfig | MPCConfig
"""The settings by which an agent acts."""


@dataclass(frozen=True)
class RunSettings:
    """The settings that every run has; each kind of run adds its components and its training."""

    dataset: str = ""
    """The path or the name of a dataset, of which `gentraj data inspect --help` lists the kinds; '+' joins several."""
    env_id: str | None = None
    """The environment, if the data do not name one or another one is wanted: a Gymnasium id or a task name. Its
    arguments are given by --env-kwargs KEY=VALUE."""
    stitch: bool = True
    """Join consecutive episodes that continue each other, as in data that are one endless run truncated at its
    goals."""
    context: ContextConfig = field(default_factory=ContextConfig)
    """What a model is conditioned on in addition to the trajectory, or a policy in addition to the observation: the
    goal, if the data have goals. Planners can also be conditioned on returns and tasks."""

    NAME: ClassVar[str]
    """The name of this kind of run in messages."""
    MAIN: ClassVar[str]
    """The main component: all others serve it, and the run keeps windows of its shape."""
    MODEL_CARD: ClassVar[tuple[str, str, str]]
    """For the model card: what the run is, a line of Python that uses it, and its tag on the hub."""
    ACTING: ClassVar[str]
    """The name of the settings by which the agent acts: `planner`, `policy` or `control`."""
    GENERATORS: ClassVar[Mapping[str, ModelConfig]]
    """The generative models that `gentraj train --model` can choose from, by name."""

    @property
    def summary(self) -> str:
        """What the run is made of in a few words, such as "planner, diffusion"."""
        raise NotImplementedError

    @property
    def generator(self) -> ModelConfig | None:
        """The settings of the generative model; None for a run without one."""
        raise NotImplementedError

    @property
    def learns_from_synthetic(self) -> bool:
        """Whether a component learns from synthetic steps, which a world model imagined."""
        return False

    def distilled(self, student: FewStepConfig) -> Self:
        """These settings with a student in the place of the model. Raises ValueError if they cannot have one."""
        raise ValueError(f"a {self.NAME} ({self.summary}) has no students of few steps; distil a planner or a policy")

    @property
    def acting(self) -> ActingConfig:
        """The settings by which the agent acts; some of a policy's are for its training."""
        return getattr(self, self.ACTING)

    @property
    def may_change(self) -> tuple[str, ...]:
        """The settings, as dotted keys, that may change when a training is resumed, as checkpoints do not depend on
        them. Of `training`, these are `gentraj.training.loop.MAY_CHANGE_ON_RESUME`."""
        return self.ACTING, "training", "dataset"

    @property
    def planning(self) -> PlannerConfig | None:
        """The settings of the planner; None for a run that plans no trajectories."""
        return None

    def model_of(self, components: Mapping[str, Component]) -> Model | None:
        """The generative model among the components; None for a run without one."""
        raise NotImplementedError

    def world_model(self, components: Mapping[str, Component]) -> WorldModel | None:
        """The world model among the components; None for a run without one."""
        return None

    def learner(self, components: Mapping[str, Component]) -> Policy | None:
        """The policy that can learn from episodes that it collects; None for a run without such a policy."""
        return None

    def split(self, episodes: Episodes) -> Split:
        """The episodes to train on, to keep windows of, and to test on."""
        return Split(episodes, episodes.real(), episodes.real())

    def after_loading(self, components: Mapping[str, Component], reference: Batch) -> None:
        """Prepares components that were just loaded; `reference` are the windows that the run keeps."""

    def dry_goal(self, windows: Batch, obs_BO: Tensor, goal_dims: tuple[int, ...]) -> Tensor | None:
        """(B, G) goals for the decision of a dry run; None if the agent takes no goals."""
        raise NotImplementedError


@dataclass(frozen=True)
class GoalConditioned(RunSettings):
    """A run that can be conditioned on a goal and on nothing else; whether it is depends on the data."""

    def __post_init__(self) -> None:
        if set(self.context.kinds) - {"goal"}:
            raise ValueError(f"context.kinds is {self.context.kinds}; a {self.NAME} is conditioned on goals alone: "
                             "give goal, or nothing to let the data decide")

    def dry_goal(self, windows: Batch, obs_BO: Tensor, goal_dims: tuple[int, ...]) -> Tensor | None:
        return None if windows.context_BC is None else windows.context_BC[:1]


def component(components: Mapping[str, Component], name: str, expected: type[ModuleT]) -> ModuleT:
    """The component of that name. Raises KeyError if there is none, TypeError if it is not of the class `expected`."""
    if not isinstance(found := components[name], expected):
        raise TypeError(f"the component '{name}' is a {type(found).__name__}; a {expected.__name__} is expected")
    return found


def optional(components: Mapping[str, Component], name: str, expected: type[ModuleT]) -> ModuleT | None:
    """As `component`, but None if there is no component of that name."""
    return component(components, name, expected) if name in components else None


def normalizer(kind: str, act_dim: int, data: DataFacts, episodes: Episodes | None) -> Normalizer:
    """A normaliser of observations, and of actions too unless `act_dim` is 0.

    It is fitted to `episodes`, or the identity without them.
    """
    if episodes is None:
        return Normalizer.identity(data.obs_dim + act_dim)
    return Normalizer.fit(kind, [episodes.obs, episodes.act] if act_dim else [episodes.obs])
