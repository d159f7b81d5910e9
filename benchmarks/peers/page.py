"""The page of the results in a folder: their tables, and ours beside theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from gentraj.experiments.cards import CardResult
from gentraj.experiments.page import AVERAGE, ScoreTable, bracketed, score_tables, table_parts
from gentraj.plots.page import markdown_table

from .peer import METHODS

HEAD = """# The authors' own code on the same file

This page was written by

    python -m benchmarks.peers --data FILE --methods NAME... --out FOLDER --page {page}

A row "of gentraj" is a preset of ours; the others are the authors' code, unmodified, with its own settings. All have
learned from the same files on one core, and are scored in the same episodes after the last update. Numbers after ± and
brackets are 95 % intervals over seeds and episodes. Settings of our presets, but for `-published`, were [chosen on
these files](results.md#locomotion), and theirs for D4RL's and for a hundred times the updates, so that a lead of ours
is of this budget and these data. With seed 0 alone, an interval does not include the variation between trainings, and
second seeds of these rows were not trained.

    python -m benchmarks.peers.reproduce FOLDER/NAME.json... --data DIR --checkouts DIR

repeats rows, and judges each score by its interval here; a row whose data, checkout or packages are missing is skipped.
docs/performance.md explains the CPU time of `iql` and `td3bc`."""
WHY_BEHIND = {  # our preset, and the method of theirs that it is behind
    ("iql-published", "corl-iql"): "on hopper-medium, in means of seeds 20 to 22, it has 19.4 as it is, 33.1 with "
                                   "normalised observations, as CORL has them, 32.6 if the actor also has a fixed "
                                   "spread, 43.7 if the targets also move by 0.001, and 38.5 if weights also begin as "
                                   "there; docs/notebook/policies.md has each seed. The rest is not explained; the "
                                   "interval of CORL's two seeds reaches 36 to either side.",
    ("td3bc-published", "d3rlpy-td3bc"): "on walker2d-mixed d3rlpy's two seeds are 27 apart; CORL's TD3+BC, with the "
                                         "same settings, has 11 there.",
    ("iql-published", "d3rlpy-iql"): "its weights begin orthogonal, as in the code of IQL's authors; begun as "
                                     "d3rlpy's, by `--policy.model.network.initial uniform` and the critic's, it has "
                                     "33.8 on hopper-medium.",
}


def page(results: Mapping[str, CardResult], path: Path) -> Iterator[str]:
    """Yields the parts of the page."""
    yield HEAD.format(page=path.as_posix())
    for table in score_tables(results):
        yield from table_parts(table, path, costs(table))
        yield from beside(table)


def costs(table: ScoreTable) -> dict[str, dict[str, str]]:
    """What an update and a decision cost, by label: the medians over the trainings."""
    update, decision = dict[str, str](), dict[str, str]()
    for row in table.rows:
        seeds = [seed for result in row.results.values() for seed in result.seeds]
        if seeds:
            update[row.label] = f"{np.median([1000 * seed.train_seconds / seed.step for seed in seeds]):.3g}"
            decision[row.label] = f"{np.median([seed.decision_ms or np.nan for seed in seeds]):.3g}"
    return {"CPU ms an update": update, "ms a decision": decision}


def beside(table: ScoreTable) -> Iterator[str]:
    """Yields the table of how far presets of ours are above the same method of its authors on each dataset that both
    have, and why those that are behind beyond chance are."""
    rows = {row.label: row for row in table.rows}
    cells, behind = list[list[str]](), list[str]()
    for name, theirs in METHODS.items():
        for preset in (theirs.ours, f"{theirs.ours}-published"):
            ours, other = rows.get(f"{preset} of gentraj"), rows.get(theirs.label)
            if ours is None or other is None:
                continue
            leads = {column: ours.lead(other, [column], table.score) for column in table.columns
                     if column in ours.results and column in other.results}
            if any(lead.high < 0 for lead in leads.values()):
                why = WHY_BEHIND.get((preset, name), "not explained yet.")
                behind.append(f"- `{preset}` behind {other.label}: {why}")
            if table.is_averaged and len(leads) == len(table.columns) > 1:
                leads[AVERAGE] = ours.lead(other, table.columns, table.score)
            if leads:
                cells.append([f"`{preset}`", other.label, *(bracketed(leads.get(column)) for column in columns(table))])
    if cells:
        yield "### Ours above theirs"
        yield markdown_table(("ours", "theirs", *columns(table)), cells)
    if behind:
        yield "\n".join(behind)


def columns(table: ScoreTable) -> list[str]:
    """The datasets, and their average where there is one."""
    if table.is_averaged and len(table.columns) > 1:
        return [*table.columns, AVERAGE]
    return [*table.columns]
