"""Puts finished trainings of `benchmarks.d3rlpy_peer` beside the results of cards, as rows of the same page.

    python -m benchmarks.d3rlpy_results runs/d3rlpy/* --table "Published settings" --results benchmarks/results
    gentraj reproduce --results benchmarks/results --table docs/results.md

A file d3rlpy-ALGORITHM-UPDATES.json is written into the folder of the results for each algorithm and number of updates.
Its columns are those of the cards with the same training data, by their hash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.d3rlpy_peer import RESULT
from gentraj.config import read_json
from gentraj.envs.making import environment_factory
from gentraj.experiments.cards import (
    Card,
    CardData,
    CardResult,
    DataResult,
    Score,
    SeedResult,
    read_results,
    write_result,
)
from gentraj.experiments.reproduce import curve_points, episode_scores
from gentraj.progress import say

LABELS = {"iql": "IQL of d3rlpy", "td3bc": "TD3+BC of d3rlpy"}
SCORE: Score = "score_d4rl"


@dataclass(frozen=True)
class Args:
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of trainings."""
    table: str = "Locomotion"
    """The table of the page."""
    results: Path = Path("benchmarks/results")
    """Folder of the results of cards."""


def finished(folders: Sequence[Path]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """The results of finished trainings by algorithm and number of updates."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for folder in folders:
        result = read_json(folder / RESULT) if (folder / RESULT).is_file() else {}
        if result and result["step"] == result["updates"]:
            found.setdefault((result["algorithm"], result["updates"]), []).append(result)
        else:
            say(f"{folder}: is left out, as its training has not ended")
    return found


def seed_result(result: Mapping[str, Any]) -> SeedResult:
    """The result of a training as that of a seed of a card."""
    factory, last = environment_factory(result["env_id"]), result["curve"][-1]
    scores = episode_scores(SCORE, last["returns"], last.get("successes"), factory)
    return SeedResult(result["seed"], LABELS[result["algorithm"]], result["step"], "the mean action",
                      tuple(scores), result["train_seconds"], result["versions"],
                      curve_points(result["curve"], SCORE, factory))


def card_result(results: Sequence[Mapping[str, Any]], table: str, names: Mapping[str, str]) -> CardResult:
    """The results of one algorithm as those of a card; `names` are the columns by the hash of the data.

    Raises ValueError for trainings that were not evaluated alike.
    """
    first = results[0]
    if len({(one["episodes"], one["eval_every"]) for one in results}) > 1:
        raise ValueError(f"the trainings of {first['algorithm']} differ in --episodes or --eval-every; give those "
                         "with the same")
    columns: dict[str, list[Mapping[str, Any]]] = {}
    for one in results:
        name = names.get(one["data_sha256"]) or "+".join(Path(file).stem for file in one["data"])
        columns.setdefault(name, []).append(one)
    data = tuple(CardData(name, "+".join(some[0]["data"]), some[0]["env_id"], None, None)
                 for name, some in columns.items())
    card = Card(f"{LABELS[first['algorithm']]}, with the settings of its reproductions.", table,
                LABELS[first["algorithm"]], f"d3rlpy-{first['algorithm']}", {"updates": first["updates"]}, data,
                tuple(sorted({one["seed"] for one in results})), first["episodes"], "random-goal", SCORE,
                first["eval_every"])
    found = {}
    for name, some in columns.items():
        seeds = sorted(map(seed_result, some), key=lambda one: one.seed)
        found[name] = DataResult(some[0]["data_sha256"], None, tuple(seeds))
    return CardResult(card, found)


def main(args: Args) -> None:
    known = [pair for result in read_results(args.results).values() for pair in result.data.items()]
    names = {found.sha256: name for name, found in known}
    for (algorithm, updates), results in finished(args.runs).items():
        path = args.results / f"d3rlpy-{algorithm}-{updates}.json"
        say(f"results in {write_result(path, card_result(results, args.table, names))}")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
