"""`gentraj reproduce`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from ..experiments.cards import read_card
from ..experiments.processes import cpus
from ..experiments.reproduce import Cards, place, reproduce, verdicts
from ..experiments.results import CardResult, read_results
from ..experiments.results_page import families, write_page
from ..progress import say
from .common import check_folder, check_output
from .options import parse


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
    args = parse(Reproduce, argv, "gentraj reproduce")
    check(args)
    results = args.results or args.out
    cards = {path.stem: read_card(path) for path in args.cards}
    if args.table is not None:
        families(read_results(results) | {name: CardResult(card, {}) for name, card in cards.items()})  # or in hours
    good = True
    if cards:
        made = Cards.of(cards, args.data, partial(place, args.out))
        failures, found = reproduce(made, results, args.jobs or cpus(), args.device)
        lines = [pair for name, result in found.items() for pair in verdicts(name, result)]
        print("\n".join(line for line, _ in lines))
        good = not failures and all(inside for _, inside in lines)
    if args.table is not None:
        if not (there := read_results(results)):
            raise ValueError(f"{results} holds no results; gentraj reproduce CARD... writes them")
        say(f"table in {write_page(there, args.table)}")
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
