"""Repeats rows of docs/peers.md, and says whether their scores are within the tolerances of those that are published.

    python -m benchmarks.peers.reproduce benchmarks/results/peers/corl-iql-updates.json --data DIR --checkouts DIR

A row is a file of results. It is trained and scored as it was, on every dataset and with every seed of it. A row whose
checkout or packages are missing is skipped, as is a dataset that is not there, with a line that says what to get. The
same command continues where it was interrupted. The exit code is 1 if a score is outside its tolerance or a training
failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Annotated

import tyro
from annotated_types import Len
from pydantic import NonNegativeInt, PositiveInt

from gentraj.config import ConfigError, from_json, read_json, settings
from gentraj.data import DataError
from gentraj.experiments.cards import CardData, CardResult, DataResult, Score, dataset_of
from gentraj.experiments.page import SHOWN
from gentraj.experiments.pools import Job, LocalProcesses, run_jobs
from gentraj.experiments.reproduce import verdicts
from gentraj.progress import say

from .peer import method
from .results import Results, command
from .training import Setting

APART = 3.0  # times the standard deviation of a score: that of the difference of two such scores is 1.4 times as large
LEAST = 0.05  # of the scale of a score, or of a return itself


@settings
class Args:
    rows: Annotated[tuple[Path, ...], Len(1), tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Files of results, such as benchmarks/results/peers/fql-updates.json."""
    data: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """A folder that is searched for data files; may be given several times."""
    checkouts: Path = Path("..")
    """The folder of the checkouts, each of which has the name of its repository."""
    seeds: tuple[NonNegativeInt, ...] = ()
    """Seeds of the trainings; by default those of the rows."""
    jobs: PositiveInt = 1
    """Number of trainings at a time."""
    out: Path = Path("runs/peers-again")
    """Folder of the new results."""


def tolerance(found: DataResult, score: Score) -> float:
    """How far from a score that of another training may be."""
    _, most = SHOWN.get(score, (0.0, abs(found.mean)))
    deviation = found.over_seeds(score).deviation
    return max(APART * deviation if isfinite(deviation) else 0.0, LEAST * most)


class Again:
    """A row on one dataset, repeated.

    Raises `ConfigError` where the dataset is not there, or is another one, and `DataError` where it cannot be read.
    """

    def __init__(self, name: str, row: CardResult, data: CardData, args: Args):
        card, before = row.card, row.data[data.name]
        seeds = args.seeds or tuple(seed.seed for seed in before.seeds)
        same = [seed for seed in before.seeds if seed.seed in seeds]
        before = replace(before, seeds=tuple(same or before.seeds))
        expected = replace(data, expected=before.mean, tolerance=tolerance(before, card.score))
        where = f"{name} on {data.name}"
        setting = Setting(dataset_of(data, args.data, where), data.env_id, episodes=card.episodes,
                          checkouts=args.checkouts, **{"updates": None} | card.settings)
        self.name, self.card = name, replace(card, data=(expected,), seeds=seeds)
        self.results = results_of(setting, seeds, args.out)
        if self.results.sha256 != before.sha256:
            raise ConfigError(f"{where}: {setting.data} is other data than those of the row")

    def jobs(self) -> list[Job]:
        return self.results.jobs([self.card.preset], self.results.write)

    def verdicts(self) -> Iterator[tuple[str, bool]]:
        """Yields a line on the new score, and whether it is near the published one."""
        [budget], found = self.results.setting.budgets, self.results
        seeds = [seed for seed in found.scores(found.merged(budget, self.card.preset)).values()
                 if seed.seed in self.card.seeds]
        data = {found.column: DataResult(found.sha256, found.behaviour, tuple(seeds))} if seeds else {}
        return verdicts(self.name, CardResult(self.card, data))


@cache
def results_of(setting: Setting, seeds: tuple[int, ...], out: Path) -> Results:
    """The results of a setting, whose data are read once for all rows."""
    return Results(setting, seeds, out)


def repeatable(args: Args) -> Iterator[Again]:
    """Yields what can be repeated here, and says of the rest why it is skipped."""
    for path in args.rows:
        row = from_json(CardResult, read_json(path), str(path))
        chosen = method(row.card.preset)
        try:
            chosen.check_code(args.checkouts)
        except ConfigError as error:
            say(f"skipped: {path.stem}: {error}")
            continue
        for data in row.card.data:
            if data.name in row.data:
                try:
                    yield Again(path.stem, row, data, args)
                except (ConfigError, DataError) as error:
                    say(f"skipped: {error}")


def main(args: Args) -> bool:
    """Returns whether no score is outside its tolerance."""
    if own := [path for path in args.rows if path.absolute().parent == args.out.absolute()]:
        raise ValueError(f"{own[0]} is where new results would be written; give another folder by --out")
    rows = [*repeatable(args)]
    jobs = [job for row in rows for job in row.jobs()]
    run_jobs(jobs, LocalProcesses(args.jobs))
    lines = [pair for row in rows for pair in row.verdicts()]
    print("\n".join(line for line, _ in lines))
    return all(inside for _, inside in lines)


if __name__ == "__main__":
    command(main, Args, __doc__)
