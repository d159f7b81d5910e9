"""Off-policy evaluation: the returns of agents in a world model, beside their returns in the real environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gentraj.envs.evaluation.rollout import DEFAULT_SETTINGS, RolloutSettings, rollout
from gentraj.envs.making import EnvironmentFactory
from gentraj.envs.worlds.branches import follow
from gentraj.envs.worlds.imagined import NOT_FINITE, ImaginedConfig, ImaginedEpisodes

from ...randomness import fold
from ...trajectory import Agent
from ...worlds.model import WorldModel


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
    true_N = rollout(agent, factory, episodes, seed, settings).returns
    imagined_N, truncated_N = imagined_returns(agent, ImaginedEpisodes(world, episodes, config), seed)
    return Returns(imagined_N, true_N, truncated_N)


def imagined_returns(agent: Agent, episodes: ImaginedEpisodes, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns the returns (B,) of one episode each, to its end or the time limit, and which were truncated before (B,).

    An agent is not punished for what the model does not know. A step for which `ImaginedEpisodes.distrust` has a
    reason is not trusted, and neither is an end of the episode in it. The rest of the return is then estimated from the
    trusted steps of all episodes: from their mean reward and, as for censored lifetimes, from their rate of
    termination, both assumed constant. Raises RuntimeError if no step is trusted, or if a number is not finite.
    """
    limit = episodes.config.max_episode_steps
    batch = len(episodes.obs_BO)
    seeds = [fold(seed, i) for i in range(batch)]
    episodes.rngs = [np.random.default_rng(s) for s in seeds]
    episodes.reset(np.ones(batch, bool))
    agent.leave_data()  # the world model itself tells what it does not know
    agent.reset(seeds)
    agent.pad_batches()
    made = follow(episodes, np.full(batch, limit), lambda k: episodes.ask(agent))
    if (made.why_B == NOT_FINITE).any():
        raise RuntimeError("the world model imagined numbers that are not finite; train it for longer")
    truncated_B = made.why_B != ""
    steps = made.steps_B.sum()
    if not steps:
        raise RuntimeError("the world model trusts no step of this agent, so that its return cannot be estimated; "
                           "train the model for longer, or on data nearer to what the agent does")
    trusted_BK = np.arange(limit) < made.steps_B[:, None]
    total_B = np.where(trusted_BK, made.reward_BK, 0.0).cumsum(1, np.float64)[:, -1]
    end = made.terminated_B.sum() / steps
    more_T = np.append(0.0, np.cumsum((1 - end) ** np.arange(limit)))  # expected steps of those left
    return total_B + truncated_B * (total_B.sum() / steps) * more_T[limit - made.steps_B], truncated_B


def compared(returns: Mapping[str, Returns], seed: int = 0, resamples: int = 2000) -> dict[str, Any]:
    """Compares the imagined and the true returns of P agents, and returns both, to be stored as JSON.

    "spearman" is the rank correlation of the agents' mean returns, with its 95 % bootstrap interval over episodes and
    agents; Pearson's correlation and the mean absolute error are beside it. Raises ValueError for fewer than three
    agents.
    """
    if len(returns) < 3:
        raise ValueError(f"the returns of {len(returns)} agents were given; those of at least three are needed to "
                         "compare their order")
    sides = [each.imagined_N for each in returns.values()], [each.true_N for each in returns.values()]
    rng = np.random.default_rng(seed)
    correlations = list[float]()
    for _ in range(resamples):
        which = rng.integers(len(returns), size=len(returns))
        drawn = [np.array([rng.choice(side[p], len(side[p])).mean() for p in which]) for side in sides]
        if len(set(which.tolist())) > 2:
            correlations.append(spearman(*drawn))
    low, high = np.nanquantile(correlations, [0.025, 0.975])
    imagined_P, true_P = (np.array([np.mean(returns_N) for returns_N in side]) for side in sides)
    stored = {name: {"imagined": each.imagined_N.tolist(), "true": each.true_N.tolist(),
                     "truncated": int(each.truncated_N.sum())}
              for name, each in returns.items()}
    return {"returns": stored, "spearman": spearman(imagined_P, true_P),
            "spearman_ci95": [float(low), float(high)], "pearson": _correlation(imagined_P, true_P),
            "mean_absolute_error": float(np.abs(imagined_P - true_P).mean())}


def spearman(x_P: np.ndarray, y_P: np.ndarray) -> float:
    """Returns the rank correlation; 0 if one of the two is constant."""
    from scipy.stats import rankdata  # it takes a second to import

    return _correlation(rankdata(x_P), rankdata(y_P))


def _correlation(x_P: np.ndarray, y_P: np.ndarray) -> float:
    """Returns Pearson's correlation; 0 if one of the two is constant."""
    if x_P.std() == 0 or y_P.std() == 0:
        return 0.0
    return float(np.corrcoef(x_P, y_P)[0, 1])
