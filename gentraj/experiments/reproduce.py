"""`gentraj reproduce`: trains and scores cards with every seed on every dataset. `gentraj sweep` runs cards too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gentraj.envs.evaluation.scores import normalised, score_behaviour
from gentraj.envs.evaluation.vector import tells_success
from gentraj.envs.making import environment_factory

from ..config import ConfigError
from ..data.episodes import episodes_hash
from ..progress import say
from ..runs.kinds.datasets import read_datasets
from ..runs.kinds.folder import run_class
from ..runs.kinds.run import RunConfig
from . import engine
from .cards import (
    Card,
    CardData,
    CardResult,
    DataResult,
    SeedResult,
    run_settings,
    write_result,
)
from .engine import RunTask
from .pools import Pool
from .statistics import number

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
            scoring: dict[str, Any] = {"episodes": card.episodes, "protocol": card.protocol, "score": card.score}
            if card.episode_seed:  # scores that were stored without it stay
                scoring["seed"] = card.episode_seed
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
                                         scoring))
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


# -- the experiment


def seed_results(tasks: Iterable[RunTask]) -> tuple[SeedResult, ...]:
    """The scores of the tasks that are done."""
    return tuple(result for task in tasks if (result := task.result) is not None)


def reproduce(cards: Cards, out: Path, pool: Pool, device: str | None) -> tuple[dict[str, str], dict[str, CardResult]]:
    """Says how long it takes, runs what is not done yet in the pool, and writes CARD.json into `out` after each run.

    Returns why runs failed, by their names, and the results of all cards.
    """
    left = [task for task in cards.tasks if task.result is None]
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
            estimate = found.over_seeds(card.score).estimate
            line += f"{card.score} {number(estimate.mean)}, 95 % interval {number(estimate.interval)}; "
        if found is None or len(found.seeds) < len(card.seeds):
            yield f"{line}unfinished: {len(found.seeds) if found else 0} of {len(card.seeds)} seeds", False
        elif data.expected is None or data.tolerance is None:
            yield f"{line}no expectation yet", True
        else:
            inside = abs(found.mean - data.expected) <= data.tolerance
            judgement = "inside" if inside else "outside"
            yield f"{line}{judgement} {number(data.expected)} ± {number(data.tolerance)}", inside
