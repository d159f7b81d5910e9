"""The results of methods in a folder, in the layout of `gentraj reproduce`: a file for each method and budget."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import tyro

from gentraj.config import ConfigError, differences, from_json, read_json, to_json
from gentraj.data import DataError, episodes_hash
from gentraj.data.sources import is_path, split_names
from gentraj.envs.evaluation.scores import DataReturns, score_behaviour
from gentraj.experiments.cards import Card, CardData, CardResult, DataResult, SeedResult, read_results, write_result
from gentraj.experiments.pools import Job
from gentraj.experiments.statistics import number
from gentraj.progress import say
from gentraj.training.loop import Interrupted

from .peer import method
from .training import Contest, Setting, train

T = TypeVar("T")
PUBLISHED = Path("benchmarks/results")  # whose names of datasets are taken
UNITS = {"updates": "updates", "minutes": "core-minutes"}


class Results:
    """The results of a setting with these seeds in the folder `out`, by method and budget."""

    def __init__(self, setting: Setting, seeds: tuple[int, ...], out: Path):
        self.setting = setting
        self.seeds = seeds
        self.out = out
        self.contest = Contest(setting)
        data = self.contest.data
        self.sha256 = episodes_hash(data)
        named = {found.sha256: name for result in read_results(PUBLISHED).values()
                 for name, found in result.data.items()}
        self.column = named.get(self.sha256, "+".join(Path(name).stem for name in split_names(setting.data)))
        known, _ = score_behaviour([DataReturns.of(data)], self.contest.env, self.contest.factory)
        self.behaviour: float | None = (known or {}).get(self.contest.score)

    def file(self, budget: str, name: str) -> Path:
        """The file of a method's results."""
        return self.out / f"{name.replace(':', '-')}-{budget}.json"

    def place(self, budget: str, name: str, seed: int) -> Path:
        """The file of a training's score."""
        path = self.file(budget, name)
        return path.parent / "seeds" / f"{path.stem}-{self.column}-{seed}.json"  # until it is merged

    def left(self, name: str, seed: int) -> dict[str, Path]:
        """The places of the scores that are not there yet, by budget."""
        return {budget: self.place(budget, name, seed) for budget in self.setting.budgets
                if seed not in self.scores(self.merged(budget, name))}

    def jobs(self, names: Sequence[str], outcome: Callable[[str], str]) -> list[Job]:
        """The trainings of these methods that are left, by seed; `outcome` is given the method of one that has ended.

        Raises `ConfigError` before any of them: where results are of another setting, where the code of a method is
        missing, and where it cannot learn from the data.
        """
        for name in names:
            self.write(name)
            if any(self.left(name, seed) for seed in self.seeds):
                chosen = method(name)
                chosen.check_code(self.setting.checkouts)
                chosen.check_data(self.contest.task(chosen))
        return [Job(f"{name} on {self.column}, seed {seed}", train, (name, self.setting, seed, places),
                    partial(outcome, name)) for seed in self.seeds for name in names
                if (places := self.left(name, seed))]

    def scores(self, result: CardResult) -> dict[int, SeedResult]:
        """The scores on this data by seed."""
        if self.column not in result.data:
            return {}
        return {one.seed: one for one in result.data[self.column].seeds}

    def card(self, budget: str, name: str) -> Card:
        setting, chosen = self.setting, method(name)
        value = setting.budgets[budget]
        files = "+".join(Path(file).name if is_path(file) else file for file in split_names(setting.data))
        return Card(f"{chosen.label}, with its own settings.", f"After {value:,g} {UNITS[budget]}", chosen.label,
                    name, {budget: value, "like": setting.like}, (CardData(self.column, files, setting.env_id),),
                    self.seeds, setting.episodes, self.contest.protocol, self.contest.score)

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
        """Writes the results of a method; returns what they are in a line."""
        said = list[str]()
        for budget in self.setting.budgets:
            result = self.merged(budget, name)
            write_result(self.file(budget, name), result)
            for seed, one in self.scores(result).items():
                self.place(budget, name, seed).unlink(missing_ok=True)
                said.append(f"seed {seed}: {self.contest.score} {number(one.mean)} after {one.step:,} updates")
        return "; ".join(said)


def command(main: Callable[[T], bool], args: type[T], text: str | None) -> None:
    """Runs a command of this package, whose processes have a core each. It exits with 1 where `main` returns false."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        sys.exit(not main(tyro.cli(args, description=text)))
    except Interrupted as stopped:
        say(str(stopped))
        sys.exit(stopped.exit_code)
    except (ConfigError, DataError, ValueError) as error:
        sys.exit(str(error))
