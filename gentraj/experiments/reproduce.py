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

from gentraj.envs.evaluation.scores import normalised, score_behaviour
from gentraj.envs.evaluation.scoring import EvaluationConfig
from gentraj.envs.evaluation.vector import tells_success
from gentraj.envs.making import EnvironmentFactory, ProtocolName, environment_factory

from ..config import ConfigError
from ..data.episodes import episodes_hash
from ..progress import say
from ..runs.judge.evaluation import Acting, evaluate_run
from ..runs.kinds.folder import RunFolder, run_class
from ..runs.kinds.planner_run import PlannerRun
from ..runs.kinds.run import Run, RunConfig
from ..runs.learn.training import read_datasets
from ..training.log import read_metrics
from ..trajectory import SamplingOptions
from . import engine
from .cards import (
    Card,
    CardData,
    CardResult,
    CurvePoint,
    DataResult,
    Score,
    SeedResult,
    run_settings,
    write_result,
)
from .engine import Measurement, RunTask
from .pools import Pool
from .statistics import number

PACKAGES = ("gentraj", "torch", "numpy", "gymnasium", "mujoco")


# -- the tasks


@dataclass(frozen=True)
class Cards:
    """Cards by their names, with a task for every dataset and seed of each card."""

    cards: Mapping[str, Card]
    tasks: Sequence[RunTask]
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
        tasks: list[RunTask] = []
        seen: dict[object, tuple[str, float | None]] = {}
        behaviour = {}
        for name, card in cards.items():
            measure = score_of(name, card.episodes, card.protocol, card.score)
            for data in card.data:
                for seed in card.seeds:
                    config = run_settings(card, data, seed, folders, name)
                    same = (type(config), config.learns_from_synthetic, config.dataset, config.env_id, config.stitch,
                            card.protocol, card.score)
                    if same not in seen:
                        seen[same] = check_data(config, card, name)
                    sha256, behaviour[name, data.name] = seen[same]
                    folder = place(card.runs or name, data, seed)
                    tasks.append(RunTask((name, data.name), f"{name}/{data.name}/seed-{seed}", folder, config, sha256,
                                      (measure,)))
        return cls(cards, sorted(tasks, key=lambda task: cards[task.cell[0]].seeds.index(task.seed)), behaviour)

    def of_cell(self, name: str, data: str) -> list[RunTask]:
        return [task for task in self.tasks if task.cell == (name, data)]

    def result(self, name: str) -> CardResult:
        """The results of a card, as far as they are done."""
        data = {}
        for one in self.cards[name].data:
            tasks = self.of_cell(name, one.name)
            if seeds := seed_results(tasks):
                data[one.name] = DataResult(tasks[0].sha256, self.behaviour[name, one.name], seeds)
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


def score_of(name: str, episodes: int, protocol: ProtocolName, score: Score,
             **more: int | None) -> Measurement[SeedResult]:
    """The measure of a run's score, which is stored under this name. `more` are the sampling steps, and the training
    step of an existing run."""
    options = {"episodes": episodes, "protocol": protocol, "score": score}
    make = partial(score_run, **options, steps=more.get("steps"))
    return Measurement(name, make, SeedResult, options | more)


def score_run(run: Run, episodes: int, protocol: ProtocolName, score: Score, steps: int | None = None) -> SeedResult:
    """Evaluates a run, by default with its own number of sampling steps."""
    config = EvaluationConfig(episodes=episodes, protocol=protocol, baselines=False)
    evaluation, played = evaluate_run(run, config, acting_with(run, steps), progress=False)
    factory = environment_factory(str(run.data.env), protocol=protocol)
    scores = episode_scores(score, played.returns.tolist(), evaluation["successes"], factory)
    seconds = sum(row["cpu_seconds"] for row in read_metrics(run.folder))
    curve = [row for row in RunFolder(run.folder).curve() if row["step"] <= run.step]
    versions = {"python": python_version()} | {name: version(name) for name in PACKAGES}
    return SeedResult(run.config.training.seed, evaluation["agent"], run.step, evaluation["sampling"],
                      tuple(scores), seconds, versions, curve_points(curve, score, factory),
                      evaluation["latency_ms_p50"])


def acting_with(run: Run, steps: int | None) -> Acting:
    """How the agent of a run acts with this number of sampling steps, which is among the settings of a planner."""
    if isinstance(run, PlannerRun) and steps is not None:
        return Acting(replace(run.planning, steps=steps))
    return Acting(options=SamplingOptions(steps=steps))


def curve_points(rows: Iterable[Mapping[str, Any]], score: Score, factory: EnvironmentFactory,
                 ) -> tuple[CurvePoint, ...]:
    """The scores in rows of scores.jsonl."""
    return tuple(CurvePoint(row["step"], float(np.mean(
        episode_scores(score, row["returns"], row.get("successes"), factory)))) for row in rows)


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


def seed_result(task: RunTask) -> SeedResult | None:
    """The score of a task, its first measure; None until it is done."""
    measure: Measurement[SeedResult] = task.measures[0]
    return task.result(measure)


def seed_results(tasks: Iterable[RunTask]) -> tuple[SeedResult, ...]:
    """The scores of the tasks that are done."""
    return tuple(result for task in tasks if (result := seed_result(task)) is not None)


# -- the experiment


def reproduce(cards: Cards, out: Path, pool: Pool, device: str | None) -> tuple[dict[str, str], dict[str, CardResult]]:
    """Says how long it takes, runs what is not done yet in the pool, and writes CARD.json into `out` after each run.

    Returns why runs failed, by their names, and the results of all cards.
    """
    left = [task for task in cards.tasks if not task.is_done]
    minutes = sum(cards.cards[task.cell[0]].minutes or 0.0 for task in left)
    if minutes:
        at_a_time = min(pool.number, len(left))
        say(f"{len(left)} of {len(cards.tasks)} trainings are left, about {minutes / 60 / at_a_time:.1f} h with "
            f"{at_a_time} at a time")

    def outcome(tasks: Sequence[RunTask]) -> str:
        for task in tasks:
            write_result(out / f"{task.cell[0]}.json", cards.result(task.cell[0]))
        means = [number(result.mean) for result in seed_results(tasks)]
        return f"{cards.cards[tasks[0].cell[0]].score} {', '.join(means)}"

    failures = engine.run(cards.tasks, pool, device, outcome)
    results = {name: cards.result(name) for name in cards.cards}
    for name, result in results.items():
        if result.data:  # else the file keeps the results that it holds
            write_result(out / f"{name}.json", result)
    return failures, results


def verdicts(name: str, result: CardResult) -> Iterator[tuple[str, bool]]:
    """Yields a line for each dataset, and whether its result is complete and not outside its tolerance."""
    card = result.card
    for data in card.data:
        found = result.data.get(data.name)
        line = f"{name} on {data.name}: "
        if found is not None:
            line += f"{card.score} {number(found.mean)}, 95 % interval {number(found.estimate.interval)}; "
        if found is None or len(found.seeds) < len(card.seeds):
            yield f"{line}unfinished: {len(found.seeds) if found else 0} of {len(card.seeds)} seeds", False
        elif data.expected is None or data.tolerance is None:
            yield f"{line}no expectation yet", True
        else:
            inside = abs(found.mean - data.expected) <= data.tolerance
            judgement = "inside" if inside else "outside"
            yield f"{line}{judgement} {number(data.expected)} ± {number(data.tolerance)}", inside
