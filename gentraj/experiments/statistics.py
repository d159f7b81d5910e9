"""Means over seeds and episodes with bootstrap intervals, as all experiments use them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 10_000

Scores = Sequence[Sequence[float]]  # a score for each seed and each of its episodes


class Estimate(NamedTuple):
    """A mean and its 95 % interval."""

    low: float
    mean: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        return self.low, self.high


def over_seeds(scores: Scores, seed: int = 0) -> Estimate:
    """The mean over all seeds and episodes, with the interval of `seeds_means`."""
    return estimate(float(np.mean(np.concatenate(scores))), seeds_means(scores, seed))


def estimate(mean: float, means: np.ndarray) -> Estimate:
    """The mean with the middle 95 % of the resampled means as its interval."""
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(low), mean, float(high))


def seeds_means(scores: Scores, seed: int = 0) -> np.ndarray:
    """(RESAMPLES,) bootstrap means: seeds are sampled with replacement, and so are the episodes of each seed."""
    rng, scores_SE = np.random.default_rng(seed), [np.asarray(episodes) for episodes in scores]
    sampled = rng.integers(0, len(scores_SE), (RESAMPLES, len(scores_SE)))
    # (S, RESAMPLES); a seed that is sampled twice brings the same episodes twice, which only widens the interval.
    means = np.array([rng.choice(episodes, (RESAMPLES, len(episodes))).mean(1) for episodes in scores_SE])
    return means[sampled.T, np.arange(RESAMPLES)].mean(0)


def spread(results: Iterable[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The mean, minimum and maximum of every key over the results that have it."""
    values: dict[str, list[float]] = {}
    for result in results:
        for key, value in result.items():
            values.setdefault(key, []).append(value)
    return {key: {"mean": float(np.mean(v)), "min": min(v), "max": max(v)} for key, v in values.items()}


def numbers(value: Any, prefix: str = "") -> dict[str, float]:
    """Every number in nested objects by its dotted key; lists and booleans are left out."""
    if isinstance(value, Mapping):
        return {k: n for name, item in value.items()
                for k, n in numbers(item, f"{prefix}.{name}" if prefix else str(name)).items()}
    return {prefix: float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else {}
