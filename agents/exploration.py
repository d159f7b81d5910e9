"""Acting with noise, so that what is played shows what else could be done."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gentraj.randomness import RowNoise, fold
from gentraj.trajectory import Agent, TrajectorySpec

STREAM = 0x6E6F697365  # keeps the noise apart from what the agent itself draws of an episode's seed


class Exploring:
    """The `Agent` that adds Gaussian noise to another's actions; an episode's noise is a function of its seed."""

    def __init__(self, agent: Agent, low_A: np.ndarray, high_A: np.ndarray, noise: float):
        """`noise` is its deviation, in units of half the range of an action."""
        self.agent = agent
        self.low_A, self.high_A = torch.as_tensor(low_A).float(), torch.as_tensor(high_A).float()
        self.size_A = noise * (self.high_A - self.low_A) / 2
        if not self.size_A.isfinite().all():
            raise ValueError("exploration adds noise in units of the range of actions, and this action space has none; "
                             "bound it")
        self.noise = RowNoise([])

    @property
    def spec(self) -> TrajectorySpec | None:
        return getattr(self.agent, "spec", None)

    def reset(self, mask_B: Tensor | None = None, seeds_B: Sequence[int] | None = None) -> None:
        """As the agent's; `seeds_B` has one seed for each environment and is needed."""
        if seeds_B is None:
            raise ValueError("exploration without seeds; reset with a seed for each environment")
        self.agent.reset(mask_B, seeds_B)
        fresh = RowNoise([fold(seed, STREAM) for seed in seeds_B])
        if mask_B is not None and len(self.noise.generators) == len(fresh.generators):
            kept = zip(mask_B.tolist(), fresh.generators, self.noise.generators, strict=True)
            fresh.generators = [new if masked else old for masked, new, old in kept]
        self.noise = fresh

    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        """(B, A) inside the action space."""
        act_BA = self.agent.act(obs_BO, goal_BG)
        return (act_BA + self.size_A * self.noise.normal(len(self.size_A))).clamp(self.low_A, self.high_A)
