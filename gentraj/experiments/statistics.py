"""Means over seeds and episodes with their bootstrap intervals, the same for every experiment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 10_000

Scores = Sequence[Sequence[float]]  # of each seed and its episodes


class Estimate(NamedTuple):
    """A mean and the 95 % interval of it."""

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
    """That mean, with the middle 95 % of the resampled means."""
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(low), mean, float(high))


def seeds_means(scores: Scores, seed: int = 0) -> np.ndarray:
    """(RESAMPLES,) means when seeds are drawn with replacement, and of each its episodes."""
    rng, scores_SE = np.random.default_rng(seed), [np.asarray(episodes) for episodes in scores]
    drawn = rng.integers(0, len(scores_SE), (RESAMPLES, len(scores_SE)))
    # (S, resamples); a seed that is drawn twice brings the same episodes twice, which only widens the interval.
    means = np.array([rng.choice(episodes, (RESAMPLES, len(episodes))).mean(1) for episodes in scores_SE])
    return means[drawn.T, np.arange(RESAMPLES)].mean(0)


def spread(results: Iterable[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Of every key the mean, the least and the most over the results that have it."""
    values: dict[str, list[float]] = {}
    for result in results:
        for key, value in result.items():
            values.setdefault(key, []).append(value)
    return {key: {"mean": float(np.mean(v)), "min": min(v), "max": max(v)} for key, v in values.items()}


def numbers(value: Any, prefix: str = "") -> dict[str, float]:
    """Every number in nested objects by its dotted key; lists and flags are none."""
    if isinstance(value, Mapping):
        return {k: n for name, item in value.items()
                for k, n in numbers(item, f"{prefix}.{name}" if prefix else str(name)).items()}
    return {prefix: float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else {}
