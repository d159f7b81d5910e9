"""Cards: what is trained, on which data, and what it should score, in small files that `gentraj reproduce` runs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from envs.making import ProtocolName

from ..config import ConfigError, from_json, read_json, require, require_choice, with_settings
from ..data.sources import FILES
from ..runs.kinds import AnyRunConfig
from ..runs.presets import PRESETS

Score = Literal["score_d4rl", "score_minari", "return_mean", "success_rate"]

NAME = re.compile(r"\w[\w.+-]*", re.ASCII)
UNKNOWN = dict.fromkeys(("env_id", "expected", "tolerance"))
OWN = ("dataset", "env_id", "training.seed", "training.threads")  # said by other fields, or by the command


@dataclass(frozen=True)
class CardData:
    """A dataset of a card, and what is expected on it."""

    name: str
    """Names a column of the table, such as hopper-medium."""
    dataset: str
    """As `PlannerRunConfig.dataset`; files are looked for in the folders of --data as well."""
    env_id: str | None
    """As `PlannerRunConfig.env_id`."""
    expected: float | None
    """The mean score over seeds; null, or left out, while nobody knows."""
    tolerance: float | None
    """How far from it the score may be."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name is '{self.name}'; letters, digits and . + - _ are expected, as in hopper-medium")
        if (self.expected is None) != (self.tolerance is None):
            raise ValueError(f"expected is {self.expected} and tolerance {self.tolerance}; give both, or null for both")


@dataclass(frozen=True)
class Card:
    """One way to train and act, on one or several datasets."""

    about: str
    """A sentence."""
    table: str
    """The table of docs/results.md that it belongs to; all cards of it have one score, protocol and episodes."""
    label: str
    """Its row there."""
    preset: str
    settings: dict[str, Any]
    """What differs from the preset, by dotted key: {"policy.alpha": 3.0}."""
    data: tuple[CardData, ...]
    seeds: tuple[int, ...]
    """Of the trainings. All of them are evaluated on the same episodes."""
    episodes: int
    protocol: ProtocolName
    score: Score
    """Which of the numbers of evaluation.json."""

    def __post_init__(self) -> None:
        require(self, episodes=(1, float("inf")))
        require_choice(self, preset=PRESETS)
        for key, names in (("data", [data.name for data in self.data]), ("seeds", list(self.seeds))):
            if not names or len(set(names)) < len(names):
                raise ValueError(f"{key} are {names}; at least one is expected, and each once")
        if said := [key for key in OWN if key in self.settings]:
            raise ValueError(f"settings hold {', '.join(said)}; datasets and seeds have fields of their own")

    def config(self, data: CardData, seed: int, folders: tuple[Path, ...] = (), where: str = "card") -> AnyRunConfig:
        """The settings of a run, of one thread. Raises `ConfigError` naming `where` and the key or the file."""
        config = with_settings(PRESETS[self.preset], self.settings, where)
        dataset = "+".join(_found(name, folders, where) for name in data.dataset.split("+"))
        return replace(config, dataset=dataset, env_id=data.env_id,
                       training=replace(config.training, seed=seed, threads=1))


def read_card(path: Path) -> Card:
    """Raises `ConfigError` naming the file and the key, for one that the preset has not or that has no say too."""
    read = read_json(path)
    if isinstance(of := read.get("data"), list):  # what is null may be left out
        read["data"] = [UNKNOWN | one if isinstance(one, dict) else one for one in of]
    card = from_json(Card, read, str(path))
    config = with_settings(PRESETS[card.preset], card.settings, str(path))
    try:
        for key in card.settings:
            config.refuse(key)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    return card


def _found(name: str, folders: tuple[Path, ...], where: str) -> str:
    """A dataset's id as it is, a file's path where it lies."""
    if Path(name).suffix not in FILES:
        return name
    for path in (Path(name), *(folder / name for folder in folders)):
        if path.is_file():
            return str(path)
    looked = " nor in ".join(["in the working directory", *map(str, folders)])
    raise ConfigError(f"{where}: the data file {name} is {'neither' if folders else 'not'} {looked}; give its path, or "
                      "to gentraj reproduce its folder by --data DIR")
