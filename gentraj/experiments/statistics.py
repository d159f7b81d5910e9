"""Scores over seeds, episodes and tasks with bootstrap intervals, as all experiments use them.

The interquartile mean and the probability of improvement, and how they are resampled, are those of Agarwal et al. 2021
(the package rliable): the score of a run is the mean over its episodes, and runs are resampled within each task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import trim_mean

RESAMPLES = 10_000

Scores = Sequence[Sequence[float]]  # a score for each seed and each of its episodes
BySeed = Mapping[int, Sequence[float]]  # the scores of the episodes of each seed
Tasks = Sequence[Sequence[float]]  # for each task the score of each run; tasks may have different numbers of runs


class Estimate(NamedTuple):
    """A mean, or another summary of scores, and its 95 % interval."""

    low: float
    """The lower end of the interval."""
    mean: float
    """The summary itself."""
    high: float
    """The upper end of the interval."""

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends of the interval."""
        return self.low, self.high


def over_seeds(scores: Scores, seed: int = 0) -> Estimate:
    """The mean over seeds of the means over their episodes, with the interval of `seeds_means`."""
    return estimate(float(np.mean(run_scores(scores))), seeds_means(scores, seed))


def estimate(mean: float, means: np.ndarray) -> Estimate:
    """The mean with the middle 95 % of the resampled means as its interval."""
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(low), mean, float(high))


def seeds_means(scores: Scores, seed: int = 0) -> np.ndarray:
    """(RESAMPLES,) bootstrap means: seeds are sampled with replacement, and so are episodes.

    Seeds with equally many episodes are evaluated on the same ones, with the same starts and goals. These are sampled
    together for all seeds, as more seeds do not make up for few episodes. Otherwise those of each seed are sampled.
    """
    rng, number = np.random.default_rng(seed), len(scores)
    share_NS = rng.multinomial(number, np.full(number, 1 / number), RESAMPLES) / number  # of each seed in a resample
    if len({len(episodes) for episodes in scores}) == 1:
        mean_NE = share_NS @ np.asarray(scores, float)
        return np.take_along_axis(mean_NE, rng.integers(mean_NE.shape[1], size=mean_NE.shape), 1).mean(1)
    means_NS = np.stack([rng.choice(episodes, (RESAMPLES, len(episodes))).mean(1) for episodes in scores], 1)
    return (share_NS * means_NS).sum(1)


def difference(one: Sequence[BySeed], other: Sequence[BySeed], *, seed: int = 0) -> Estimate:
    """How far the mean of one agent is above that of another, averaged over the tasks.

    Where `is_paired` holds, a resample takes the same seeds and episodes of both agents, so that what is hard for both
    does not widen the interval. Otherwise the two are resampled apart.
    """
    means, draws = [], []
    for i, (x, y) in enumerate(zip(one, other, strict=True)):
        means.append(np.mean(run_scores([*x.values()])) - np.mean(run_scores([*y.values()])))
        if is_paired(x, y):
            draws.append(seeds_means([np.subtract(x[key], y[key]).tolist() for key in x], seed + 2 * i))
        else:
            draws.append(seeds_means([*x.values()], seed + 2 * i) - seeds_means([*y.values()], seed + 2 * i + 1))
    return estimate(float(np.mean(means)), np.mean(draws, 0))


def is_paired(one: BySeed, other: BySeed) -> bool:
    """Whether two agents have the same seeds, and as many episodes of each, which are then the same ones."""
    return {key: len(scores) for key, scores in one.items()} == {key: len(scores) for key, scores in other.items()}


def interquartile_mean(tasks: Tasks, seed: int = 0) -> Estimate:
    """The mean of the middle half of all runs of all tasks: a quarter of them is left out at either end.

    One lucky or failed run changes it little, as it does a median, and it uses half of the runs. Scores of different
    tasks are compared with each other, so they must be normalised.
    """
    rng = np.random.default_rng(seed)
    draws = np.concatenate([_resampled(scores, rng) for scores in tasks], 1)
    return estimate(float(trim_mean(np.concatenate(tasks), 0.25)), trim_mean(draws, 0.25, axis=1))


def probability_of_improvement(one: Tasks, other: Tasks, *, seed: int = 0) -> Estimate:
    """How probable it is that a run of one agent scores more than a run of the other, averaged over the tasks.

    For each task it is the Mann-Whitney statistic over the number of pairs of runs; a tie counts as half.
    """
    rng = np.random.default_rng(seed)
    draws = [_above(_resampled(x, rng), _resampled(y, rng)) for x, y in zip(one, other, strict=True)]
    exact = [_above(np.array([x]), np.array([y])) for x, y in zip(one, other, strict=True)]
    return estimate(float(np.mean(exact)), np.mean(draws, 0))


def run_scores(scores: Scores) -> list[float]:
    """The score of each run: the mean over its episodes."""
    return [float(np.mean(episodes)) for episodes in scores]


def _resampled(scores: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """(RESAMPLES, R) samples of the R scores with replacement."""
    return rng.choice(np.asarray(scores, float), (RESAMPLES, len(scores)))


def _above(x_NR: np.ndarray, y_NS: np.ndarray) -> np.ndarray:
    """(N,) the share of the pairs of a row in which x is above y; ties count as half."""
    x, y = x_NR[:, :, None], y_NS[:, None, :]
    return (x > y).mean((1, 2)) + 0.5 * (x == y).mean((1, 2))


def number(value: float | Sequence[float] | None) -> str:
    """A score, or an interval of scores, with as many digits as are meaningful."""
    if value is None:
        return "—"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(number, value))}]"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:z.2f}"
