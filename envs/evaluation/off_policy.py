"""Off-policy evaluation: what a world model says that agents earn, beside what they earn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gentraj.progress import bar
from gentraj.randomness import fold
from gentraj.trajectory import Agent
from gentraj.worlds.model import WorldModel

from ..making import EnvironmentFactory
from ..worlds.imagined import NOT_FINITE, ImaginedConfig, ImaginedEpisodes
from .rollout import rollout


class Returns(NamedTuple):
    """Of N episodes, (N,) each."""

    imagined_N: np.ndarray
    true_N: np.ndarray
    truncated_N: np.ndarray
    """Which imagined ones went beyond what the model knows, so that what followed is an estimate."""


def both_returns(agent: Agent, world: WorldModel, factory: EnvironmentFactory, episodes: int, seed: int = 0,
                 **settings: Any) -> Returns:
    """In the world model, truncated where its uncertainty is larger than `WorldModelEnv` allows, and in the
    environment.

    To be outside of the data's range is not held against an agent. `settings` are those of `rollout`.
    """
    config = ImaginedConfig(factory.max_episode_steps, margin=1e9)
    imagined_N, truncated_N = imagined_returns(agent, ImaginedEpisodes(world, episodes, config), seed)
    return Returns(imagined_N, rollout(agent, factory, episodes, seed, **settings).returns, truncated_N)


def imagined_returns(agent: Agent, episodes: ImaginedEpisodes, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(B,) returns of one episode each, to its end or the time limit, and (B,) which of them were truncated before.

    What the model does not know it does not hold against an agent. A step is not believed, nor that it ended an
    episode, where `ImaginedEpisodes.distrust` has a reason; what would still have been earned is then estimated by all
    steps that were believed, of all episodes: their mean reward, and, as of lifetimes that are censored, their chance
    of an end, both taken to stay the same. Raises RuntimeError where there is none, or a number is not finite.
    """
    batch, limit = len(episodes.obs_BO), episodes.config.max_episode_steps
    seeds = [fold(seed, i) for i in range(batch)]
    episodes.rngs = [np.random.default_rng(s) for s in seeds]
    episodes.reset(np.ones(batch, bool))
    agent.reset(None, seeds)
    moving_B, total_B, steps_B = np.ones(batch, bool), np.zeros(batch), np.zeros(batch, int)
    ended_B, truncated_B = np.zeros(batch, bool), np.zeros(batch, bool)
    with bar(limit, "agent in the world model") as done:
        while moving_B.any():
            happened = episodes.step(episodes.ask(agent), moving_B)
            why_B = episodes.distrust(happened.uncertainty)
            if (why_B[moving_B] == NOT_FINITE).any():
                raise RuntimeError("the world model imagined numbers that are not finite; train it for longer")
            believed_B = moving_B & (why_B == "")
            total_B += np.where(believed_B, happened.reward, 0)
            steps_B += believed_B
            ended_B |= believed_B & happened.terminated
            truncated_B |= moving_B & ~believed_B
            done.update()
            moving_B = believed_B & ~(happened.terminated | happened.truncated)
    if not steps_B.any():
        raise RuntimeError("the world model believes no step of this agent, so that it cannot say what it earns; train "
                           "it for longer, or on data nearer to what the agent does")
    reward, end = total_B.sum() / steps_B.sum(), ended_B.sum() / steps_B.sum()
    more_T = np.append(0.0, np.cumsum((1 - end) ** np.arange(limit)))  # steps expected of those that are left
    return total_B + truncated_B * reward * more_T[limit - steps_B], truncated_B


def compared(found: Mapping[str, Returns], seed: int = 0) -> dict[str, Any]:
    """What a file keeps of agents' returns, and their `agreement`. Raises what that does."""
    said = {name: {"imagined": of.imagined_N.tolist(), "true": of.true_N.tolist(),
                   "truncated": int(of.truncated_N.sum())}
            for name, of in found.items()}
    return {"returns": said} | agreement([of.imagined_N for of in found.values()],
                                         [of.true_N for of in found.values()], seed)


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
