"""Trains the authors' own code beside ours on the same data, and scores both in the same episodes.

    python -m venv peers-venv && peers-venv/bin/pip install . jax flax optax distrax ml_collections
    git clone https://github.com/seohongpark/fql ../fql
    peers-venv/bin/python -m benchmarks.peers --data hopper-medium.hdf5 --env-id Hopper-v5 --minutes 10 \\
        --methods fql gentraj:fql --seeds 0 1

Every training has a process and a core of its own. The checkouts are the authors' code as it is, with its own settings;
the presets of gentraj have theirs. The same command continues where it was interrupted.

OUT holds the results in the layout of `gentraj reproduce`, a file for each method and budget, and PAGE is a page of all
that are there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tyro
from pydantic import NonNegativeInt, PositiveInt

from gentraj.config import ConfigError, differences, from_json, read_json, settings, to_json
from gentraj.data import DataError, episodes_hash
from gentraj.data.sources import is_path, split_names
from gentraj.envs.evaluation.scores import DataReturns, score_behaviour
from gentraj.experiments.cards import Card, CardData, CardResult, DataResult, SeedResult, read_results, write_result
from gentraj.experiments.jobs import Job, LocalProcesses, run_jobs
from gentraj.experiments.page import ScoreTable, bracketed, score_tables, table_parts, write_parts
from gentraj.experiments.statistics import number
from gentraj.plots.page import markdown_table
from gentraj.progress import say
from gentraj.training.loop import Interrupted

from .peer import METHODS, method
from .training import Contest, Setting, train

PUBLISHED = Path("benchmarks/results")  # whose names of datasets are taken
UNITS = {"updates": "updates", "minutes": "core-minutes"}
HEAD = """# The authors' own code on the same file

This page was written by

    python -m benchmarks.peers --data FILE --methods NAME... --out FOLDER --page {page}

A row "of gentraj" is a preset of ours; the others are the authors' code, unmodified, with its own settings. All have
learned from the same files on one core, and are scored in the same episodes after the last update. Numbers after ± and
brackets are 95 % bootstrap intervals over seeds and episodes."""


@settings
class Args:
    setting: tyro.conf.OmitArgPrefixes[Setting]
    methods: tuple[str, ...]
    """Methods by their names, such as fql, and presets of gentraj as gentraj:PRESET; a wrong name lists them all."""
    seeds: tuple[NonNegativeInt, ...] = (0,)
    """Seeds of the trainings."""
    jobs: PositiveInt = 1
    """Number of trainings at a time."""
    out: Path = Path("runs/peers")
    """Folder of the results."""
    page: Path | None = None
    """The page of the results; by default peers.md in their folder."""


class Results:
    """The results of a setting in the folder `out`, by method and budget."""

    def __init__(self, args: Args):
        self.args, self.contest = args, Contest(args.setting)
        data = self.contest.data
        self.sha256 = episodes_hash(data)
        named = {found.sha256: name for result in read_results(PUBLISHED).values()
                 for name, found in result.data.items()}
        self.column = named.get(self.sha256, "+".join(Path(name).stem for name in split_names(args.setting.data)))
        known, _ = score_behaviour([DataReturns.of(data)], self.contest.env, self.contest.factory)
        self.behaviour: float | None = (known or {}).get(self.contest.score)

    def file(self, budget: str, name: str) -> Path:
        """The file of a method's results."""
        return self.args.out / f"{name.replace(':', '-')}-{budget}.json"

    def place(self, budget: str, name: str, seed: int) -> Path:
        """The file of a training's score."""
        path = self.file(budget, name)
        return path.parent / "seeds" / f"{path.stem}-{self.column}-{seed}.json"  # until it is merged

    def left(self, name: str, seed: int) -> dict[str, Path]:
        """The places of the scores that are not there yet, by budget."""
        return {budget: self.place(budget, name, seed) for budget in self.args.setting.budgets
                if seed not in self.scores(self.merged(budget, name))}

    def scores(self, result: CardResult) -> dict[int, SeedResult]:
        """The scores on this data by seed."""
        if self.column not in result.data:
            return {}
        return {one.seed: one for one in result.data[self.column].seeds}

    def card(self, budget: str, name: str) -> Card:
        value, setting, chosen = self.args.setting.budgets[budget], self.args.setting, method(name)
        files = "+".join(Path(file).name if is_path(file) else file for file in split_names(setting.data))
        return Card(f"{chosen.label}, with its own settings.", f"After {value:,g} {UNITS[budget]}", chosen.label,
                    name, {budget: value, "like": setting.like}, (CardData(self.column, files, setting.env_id),),
                    self.args.seeds, setting.episodes, self.contest.protocol, self.contest.score)

    def merged(self, budget: str, name: str) -> CardResult:
        """What the file of a method holds, with the scores of this data.

        Raises `ConfigError` where it holds results of another setting, or of other data with this name.
        """
        path, card = self.file(budget, name), self.card(budget, name)
        held = CardResult(card, {})
        if path.exists():
            held = from_json(CardResult, read_json(path), str(path))
        data = {one.name: one for one in (*held.card.data, *card.data)}
        card = replace(card, data=tuple(data.values()), seeds=tuple(sorted({*held.card.seeds, *card.seeds})))
        same = replace(held.card, data=card.data, seeds=card.seeds)
        changed = [f"{key} {was}, not {now}" for key, was, now in differences(to_json(same), to_json(card))]
        before = held.data.get(self.column)
        if changed or (before is not None and before.sha256 != self.sha256):
            raise ConfigError(f"{path}: holds results with {'; '.join(changed) or 'other data'}; give another --out")
        scores = self.scores(held)
        for seed in card.seeds:
            place = self.place(budget, name, seed)
            if place.exists():
                scores[seed] = from_json(SeedResult, read_json(place), str(place))
        if not scores:
            return replace(held, card=card)
        seeds = tuple(scores[seed] for seed in sorted(scores))
        return CardResult(card, held.data | {self.column: DataResult(self.sha256, self.behaviour, seeds)})

    def write(self, name: str) -> str:
        """Writes the results of a method and the page; returns what the results are in a line."""
        said = list[str]()
        for budget in self.args.setting.budgets:
            result = self.merged(budget, name)
            write_result(self.file(budget, name), result)
            for seed, one in self.scores(result).items():
                self.place(budget, name, seed).unlink(missing_ok=True)
                said.append(f"seed {seed}: {self.contest.score} {number(one.mean)} after {one.step:,} updates")
        path = self.args.page or self.args.out / "peers.md"
        write_parts(path, page(read_results(self.args.out), path))
        return "; ".join(said)


def page(results: Mapping[str, CardResult], path: Path) -> Iterator[str]:
    """Yields the parts of a page: its tables, and how far ours is above the authors' code."""
    yield HEAD.format(page=path.as_posix())
    for table in score_tables(results):
        yield from table_parts(table, path, costs(table))
        if rows := [*pairs(table)]:
            yield markdown_table(("ours", "theirs", "ours above"), rows)


def costs(table: ScoreTable) -> dict[str, dict[str, str]]:
    """What an update and a decision cost, by label: the medians over the trainings."""
    update, decision = dict[str, str](), dict[str, str]()
    for row in table.rows:
        seeds = [seed for result in row.results.values() for seed in result.seeds]
        if seeds:
            update[row.label] = f"{np.median([1000 * seed.train_seconds / seed.step for seed in seeds]):.3g}"
            decision[row.label] = f"{np.median([seed.decision_ms or np.nan for seed in seeds]):.3g}"
    return {"CPU ms an update": update, "ms a decision": decision}


def pairs(table: ScoreTable) -> Iterator[tuple[str, ...]]:
    """Yields a row for each method of others that we have too: how far ours is above on the data that both have, with
    published settings where they are there."""
    rows = {row.label: row for row in table.rows}
    for theirs in METHODS.values():
        ours = f"{theirs.ours}-published of gentraj"
        if ours not in rows:
            ours = f"{theirs.ours} of gentraj"
        if theirs.label in rows and ours in rows:
            shared = rows[ours].results.keys() & rows[theirs.label].results.keys()
            columns = [name for name in table.columns if name in shared]
            if columns:
                lead = rows[ours].lead(rows[theirs.label], columns)
                yield ours, theirs.label, bracketed(lead)


def main(args: Args) -> None:
    results, jobs = Results(args), list[Job]()
    for seed in args.seeds:
        for name in args.methods:
            method(name).checkout(args.setting.checkouts)
            results.write(name)  # a result of another setting is refused before the first training
            if places := results.left(name, seed):
                jobs.append(Job(f"{name}, seed {seed}", train, (name, args.setting, seed, places),
                                partial(results.write, name)))
    run_jobs(jobs, LocalProcesses(args.jobs))


if __name__ == "__main__":
    try:
        main(tyro.cli(Args, description=__doc__))
    except Interrupted as stopped:
        say(str(stopped))
        sys.exit(stopped.exit_code)
    except (ConfigError, DataError, ValueError) as error:
        sys.exit(str(error))
