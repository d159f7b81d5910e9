"""The run of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast, get_type_hints

from gentraj.agents.planning.deadline import Deadline
from gentraj.agents.policies import ACTORS, POLICIES
from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.bc import BCConfig
from gentraj.agents.policies.generators import GENERATORS
from gentraj.agents.policies.one_step import OneStepConfig
from gentraj.agents.policies.policy import Policy, PolicyConfig
from gentraj.agents.policies.scales import StateActionScales

from ..config import differences, to_json
from ..data import Episodes
from ..distillation import FewStepConfig
from ..families import Model, ModelConfig, family
from ..models.sample_batch import Guidance
from ..training.loop import TrainingConfig
from ..trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions
from .settings import ActingConfig, Component, DataFacts, GoalConditioned, component

if TYPE_CHECKING:
    from gymnasium.spaces import Box


@dataclass(frozen=True)
class PolicyRunConfig(GoalConditioned):
    """All settings of a policy's run. Whether the policy is conditioned on a goal depends on the data."""

    policy: PolicyConfig = field(default_factory=BCConfig)
    """The policy."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The training loop."""

    NAME: ClassVar[str] = "policy"
    MAIN: ClassVar[str] = "policy"
    MODEL_CARD: ClassVar[tuple[str, str, str]] = (
        "A policy", "agent = run.agent(action_space)  # agent.act(obs_BO, goal_BG) is (B, A)", "policy")
    ACTING: ClassVar[str] = "policy"
    GENERATORS: ClassVar[Mapping[str, ModelConfig]] = GENERATORS

    @property
    def may_change(self) -> tuple[str, ...]:
        return (*(f"policy.{key}" for key in self.policy.ACTING), "training", "dataset")

    @property
    def summary(self) -> str:
        settings = self.policy.pull if isinstance(self.policy, OneStepConfig) else self.policy
        name = type(settings).__name__.removesuffix("Config")
        return name if self.generator is None else f"{name}, {family(self.generator)}"

    def sampling(self, components: Mapping[str, Component], config: ActingConfig | None,
                 options: SamplingOptions) -> str:
        """How the agent samples its actions, in words."""
        return component(components, "policy", Policy).sampling(options)

    @property
    def generator(self) -> ModelConfig | None:
        """The settings of the generative model; None for a policy without one."""
        return self.policy.model

    @property
    def learns_from_synthetic(self) -> bool:
        return self.policy.critic is not None

    def with_generator(self, model: ModelConfig) -> PolicyRunConfig:
        """These settings with another generative model. Raises ValueError if the policy cannot act by it."""
        policy = self.policy
        holder: Any = policy.pull if isinstance(policy, OneStepConfig) else policy
        if self.generator is None or not isinstance(model, get_type_hints(type(holder))["model"]):
            raise ValueError(f"a policy of the kind {self.summary} cannot act by a model of the family "
                             f"{family(model)}; leave --model out, or take another policy")
        changed = replace(holder, model=model)
        return replace(self, policy=changed if holder is policy else replace(policy, pull=changed))

    def distilled(self, student: FewStepConfig) -> PolicyRunConfig:
        if self.policy.critic is not None:
            raise ValueError(f"a policy of the kind {self.summary} acts by its critic too, and a student of few steps "
                             "replaces its model only; take --method decision")
        return replace(self, policy=replace(cast(Any, self.policy), model=student))

    def resolve(self, episodes: Episodes) -> PolicyRunConfig:
        """These settings with everything filled in that the data decide.

        Raises ValueError for data with goals that do not record them.
        """
        if "goal" in episodes.extras:
            return replace(self, context=replace(self.context, kinds=("goal",)))
        if episodes.goal_dims:  # a policy sees short windows, whose last observation is no goal
            raise ValueError(f"{episodes.name}: a policy must be conditioned on the goal, and these data do not record "
                             "the goal of each step (extras 'goal'); train a planner, or add the goals")
        return self

    def build(self, data: DataFacts, episodes: Episodes | None) -> dict[str, Component]:
        """The policy, with the statistics of `episodes`, or blank without them, ready to load saved weights."""
        policy = self.policy
        if episodes is None:
            scales = StateActionScales.blank(data.obs_dim, data.act_dim, data.context_dim, policy.observations)
        else:
            scales = StateActionScales.fit(episodes, self.context, policy.observations, policy.rewards)
        return {"policy": POLICIES.made_of(policy)(policy, scales)}

    def agent(self, components: Mapping[str, Component], reference: Batch, space: Box, config: ActingConfig | None,
              guide: Guidance, options: SamplingOptions = DEFAULT_OPTIONS, deadline: Deadline | None = None) -> Actor:
        """The policy as an agent, with its own settings by default. Raises ValueError if `config` differs from them in
        more than `ACTING`, and if a `guide` or a `deadline` is given, which only planners take."""
        if (guide, deadline) != (None, None):
            raise ValueError(f"a guide or a deadline was given to a policy ({self.summary}), which plans nothing; "
                             "leave it out")
        policy = component(components, "policy", Policy)
        if config is not None:
            self._check_acting(settings := cast(PolicyConfig, config))
            policy = policy.with_config(settings)
        return ACTORS.get(type(policy), Actor)(policy, space.low, space.high, options)

    def _check_acting(self, config: PolicyConfig) -> None:
        """Raises ValueError if `config` differs from the policy's settings in one that its training depends on."""
        for key, own, given in differences(to_json(self.policy), to_json(config)):
            if key not in self.policy.ACTING:
                raise ValueError(f"policy.{key} is {given}, and the policy was trained with {own}; only these settings "
                                 f"may change after training: {', '.join(self.policy.ACTING)}")

    def model_of(self, components: Mapping[str, Component]) -> Model | None:
        actions = component(components, "policy", Policy).action_model
        return None if actions is None else actions.model

    def learner(self, components: Mapping[str, Component]) -> Policy | None:
        """The policy if it has a critic, from which it can learn what its own actions are worth."""
        return component(components, "policy", Policy) if self.policy.critic is not None else None

    def facts(self, components: Mapping[str, Component]) -> dict[str, Any]:
        """The main component in words and numbers, for tables about the run."""
        policy = component(components, "policy", Policy)
        return {"kind": self.summary,
                "conditioned on, besides the observation": ", ".join(self.context.kinds) or "nothing",
                "actions per chunk": policy.chunk, "actions executed per chunk": policy.execute}
