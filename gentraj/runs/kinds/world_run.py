"""The run of a world model, which acts by model-predictive control: it tries action sequences in its own model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import torch
from annotated_types import Interval

from gentraj.agents.mpc import MPC, MPCConfig, WorldModelSimulator
from gentraj.agents.realtime.background import Deadline

from ...config import JsonObject, settings
from ...data import ContextConfig, Episodes
from ...data.splitting import halves, hold_out
from ...diffusion import DiffusionConfig
from ...families import ACTION_MODELS, Model, ModelConfig, family
from ...models.sampling import Guidance
from ...randomness import fold
from ...trajectory import DEFAULT_OPTIONS, SamplingOptions
from ...worlds.facts import WorldFacts
from ...worlds.model import GENERATOR, WorldModel, WorldModelConfig
from .run import GOAL, ActingConfig, DataFacts, MemoryRunConfig, Run, Split, acting_settings, refuse_planning

if TYPE_CHECKING:
    from gymnasium.spaces import Box


def _suited(config: ModelConfig) -> ModelConfig:
    """A diffusion model without the bounds of actions, which next states do not have, and with few sampling steps."""
    if not isinstance(config, DiffusionConfig):
        return config
    return replace(config, clip=GENERATOR.clip, steps=GENERATOR.steps)


@settings
class WorldModelRunConfig(MemoryRunConfig):
    """All settings of a world model's run. The model is conditioned on a goal if the data record one.

    Raises ValueError for a setting outside its range.
    """

    world: WorldModelConfig = field(default_factory=WorldModelConfig)
    """The world model."""
    held_out: Annotated[float, Interval(ge=1e-6, le=0.5)] = 0.05
    """Fraction of the data that the model is never trained on: it is calibrated on one half and tested on the other.
    Whole episodes are held out if episodes are short."""
    control: MPCConfig = field(default_factory=lambda: MPCConfig(horizon=16, samples=64))
    """The model-predictive control by which `gentraj evaluate` acts."""


class WorldModelRun(Run[WorldModelRunConfig]):
    """A world model, whose uncertainty is calibrated on data that it was not trained on."""

    NAME: ClassVar[str] = "world model"
    MAIN: ClassVar[str] = "world"
    ACTS_BY: ClassVar[str] = "control"
    MODEL: ClassVar[str] = "world.model"
    MODELS: ClassVar[Mapping[str, ModelConfig]] = {name: _suited(config) for name, config in ACTION_MODELS.items()}
    CARD: ClassVar[tuple[str, str, str]] = (
        "A world model", "imagined = run.world_model.imagine(obs_BO, act_BTA, seeds=seeds)", "world-model")

    world_model: WorldModel

    def __init__(self, config: WorldModelRunConfig, data: DataFacts, episodes: Episodes | None = None):
        super().__init__(config, data, episodes)
        chunk, memory = config.world.chunk, config.memory(data)
        if episodes is None:
            facts = WorldFacts.blank(data.obs_dim, data.act_dim, data.context_dim, chunk, memory.past)
        else:
            facts = WorldFacts.fit(episodes, self.context, chunk, memory)
        self.world_model = WorldModel(data.obs_dim, data.act_dim, config.world, facts, memory)
        self.components, self.acting = {"world": self.world_model}, config.control
        self.summary = f"MPC, {'ensemble' if config.world.model is None else family(config.world.model)}"

    @classmethod
    def resolve(cls, config: WorldModelRunConfig, episodes: Episodes) -> tuple[WorldModelRunConfig, ContextConfig]:
        """The settings as they are: a goal in hindsight would be a part of the observation to be predicted."""
        return config, GOAL if "goal" in episodes.extras else ContextConfig()

    @classmethod
    def split(cls, config: WorldModelRunConfig, episodes: Episodes) -> Split:
        """The episodes to train on, to calibrate on, and to test on."""
        train, unseen = hold_out(episodes, config.held_out, fold(config.training.seed, 3))
        return Split(train, *halves(unseen))

    @property
    def model(self) -> Model:
        """The generative model around the ensemble's mean. Raises ValueError for an ensemble alone."""
        if (model := self.world_model.model) is None:
            raise ValueError(f"{self.description} without a trajectory model; evaluate it with gentraj evaluate")
        return model

    def ready(self, device: torch.device | None) -> Self:
        """This run, ready to act, calibrated on data that it was not trained on."""
        super().ready(device)
        self.world_model.calibrate(self.reference.to(self.device))
        return self

    def _agent(self, space: Box, config: ActingConfig | None, guide: Guidance, options: SamplingOptions,
               deadline: Deadline | None) -> MPC:
        """An agent that acts by MPC. Raises ValueError for `options` of sampling, too, as it acts by the mean."""
        refuse_planning(self, guide, deadline)
        if options != DEFAULT_OPTIONS:
            raise ValueError("a sampler, a grid, an eta or another option of sampling was given to a world model "
                             f"({self.summary}), which acts by its ensemble's mean and samples nothing; leave it out")
        control = acting_settings(self, config, MPCConfig)
        world = self.world_model
        return MPC(WorldModelSimulator(world), control, space.low, space.high, memory=world.spec,
                   ranges=self.ranges())

    def sampling(self, config: ActingConfig | None = None, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        """How the agent predicts, in words."""
        return "the ensemble's mean, without noise"

    def facts(self) -> JsonObject:
        """The world model in words and numbers, for tables about the run."""
        return {"kind": self.summary, "steps of one call": self.config.world.chunk,
                "members of the ensemble": self.config.world.members}
