"""Synthetic episodes of a world model, rolled out together, and the reasons why they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveInt

from gentraj.config import settings
from gentraj.networks.embedding import batch_invariant
from gentraj.trajectory import Agent
from gentraj.worlds.model import WorldModel

GoalReward = Callable[[np.ndarray, np.ndarray, Any], np.ndarray]  # Gymnasium's compute_reward: achieved, desired, info
Reward = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (observations (B, O), goals (B, G)) -> rewards (B,)
TIME_LIMIT = "time limit"
UNCERTAINTY = "uncertainty"
BOUNDS = "left the data's bounds"
NOT_FINITE = "not finite"


@settings
class ImaginedConfig:
    """How a world model's synthetic episodes start, how they end, and what uncertainty costs.

    Raises ValueError for a setting outside its range.
    """

    max_episode_steps: PositiveInt = 1000
    """Time limit of an episode, in steps."""
    max_uncertainty: NonNegativeFloat = 3.0
    """Uncertainty beyond which an episode is truncated, as a multiple of the largest error that is expected on held-out
    data."""
    margin: NonNegativeFloat = 0.1
    """How far an observation may lie outside the range of the data, as a fraction of that range. Farther out, an
    episode is truncated."""
    penalty: NonNegativeFloat = 0.0
    """Reward that each unit of uncertainty costs (MOPO: Yu et al. 2020)."""
    temperature: NonNegativeFloat = 1.0
    """Temperature of the world model's noise; 0 is deterministic."""
    starts: Literal["episodes", "anywhere"] = "episodes"
    """Where an episode starts: at the first observation of an episode of the data, or of a piece of a long one; or
    anywhere in the data. The two are the same if the data have fewer than 32 such starts."""
    termination_cost: NonNegativeFloat | None = None
    """By default an episode is truncated where the model is not trusted, so that an agent may bootstrap from its last
    state. With a number it is terminated, and the number is subtracted from its reward (MOReL: Kidambi et al. 2020):
    0 is too little where rewards are negative, as an agent would gain by ending early."""


def goal_reward(compute_reward: GoalReward | None, goal_dims: Sequence[int]) -> Reward | None:
    """Makes a reward of observations from `compute_reward`; it raises ValueError unless there is one reward per row."""
    if compute_reward is None:
        return None

    def reward(obs_BO: np.ndarray, goal_BG: np.ndarray) -> np.ndarray:
        reward_B = np.asarray(compute_reward(obs_BO[:, list(goal_dims)], goal_BG, {}), np.float32)
        if reward_B.shape != (len(obs_BO),):
            raise ValueError(f"compute_reward gave rewards of shape {reward_B.shape} for {len(obs_BO)} goals; "
                             "a function of a batch of goals that returns one reward for each is expected")
        return reward_B

    return reward


class StepResult(NamedTuple):
    """The results of one step of B episodes, (B,) each."""

    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    why: np.ndarray
    """Why an episode was truncated, or terminated because the model is not trusted; else ""."""
    uncertainty: np.ndarray


class ImaginedEpisodes:
    """`batch` synthetic episodes of a world model, stepped together.

    After each reset and step `obs_BO` (B, O) and `goal_BG` (B, G; G is 0 without goals) are new arrays. `reward`
    computes the rewards; with None the world model predicts them. Raises ValueError for a `batch` below 1.
    """

    def __init__(self, world: WorldModel, batch: int, config: ImaginedConfig, reward: Reward | None = None):
        if batch < 1:
            raise ValueError(f"num_envs is {batch}; give at least 1")
        self.world = world
        self.config = config
        self.reward = reward
        facts = world.facts
        span_O = config.margin * (facts.high_O - facts.low_O)
        self.low_O, self.high_O = (facts.low_O - span_O).cpu().numpy(), (facts.high_O + span_O).cpu().numpy()
        starts_NS = (facts.starts_NS if config.starts == "episodes" else facts.anywhere_NS).cpu().numpy()
        self.starts_NO, self.goals_NG = np.split(starts_NS, [len(self.low_O)], 1)
        self.uncertainty_limit = config.max_uncertainty * world.calibration.largest
        self.rngs = [np.random.default_rng() for _ in range(batch)]
        self.elapsed_B = np.zeros(batch, int)
        self.obs_BO = self.starts_NO[np.zeros(batch, int)]
        self.goal_BG = self.goals_NG[np.zeros(batch, int)]

    def reset(self, mask_B: np.ndarray) -> None:
        """Starts the masked episodes at random starts, each drawn by the episode's own generator."""
        self.obs_BO = self.obs_BO.copy()
        self.goal_BG = self.goal_BG.copy()
        for i in np.flatnonzero(mask_B):
            start = self.rngs[i].integers(len(self.starts_NO))
            self.obs_BO[i] = self.starts_NO[start]
            self.goal_BG[i] = self.goals_NG[start]
            self.elapsed_B[i] = 0

    def place(self, obs_BO: np.ndarray, goal_BG: np.ndarray) -> None:
        """Starts all episodes at the given observations (B, O) and goals (B, G), where G is 0 without goals."""
        self.obs_BO = np.array(obs_BO, np.float32)
        self.goal_BG = np.array(goal_BG, np.float32)
        self.elapsed_B = np.zeros_like(self.elapsed_B)

    @batch_invariant()
    def ask(self, agent: Agent) -> np.ndarray:
        """Returns the agent's actions (B, A) in the current states."""
        return agent.act(torch.from_numpy(self.obs_BO), self._goals()).detach().cpu().numpy()

    def _goals(self) -> torch.Tensor | None:
        """(B, G) the goals; None without any."""
        return torch.from_numpy(self.goal_BG) if self.world.facts.goal_dim else None

    @batch_invariant()
    def step(self, act_BA: np.ndarray, moving_B: np.ndarray) -> StepResult:
        """Steps the episodes where `moving_B` is true; the others keep their state and get reward 0.

        Raises ValueError for actions of another shape or that are not finite.
        """
        expected = (len(self.obs_BO), self.world.spec.act_dim)
        if np.shape(act_BA) != expected or not np.isfinite(act_BA).all():
            raise ValueError(f"actions of shape {np.shape(act_BA)} were given; finite ones of shape {expected} are "
                             "expected")
        seeds = [int(rng.integers(2**62)) if moving else 0 for rng, moving in zip(self.rngs, moving_B, strict=True)]
        act_B1A = torch.from_numpy(np.asarray(act_BA, np.float32))[:, None]
        made = self.world.imagine(torch.from_numpy(self.obs_BO), act_B1A, self._goals(), seeds=seeds,
                                  temperature=self.config.temperature)
        next_BO = made.obs_BTO[:, 0].cpu().numpy()
        reward_B = made.reward_BT[:, 0].cpu().numpy()
        end_B = made.end_BT[:, 0].cpu().numpy()
        uncertainty_B = made.uncertainty_BT[:, 0].cpu().numpy()
        if self.reward is not None:
            reward_B = self.reward(next_BO, self.goal_BG)
        self.elapsed_B = self.elapsed_B + moving_B
        finite_B = np.isfinite(next_BO).all(1) & np.isfinite(reward_B) & np.isfinite(end_B) & np.isfinite(uncertainty_B)
        self.obs_BO = np.where((moving_B & finite_B)[:, None], next_BO, self.obs_BO)
        terminated_B = moving_B & finite_B & (end_B > 0.5)
        reward_B = np.where(moving_B & finite_B, reward_B, 0)
        cost_B = np.where(moving_B & finite_B, uncertainty_B, 0)
        uncertainty_B = np.where(finite_B, uncertainty_B, np.inf)
        why_B = self.distrust(uncertainty_B)
        why_B[~moving_B] = ""
        reward_B = reward_B - self.config.penalty * cost_B
        if self.config.termination_cost is None:
            why_B[terminated_B] = ""  # a predicted end is trusted
        else:
            terminated_B |= why_B != ""
            reward_B = np.where(why_B != "", -self.config.termination_cost, reward_B)
        unknown_B = why_B != ""
        late_B = moving_B & ~terminated_B & ~unknown_B & (self.elapsed_B >= self.config.max_episode_steps)
        why_B[late_B] = TIME_LIMIT
        return StepResult(reward_B, terminated_B, (why_B != "") & ~terminated_B, why_B, uncertainty_B)

    def distrust(self, uncertainty_B: np.ndarray) -> np.ndarray:
        """Returns the first reason (B,) not to trust `obs_BO`, given its uncertainty; "" if there is none."""
        outside_B = ((self.obs_BO < self.low_O) | (self.obs_BO > self.high_O)).any(1)
        reasons = {NOT_FINITE: ~np.isfinite(uncertainty_B), BOUNDS: outside_B,
                   UNCERTAINTY: uncertainty_B > self.uncertainty_limit}
        return np.select(list(reasons.values()), list(reasons), default="").astype(object)
