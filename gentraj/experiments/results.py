"""The results of cards, stored in files that the page of results is written from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..config import from_json, read_json, to_json
from ..runs.records import LAST
from .cards import Card, CardData
from .engine import write_json
from .statistics import Estimate, over_seeds


@dataclass(frozen=True)
class CurvePoint:
    """The score of an evaluation during a training, in the unit of the card's score."""

    step: int
    mean: float
    interval: tuple[float, float]
    """95 % bootstrap interval of the mean over episodes."""


@dataclass(frozen=True)
class SeedResult:
    """The evaluation of the last checkpoint of one training, in the unit of the card's score."""

    run: str
    """A digest of everything that the result depends on: all settings, the data and how the run was evaluated."""
    seed: int
    agent: str
    step: int
    """The training step of the checkpoint."""
    sampling: str
    mean: float
    interval: tuple[float, float]
    """95 % bootstrap interval of the mean over episodes."""
    scores: tuple[float, ...]
    """The score of each episode."""
    train_seconds: float
    """Duration of the training on one thread, with other runs in parallel."""
    versions: dict[str, str]
    curve: tuple[CurvePoint, ...] = ()
    """The evaluations during the training, if the card asks for them."""

    def __post_init__(self) -> None:
        if not self.scores:
            raise ValueError(f"the scores of seed {self.seed} are empty; the score of each episode is expected")

    @property
    def last_evaluations(self) -> float | None:
        """The mean over the last three evaluations during the training; None if there are fewer."""
        last = [point.mean for point in self.curve[-LAST:]]
        return sum(last) / LAST if len(last) == LAST else None


@dataclass(frozen=True)
class DataResult:
    """The results of all seeds on one dataset."""

    sha256: str
    """The hash of the training data, by `episodes_hash`."""
    behaviour: float | None
    """The score of the data's own episodes, or None if they are not complete episodes of the environment."""
    mean: float
    interval: tuple[float, float]
    """95 % bootstrap interval of the mean, over seeds and episodes."""
    seeds: tuple[SeedResult, ...]

    def __post_init__(self) -> None:
        names = [seed.seed for seed in self.seeds]
        if len(set(names)) < len(names):
            raise ValueError(f"seeds are {names}; the results of each are expected once")

    @property
    def estimate(self) -> Estimate:
        """The mean with its interval."""
        return Estimate(self.interval[0], self.mean, self.interval[1])

    @property
    def by_seed(self) -> dict[int, tuple[float, ...]]:
        """The scores of the episodes of each seed."""
        return {seed.seed: seed.scores for seed in self.seeds}

    @property
    def means(self) -> list[float]:
        """The score of each run."""
        return [seed.mean for seed in self.seeds]


@dataclass(frozen=True)
class CardResult:
    """A card and its results as far as they are done, by the name of the `CardData`."""

    card: Card
    data: dict[str, DataResult]


def pooled(sha256: str, behaviour: float | None, seeds: tuple[SeedResult, ...]) -> DataResult:
    """The results of all seeds on one dataset, with their mean and its interval."""
    whole = over_seeds([seed.scores for seed in seeds])
    return DataResult(sha256, behaviour, whole.mean, whole.interval, seeds)


COMPARED = ("inside", "outside")  # the verdicts on finished results that have an expectation


def verdict(card: Card, data: CardData, result: DataResult | None) -> str:
    """Whether a result is inside or outside its tolerance, has no expectation yet, or is unfinished."""
    done = len(result.seeds) if result else 0
    if result is None or done < len(card.seeds):
        return f"unfinished: {done} of {len(card.seeds)} seeds"
    if data.expected is None or data.tolerance is None:
        return "no expectation yet"
    return "inside" if abs(result.mean - data.expected) <= data.tolerance else "outside"


def write_result(path: Path, result: CardResult) -> Path:
    return write_json(path, to_json(result))


def read_results(folder: Path, names: Iterable[str] | None = None) -> dict[str, CardResult]:
    """The results in a folder, of all or of some cards, by the names of their cards; cards of which nothing is done are
    left out.

    Means and intervals over seeds are computed anew, so that all results have those of this version. Raises
    `ConfigError` for a file that is no result.
    """
    paths = sorted(folder.glob("*.json")) if names is None else [folder / f"{name}.json" for name in names]
    results = {path.stem: from_json(CardResult, read_json(path), str(path))
               for path in paths if path.exists()}
    return {name: CardResult(result.card, {key: pooled(one.sha256, one.behaviour, one.seeds) if one.seeds else one
                                           for key, one in result.data.items()})
            for name, result in results.items() if result.data}
