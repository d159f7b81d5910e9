"""Exploration: an agent whose actions have noise added, so that its episodes cover more than what it does anyway."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gentraj.randomness import RowNoise, fold
from gentraj.trajectory import Agent, TrajectorySpec

NOISE_STREAM = 0x6E6F697365  # keeps the noise independent of what the agent itself samples from an episode's seed


class NoisyAgent(Agent):
    """An `Agent` that adds Gaussian noise to the actions of another. An episode's seed determines its noise."""

    def __init__(self, agent: Agent, low_A: np.ndarray, high_A: np.ndarray, noise: float):
        """`noise` is the standard deviation of the noise, in units of half the range of each action.

        Raises ValueError for an action space without bounds.
        """
        self.agent = agent
        self.low_A = torch.as_tensor(low_A).float()
        self.high_A = torch.as_tensor(high_A).float()
        self.size_A = noise * (self.high_A - self.low_A) / 2
        if not self.size_A.isfinite().all():
            raise ValueError("exploration adds noise in units of the range of actions, and this action space has no "
                             "bounds; give it some")
        self.noise = RowNoise([])

    @property
    def spec(self) -> TrajectorySpec | None:
        return self.agent.spec

    def reset(self, mask_B: Tensor | None = None, seeds_B: Sequence[int] | None = None) -> None:
        """Resets the agent and its noise in the masked environments (all by default).

        `seeds_B` has one seed for each environment. Raises ValueError where it is missing.
        """
        if seeds_B is None:
            raise ValueError("exploration without seeds; reset with a seed for each environment")
        self.agent.reset(mask_B, seeds_B)
        fresh = RowNoise([fold(seed, NOISE_STREAM) for seed in seeds_B])
        if mask_B is not None and len(self.noise.generators) == len(fresh.generators):
            kept = zip(mask_B.tolist(), fresh.generators, self.noise.generators, strict=True)
            fresh.generators = [new if masked else old for masked, new, old in kept]
        self.noise = fresh

    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        """(B, A) the agent's actions with noise, clamped to the action space.

        Raises ValueError for another number of environments than `reset` was given seeds for.
        """
        if len(obs_BO) != len(self.noise.seeds):
            raise ValueError(f"{len(obs_BO)} observations were given, and seeds for {len(self.noise.seeds)} "
                             "environments; reset with a seed for each environment first")
        act_BA = self.agent.act(obs_BO, goal_BG)
        return (act_BA + self.size_A * self.noise.normal(len(self.size_A))).clamp(self.low_A, self.high_A)
