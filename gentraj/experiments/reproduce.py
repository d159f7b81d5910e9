"""`gentraj reproduce`: trains and scores cards with every seed on every dataset. `gentraj sweep` runs cards too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np

from gentraj.envs.evaluation.evaluate import EvaluationConfig, bootstrap_interval
from gentraj.envs.evaluation.scores import normalised, score_behaviour
from gentraj.envs.evaluation.vector import tells_success
from gentraj.envs.making import EnvironmentFactory, ProtocolName, environment_factory

from ..config import ConfigError, to_json
from ..data.episodes import episodes_hash
from ..progress import say
from ..runs.evaluation import evaluate_run
from ..runs.folder import RunFolder, run_class
from ..runs.run import Run, RunConfig
from ..runs.training import learns_from_synthetic, read_datasets
from ..training.checkpoint import saved_step
from ..training.log import read_metrics
from . import engine
from .cards import (
    COMPARED,
    Card,
    CardData,
    CardResult,
    CurvePoint,
    Score,
    SeedResult,
    pooled,
    read_results,
    verdict,
    write_result,
)
from .engine import Measure, Task, digest, kept
from .jobs import Pool
from .statistics import number

PACKAGES = ("gentraj", "torch", "numpy", "gymnasium", "mujoco")


# -- the tasks


@dataclass(frozen=True)
class Cards:
    """Cards by their names, with a task for every dataset and seed of each card."""

    cards: Mapping[str, Card]
    tasks: Sequence[Task]
    behaviour: Mapping[tuple[str, str], float | None]
    """The score of the data's own episodes by (name of the card, name of the data); None where it is not defined."""

    @classmethod
    def of(cls, cards: Mapping[str, Card], folders: tuple[Path, ...],
           place: Callable[[str, CardData, int], Path]) -> Cards:
        """Makes the tasks of the cards; data files are searched for in `folders`, and `place` names a task's folder.

        The tasks are sorted by seed, so that an experiment that is stopped early has results of every card. Tasks with
        the same `place` that differ only in how they act share a training. Raises `ConfigError`, which names the card,
        before anything is trained.
        """
        tasks: list[Task] = []
        seen: dict[Any, tuple[str, float | None]] = {}
        behaviour = {}
        for name, card in cards.items():
            measure = score_of(card, name)
            for data in card.data:
                for seed in card.seeds:
                    config = card.config(data, seed, folders, name)
                    same = (type(config), learns_from_synthetic(config), config.dataset, config.env_id, config.stitch,
                            card.protocol, card.score)
                    if same not in seen:
                        seen[same] = check_data(config, card, name)
                    sha256, behaviour[name, data.name] = seen[same]
                    tasks.append(Task((name, data.name), f"{name}/{data.name}/seed-{seed}", place(name, data, seed),
                                      config, sha256, (measure,)))
        return cls(cards, sorted(tasks, key=lambda task: cards[task.cell[0]].seeds.index(task.seed)), behaviour)

    def of_cell(self, name: str, data: str) -> list[Task]:
        return [task for task in self.tasks if task.cell == (name, data)]

    def result(self, name: str) -> CardResult:
        """The results of a card, as far as they are done."""
        data = {}
        for one in self.cards[name].data:
            tasks = self.of_cell(name, one.name)
            found = [seed_result(task) for task in tasks]
            seeds = tuple(result for result in found if result is not None)
            if seeds:
                data[one.name] = pooled(tasks[0].sha256, self.behaviour[name, one.name], seeds)
        return CardResult(self.cards[name], data)


def check_data(config: RunConfig, card: Card, where: str) -> tuple[str, float | None]:
    """The hash of the data, and the score of the data's own episodes if it is defined.

    Raises `ConfigError` if the card's score is not defined for the environment or the data.
    """
    episodes, returns = read_datasets(config)
    env = config.env_id or episodes.env
    if env is None:
        raise ConfigError(f"{where}: {config.dataset} does not name its environment; give env_id")
    try:
        run_class(config).resolve(config, episodes)
        factory = environment_factory(env, protocol=card.protocol)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    if card.score not in ("return_mean", "success_rate") and normalised(0.0, factory)[card.score] is None:
        raise ConfigError(f"{where}: {card.score} is not defined for {factory.env_id} by the protocol {card.protocol}; "
                          "give return_mean")
    if card.score == "success_rate" and not tells_success(factory):
        raise ConfigError(f"{where}: {factory.env_id} has neither goals with positive rewards nor an info['success']; "
                          "give return_mean")
    behaviour, _ = score_behaviour(returns, episodes.env or env, factory)
    return episodes_hash(episodes), None if behaviour is None else behaviour.get(card.score)


def place(out: Path, name: str, data: CardData, seed: int) -> Path:
    """The folder for the runs of a card."""
    return out / name / data.name / f"seed-{seed}"


# -- the score of a run


def score_of(card: Card, name: str) -> Measure[SeedResult]:
    """The measure of a card's score, which is stored under the card's name."""
    options = {"episodes": card.episodes, "protocol": card.protocol, "score": card.score}
    return Measure(name, partial(score_run, **options), SeedResult, options)


def score_run(run: Run, episodes: int, protocol: ProtocolName, score: Score) -> SeedResult:
    """Evaluates a run. The result's `run` is left empty."""
    config = EvaluationConfig(episodes=episodes, protocol=protocol, baselines=False)
    evaluation, episodes_played = evaluate_run(run, config, progress=False)
    factory = environment_factory(str(run.data.env), protocol=protocol)
    scores = episode_scores(score, episodes_played.returns.tolist(), evaluation["successes"], factory)
    low, high = bootstrap_interval(np.array(scores))
    seconds = sum(row.get("seconds", 0.0) for row in read_metrics(run.folder))
    curve = [row for row in RunFolder(run.folder).curve() if row["step"] <= run.step]
    versions = {"python": python_version()} | {name: version(name) for name in PACKAGES}
    return SeedResult("", run.config.training.seed, evaluation["agent"], run.step, evaluation["sampling"],
                      float(np.mean(scores)), (low, high), tuple(scores), seconds, versions,
                      curve_points(curve, score, factory))


def curve_points(rows: Iterable[Mapping[str, Any]], score: Score, factory: EnvironmentFactory,
                 ) -> tuple[CurvePoint, ...]:
    """The scores in rows of scores.jsonl."""
    points = []
    for row in rows:
        scores = np.array(episode_scores(score, row["returns"], row.get("successes"), factory))
        low, high = bootstrap_interval(scores)
        points.append(CurvePoint(row["step"], float(scores.mean()), (low, high)))
    return tuple(points)


def episode_scores(score: Score, returns: Sequence[float], successes: Sequence[bool] | None,
                   factory: EnvironmentFactory) -> list[float]:
    """The score of each episode, in the order of the episodes. Raises ValueError for a success that is not defined."""
    if score == "success_rate":
        if successes is None:
            raise ValueError(f"{factory.env_id} has no success rate; give another score")
        return [*map(float, successes)]
    if score == "return_mean":
        return [*returns]
    return [value for mean in returns if (value := normalised(mean, factory)[score]) is not None]


def seed_result(task: Task) -> SeedResult | None:
    """The result of a task; None until it is done."""
    [measure] = task.measures
    result: SeedResult | None = task.result(measure)
    return None if result is None else replace(result, run=digest(task.key(measure)))


# -- the experiment


def reproduce(cards: Cards, out: Path, pool: Pool, device: str | None) -> tuple[dict[str, str], dict[str, CardResult]]:
    """Says how long it takes, runs what is not done yet in the pool, and writes CARD.json into `out` after each run.

    Returns why runs failed, by their names, and the results of all cards.
    """
    recall(cards, out)
    for line in durations(cards, pool.number):
        say(line)

    def outcome(tasks: Sequence[Task]) -> str:
        [task] = tasks
        name, _ = task.cell
        write_result(out / f"{name}.json", cards.result(name))
        result = seed_result(task)
        return f"{cards.cards[name].score} {number(result.mean if result else None)}"

    failures = engine.run(cards.tasks, pool, device, outcome)
    results = {name: cards.result(name) for name in cards.cards}
    for name, result in results.items():
        if result.data:  # else the file keeps the results that it holds
            write_result(out / f"{name}.json", result)
    return failures, results


def recall(cards: Cards, results: Path) -> None:
    """Restores the results of tasks whose folders are gone from the results of the cards."""
    stored = {seed.run: seed for result in read_results(results, cards.cards).values()
             for data in result.data.values() for seed in data.seeds}
    for task in cards.tasks:
        [measure] = task.measures
        key = task.key(measure)
        seed = stored.get(digest(key))
        if seed is not None and not task.is_done:
            kept(task.path(measure), key, lambda seed=seed: to_json(seed))


def verdicts(name: str, result: CardResult) -> Iterator[tuple[str, bool]]:
    """Yields a line for each dataset, and whether its result is complete and not outside its tolerance."""
    card = result.card
    for data in card.data:
        data_result = result.data.get(data.name)
        judgement = verdict(card, data, data_result)
        line = f"{name} on {data.name}: "
        if data_result is not None:
            line += f"{card.score} {number(data_result.mean)}, 95 % interval {number(data_result.interval)}; "
        line += judgement
        if judgement in COMPARED:
            line += f" {number(data.expected)} ± {number(data.tolerance)}"
        yield line, judgement in ("inside", "no expectation yet")


# -- how long it takes


def durations(cards: Cards, jobs: int) -> Iterator[str]:
    """Yields a line for each card on how long its trainings take, and one for all with so many at a time.

    A training takes the card's `minutes`, and one that was interrupted goes on from its newest checkpoint. Evaluations
    are not counted.
    """
    all_left, longest = 0.0, 0.0
    for name, card in cards.cards.items():
        tasks = [task for task in cards.tasks if task.cell[0] == name]
        done = f"{name}: {sum(task.is_done for task in tasks)} of {len(tasks)} trainings are done; "
        if card.minutes is None:
            yield f"{done}the card does not say how many minutes one takes"
            continue
        seconds = 60 * card.minutes
        left = [seconds * _share_left(task) for task in tasks]
        all_left += sum(left)
        longest = max(longest, *left)
        yield (f"{done}one takes about {_hours(seconds)} on one thread, all {_hours(seconds * len(tasks))}, of which "
               f"{_hours(sum(left))} are left")
    if all_left:
        wait = max(all_left / jobs, longest)  # no training is divided among jobs
        yield f"about {_hours(wait)} with {jobs} at a time, and the evaluations besides"


def _share_left(task: Task) -> float:
    return 0.0 if task.is_done else max(0.0, 1 - saved_step(task.run) / task.config.training.steps)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 360 else f"{seconds / 60:.1f} min"
