"""Which settings a sweep tries: all of a grid, random ones, or those that a searcher of Optuna asks for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal

import numpy as np

from ..randomness import fold

Values = dict[str, Any]  # a value for each key that is varied
Rounds = Generator[list[Values], list[float | None], None]
"""Yields the values of the trials of a round, and is sent their results: higher is better, None is a failure."""


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that must be possible for all of them to be."""
        return self.values

    def draw(self, rng: np.random.Generator) -> Any:
        return self.values[rng.integers(len(self.values))]

    def distribution(self, optuna: ModuleType) -> Any:
        return optuna.distributions.CategoricalDistribution(range(len(self.values)))  # a value may be a list

    def value(self, asked: Any) -> Any:
        return self.values[asked]


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, uniform or, with `log`, uniform in its logarithm."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or not math.isfinite(self.high - self.low):
            raise ValueError(f"{self.low:g}..{self.high:g} is no range; the first number must be below the second")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.low:g}..{self.high:g}:log begins at {self.low:g}; a number above 0 is expected")

    @property
    def ends(self) -> tuple[float, float]:
        """The values that must be possible for all of them to be."""
        return self.low, self.high

    def draw(self, rng: np.random.Generator) -> float:
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole and not self.log else (self.low, self.high)
        return self.value(math.exp(rng.uniform(math.log(low), math.log(high))) if self.log else rng.uniform(low, high))

    def distribution(self, optuna: ModuleType) -> Any:
        made = optuna.distributions
        return (made.IntDistribution if self.whole else made.FloatDistribution)(self.low, self.high, log=self.log)

    def value(self, asked: float) -> float:
        """The number as it is tried: whole, or with four digits."""
        number = round(asked) if self.whole else float(f"{asked:.4g}")
        return min(max(number, self.low), self.high)


Space = Mapping[str, Choice | Range]


@dataclass(frozen=True)
class SearchConfig:
    """How a sweep chooses the settings that it tries."""

    search: Literal["grid", "random", "tpe", "gp"] = "grid"
    """grid: all combinations; random: independent draws; tpe and gp: Optuna's tree-structured Parzen estimator and
    Gaussian process (extra scale)."""
    trials: int | None = None
    """Number of trials; needed unless the search is a grid."""
    round: int = 8
    """For tpe and gp: the number of trials that run at the same time; the searcher sees their results when all of them
    are done. What is tried does not depend on how fast the trials are, nor on where they run."""
    search_seed: int = 0
    """Seed of the search; the same seed tries the same settings. A larger number of trials adds to those of a smaller
    one."""

    def __post_init__(self) -> None:
        for name, value in (("trials", self.trials), ("round", self.round)):
            if value is not None and value < 1:
                raise ValueError(f"SearchConfig.{name} is {value}; give at least 1")
        if self.search == "grid" and self.trials is not None:
            raise ValueError(f"SearchConfig.trials is {self.trials}, and a grid tries all combinations; leave it out, "
                             "or give another SearchConfig.search")
        if self.search != "grid" and self.trials is None:
            raise ValueError(f"SearchConfig.search is {self.search}, which goes on without end; give "
                             "SearchConfig.trials, the number of trials")
        if self.search == "grid" and self.search_seed != SearchConfig.search_seed:
            raise ValueError(f"SearchConfig.search_seed is {self.search_seed}, and a grid draws nothing; leave it out")
        if self.search not in SEARCHERS and self.round != SearchConfig.round:
            raise ValueError(f"SearchConfig.round is {self.round}, and only {' and '.join(SEARCHERS)} search in "
                             "rounds; leave it out")

    def rounds(self, space: Space) -> Rounds:
        """The rounds of the search. Raises ValueError for a range in a grid, and ImportError without Optuna."""
        if self.search in SEARCHERS:
            if find_spec("optuna") is None:
                raise ImportError(f"--search {self.search} needs Optuna, which is not installed: "
                                  "pip install 'gentraj[scale]'")
            return self._optuna(space)
        if self.search == "random":
            rngs = [np.random.default_rng(fold(self.search_seed, i)) for i in range(self.trials or 0)]
            return _once([{key: each.draw(rng) for key, each in space.items()} for rng in rngs])
        choices = {key: each for key, each in space.items() if isinstance(each, Choice)}
        if ranges := [key for key in space if key not in choices]:
            raise ValueError(f"--over {ranges[0]} is a range, which a grid cannot cover; give values separated by "
                             "commas, or --search random --trials N")
        return _once([dict(zip(choices, each, strict=True))
                      for each in itertools.product(*(choice.values for choice in choices.values()))])

    def _optuna(self, space: Space) -> Rounds:
        optuna = import_module("optuna")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = SEARCHERS[self.search](optuna)(seed=self.search_seed % 2**32)
        study = optuna.create_study(sampler=sampler, direction="maximize")
        distributions = {key: each.distribution(optuna) for key, each in space.items()}
        left = self.trials or 0
        while left:
            asked = [study.ask(distributions) for _ in range(min(left, self.round))]
            left -= len(asked)
            results = yield [{key: each.value(trial.params[key]) for key, each in space.items()} for trial in asked]
            for trial, result in zip(asked, results, strict=True):
                state = optuna.trial.TrialState.FAIL if result is None else None
                study.tell(trial, result, state)


SEARCHERS: dict[str, Callable[[ModuleType], Callable[..., Any]]] = {
    "tpe": lambda optuna: optuna.samplers.TPESampler, "gp": lambda optuna: optuna.samplers.GPSampler}


def _once(trials: list[Values]) -> Rounds:
    yield trials
