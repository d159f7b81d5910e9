"""What the settings of every kind of run say: of its data, and what such a run is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from agents.planning.arrival import Arrival
from agents.planning.inverse_dynamics import InverseDynamics
from agents.planning.plan_critic import PlanCritic
from agents.policies.policy import Policy

from ..data import ContextConfig
from ..families import Model, ModelConfig, family
from ..worlds.model import WorldModel

Part = Model | InverseDynamics | Arrival | PlanCritic | Policy | WorldModel


@dataclass(frozen=True)
class RunSettings:
    """Of every run; each kind adds its parts and its training."""

    dataset: str = ""
    """A Minari id, a D4RL id, or a file (.hdf5 of D4RL's layout, .npz of gentraj or OGBench); '+' joins several."""
    env_id: str | None = None
    """The environment, where the data do not say or another is wanted: a Gymnasium id or a task name,
    with --env-kwargs KEY=VALUE its arguments."""
    stitch: bool = True
    """Join episodes that continue each other: one endless run that was cut at its goals."""
    context: ContextConfig = field(default_factory=ContextConfig)
    """What is told beside the trajectory, or beside an observation: the goal, where the data have goals, and for
    planners returns, tasks and more."""

    NAME: ClassVar[str]
    """What such a run is called."""
    MAIN: ClassVar[str]
    """The part that all others serve, which gives a run its name and whose windows it keeps."""
    MAY_CHANGE: ClassVar[tuple[str, ...]]
    """What checkpoints do not depend on."""
    GENERATORS: ClassVar[Mapping[str, ModelConfig]]
    """What `gentraj train --family` may name."""
    DECIDED: ClassVar[tuple[str, ...]] = ()
    """Settings of the generator that the part it belongs to decides."""

    @property
    def generator(self) -> ModelConfig | None:
        """None for a run without one."""
        raise NotImplementedError

    def refuse_decided(self, changed: str = "") -> None:
        """Raises ValueError for a setting of the generator that would have no say, where it is another than usual.

        `changed` is a setting that somebody asked for, where it is known.
        """
        model = self.generator
        usual = None if model is None else self.GENERATORS.get(family(model))
        for key in self.DECIDED if usual is not None else ():
            if (value := getattr(model, key)) not in (getattr(usual, key), getattr(type(model)(), key)):
                raise ValueError(f"{self.MAIN}.model.{key} is {value}, which has no say: a {self.NAME} decides it; "
                                 "leave it out")


@dataclass(frozen=True)
class ToldGoals(RunSettings):
    """Of a run whose main part may be told a goal and nothing else; the data decide whether it is."""

    def __post_init__(self) -> None:
        if set(self.context.kinds) - {"goal"}:
            raise ValueError(f"context.kinds is {self.context.kinds}; a {self.NAME} is told goals alone: give goal, or "
                             "none for what the data decide")
