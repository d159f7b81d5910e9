"""Writes the page of the best published numbers, with ours beside them.

    python -m benchmarks.published

The numbers are those of benchmarks/published.json, each with its source, and ours those of the results in RESULTS.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from annotated_types import Len

from gentraj.config import check_known, from_json, read_json, settings
from gentraj.experiments.cards import CardResult, read_results
from gentraj.experiments.page import MARK, by_label, write_parts
from gentraj.plots.page import markdown_table
from gentraj.progress import counted, say

Text = Annotated[str, Len(1)]

HEAD = f"""# The best published numbers, and ours

This page was written by

    python -m benchmarks.published

from `benchmarks/published.json` and our [results](results.md). Each task has the best number that we found among
published ones of its benchmark's own league: its goals, data and protocol. In the next column stands the best of those
with other ones, which their [source](#sources) names. Whoever knows a better one, please tell us.

**Ours are in no published league:** their data were recorded here. Each has its 95 % interval and the number of
trainings; below a table stands what is known of its league. {MARK} marks settings that were chosen by the episodes that
they are scored in. "none" is no number, and "not measured" a run that is planned."""


@settings
class Source:
    """Where numbers are published."""

    text: Text
    """The paper or the page, and which table."""
    protocol: Text
    """What an agent is given, and how it is scored."""
    data: Text
    """Which data it learns from, and how many."""
    seen: str
    """Where the numbers were looked up once more; empty if they were not found again."""
    other_league: bool = False
    """Whether goals, data or protocol are not those of the benchmark."""


@settings
class Number:
    """A published number."""

    score: float
    """As its table says."""
    method: Text
    """Whose number it is."""
    source: Text
    """A key of the sources."""


@settings
class Ours:
    """A number of ours."""

    card: Text
    """The name of a card with results."""
    data: Text
    """The name of one of its data."""


@settings
class Row:
    """A task."""

    task: Text
    """Its name in the benchmark."""
    published: tuple[Number, ...] = ()
    """Published numbers, of any league."""
    ours: Ours | None = None
    """Ours; None if there is none."""


@settings
class Table:
    """The tasks of a benchmark whose scores have one meaning."""

    name: Text
    about: Text
    """What a score is, and what ours differ in."""
    rows: Annotated[tuple[Row, ...], Len(1)]


@settings
class Published:
    """All tables, and the sources of their numbers. Raises ValueError for a number of an unknown source."""

    sources: dict[str, Source]
    tables: Annotated[tuple[Table, ...], Len(1)]

    def __post_init__(self) -> None:
        for table in self.tables:
            for row in table.rows:
                for number in row.published:
                    check_known([number.source], self.sources, f"source of {row.task}")


def page(published: Published, results: Mapping[str, CardResult]) -> Iterator[str]:
    """Yields the parts of the page. Raises ValueError for a card without results."""
    yield HEAD
    places = {name: place for place, name in enumerate(published.sources, 1)}
    for table in published.tables:
        rows = []
        for row in table.rows:
            own, other = (best([number for number in row.published
                                if published.sources[number.source].other_league is is_other], places)
                          for is_other in (False, True))
            rows.append((row.task, own, other, ours(row, results)))
        yield f"## {table.name}"
        yield table.about
        yield markdown_table(("", "published", "published, in another league", "ours"), rows)
        leagues = []
        for name in dict.fromkeys(row.ours.card for row in table.rows if row.ours is not None):
            card = results[name].card
            if card.league is not None:
                leagues.append((f"{card.label} (`{name}`)", card.league))
        if leagues:
            yield "The leagues of ours:"
            yield by_label(leagues)
    yield "## Sources"
    sources = [(str(places[name]), source.text, source.protocol, source.data, source.seen or "not found again")
               for name, source in published.sources.items()]
    yield markdown_table(("", "source", "protocol", "data", "looked up once more"), sources)


def best(numbers: Sequence[Number], places: Mapping[str, int]) -> str:
    """The highest of some numbers, whose it is, and the place of its source."""
    if not numbers:
        return "none"
    number = max(numbers, key=lambda number: number.score)
    return f"{number.score:g}, {number.method} [{places[number.source]}](#sources)"


def ours(row: Row, results: Mapping[str, CardResult]) -> str:
    """Our number, its interval, whose it is and of how many trainings; success in %."""
    if row.ours is None:
        return "none"
    check_known([row.ours.card], results, "card with results")
    card, found = results[row.ours.card].card, results[row.ours.card].data.get(row.ours.data)
    if found is None:
        return "not measured"
    scale = 100 if card.score == "success_rate" else 1
    low, mean, high = (f"{scale * value:.3g}" for value in found.over_seeds(card.score).estimate)
    label = f"{card.label} {MARK}" if card.seen else card.label
    return f"{mean} [{low}, {high}], {label}, {counted(len(found.seeds), 'trainings')}"


@settings
class Args:
    """The files of the page."""

    numbers: Path = Path("benchmarks/published.json")
    """The published numbers."""
    results: Path = Path("benchmarks/results")
    """The folder with our results."""
    out: Path = Path("docs/published.md")
    """The page to be written."""


def main(args: Args) -> None:
    published = from_json(Published, read_json(args.numbers), str(args.numbers))
    say(f"{write_parts(args.out, page(published, read_results(args.results)))} written")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
