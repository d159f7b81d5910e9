"""How well measures without a simulator rank the checkpoints of a training, and what choosing by them gains.

    python -m benchmarks.checkpoints --data DIR --out checkpoints.json

For each preset, dataset and seed it trains the preset with held-out episodes, and lets `gentraj choose` measure its
checkpoints, which also play in their environment. Each part is kept in --runs and is not done again. The table has, for
each measure, the rank correlation with the return and the return of the checkpoint that it would take, as means over
seeds, beside the returns of the last and of the best checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from gentraj.cli import main as gentraj
from gentraj.config import JsonObject, read_json, write_json
from gentraj.plots.page import markdown_table
from gentraj.runs.judge.choosing import RETURN, Ranking
from gentraj.runs.judge.fqe import FQEConfig

from .steering import train


@dataclass(frozen=True)
class Args:
    data: Path
    """Folder of D4RL's files."""
    out: Path
    """The JSON file of the measures."""
    runs: Path = Path("runs/checkpoints")
    presets: tuple[str, ...] = ("iql", "bc-diffusion")
    datasets: tuple[str, ...] = ("hopper-medium", "walker2d-mixed")
    seeds: tuple[int, ...] = (0, 1)
    steps: int = 2_400
    checkpoints: int = 6
    episodes: int = 20
    updates: int = FQEConfig.updates
    """Updates of fitted Q evaluation."""


def main(args: Args) -> None:
    measured = {f"{preset}, {name}": [one(args, preset, name, seed) for seed in args.seeds]
                for preset in args.presets for name in args.datasets}
    write_json(args.out, measured)
    table = []
    for title, seeds in measured.items():
        returns = [{row["step"]: row[RETURN] for row in each["checkpoints"]} for each in seeds]
        table.append((title, "the last one", "", mean([own[max(own)] for own in returns])))
        table.append((title, "the best one", "", mean([max(own.values()) for own in returns])))
        for measure in seeds[0]["rank_correlations"]:
            taken = [own[ranked(each, measure).step] for own, each in zip(returns, seeds, strict=True)]
            table.append((title, measure, mean([each["rank_correlations"][measure] for each in seeds]), mean(taken)))
    print(markdown_table(("run", "chosen by", "rank correlation", "return"), table))


def one(args: Args, preset: str, name: str, seed: int) -> JsonObject:
    """The measures of the checkpoints of one training."""
    folder = args.runs / f"{preset}-{name}-{seed}"
    kept = folder / "measures-of-checkpoints.json"
    if not kept.exists():
        every = str(args.steps // args.checkpoints)
        train(preset, args.data, name, folder,
              ["--held-out", "0.05", "--steps", str(args.steps), "--training.save-every", every, "--training.keep",
               str(args.checkpoints + 1), "--seed", str(seed)])
        options = ["--fqe.updates", str(args.updates), "--episodes", str(args.episodes), "--out", str(kept)]
        if gentraj(["choose", str(folder), *options]):
            raise SystemExit(f"the checkpoints of {folder} were not measured")
    return read_json(kept)


def ranked(measured: JsonObject, measure: str) -> Ranking:
    """The checkpoints of a training in the order of a measure."""
    return Ranking({row["step"]: row for row in measured["checkpoints"]}, measure, {})


def mean(values: list[float]) -> str:
    """A mean over seeds, and the values."""
    return f"{np.mean(values):.4g} ({', '.join(f'{value:.3g}' for value in values)})"


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
