"""Result cards: small JSON files that say what is trained, on which data, and which score is expected; and their
results, in files of the same names.

`gentraj reproduce` runs them, and writes the page of results from their results.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Len
from pydantic import FiniteFloat, NonNegativeFloat, NonNegativeInt, PositiveInt

from gentraj.envs.making import OGBENCH_PROTOCOLS, OGBENCH_TASKS, ProtocolName

from ..config import ConfigError, check_known, from_json, read_json, settings, to_json, with_settings, write_json
from ..data.sources import is_path, split_names
from ..runs.kinds.presets import PRESETS
from ..runs.kinds.run import RunConfig
from .statistics import Mean, over_seeds, success_over_seeds

Score = Literal["score_d4rl", "score_minari", "return_mean", "success_rate"]

NAME = re.compile(r"\w[\w.+-]*", re.ASCII)
OWN = ("dataset", "env_id", "training.seed", "training.threads", "training.eval_every",
       "training.eval_episodes")  # settings that other fields or the command give


@settings
class Published:
    """A score that others have published, which the page of results shows beside ours."""

    score: float
    """In the unit of the card's score."""
    source: str
    """Where it is published, such as "Kostrikov et al. 2022, table 1", and on which data."""
    updates: PositiveInt | None = None
    """The number of updates of the published training; null, or left out, if it is not known."""


@settings
class CardData:
    """A dataset of a card and the score that is expected on it."""

    name: str
    """The name of a column of the table, such as hopper-medium."""
    dataset: str
    """As `PlannerRunConfig.dataset`; files are also searched for in the folders of --data."""
    env_id: str | None = None
    """As `PlannerRunConfig.env_id`."""
    expected: FiniteFloat | None = None
    """The expected mean score over seeds; null, or left out, if it is not known."""
    tolerance: NonNegativeFloat | None = None
    """How far the score may be from the expected one."""
    published: Published | None = None
    """The score of the paper on its data of that name; null, or left out, if there is none."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name is '{self.name}'; letters, digits and . + - _ are expected, as in hopper-medium")
        if (self.expected is None) != (self.tolerance is None):
            raise ValueError(f"expected is {self.expected} and tolerance {self.tolerance}; give both, or null for both")


@settings
class Card:
    """What is trained and how it is scored, on one or several datasets."""

    about: str
    """A sentence that describes the card."""
    table: str
    """The table of docs/results.md that shows the card; all its cards have the same score, protocol, episodes and
    episode_seed."""
    label: str
    """The row of the table."""
    preset: str
    settings: dict[str, Any]
    """The settings that differ from the preset, by dotted key, such as {"policy.alpha": 3.0}."""
    data: tuple[CardData, ...]
    seeds: tuple[NonNegativeInt, ...]
    """The seeds of the trainings, which are all evaluated on the same episodes."""
    episodes: PositiveInt
    protocol: ProtocolName
    score: Score
    """The key of the score in evaluation.json."""
    episode_seed: NonNegativeInt = 0
    """The seed of the episodes, as --seed of `gentraj evaluate`: another one where these have chosen the settings."""
    league: str | None = None
    """What other scores these may be compared with, in a line: those of such goals, data and protocol; null, or left
    out, where the table says enough."""
    chosen: str | None = None
    """How the settings were chosen, in a line; null, or left out, where nothing was chosen or nobody noted it."""
    seen: bool = False
    """Whether that was by episodes that they are scored in, so that the score is too high on average."""
    minutes: NonNegativeFloat | None = None
    """Minutes of one training on one thread, as they were once measured, from which `gentraj reproduce` says before it
    starts how long the card takes; null, or left out, if they are not known."""
    runs: str | None = None
    """The name of the card in the same folder with the same trainings, whose runs are scored; null, or left out, for
    runs of its own."""

    def __post_init__(self) -> None:
        for key in ("table", "label", "league", "chosen"):
            text = getattr(self, key)
            if text is not None and (len(text.splitlines()) != 1 or not text.strip()):
                raise ValueError(f"{key} is {text!r}; one line of text is expected")
        for key, names in (("data", [data.name for data in self.data]), ("seeds", list(self.seeds))):
            if not names or len(set(names)) < len(names):
                raise ValueError(f"{key} are {names}; at least one is expected, and each once")
        if misplaced := [key for key in self.settings if any(f"{own}.".startswith(f"{key}.") for own in OWN)]:
            raise ValueError(f"settings hold {', '.join(misplaced)}; datasets, seeds and evaluations "
                             "have fields of their own; give other settings one by one, such as training.steps")


def episodes_scored(card: Card) -> int:
    """The number of episodes that a training is scored in: by OGBench's protocols `episodes` of each task."""
    return card.episodes * (OGBENCH_TASKS if card.protocol in OGBENCH_PROTOCOLS else 1)


def common_settings(card: Card, where: str) -> RunConfig:
    """The settings that all runs of a card have in common. Raises `ConfigError`, which names `where` and the key."""
    return with_settings(PRESETS[card.preset], card.settings, where)


def run_settings(card: Card, data: CardData, seed: int, folders: tuple[Path, ...] = (),
                 where: str = "card") -> RunConfig:
    """The settings of a run on one thread. Raises `ConfigError`, which names `where` and the key or the file."""
    config = common_settings(card, where)
    training = replace(config.training, seed=seed, threads=1)
    return replace(config, dataset=dataset_of(data, folders, where), env_id=data.env_id, training=training)


def read_card(path: Path) -> Card:
    """Reads a card.

    Raises `ConfigError`, which names the file and the key, for a setting that the preset does not have, and for the
    runs of a card that is not there.
    """
    card = from_json(Card, read_json(path), str(path))
    try:
        check_known((card.preset,), PRESETS, "preset")
        if card.runs is not None:
            check_known((card.runs,), sorted(beside.stem for beside in path.parent.glob("*.json")), "card for runs")
        common_settings(card, str(path))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    return card


def dataset_of(data: CardData, folders: tuple[Path, ...] = (), where: str = "card") -> str:
    """The dataset, with each of its files as the path at which it is found: as it is, or in one of the folders.

    Raises `ConfigError`, which names `where` and the file.
    """
    return "+".join(_found(name, folders, where) for name in split_names(data.dataset))


def _found(name: str, folders: tuple[Path, ...], where: str) -> str:
    """The id of a dataset unchanged, or the absolute path at which a file is found."""
    if not is_path(name):
        return name
    for folder in (Path(), *folders):
        path = folder / os.path.expanduser(name)
        if path.exists():
            return str(path.absolute())
    places = ", ".join(["the working directory", *map(str, folders)])
    raise ConfigError(f"{where}: the data file {name} is not in {places}; give its path, or for a card its folder by "
                      "folders=DIR")


# -- results


@settings
class SeedResult:
    """The evaluation of the last checkpoint of one training, in the unit of the card's score."""

    seed: int
    agent: str
    step: int
    """The training step of the checkpoint."""
    sampling: str
    scores: Annotated[tuple[float, ...], Len(1)]
    """The score of each episode."""
    train_seconds: float
    """CPU time of the training, on one thread unless it is an existing run."""
    versions: dict[str, str]
    decision_ms: float | None = None
    """The median time of a decision for up to 25 episodes at once; None where it was not measured."""

    @property
    def mean(self) -> float:
        """The mean over the episodes."""
        return float(np.mean(self.scores))


@settings
class DataResult:
    """The results of all seeds on one dataset."""

    sha256: str
    """The hash of the training data, by `episodes_hash`."""
    behaviour: float | None
    """The score of the data's own episodes, or None if they are not complete episodes of the environment."""
    seeds: Annotated[tuple[SeedResult, ...], Len(1)]

    def __post_init__(self) -> None:
        names = [seed.seed for seed in self.seeds]
        if len(set(names)) < len(names):
            raise ValueError(f"seeds are {names}; the results of each are expected once")

    @property
    def mean(self) -> float:
        """The mean over the runs."""
        return float(np.mean(self.means))

    def over_seeds(self, score: Score) -> Mean:
        """The mean of this score over seeds and episodes."""
        scores = [seed.scores for seed in self.seeds]
        return success_over_seeds(scores) if score == "success_rate" else over_seeds(scores)

    @property
    def by_seed(self) -> dict[int, tuple[float, ...]]:
        """The scores of the episodes of each seed."""
        return {seed.seed: seed.scores for seed in self.seeds}

    @property
    def means(self) -> list[float]:
        """The score of each run."""
        return [seed.mean for seed in self.seeds]


@settings
class CardResult:
    """A card and its results as far as they are done, by the name of the `CardData`."""

    card: Card
    data: dict[str, DataResult]


def write_result(path: Path, result: CardResult) -> Path:
    return write_json(path, to_json(result))


def read_results(folder: Path) -> dict[str, CardResult]:
    """The results in a folder by the names of their cards; cards of which nothing is done are left out. Raises
    `ConfigError` for a file that is no result."""
    results = {path.stem: from_json(CardResult, read_json(path), str(path)) for path in sorted(folder.glob("*.json"))}
    return {name: result for name, result in results.items() if result.data}
