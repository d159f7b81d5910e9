"""The run of a world model, which acts by model-predictive control: it tries action sequences in its own model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from gentraj.agents.mpc import MPC, MPCConfig, WorldModelSimulator
from gentraj.agents.planning.deadline import Deadline
from gentraj.agents.policies.generators import GENERATORS

from ..config import require
from ..data import Episodes
from ..data.splitting import halves, hold_out
from ..diffusion import DiffusionConfig
from ..families import Model, ModelConfig, family
from ..models.sample_batch import Guidance
from ..randomness import fold
from ..training.loop import TrainingConfig
from ..trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions
from ..worlds.facts import WorldFacts
from ..worlds.model import GENERATOR, WorldModel, WorldModelConfig
from .settings import ActingConfig, Component, DataFacts, GoalConditioned, Split, component

if TYPE_CHECKING:
    from gymnasium.spaces import Box


def _suited(config: ModelConfig) -> ModelConfig:
    """A diffusion model without the bounds of actions, which next states do not have, and with few sampling steps."""
    if not isinstance(config, DiffusionConfig):
        return config
    return replace(config, clip=GENERATOR.clip, steps=GENERATOR.steps)


@dataclass(frozen=True)
class WorldModelRunConfig(GoalConditioned):
    """All settings of a world model's run. Whether the model is conditioned on a goal depends on the data.

    Raises ValueError for a setting outside its range.
    """

    world: WorldModelConfig = field(default_factory=WorldModelConfig)
    """The world model."""
    held_out: float = 0.05
    """Fraction of the data that the model is never trained on: it is calibrated on one half and tested on the other.
    Whole episodes are held out if episodes are short."""
    control: MPCConfig = field(default_factory=lambda: MPCConfig(horizon=16, samples=64))
    """The model-predictive control by which `gentraj evaluate` acts."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The training loop."""

    NAME: ClassVar[str] = "world model"
    MAIN: ClassVar[str] = "world"
    MODEL_CARD: ClassVar[tuple[str, str, str]] = (
        "A world model", "imagined = run.world_model.imagine(obs_BO, act_BTA, seeds=seeds)", "world-model")
    ACTING: ClassVar[str] = "control"
    GENERATORS: ClassVar[Mapping[str, ModelConfig]] = {name: _suited(c) for name, c in GENERATORS.items()}

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, held_out=(1e-6, 0.5))

    @property
    def summary(self) -> str:
        return f"MPC, {'ensemble' if self.world.model is None else family(self.world.model)}"

    def sampling(self, components: Mapping[str, Component], config: ActingConfig | None,
                 options: SamplingOptions) -> str:
        """How the agent predicts, in words."""
        return "the ensemble's mean, without noise"

    @property
    def generator(self) -> ModelConfig | None:
        """The settings of the generative model; None for an ensemble alone."""
        return self.world.model

    def with_generator(self, model: ModelConfig) -> WorldModelRunConfig:
        """These settings with another generative model."""
        return replace(self, world=replace(self.world, model=model))

    def resolve(self, episodes: Episodes) -> WorldModelRunConfig:
        """These settings with everything filled in that the data decide.

        Raises ValueError for a goal that the data do not record.
        """
        if "goal" in episodes.extras:
            return replace(self, context=replace(self.context, kinds=("goal",)))
        if self.context.kinds:  # a goal in hindsight is a part of the observation that is to be predicted
            raise ValueError(f"{episodes.name}: these data do not record the goal of each step (extras 'goal'), which "
                             "context.kinds asks for; leave it out, or add the goals")
        return self

    def build(self, data: DataFacts, episodes: Episodes | None) -> dict[str, Component]:
        """The model, with the statistics of `episodes`, or blank without them, ready to load saved weights."""
        facts = (WorldFacts.blank(data.obs_dim, data.act_dim, data.context_dim, self.world.chunk) if episodes is None
                 else WorldFacts.fit(episodes, self.context, self.world.chunk))
        return {"world": WorldModel(data.obs_dim, data.act_dim, self.world, facts)}

    def agent(self, components: Mapping[str, Component], reference: Batch, space: Box, config: ActingConfig | None,
              guide: Guidance, options: SamplingOptions = DEFAULT_OPTIONS, deadline: Deadline | None = None) -> MPC:
        """An agent that acts by MPC, with the run's own settings by default. Raises ValueError if a `guide` or a
        `deadline` is given, which only planners take, and for `options` of sampling, as it acts by the mean."""
        if (guide, deadline) != (None, None):
            raise ValueError(f"a guide or a deadline was given to a world model ({self.summary}), which tries actions "
                             "and plans no trajectories; leave it out")
        if options != DEFAULT_OPTIONS:
            raise ValueError("a sampler, a grid, an eta or another option of sampling was given to a world model "
                             f"({self.summary}), which acts by its ensemble's mean and samples nothing; leave it out")
        control = cast(MPCConfig, config or self.control)
        return MPC(WorldModelSimulator(self.world_model(components)), control, space.low, space.high)

    def model_of(self, components: Mapping[str, Component]) -> Model | None:
        return self.world_model(components).model

    def world_model(self, components: Mapping[str, Component]) -> WorldModel:
        return component(components, "world", WorldModel)

    def split(self, episodes: Episodes) -> Split:
        train, unseen = hold_out(episodes, self.held_out, fold(self.training.seed, 3))
        return Split(train, *halves(unseen))

    def after_loading(self, components: Mapping[str, Component], reference: Batch) -> None:
        """Calibrates the uncertainty of the model on data that it was not trained on."""
        world = self.world_model(components)
        world.calibrate(reference.to(world.device))

    def facts(self, components: Mapping[str, Component]) -> dict[str, Any]:
        """The main component in words and numbers, for tables about the run."""
        return {"kind": self.summary, "steps of one call": self.world.chunk,
                "members of the ensemble": self.world.members}
