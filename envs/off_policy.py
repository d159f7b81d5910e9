"""Off-policy evaluation: what a world model says that agents earn, beside what they earn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gentraj.randomness import fold
from gentraj.trajectory import Agent
from gentraj.world_model import WorldModel

from .imagined import NOT_FINITE, ImaginedConfig, ImaginedEpisodes
from .making import EnvironmentFactory
from .rollout import rollout


def both_returns(agent: Agent, world: WorldModel, factory: EnvironmentFactory, episodes: int, seed: int = 0,
                 **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """(N,) returns in the world model, whose doubt is not held against an agent, and (N,) in the environment.

    `settings` are those of `rollout`.
    """
    config = ImaginedConfig(factory.max_episode_steps, max_doubt=1e9, margin=1e9)
    imagined = imagined_returns(agent, ImaginedEpisodes(world, episodes, config), seed)
    return imagined, rollout(agent, factory, episodes, seed, **settings).returns


def imagined_returns(agent: Agent, episodes: ImaginedEpisodes, seed: int = 0) -> np.ndarray:
    """(B,) returns of one episode each, to its end or the time limit.

    An episode that is cut otherwise (uncertainty, bounds) is valued as if it went on to earn what it earned on average:
    what the model does not know it does not hold against an agent. `episodes` may be told to cut nothing.
    """
    batch = len(episodes.obs_BO)
    seeds = [fold(seed, i) for i in range(batch)]
    episodes.rngs = [np.random.default_rng(s) for s in seeds]
    episodes.reset(np.ones(batch, bool))
    agent.reset(None, seeds)
    moving_B, total_B, steps_B, cut_B = np.ones(batch, bool), np.zeros(batch), np.zeros(batch), np.zeros(batch, bool)
    while moving_B.any():
        happened = episodes.step(episodes.ask(agent), moving_B)
        total_B += happened.reward
        steps_B += moving_B
        early_B = happened.truncated & (steps_B < episodes.config.max_episode_steps)
        if (happened.why[early_B] == NOT_FINITE).any():
            raise RuntimeError("the world model imagined numbers that are not finite; train it for longer")
        cut_B |= early_B
        moving_B = moving_B & ~(happened.terminated | happened.truncated)
    return np.where(cut_B, total_B * episodes.config.max_episode_steps / steps_B, total_B)


def agreement(predicted: Sequence[np.ndarray], true: Sequence[np.ndarray], seed: int = 0,
              draws: int = 2000) -> dict[str, Any]:
    """Of P agents' returns, (N_p,) each: Spearman's rank correlation of the means, with a 95 % bootstrap interval over
    episodes and agents, Pearson's, and the mean absolute error. Raises ValueError for fewer than three agents."""
    from scipy.stats import rankdata  # a second to import, for those who need it

    if len(predicted) < 3 or len(predicted) != len(true):
        raise ValueError(f"{len(predicted)} predicted and {len(true)} true returns were given; those of at least three "
                         "agents are needed to compare their order")
    mean = lambda returns: np.array([np.mean(r) for r in returns])  # noqa: E731
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        which = rng.integers(len(true), size=len(true))
        drawn = [np.array([rng.choice(returns[p], len(returns[p])).mean() for p in which])
                 for returns in (predicted, true)]
        if len(set(which.tolist())) > 2:
            found.append(_alike(*map(rankdata, drawn)))
    low, high = np.nanquantile(found, [0.025, 0.975])
    said, earned = mean(predicted), mean(true)
    return {"spearman": _alike(rankdata(said), rankdata(earned)), "spearman_ci95": [float(low), float(high)],
            "pearson": _alike(said, earned),
            "mean_absolute_error": float(np.abs(said - earned).mean())}


def _alike(x_P: np.ndarray, y_P: np.ndarray) -> float:
    """Their correlation; 0 where one of them is constant."""
    return float(np.corrcoef(x_P, y_P)[0, 1]) if x_P.std() > 0 and y_P.std() > 0 else 0.0
