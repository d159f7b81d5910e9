"""How long the trainings of cards take, which `gentraj reproduce` says before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ..runs.report import duration
from ..training.checkpoint import saved_step
from .cards import Card
from .engine import Task
from .results import CardResult


class Cards(Protocol):
    """Cards by their names, with a task for every dataset and seed of each card."""

    @property
    def cards(self) -> Mapping[str, Card]: ...

    def of_cell(self, name: str, data: str) -> Sequence[Task]: ...


class Duration(NamedTuple):
    """The trainings of a card, each on one thread; evaluations are not counted."""

    name: str
    trainings: int
    done: int
    seconds: float | None
    """Of all trainings; None if none of the card's was ever timed."""
    left: float | None
    """Of what is left of them; a training that was interrupted goes on from its newest checkpoint."""


def durations(cards: Cards, results: Mapping[str, CardResult]) -> list[Duration]:
    """How long the trainings of each card take.

    A training is expected to take the time for an update that the card's trainings in `results` took on the same data,
    or else on all data; without such, it takes the card's `minutes`.
    """
    found = []
    for name, card in cards.cards.items():
        tasks = [task for data in card.data for task in cards.of_cell(name, data.name)]
        seconds = [_seconds(task, card, results.get(name)) for task in tasks]
        known = [one for one in seconds if one is not None]
        left = [one * _share_left(task) for one, task in zip(seconds, tasks, strict=True) if one is not None]
        whole = len(known) == len(tasks)
        found.append(Duration(name, len(tasks), sum(task.is_done for task in tasks), sum(known) if whole else None,
                              sum(left) if whole else None))
    return found


def described(found: Sequence[Duration], jobs: int) -> Iterator[str]:
    """Yields a line for each card, and one for all of them with so many trainings at a time."""
    for name, trainings, done, seconds, left in found:
        if seconds is None or left is None:
            yield f"{name}: {done} of {trainings} trainings are done; how long one takes is not recorded"
        else:
            yield (f"{name}: {done} of {trainings} trainings are done; one takes about {duration(seconds / trainings)} "
                   f"on one thread, all {_hours(seconds)}, of which {_hours(left)} are left")
    known = [(seconds, left, left / max(1, trainings - done)) for _, trainings, done, seconds, left in found
             if seconds is not None and left is not None]
    if known:
        (seconds, left, _), (*_, longest) = np.sum(known, 0), np.max(known, 0)
        wait = max(left / jobs, longest)  # no training is divided among jobs
        yield (f"all cards whose time is recorded take {_hours(seconds)}, of which {_hours(left)} are left: about "
               f"{_hours(wait)} with {jobs} at a time, and the evaluations besides")


def _seconds(task: Task, card: Card, result: CardResult | None) -> float | None:
    """The expected duration of a whole training."""
    recorded = {name: [seed.train_seconds / seed.step for seed in data.seeds
                       if seed.step > 0 and seed.train_seconds > 0]  # 0 where the log of the training is missing
                for name, data in result.data.items()} if result else {}
    per_update = recorded.get(task.cell[1]) or [one for several in recorded.values() for one in several]
    if per_update:
        return task.config.training.steps * float(np.mean(per_update))
    return None if card.minutes is None else 60 * card.minutes


def _share_left(task: Task) -> float:
    return 0.0 if task.is_done else max(0.0, 1 - saved_step(task.run) / task.config.training.steps)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 360 else f"{seconds / 60:.1f} min"
