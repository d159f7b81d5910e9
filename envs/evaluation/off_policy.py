"""Off-policy evaluation: the returns of agents in a world model, beside their returns in the real environment."""

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
from .rollout import DEFAULT_SETTINGS, RolloutSettings, rollout


class Returns(NamedTuple):
    """Returns of N episodes, (N,) each."""

    imagined_N: np.ndarray
    true_N: np.ndarray
    truncated_N: np.ndarray
    """Which synthetic episodes the world model truncated, so that the rest of their return is an estimate."""


def both_returns(agent: Agent, world: WorldModel, factory: EnvironmentFactory, episodes: int, seed: int = 0,
                 settings: RolloutSettings = DEFAULT_SETTINGS) -> Returns:
    """Runs the agent in the world model and in the environment and returns its returns in both.

    An episode in the world model is truncated if the uncertainty exceeds the limit of `WorldModelEnv`, but not if an
    observation leaves the data's range. `settings` are those of `rollout`.
    """
    config = ImaginedConfig(factory.max_episode_steps, margin=1e9)
    imagined_N, truncated_N = imagined_returns(agent, ImaginedEpisodes(world, episodes, config), seed)
    return Returns(imagined_N, rollout(agent, factory, episodes, seed, settings).returns, truncated_N)


def imagined_returns(agent: Agent, episodes: ImaginedEpisodes, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns the returns (B,) of one episode each, to its end or the time limit, and which were truncated before (B,).

    An agent is not punished for what the model does not know. A step for which `ImaginedEpisodes.distrust` has a
    reason is not trusted, and neither is an end of the episode in it. The rest of the return is then estimated from the
    trusted steps of all episodes: from their mean reward and, as for censored lifetimes, from their rate of
    termination, both assumed constant. Raises RuntimeError if no step is trusted, or if a number is not finite.
    """
    batch, limit = len(episodes.obs_BO), episodes.config.max_episode_steps
    seeds = [fold(seed, i) for i in range(batch)]
    episodes.rngs = [np.random.default_rng(s) for s in seeds]
    episodes.reset(np.ones(batch, bool))
    agent.reset(None, seeds)
    moving_B = np.ones(batch, bool)
    total_B = np.zeros(batch)
    steps_B = np.zeros(batch, int)
    ended_B, truncated_B = np.zeros(batch, bool), np.zeros(batch, bool)
    with bar(limit, "agent in the world model") as done:
        while moving_B.any():
            happened = episodes.step(episodes.ask(agent), moving_B)
            why_B = episodes.distrust(happened.uncertainty)
            if (why_B[moving_B] == NOT_FINITE).any():
                raise RuntimeError("the world model imagined numbers that are not finite; train it for longer")
            trusted_B = moving_B & (why_B == "")
            total_B += np.where(trusted_B, happened.reward, 0)
            steps_B += trusted_B
            ended_B |= trusted_B & happened.terminated
            truncated_B |= moving_B & ~trusted_B
            done.update()
            moving_B = trusted_B & ~(happened.terminated | happened.truncated)
    if not steps_B.any():
        raise RuntimeError("the world model trusts no step of this agent, so that its return cannot be estimated; "
                           "train the model for longer, or on data nearer to what the agent does")
    reward, end = total_B.sum() / steps_B.sum(), ended_B.sum() / steps_B.sum()
    more_T = np.append(0.0, np.cumsum((1 - end) ** np.arange(limit)))  # expected steps of those left
    return total_B + truncated_B * reward * more_T[limit - steps_B], truncated_B


def compared(returns: Mapping[str, Returns], seed: int = 0) -> dict[str, Any]:
    """Returns the agents' returns and their `agreement`, to be stored as JSON. Raises what `agreement` raises."""
    stored = {name: {"imagined": each.imagined_N.tolist(), "true": each.true_N.tolist(),
                     "truncated": int(each.truncated_N.sum())}
              for name, each in returns.items()}
    return {"returns": stored} | agreement([each.imagined_N for each in returns.values()],
                                           [each.true_N for each in returns.values()], seed)


def agreement(predicted: Sequence[np.ndarray], true: Sequence[np.ndarray], seed: int = 0,
              resamples: int = 2000) -> dict[str, Any]:
    """Compares the predicted and the true returns of P agents, arrays of (N_p,) each.

    Returns Spearman's rank correlation of the agents' mean returns with its 95 % bootstrap interval over episodes and
    agents, Pearson's correlation, and the mean absolute error. Raises ValueError for fewer than three agents.
    """
    from scipy.stats import rankdata  # it takes a second to import

    if len(predicted) < 3 or len(predicted) != len(true):
        raise ValueError(f"{len(predicted)} predicted and {len(true)} true returns were given; those of at least three "
                         "agents are needed to compare their order")
    rng, correlations = np.random.default_rng(seed), []
    for _ in range(resamples):
        which = rng.integers(len(true), size=len(true))
        means = [np.array([rng.choice(returns[p], len(returns[p])).mean() for p in which])
                 for returns in (predicted, true)]
        if len(set(which.tolist())) > 2:
            correlations.append(_correlation(*map(rankdata, means)))
    low, high = np.nanquantile(correlations, [0.025, 0.975])
    predicted_P, true_P = (np.array([np.mean(r) for r in returns]) for returns in (predicted, true))
    return {"spearman": _correlation(rankdata(predicted_P), rankdata(true_P)),
            "spearman_ci95": [float(low), float(high)], "pearson": _correlation(predicted_P, true_P),
            "mean_absolute_error": float(np.abs(predicted_P - true_P).mean())}


def _correlation(x_P: np.ndarray, y_P: np.ndarray) -> float:
    """Returns Pearson's correlation; 0 if one of the two is constant."""
    return float(np.corrcoef(x_P, y_P)[0, 1]) if x_P.std() > 0 and y_P.std() > 0 else 0.0
