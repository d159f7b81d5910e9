"""`gentraj reproduce`: train and score what result cards describe."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from ..experiments.cards import CardResult, read_card, read_results
from ..experiments.page import score_tables, write_page
from ..experiments.reproduce import Cards, place, reproduce, verdicts
from ..files import check_folder, check_output
from ..progress import say
from .jobs import JobsOptions, pool_of
from .options import Device, parse


@dataclass(frozen=True)
class Reproduce:
    """Train and score what result cards describe, and compare the scores with those that the cards expect.

    A card is a JSON file with a preset, settings, datasets, seeds and expected scores. Every seed is trained on every
    dataset, and its last checkpoint is evaluated. The command first says how long that takes, from the minutes that the
    cards name. The same command continues an interrupted experiment and repeats no finished training. The
    exit code is 1 if a score is outside its tolerance or a run failed. Without a card, the command only writes the
    table of the existing results.

    Examples: gentraj reproduce benchmarks/cards/fql.json --data ~/data --jobs 2
              gentraj reproduce --results benchmarks/results --table docs/results.md
    """

    cards: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CARD")] = ()
    """Card files."""
    data: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """A folder that is searched for data files; may be given several times."""
    out: Path = Path("runs/reproduce")
    """Folder that the runs are written to, each with a log.txt."""
    results: Path | None = None
    """Folder for the results, one file CARD.json for each card; by default --out."""
    jobs: Annotated[JobsOptions, tyro.conf.arg(name="")] = field(default_factory=JobsOptions)
    table: Path | None = None
    """Also write all results in the folder --results as a page with figures to this file, such as docs/results.md."""
    device: Device = None


def main(argv: list[str]) -> None:
    args = parse(Reproduce, argv, "gentraj reproduce")
    check(args)
    results = args.results or args.out
    cards = {path.stem: read_card(path) for path in args.cards}
    if args.table is not None:
        # Raises now, not after hours of training, if the cards do not fit in the table.
        score_tables(read_results(results) | {name: CardResult(card, {}) for name, card in cards.items()})
    good = True
    if cards:
        pool = pool_of(args.jobs, args.out)
        experiment = Cards.of(cards, args.data, partial(place, args.out))
        failures, card_results = reproduce(experiment, results, pool, args.device)
        lines = [pair for name, result in card_results.items() for pair in verdicts(name, result)]
        print("\n".join(line for line, _ in lines))
        good = not failures and all(inside for _, inside in lines)
    if args.table is not None:
        if not (existing := read_results(results)):
            raise ValueError(f"{results} holds no results; gentraj reproduce CARD... writes them")
        say(f"table in {write_page(existing, args.table)}")
    if not good:
        raise SystemExit(1)


def check(args: Reproduce) -> None:
    """Raises ValueError for options that contradict each other, before any work."""
    if not args.cards and args.table is None:
        raise ValueError("give cards, or --table FILE to write the table of the existing results; see gentraj "
                         "reproduce --help")
    names = [path.stem for path in args.cards]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"several cards are called {', '.join(repeated)}; each needs a name of its own")
    results = args.results or args.out
    if own := [path for path in args.cards if path.exists() and path.resolve() == (results / path.name).resolve()]:
        raise ValueError(f"{own[0]} is where its results would be written; give another folder by --results")
    if args.table is not None:
        check_output(args.table, "--table")
    check_folder(args.out, "--out")
    check_folder(results, "--results")
