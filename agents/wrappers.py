"""Exploration by noise on the actions of another agent."""

from __future__ import annotations

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
        self.ranges = agent.ranges
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

    def _reset(self, seeds_B: list[int], mask_B: Tensor) -> None:
        self.agent.reset(seeds_B, mask_B)
        fresh = RowNoise([fold(seed, NOISE_STREAM) for seed in seeds_B])
        if len(self.noise) == len(fresh):
            kept = zip(mask_B.tolist(), fresh.generators, self.noise.generators, strict=True)
            fresh.generators = [new if masked else old for masked, new, old in kept]
        self.noise = fresh

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """(B, A) the agent's actions with noise, clamped to the action space."""
        act_BA = self.agent.act(obs_BO, goal_BG).cpu() + self.size_A * self.noise.normal(len(self.size_A))
        act_BA = act_BA.clamp(self.low_A, self.high_A)
        self.agent.took(act_BA)
        return act_BA

    def pad_batches(self, padded: bool = True) -> None:
        self.agent.pad_batches(padded)

    def took(self, act_BA: Tensor) -> None:
        self.agent.took(act_BA)
