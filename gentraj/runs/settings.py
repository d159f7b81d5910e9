"""What the settings of every kind of run say: of its data, and what such a run is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from agents.planning.arrival import Arrival
from agents.planning.inverse_dynamics import InverseDynamics
from agents.planning.plan_critic import PlanCritic
from agents.planning.planner import PlannerConfig
from agents.policies.policy import Policy
from envs.evaluation.scores import DataReturns
from envs.making import environment_factory

from ..config import unused, within
from ..data import ContextConfig, Episodes
from ..families import Model, ModelConfig
from ..normalize import Normalizer
from ..trajectory import Batch
from ..worlds.model import WorldModel


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


class Split(NamedTuple):
    """Of a run's data: what it learns, what it keeps windows of, and what it is judged by.

    The last two are what was played of the first; of a world model's they are held out, and it is calibrated by one
    and judged by the other.
    """

    learnt: Episodes
    kept: Episodes
    judged: Episodes


Component = Model | InverseDynamics | Arrival | PlanCritic | Policy | WorldModel


@dataclass(frozen=True)
class RunSettings:
    """Of every run; each kind adds its parts and its training."""

    dataset: str = ""
    """A Minari id, a D4RL id, or a file (.hdf5 of D4RL's layout, .npz of gentraj or OGBench); '+' joins several."""
    env_id: str | None = None
    """The environment, where the data do not say or another is wanted: a Gymnasium id or a task name,
    with --env-kwargs KEY=VALUE its arguments."""
    stitch: bool = True
    """Join episodes that continue each other: one endless run that was truncated at its goals."""
    context: ContextConfig = field(default_factory=ContextConfig)
    """What a model is conditioned on beside the trajectory, or beside an observation: the goal, where the data have
    goals, and for planners returns, tasks and more."""

    NAME: ClassVar[str]
    """What such a run is called."""
    MAIN: ClassVar[str]
    """The component that all others serve, which gives a run its name and whose windows it keeps."""
    MAY_CHANGE: ClassVar[tuple[str, ...]]
    """What checkpoints do not depend on."""
    GENERATORS: ClassVar[Mapping[str, ModelConfig]]
    """What `gentraj train --family` may name."""
    DECIDES: ClassVar[bool] = True
    """Whether its decision is a program of its own, or tries actions."""
    ACTS_BY_DRAWS: ClassVar[bool] = True
    """Whether what acts draws from the generator."""
    LEARNS_OF_IMAGINED: ClassVar[bool] = False
    """Whether it learns of steps that a world model imagined."""

    @property
    def kind(self) -> str:
        """What it is, in words."""
        raise NotImplementedError

    @property
    def generator(self) -> ModelConfig | None:
        """None for a run without one."""
        raise NotImplementedError

    @property
    def planning(self) -> PlannerConfig | None:
        """How it plans; None for what plans no trajectories."""
        return None

    def refuse(self, changed: str) -> None:
        """Raises ValueError where the setting `changed`, which somebody asked for, changes nothing."""
        why = unused(self)
        if place := within(changed, why):
            raise ValueError(f"{changed} changes nothing here: {why[place]}; leave it out")

    def model_of(self, components: Mapping[str, Component]) -> Model | None:
        """The generator."""
        return getattr(components[self.MAIN], "model", None)

    def world_model(self, components: Mapping[str, Component]) -> WorldModel | None:
        """None for a run without one."""
        return None

    def split(self, episodes: Episodes) -> Split:
        """What is learnt of, kept and judged by."""
        return Split(episodes, episodes.real(), episodes.real())

    def loaded(self, components: Mapping[str, Component], reference: Batch) -> None:
        """What is to be done with parts that were loaded before they are used."""

    def dry_goal(self, windows: Batch, obs_BO: Tensor, goal_dims: tuple[int, ...]) -> Tensor | None:
        """A goal for one decision of a dry run, where it is given goals."""
        raise NotImplementedError


@dataclass(frozen=True)
class GoalConditioned(RunSettings):
    """Of a run whose main component may be conditioned on a goal and nothing else; the data decide whether it is."""

    def __post_init__(self) -> None:
        if set(self.context.kinds) - {"goal"}:
            raise ValueError(f"context.kinds is {self.context.kinds}; a {self.NAME} is conditioned on goals alone: "
                             "give goal, or none for what the data decide")

    def unused(self) -> dict[str, str]:
        return {"context": f"a {self.NAME} is told goals where the data have them, and nothing else"}

    def dry_goal(self, windows: Batch, obs_BO: Tensor, goal_dims: tuple[int, ...]) -> Tensor | None:
        return None if windows.context_BC is None else windows.context_BC[:1]


def normalizer(kind: Any, act_dim: int, data: DataFacts, episodes: Episodes | None) -> Normalizer:
    """Of observations, and of actions where `act_dim` says that there are; blank without episodes."""
    if episodes is None:
        return Normalizer.identity(data.obs_dim + act_dim)
    return Normalizer.fit(kind, [episodes.obs, episodes.act] if act_dim else [episodes.obs])
