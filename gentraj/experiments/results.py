"""What came of cards, as files that the page is written from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..config import from_json, read_json, to_json
from .cards import Card, CardData
from .engine import write_json
from .statistics import over_seeds


@dataclass(frozen=True)
class SeedResult:
    """One training, its last checkpoint evaluated. Scores are in the card's score."""

    run: str
    """Digest of what it depends on: all settings, the data, how it was evaluated."""
    seed: int
    agent: str
    step: int
    """The checkpoint."""
    sampling: str
    mean: float
    interval: tuple[float, float]
    """95 % bootstrap interval of the mean over episodes."""
    scores: tuple[float, ...]
    """Of each episode."""
    train_seconds: float
    """Of one thread, with other runs beside it."""
    versions: dict[str, str]


@dataclass(frozen=True)
class DataResult:
    """All seeds on one dataset."""

    sha256: str
    """`episodes_hash` of what was trained on."""
    behaviour: float | None
    """The score of the data's own episodes, where they are whole ones of the environment."""
    mean: float
    interval: tuple[float, float]
    """95 % bootstrap interval of the mean, over seeds and of each its episodes."""
    seeds: tuple[SeedResult, ...]


@dataclass(frozen=True)
class CardResult:
    """`data` holds what is done: names of `CardData` -> result."""

    card: Card
    data: dict[str, DataResult]


def pooled(sha256: str, behaviour: float | None, seeds: tuple[SeedResult, ...]) -> DataResult:
    found = over_seeds([seed.scores for seed in seeds])
    return DataResult(sha256, behaviour, found.mean, found.interval, seeds)


JUDGED = ("inside", "outside")  # what a `verdict` is of what is finished and has an expectation


def verdict(card: Card, data: CardData, result: DataResult | None) -> str:
    """Inside, outside, no expectation yet, or how much is missing."""
    done = len(result.seeds) if result else 0
    if result is None or done < len(card.seeds):
        return f"unfinished: {done} of {len(card.seeds)} seeds"
    if data.expected is None or data.tolerance is None:
        return "no expectation yet"
    return "inside" if abs(result.mean - data.expected) <= data.tolerance else "outside"


def write_result(path: Path, result: CardResult) -> Path:
    return write_json(path, to_json(result))


def read_results(folder: Path, names: Iterable[str] = ("*",)) -> dict[str, CardResult]:
    """Name of the card -> its result, where anything is done. Raises `ConfigError` for another file."""
    found = {path.stem: from_json(CardResult, read_json(path), str(path))
             for name in names for path in sorted(folder.glob(f"{name}.json"))}
    return {name: result for name, result in found.items() if result.data}
