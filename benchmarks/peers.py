"""Trains agents of OGBench, by its own code from a checkout of yours, on our data, and scores them as our runs.

    pip install jax flax distrax optax ml_collections
    git clone https://github.com/seohongpark/ogbench ../ogbench
    python -m benchmarks.peers --checkout ../ogbench --data gentraj/ogbench/pointmaze-medium-stitch-v0 \\
        --agents gciql hiql --steps 20000 --seeds 0

OUT/ogbench-AGENT.json has the layout of a card's result: `gentraj reproduce --results OUT --table PAGE` makes a page of
it. It is written after each training; those that it holds are left out.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np
import torch
import tyro
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from benchmarks.ogbench_peer import Checkout
from gentraj.config import ConfigError, differences, from_json, read_json, settings, to_json
from gentraj.data import DataError, episodes_hash, load_episodes
from gentraj.data.sources import split_names
from gentraj.envs import EvaluationConfig, evaluate
from gentraj.experiments.cards import Card, CardData, CardResult, DataResult, SeedResult, read_results, write_result
from gentraj.experiments.reproduce import PACKAGES
from gentraj.progress import bar, say

PUBLISHED = Path("benchmarks/results")  # whose names of datasets are those of the page


@settings
class Args:
    checkout: Path
    """A checkout of github.com/seohongpark/ogbench."""
    data: str
    """As `gentraj train --dataset`, with goals."""
    agents: tuple[str, ...]
    """Agents of the checkout, such as gcbc, gcivl, gciql, hiql, qrl and crl."""
    steps: PositiveInt = 1_000_000
    """Number of updates."""
    minutes: PositiveFloat | None = None
    """Core-minutes after which a training ends, if it has not done so many updates."""
    seeds: tuple[NonNegativeInt, ...] = (0,)
    """Seeds of the trainings."""
    episodes: PositiveInt = 50
    """Episodes of each of the five tasks, which are those of `gentraj evaluate --protocol ogbench`."""
    like: str | None = None
    """The dataset of OGBench whose settings are taken; by default the one with the name of the data."""
    table: str = "OGBench, point mazes"
    """The table of the page."""
    out: Path = Path("runs/peers")
    """Folder of the results."""


def result_so_far(path: Path, card: Card, sha256: str) -> CardResult:
    """What the file holds, with room for the dataset and the seeds of the card. Raises `ConfigError` where it holds
    results of other settings or of other data with that name."""
    if not path.exists():
        return CardResult(card, {})
    held = from_json(CardResult, read_json(path), str(path))
    before = held.data.get(card.data[0].name)
    data = {one.name: one for one in (*held.card.data, *card.data)}
    card = replace(card, data=tuple(data.values()), seeds=tuple(sorted({*held.card.seeds, *card.seeds})))
    same = replace(held.card, data=card.data, seeds=card.seeds)
    changed = [f"{key} {was}, not {now}" for key, was, now in differences(to_json(same), to_json(card))]
    if changed or (before is not None and before.sha256 != sha256):
        raise ConfigError(f"{path}: holds results with {'; '.join(changed) or 'other data'}; give another --out")
    return replace(held, card=card)


def main(args: Args) -> None:
    torch.set_num_threads(1)
    checkout, data, name = Checkout(args.checkout), load_episodes(split_names(args.data)), Path(args.data).stem
    if data.env is None or not data.goal_dims or np.abs(data.act).max() > 1:
        raise ConfigError(f"{args.data}: names no environment or no goals, or has actions beyond -1 and 1; give data "
                          "of OGBench for goals, such as gentraj/ogbench/pointmaze-medium-stitch-v0")
    chosen = {agent: checkout.settings(agent, args.like or name) for agent in args.agents}
    sha256 = episodes_hash(data)
    column = {one.sha256: key for result in read_results(PUBLISHED).values()
              for key, one in result.data.items()}.get(sha256, name)
    for agent, its in chosen.items():
        card = Card(f"{agent} of OGBench, by its own code and settings.", args.table, f"{agent.upper()} of OGBench",
                    f"ogbench-{agent}", {"steps": args.steps, "minutes": args.minutes}, (CardData(column, args.data),),
                    args.seeds, args.episodes, "ogbench", "success_rate")
        path = args.out / f"ogbench-{agent}.json"
        result = result_so_far(path, card, sha256)
        for seed in args.seeds:
            done = result.data[column].seeds if column in result.data else ()
            if seed in [one.seed for one in done]:
                continue
            with bar(100, f"{agent}, seed {seed}: training", "%") as shown:
                limits = args.steps, 60 * (args.minutes or math.inf)
                peer, step, seconds = checkout.trained(its, data, seed, limits, shown)
            scored = EvaluationConfig(episodes=args.episodes, protocol="ogbench", baselines=False)
            scores, _ = evaluate(peer, data.env, scored, obs_keys=data.obs_keys, goal_dims=data.goal_dims)
            one = SeedResult(seed, f"{card.label}, its settings for {args.like or name}", step, "the mean action",
                             tuple(map(float, scores["successes"])), seconds, versions(args.checkout),
                             decision_ms=scores["latency_ms_p50"])
            result = replace(result, data=result.data | {column: DataResult(sha256, None, (*done, one))})
            write_result(path, result)
        for one in result.data[column].seeds:
            say(f"{agent}, seed {one.seed}: success {one.mean:.3f} after {one.step} updates, {one.train_seconds:.0f} "
                f"core-seconds; {one.decision_ms:.2f} ms a decision; in {path}")


def versions(checkout: Path) -> dict[str, str]:
    """The versions of what trains and scores, and the commit of the checkout."""
    found = {}
    for name in (*PACKAGES, "jax", "flax", "optax"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    commit = subprocess.run(["git", "-C", checkout, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return found | {"ogbench": commit.stdout.strip() or "unknown"}


if __name__ == "__main__":
    try:
        main(tyro.cli(Args, description=__doc__))
    except (ConfigError, DataError) as error:
        sys.exit(str(error))
