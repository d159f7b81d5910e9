"""A world model's run. It acts by model-predictive control: it tries action sequences on itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from agents.mpc import MPC, Imagination, MPCConfig
from agents.planning.planner import PlannerConfig
from agents.policies.generators import GENERATORS

from ..config import require
from ..data import Episodes
from ..data.episodes import halves, hold_out
from ..diffusion import DiffusionConfig
from ..families import ModelConfig, family
from ..models.sampling import Guidance
from ..randomness import fold
from ..training.loop import TrainingConfig
from ..trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions
from ..worlds.facts import WorldFacts
from ..worlds.model import GENERATOR, WorldModel, WorldModelConfig
from .data_facts import DataFacts
from .settings import Component, GoalConditioned, Split

if TYPE_CHECKING:
    from gymnasium.spaces import Box



def _suited(config: ModelConfig) -> ModelConfig:
    """What happens has no bounds, as actions have; and the ensemble's time is not to be spent on it."""
    if not isinstance(config, DiffusionConfig):
        return config
    return replace(config, clip=GENERATOR.clip, steps=GENERATOR.steps)


@dataclass(frozen=True)
class WorldModelRunConfig(GoalConditioned):
    """Everything that decides a world model's run. The data decide whether it is conditioned on a goal."""

    world: WorldModelConfig = field(default_factory=WorldModelConfig)
    held_out: float = 0.05
    """Share of the data, whole episodes where these are short, that it is judged by and never trained on."""
    control: MPCConfig = field(default_factory=lambda: MPCConfig(horizon=16, samples=64))
    """How `gentraj evaluate` acts with it."""
    training: TrainingConfig = field(default_factory=TrainingConfig)

    NAME: ClassVar[str] = "world model"
    MAIN: ClassVar[str] = "world"
    DECIDES: ClassVar[bool] = False
    ACTS_BY_DRAWS: ClassVar[bool] = False
    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("control", "training", "dataset")
    GENERATORS: ClassVar[Mapping[str, ModelConfig]] = {name: _suited(c) for name, c in GENERATORS.items()}

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, held_out=(1e-6, 0.5))

    def unused(self) -> dict[str, str]:
        return super().unused() | {"control.drawn": "the actions that are tried come from no generator"}

    @property
    def kind(self) -> str:
        return f"MPC, {'ensemble' if self.world.model is None else family(self.world.model)}"

    def sampling(self, components: Mapping[str, Component], config: PlannerConfig | None,
                 options: SamplingOptions) -> str:
        """How what acts imagines, in words."""
        return "the ensemble's mean, without noise"

    @property
    def generator(self) -> ModelConfig | None:
        """None for an ensemble alone."""
        return self.world.model

    def with_generator(self, model: ModelConfig) -> WorldModelRunConfig:
        return replace(self, world=replace(self.world, model=model))

    def resolve(self, episodes: Episodes) -> WorldModelRunConfig:
        """With everything the data decide filled in."""
        return replace(self, context=replace(self.context, kinds=("goal",))) if "goal" in episodes.extras else self

    def build(self, data: DataFacts, episodes: Episodes | None) -> dict[str, Component]:
        """The model, with the statistics of `episodes` or with room to load saved ones into."""
        facts = (WorldFacts.blank(data.obs_dim, data.act_dim, data.context_dim, self.world.chunk) if episodes is None
                 else WorldFacts.fit(episodes, self.context, self.world.chunk))
        return {"world": WorldModel(data.obs_dim, data.act_dim, self.world, facts)}

    def agent(self, components: Mapping[str, Component], reference: Batch, space: Box, config: PlannerConfig | None,
              guide: Guidance, options: SamplingOptions = DEFAULT_OPTIONS) -> MPC:
        """Raises ValueError for what only planners take."""
        if config is not None or guide is not None:
            raise ValueError(f"a planner's settings or a guide were given to a world model ({self.kind}), which tries "
                             "actions and plans no trajectories; leave them out")
        return MPC(Imagination(self.world_model(components)), self.control, space.low, space.high)

    def world_model(self, components: Mapping[str, Component]) -> WorldModel:
        return cast(WorldModel, components["world"])

    def split(self, episodes: Episodes) -> Split:
        learnt, unseen = hold_out(episodes, self.held_out, fold(self.training.seed, 3))
        return Split(learnt, *halves(unseen))

    def loaded(self, components: Mapping[str, Component], reference: Batch) -> None:
        """Its uncertainty is calibrated by data that it was not trained on."""
        world = self.world_model(components)
        world.calibrate(reference.to(world.device))

    def facts(self, components: Mapping[str, Component]) -> dict[str, Any]:
        """For tables of a run: what its main component is, in words and numbers."""
        return {"kind": self.kind, "steps of one call": self.world.chunk, "members of the ensemble": self.world.members}
