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

from pathlib import Path

import tyro
from pydantic import NonNegativeInt, PositiveInt

from gentraj.config import settings
from gentraj.experiments.cards import read_results
from gentraj.experiments.page import score_tables, write_parts
from gentraj.experiments.pools import LocalProcesses, run_jobs

from .page import page
from .results import Results, command
from .training import Setting


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


def main(args: Args) -> bool:
    results = Results(args.setting, args.seeds, args.out)
    path = args.page or args.out / "peers.md"

    def outcome(name: str) -> str:
        said = results.write(name)
        write_parts(path, page(read_results(args.out), path))
        return said

    jobs = results.jobs(args.methods, outcome)
    asked = {results.file(budget, name).stem: results.merged(budget, name)
             for budget in args.setting.budgets for name in args.methods}
    score_tables(read_results(args.out) | asked)  # raises now if they do not fit in one table
    write_parts(path, page(read_results(args.out), path))
    run_jobs(jobs, LocalProcesses(args.jobs))
    return True


if __name__ == "__main__":
    command(main, Args, __doc__)
