"""Scores over seeds and tasks: the same numbers as independent computations, and intervals that hold what they must."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, trim_mean

from gentraj.experiments import statistics
from gentraj.experiments.statistics import (
    difference,
    interquartile_mean,
    is_paired,
    over_seeds,
    probability_of_improvement,
    seeds_means,
)

RUNS = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=6)
TASKS = st.lists(st.tuples(RUNS, RUNS), min_size=1, max_size=3)


@settings(max_examples=15, deadline=None)
@given(TASKS)
def test_they_are_those_of_scipy(tasks: list[tuple[list[float], list[float]]]) -> None:
    one, other = ([pair[side] for pair in tasks] for side in (0, 1))
    low, mean, high = interquartile_mean(one)
    assert mean == pytest.approx(trim_mean(np.concatenate(one), 0.25)) and min(map(min, one)) <= low <= high
    low, probability, high = probability_of_improvement(one, other)
    u = [mannwhitneyu(x, y, method="asymptotic").statistic / (len(x) * len(y)) for x, y in tasks]
    assert probability == pytest.approx(np.mean(u)) and 0 <= low <= high <= 1
    assert probability_of_improvement(other, one).mean == pytest.approx(1 - probability)


def test_a_failed_and_a_lucky_run_change_the_interquartile_mean_by_nothing() -> None:
    usual = [[10.0, 11.0, 12.0, 13.0], [10.0, 11.0, 12.0, 13.0]]
    assert interquartile_mean(usual).mean == 11.5
    assert interquartile_mean([[-900.0, 11.0, 12.0, 13.0], [10.0, 11.0, 12.0, 900.0]]).mean == 11.5
    assert interquartile_mean([[7.0]]) == (7.0, 7.0, 7.0)  # a single run has no spread that could be seen



def test_the_interval_of_an_interquartile_mean_holds_the_truth_as_often_as_it_says(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Of normal scores of five tasks with eight runs each: 95 % intervals hold 0 in about 90 to 99 of 100 trials."""
    monkeypatch.setattr(statistics, "RESAMPLES", 300)
    rng = np.random.default_rng(0)
    inside = [low <= 0 <= high for low, _, high in
              (interquartile_mean(rng.normal(size=(5, 8)).tolist(), trial) for trial in range(100))]
    assert 86 <= sum(inside) <= 100



def test_a_difference_is_paired_where_seeds_and_episodes_are_the_same() -> None:
    """Both agents find the same episodes hard. Paired, a lead of exactly 1 is certain; apart, it is lost in them."""
    hard = np.random.default_rng(0).normal(size=(3, 20)) * 10
    other, ahead = dict(enumerate(hard.tolist())), dict(enumerate((hard + 1).tolist()))
    elsewhere = {seed + 7: episodes for seed, episodes in other.items()}
    paired, apart = difference([ahead], [other]), difference([ahead], [elsewhere])
    assert is_paired(ahead, other) and paired == pytest.approx((1.0, 1.0, 1.0))
    assert not is_paired(ahead, elsewhere) and apart.mean == pytest.approx(1.0) and apart.low < 0 < apart.high
    assert not is_paired(ahead, {seed: episodes[:5] for seed, episodes in other.items()})
    assert difference([ahead, other], [other, other]).mean == pytest.approx(0.5)  # averaged over the tasks


def test_a_difference_apart_has_the_variance_of_both() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(4, 30)).tolist(), rng.normal(size=(5, 30)).tolist()
    width = np.hypot(*(high - low for low, _, high in map(over_seeds, (one, other))))
    low, mean, high = difference([dict(enumerate(one))], [dict(enumerate(other))])
    assert mean == pytest.approx(np.mean(one) - np.mean(other)) and high - low == pytest.approx(width, rel=0.05)


def test_an_interval_holds_the_truth_where_all_seeds_find_the_same_episodes_hard(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Five seeds of 20 shared episodes know little more than one seed: 95 % intervals hold 0 in about 87 to 99 of 100
    trials. If the episodes of each seed were resampled apart, as if there were 100, they would hold it in about 70."""
    monkeypatch.setattr(statistics, "RESAMPLES", 300)
    rng = np.random.default_rng(0)
    hard = [rng.normal(size=20) + 0.1 * rng.normal(size=(5, 20)) for _ in range(100)]
    inside = [low <= 0 <= high for low, _, high in (over_seeds(x.tolist(), trial) for trial, x in enumerate(hard))]
    assert 86 <= sum(inside) <= 100
    apart = [over_seeds([*x[:4].tolist(), x[4, :19].tolist()], trial) for trial, x in enumerate(hard)]  # not the same
    assert sum(low <= 0 <= high for low, _, high in apart) < 82


def test_each_seed_counts_as_much_however_many_episodes_it_has() -> None:
    """A seed of a faulty environment may lack episodes. The interval is that of the mean beside it."""
    scores = [[0.0, 0.0], [1.0] * 98]
    low, mean, high = over_seeds(scores)
    assert (low, mean, high) == (0.0, 0.5, 1.0) and seeds_means(scores).mean() == pytest.approx(mean, abs=0.01)
    none = {0: [0.0, 0.0], 1: [0.0]}
    assert difference([dict(enumerate(scores))], [none]) == (0.0, 0.5, 1.0)
