"""Models whose plans are known, and planners that follow them, for the tests of planners."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.sampler import PlannerConfig, PlanSampler
from gentraj.agents.planning.tracker import PlanTracker
from gentraj.agents.planning.trust import Trust
from gentraj.randomness import Seeds, as_noise
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, Condition, SamplingOptions, TrajectorySpec

Plan = Callable[[Condition, Seeds], Tensor]


def straight(condition: Condition, seeds: Seeds) -> Tensor:
    """Plans that go straight from the start to the goal; later timesteps hold 9."""
    x = torch.full_like(condition.values_BHD, 9.0)
    for b, mask_HD in enumerate(condition.mask_BHD):
        arrival = int(mask_HD[1:, 0].float().argmax()) + 1 if mask_HD[1:, 0].any() else len(mask_HD) - 1
        start, end = condition.values_BHD[b, 0], condition.values_BHD[b, arrival].clone()
        x[b, : arrival + 1] = torch.lerp(start, end, torch.linspace(0, 1, arrival + 1)[:, None])
    return x


class KnownModel:
    """A model whose plans (R, H, D) are a function of their conditions and seeds; it keeps what it was asked."""

    device = torch.device("cpu")

    def __init__(self, spec: TrajectorySpec, plan: Plan):
        self.spec, self.plan, self.network_calls = spec, plan, 0
        self.asked: Any = None
        self.guide: Any = None

    def sample(self, condition: Condition, num_samples: int = 1, *, guide: object = None, observe: object = None,
               seed: Seeds = (), options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        self.network_calls += 1
        self.asked, self.guide, self.options = condition, guide, options
        return self.plan(condition, seed)[:, None]


class Walk(KnownModel):
    """A model of s' = s + a, whose actions are noise; known actions stay."""

    def __init__(self, spec: TrajectorySpec):
        super().__init__(spec, self.walk)

    def walk(self, condition: Condition, seeds: Seeds) -> Tensor:
        x = as_noise(seeds, condition.batch).normal(self.spec.horizon, self.spec.dim)
        x = torch.where(condition.mask_BHD, condition.values_BHD, x)
        x[:, 1:, 0] = x[:, 0, :1] + x[:, :-1, 1].cumsum(1)
        return x


class KnownTrust(Trust):
    """Trusts arrivals at `first` and later ones; late ones more."""

    def __init__(self, first: int):
        self.first = first

    def ratio(self, x_RHD: Tensor, arrival_step_R: Tensor, seeds: Seeds,
              context_RC: Tensor | None = None) -> Tensor:
        return self.first / arrival_step_R


class KnownValue:
    """A critic whose values are a given function of the plans."""

    def __init__(self, value: Any, spec: TrajectorySpec):
        self.value, self.plan_spec = value, spec

    def __call__(self, x_RHD: Tensor, goal_RG: Tensor | None = None) -> Tensor:
        return self.value(x_RHD)


def parts(model: Any, config: PlannerConfig, act_dim: int, bound: float = 99, *, inverse: Any = None,
          **components: Any) -> tuple[PlanSampler, PlanTracker]:
    """A sampler and a tracker whose actions lie between -`bound` and `bound`."""
    sampler, high = PlanSampler(model, config, **components), np.full(act_dim, bound, np.float32)
    return sampler, PlanTracker(sampler.executed, config, -high, high, inverse)


def planner(model: Any, config: PlannerConfig, act_dim: int, bound: float = 99, **components: Any) -> Planner:
    return Planner(*parts(model, config, act_dim, bound, **components))


def reference(dim: int = 4) -> Batch:
    """Windows of noise."""
    x = torch.randn(64, 8, dim, generator=torch.Generator().manual_seed(0))
    return Batch(x, torch.ones(64, 8, dim, dtype=torch.bool))
