"""The run of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, ClassVar

from gentraj.agents.policies import ACTORS, POLICIES
from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.bc import BCConfig
from gentraj.agents.policies.policy import Policy, PolicyConfig, action_model_of
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.realtime.background import Deadline
from gentraj.agents.realtime.policy import RealTimeActor
from gentraj.agents.roadmap.far_goals import RoadmapConfig, roadmap_of_episodes

from ...config import JsonObject, settings
from ...data import ContextConfig, Episodes
from ...data.windows import GoalContext
from ...families import ACTION_MODELS, Model, ModelConfig
from ...models.sampling import Guidance
from ...trajectory import DEFAULT_OPTIONS, Agent, SamplingOptions
from .run import GOAL, ActingConfig, DataFacts, MemoryRunConfig, Run, acting_settings, ahead_of, refuse_planning

if TYPE_CHECKING:
    from gymnasium.spaces import Box


@settings
class PolicyRunConfig(MemoryRunConfig):
    """All settings of a policy's run. Raises ValueError for settings that contradict each other."""

    policy: PolicyConfig = field(default_factory=BCConfig)
    """The policy."""
    roadmap: RoadmapConfig | None = None
    """The roadmap of the data, which leads to goals that are farther than those that the policy learnt from; None acts
    straight for them."""
    context: GoalContext = field(default_factory=GoalContext)
    """The goals that the policy is conditioned on, where the data record goals or goals are drawn in hindsight."""

    @property
    def whole_goals(self) -> bool:
        return self.context.goals is not None and self.context.goals.whole

    @property
    def learns_from_synthetic(self) -> bool:
        return self.policy.critic is not None

    @property
    def learns_from_rewards(self) -> bool:
        return self.policy.critic is not None and not self.context.goals

    def __post_init__(self) -> None:
        if self.context.goals and self.policy.rewards not in ("rms", "raw"):
            raise ValueError(f"policy.rewards is '{self.policy.rewards}', and goals in hindsight have rewards of their "
                             "own; leave policy.rewards out, or context.goals")
        if self.roadmap is not None and self.whole_goals:
            raise ValueError("a roadmap is of positions, and goals are to be whole observations; leave out roadmap or "
                             "context.goals.whole")


class PolicyRun(Run[PolicyRunConfig]):
    """A policy: a model of actions given the state, or whatever else its algorithm trains."""

    NAME: ClassVar[str] = "policy"
    MAIN: ClassVar[str] = "policy"
    ACTS_BY: ClassVar[str] = "policy"
    MODEL: ClassVar[str] = "policy.model"
    MODELS: ClassVar[Mapping[str, ModelConfig]] = ACTION_MODELS
    CARD: ClassVar[tuple[str, str, str]] = (
        "A policy", "agent = run.agent()  # agent.act(obs_BO, goal_BG) is (B, A)", "policy")

    policy: Policy

    def __init__(self, config: PolicyRunConfig, data: DataFacts, episodes: Episodes | None = None):
        super().__init__(config, data, episodes)
        self.context = replace(self.context, goals=config.context.goals)
        own = config.policy
        memory = config.memory(data)
        if episodes is None:
            scales = StateActionScales.blank(data.obs_dim, data.act_dim, data.context_dim, own.observations, memory)
        else:
            scales = StateActionScales.fit(episodes, self.context, own.observations, own.rewards, memory)
        self.policy = POLICIES.made_of(own)(own, scales)
        self.components = {"policy": self.policy}
        self.acting, self.roadmap = own, config.roadmap
        self.summary = own.summary
        if config.roadmap is not None and episodes is not None:
            self.kept = roadmap_of_episodes(episodes, data.goal_dims, config.roadmap).tensors()

    @classmethod
    def resolve(cls, config: PolicyRunConfig, episodes: Episodes) -> tuple[PolicyRunConfig, ContextConfig]:
        """The settings as they are. Raises ValueError for data with goals that neither record nor draw them, and for a
        roadmap of data that do not say which entries of an observation make a goal."""
        if config.roadmap is not None and not episodes.goal_dims:
            raise ValueError(f"a roadmap leads to goals, and {episodes.name} does not say which entries of an "
                             "observation make one; leave the roadmap out, or take data with goals")
        if config.context.goals or "goal" in episodes.extras:
            return config, replace(GOAL, goals=config.context.goals)
        if episodes.goal_dims:  # a policy sees short windows, whose last observation is no goal
            raise ValueError(f"{episodes.name}: a policy must be conditioned on the goal, and these data do not record "
                             "the goal of each step (extras 'goal'); draw goals by context.goals=hindsight")
        return config, ContextConfig()

    @property
    def model(self) -> Model:
        """The model of actions. Raises ValueError for a policy without one."""
        return action_model_of(self.policy).model

    def _agent(self, space: Box, config: ActingConfig | None, guide: Guidance, options: SamplingOptions,
               deadline: Deadline | None) -> Agent:
        """The policy as an agent; `config` may differ from its own settings in those it acts by alone. With a deadline,
        the policy measures first how long its chunks take."""
        refuse_planning(self, guide)
        policy = self.policy
        if config is not None:
            policy = policy.with_config(acting_settings(self, config, PolicyConfig))
        kind = ACTORS.get(type(policy), Actor)
        actor = kind(policy, space.low, space.high, options, ahead_of(self), self.ranges())
        if deadline is None:
            return actor
        agent, obs_BO = RealTimeActor(actor, deadline), self.reference.x_BHD[:1, 0, : self.data.obs_dim]
        agent.warm_up(obs_BO, self.example_goal(self.reference, obs_BO))
        return agent

    def sampling(self, config: ActingConfig | None = None, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        """How the policy samples its actions, in words."""
        return self.policy.sampling(options)

    def facts(self) -> JsonObject:
        """The policy in words and numbers, for tables about the run."""
        return {"kind": self.summary,
                "conditioned on, besides the observation": ", ".join(self.context.kinds) or "nothing",
                "actions per chunk": self.policy.chunk, "actions executed per chunk": self.policy.execute}
