"""`gentraj reproduce`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..experiments.cards import Card, read_card
from ..experiments.processes import Job, cpus, run_jobs
from ..experiments.reproduction_work import Task, recall, tasks, work
from ..experiments.results import CardResult, pooled, read_results, results_there, verdict, write_result
from ..experiments.results_page import families, number, write_page
from ..progress import say
from .common import check_folder, check_output


@dataclass(frozen=True)
class Reproduce:
    """Train what cards say, with every seed on every dataset, evaluate the last checkpoints, compare with the card.

    Called again it goes on where it stopped, and trains nothing twice. Exit code 1 where a score is outside its
    tolerance or a run failed. Without a card it only writes the table of the results there are.

    Examples: gentraj reproduce benchmarks/cards/fql.json --data ~/data --jobs 2;
    gentraj reproduce --results benchmarks/results --table docs/results.md
    """

    cards: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CARD")] = ()
    """Card files."""
    data: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """A folder to look for data files in; may be given several times."""
    out: Path = Path("runs/reproduce")
    """Folder of the runs, each with its log.txt."""
    results: Path | None = None
    """Folder of CARD.json, what came of each card; --out by default."""
    jobs: int | None = None
    """Runs side by side, with one thread each; by default as many as there are CPUs."""
    table: Path | None = None
    """Also write all results of that folder as a page with figures, such as docs/results.md."""
    device: str | None = None


def main(argv: list[str]) -> None:
    args = tyro.cli(Reproduce, args=argv, prog="gentraj reproduce")
    check(args)
    results = args.results or args.out
    cards = {path.stem: read_card(path) for path in args.cards}
    if args.table is not None:
        families(results_there(results) | {name: CardResult(card, {}) for name, card in cards.items()})  # or in hours
    good = reproduce(cards, args, results) if cards else True
    if args.table is not None:
        say(f"table in {write_page(read_results(results), args.table)}")
    if not good:
        raise SystemExit(1)


def check(args: Reproduce) -> None:
    """Raises ValueError for options that do not go together, before any work."""
    if not args.cards and args.table is None:
        raise ValueError("give cards, or --table FILE to write that of the results there are; see gentraj reproduce "
                         "--help")
    names = [path.stem for path in args.cards]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"several cards are called {', '.join(twice)}; each needs a name of its own")
    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs is {args.jobs}; give at least 1")
    if args.table is not None:
        check_output(args.table, "--table")
    check_folder(args.out, "--out")
    check_folder(args.results or args.out, "--results")


def reproduce(cards: Mapping[str, Card], args: Reproduce, results: Path) -> bool:
    """Does what is not done yet, writes a card's result after each of its runs, says how each card ended.

    Whether all runs ended well, and no score outside its tolerance.
    """
    every = tasks(cards, args.data, args.out)
    recall(every, results)

    def of(name: str) -> list[Task]:
        return [task for task in every if task.card_name == name]

    def outcome(task: Task) -> str:
        write_result(results / f"{task.card_name}.json", collected(of(task.card_name)))
        mean = task.result.mean if task.result else None
        return f"{task.card.score} {number(mean)}"

    failed = run_jobs([Job(task.name, work, (task, args.device), lambda t=task: outcome(t)) for task in every
                       if not task.is_done], args.jobs or cpus(), "runs")
    for task in every:
        if task.name in failed:
            say(f"{task.name} failed; see {task.folder / 'log.txt'}")
    good = not failed
    for name, card in cards.items():
        result = collected(of(name))
        write_result(results / f"{name}.json", result)
        for line, inside in verdicts(name, card, result):
            print(line)
            good = good and inside
    return good


def collected(some: Sequence[Task]) -> CardResult:
    """What is done of the tasks of a card."""
    data = {}
    for one in some[0].card.data:
        there = [task for task in some if task.data == one]
        if seeds := [task.result for task in there if task.result]:
            data[one.name] = pooled(there[0].source.sha256, there[0].source.behaviour, seeds)
    return CardResult(some[0].card, data)


def verdicts(name: str, card: Card, result: CardResult) -> Iterator[tuple[str, bool]]:
    """A line for each dataset, and whether it is neither outside nor unfinished."""
    for data in card.data:
        found = result.data.get(data.name)
        said = verdict(card, data, found)
        line = f"{name} on {data.name}: "
        if found is not None:
            line += f"{card.score} {number(found.mean)}, 95 % interval {number(found.interval)}; "
        line += said
        if data.expected is not None:
            line += f" {number(data.expected)} ± {number(data.tolerance)}"
        yield line, said in ("inside", "no expectation yet")
