"""A planner as a policy, whose actions are those that it carries out along a plan."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.tracker import PlanTracker
from gentraj.agents.policies.policy import Policy, PolicyConfig
from gentraj.agents.policies.scales import StateActionScales

from ...config import settings
from ...diffusion import LatentDiffusion
from ...randomness import Seeds
from ...training.state import module_tensors
from ...trajectory import DEFAULT_OPTIONS, SamplingOptions
from .planner_run import PlannerRun, PlannerRunConfig
from .run import DataFacts, restore


@settings
class PlannerPolicyConfig(PolicyConfig):
    """The settings of `PlannerPolicy`."""

    run: PlannerRunConfig
    """The settings of the planner, which makes a single plan in each decision."""
    data: DataFacts
    """What the planner remembers of its data."""

    @property
    def summary(self) -> str:
        return "planner"


class PlannerPolicy(Policy[PlannerPolicyConfig]):
    """A planner that acts by one plan, trusted or not: by its first actions, or by inverse dynamics towards it.

    It is not trained, but takes over the weights of a planner's run.
    """

    def __init__(self, config: PlannerPolicyConfig, scales: StateActionScales):
        super().__init__(config, scales)
        self.run = PlannerRun.build(config.run, config.data)
        self.parts = nn.ModuleDict(self.run.components)

    def take(self, run: PlannerRun) -> None:
        """Takes over the weights of a planner's run."""
        restore(self.run, {name: module_tensors(part) for name, part in run.components.items()})

    @property
    def noise_dim(self) -> int:
        if isinstance(self.run.model, LatentDiffusion):
            spec = self.run.model.prior.spec
            return spec.horizon * spec.act_dim
        return self.run.model.spec.horizon * self.run.model.spec.dim

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        return self.run.sampling(options=options)

    def sample_actions(self, state_BS: Tensor, seeds: Seeds,
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        scales, goal_BG = self.scales, None
        if scales.context is not None:
            goal_BG = scales.context.unnormalize(state_BS[:, scales.obs_dim :])
        unbounded_A = np.full(self.spec.act_dim, np.inf, np.float32)
        sampler = self.run.sampler(options=options)
        tracker = PlanTracker(sampler.executed, sampler.config, -unbounded_A, unbounded_A, self.run.inverse)
        obs_BO = scales.obs.unnormalize(state_BS[:, : scales.obs_dim])
        act_BKA = Planner(sampler, tracker).decide(obs_BO, goal_BG, seeds)
        return scales.act.normalize(act_BKA).clamp(-1, 1)
