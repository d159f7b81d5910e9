"""The runs of cards: what decides each of them, where it lies, and the work of its process."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np

from envs.evaluation.evaluate import EvaluationConfig, bootstrap_interval
from envs.evaluation.scores import normalised, score_behaviour
from envs.evaluation.vector import tells_success
from envs.making import EnvironmentFactory, environment_factory

from ..config import ConfigError, from_json, to_json
from ..data.episodes import episodes_hash
from ..device import pick_device
from ..runs import folder as runs
from ..runs.evaluation import play
from ..runs.model_card import dataset_names
from ..training.log import read_metrics
from .cards import Card, CardData, Score, deciding
from .entries import is_kept, kept, read_result
from .processes import trained
from .results import SeedResult, read_result_file

PACKAGES = ("gentraj", "torch", "numpy", "gymnasium", "mujoco")


@dataclass(frozen=True)
class Source:
    """What there is to say of the data of a run before it is trained."""

    sha256: str
    behaviour: float | None


@dataclass(frozen=True)
class Task:
    """A run of a card, on one dataset with one seed."""

    card_name: str
    card: Card
    data: CardData
    source: Source
    config: runs.AnyRunConfig
    out: Path

    @property
    def seed(self) -> int:
        return self.config.training.seed

    @property
    def name(self) -> str:
        return f"{self.card_name}/{self.data.name}/seed-{self.seed}"

    @cached_property
    def folder(self) -> Path:
        """Named by what the training depends on too: another card of that name, and it is another run."""
        decides = {"run": deciding(self.config), "sha256": self.source.sha256}
        return self.out / f"{self.name}-{_digest(decides)[:8]}"

    @cached_property
    def key(self) -> dict[str, Any]:
        """What the result depends on."""
        config = to_json(self.config) | {"dataset": "+".join(dataset_names(self.config.dataset))}
        return {"run": config, "sha256": self.source.sha256, "episodes": self.card.episodes,
                "protocol": self.card.protocol, "score": self.card.score}

    @property
    def path(self) -> Path:
        return self.folder / "result.json"

    @property
    def is_done(self) -> bool:
        return is_kept(self.path, self.key)

    @property
    def result(self) -> SeedResult | None:
        """None until it is done."""
        return from_json(SeedResult, read_result(self.path), str(self.path)) if self.is_done else None


def recall(every: Iterable[Task], results: Path) -> None:
    """Puts what the results say of runs back where these would leave it, if their folders are gone."""
    found = {}
    for task in every:
        path = results / f"{task.card_name}.json"
        if path.is_file() and path not in found:
            found[path] = {seed.run: seed for data in read_result_file(path).data.values() for seed in data.seeds}
        if not task.is_done and (seed := found.get(path, {}).get(_digest(task.key))):
            kept(task.path, task.key, lambda seed=seed: to_json(seed))


def tasks(cards: Mapping[str, Card], folders: tuple[Path, ...], out: Path) -> list[Task]:
    """Every card with every dataset and seed. Raises `ConfigError` naming the card, before anything is trained.

    Seeds are outermost: what is stopped early has every card.
    """
    made, known = [], {}
    for name, card in cards.items():
        for data in card.data:
            for i, seed in enumerate(card.seeds):
                config = card.config(data, seed, folders, name)
                same = (config.MAIN, config.dataset, config.env_id, config.stitch, card.protocol, card.score)
                if same not in known:
                    known[same] = look_at(config, card, name)
                made.append((i, Task(name, card, data, known[same], config, out)))
    return [task for _, task in sorted(made, key=lambda pair: pair[0])]


def look_at(config: runs.AnyRunConfig, card: Card, where: str) -> Source:
    """Reads the data. Raises `ConfigError` for an environment or data without the card's score."""
    episodes, returns = runs.read_data(config)
    env = config.env_id or episodes.env
    if env is None:
        raise ConfigError(f"{where}: {config.dataset} does not say which environment it is of; give env_id")
    factory = environment_factory(env, protocol=card.protocol)
    if card.score not in ("return_mean", "success_rate") and normalised(0.0, factory)[card.score] is None:
        raise ConfigError(f"{where}: {card.score} is not defined for {factory.env_id} by the protocol {card.protocol}; "
                          "give return_mean")
    if card.score == "success_rate" and not tells_success(factory):
        raise ConfigError(f"{where}: {factory.env_id} has neither goals nor an info['success']; give return_mean")
    behaviour, _ = score_behaviour(returns, episodes.env or env, factory)
    return Source(episodes_hash(episodes), None if behaviour is None else behaviour.get(card.score))


def work(task: Task, device: str | None) -> None:
    """As much of a task as is not done yet; what it says goes to log.txt in its folder."""
    with _logged(task.folder / "log.txt"):
        kept(task.path, task.key, lambda: to_json(_measured(task, device)))


def _measured(task: Task, device: str | None) -> SeedResult:
    run = trained(task.config, task.folder / "run", pick_device(device))
    config = EvaluationConfig(episodes=task.card.episodes, protocol=task.card.protocol, baselines=False)
    found, played = play(run, config, progress=False)
    factory = environment_factory(str(run.data.env), protocol=task.card.protocol)
    scores = episode_scores(task.card.score, played.returns, found["success_rate"], factory)
    low, high = bootstrap_interval(np.array(scores))
    seconds = sum(row["seconds"] for row in read_metrics(run.folder))
    versions = {"python": python_version()} | {name: version(name) for name in PACKAGES}
    return SeedResult(_digest(task.key), task.seed, found["agent"], run.step, found["sampling"],
                      float(np.mean(scores)), (low, high), tuple(scores), seconds, versions)


def episode_scores(score: Score, returns: np.ndarray, success_rate: float | None,
                   factory: EnvironmentFactory) -> list[float]:
    """Of each episode; of successes only how many there are is known, and 1 and 0 stand in any order.

    Raises ValueError for a success rate where there are no goals.
    """
    if score == "success_rate":
        if success_rate is None:
            raise ValueError(f"{factory.env_id} has no success rate; give another score")
        hits = round(success_rate * len(returns))
        return [1.0] * hits + [0.0] * (len(returns) - hits)
    if score == "return_mean":
        return returns.tolist()
    return [value for mean in returns.tolist() if (value := normalised(mean, factory)[score]) is not None]


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        try:
            yield
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            raise
