"""Does a generator on top of an ensemble predict better than the ensemble alone, trained for the same time?

    python -m benchmarks.open_loop --datasets hopper-medium.hdf5 halfcheetah-medium.hdf5 \\
        --env-ids Hopper-v5 HalfCheetah-v5 --out open-loop

First the updates of all models are timed, in turns; then each model is trained for as many updates as fit into
`--seconds`. Finally they predict the outcome of the actions of 1,000 held-out windows. Errors are root mean squares
over the entries of an observation, in standard deviations of the data. Each line of OUT/results.jsonl is one model;
models that are there with the same `--seconds` and `--seed` are not trained again. OUT/table.md is rewritten.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from scipy.stats import trim_mean

from benchmarks.lines import whole_lines
from gentraj import runs
from gentraj.data import Windows
from gentraj.randomness import fold, generator
from gentraj.runs import DataFacts
from gentraj.runs.presets import PRESETS
from gentraj.runs.world import WorldModelRunConfig
from gentraj.runs.world_evaluation import held_out
from gentraj.worlds.model import WorldModel
from gentraj.worlds.open_loop import OpenLoop

AT = (1, 5, 10, 20)  # steps


def chunked(preset: str, chunk: int) -> WorldModelRunConfig:
    config: Any = PRESETS[preset]
    return replace(config, world=replace(config.world, chunk=chunk))


MODELS = {"ensemble": chunked("world-ensemble", 1),
          "world-model": chunked("world-model", 1),
          "ensemble, 8 steps a call": chunked("world-ensemble", 8),
          "world-model, 8 steps a call": chunked("world-model", 8)}


@dataclass(frozen=True)
class Args:
    out: Path
    """Folder of the runs and the results."""
    datasets: tuple[str, ...]
    env_ids: tuple[str, ...]
    """The environment of each dataset; - takes it from the data."""
    models: tuple[str, ...] = tuple(MODELS)
    seconds: float = 240.0
    """Processor time of the training of each model."""
    seed: int = 0
    threads: int = 1


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    log = args.out / "results.jsonl"
    for dataset, env_id in zip(args.datasets, args.env_ids, strict=True):
        keys = {name: {"dataset": dataset, "model": name, "budget": args.seconds, "seed": args.seed}
                for name in args.models}
        done = whole_lines(log)
        missing = [name for name, key in keys.items() if not any(key.items() <= row.items() for row in done)]
        configs = {name: replace(MODELS[name], dataset=dataset, env_id=None if env_id == "-" else env_id)
                   for name in args.models}
        took = seconds_of_an_update(configs) if missing else {}
        for name in missing:
            row = measured(configs[name], max(1, round(args.seconds / took[name])), args,
                           args.out / hashlib.sha256(json.dumps(keys[name]).encode()).hexdigest()[:8])
            with log.open("a") as file:
                file.write(json.dumps(keys[name] | {"seconds_of_an_update": took[name]} | row) + "\n")
    (args.out / "table.md").write_text(table := as_table(whole_lines(log)))
    print(table)


def seconds_of_an_update(configs: dict[str, WorldModelRunConfig], rounds: int = 200) -> dict[str, float]:
    """Returns the mean time of an update, timed in turns, without the slowest and the fastest 5 %."""
    models = {name: made_ready(config) for name, config in configs.items()}
    took: dict[str, list[float]] = {name: [] for name in configs}
    for step in range(rounds):
        for name, (world, windows, optimizers) in models.items():
            began = time.process_time()
            world.update(windows.batch(step, 0, world.batch_size), optimizers, generator(0, step))
            took[name].append(time.process_time() - began)
    return {name: float(trim_mean(each, 0.05)) for name, each in took.items()}


def made_ready(config: WorldModelRunConfig) -> tuple[WorldModel, Windows, dict[str, Any]]:
    episodes = config.split(runs.read_data(config)[0]).train
    config = config.resolve(episodes)
    world: Any = runs.build(config, DataFacts.of(episodes, config.context), episodes)["world"]
    return world, Windows(episodes, world.spec, config.context), world.optimizers()


def measured(config: WorldModelRunConfig, steps: int, args: Args, folder: Path) -> dict[str, Any]:
    """Trains a model and returns its errors after each step."""
    training = replace(config.training, steps=steps, seed=args.seed, threads=args.threads, save_every=steps)
    shutil.rmtree(folder, ignore_errors=True)  # it may be half trained, for another number of updates
    began = time.perf_counter()
    run = runs.train(replace(config, training=training), folder)
    seconds = time.perf_counter() - began
    windows = held_out(run, args.seed)
    loop = OpenLoop.of(run.world_model, windows, [fold(args.seed, i) for i in range(len(windows.x_BHD))])
    errors = loop.errors(range(run.data.obs_dim), run.world_model.facts.obs.scale_D)
    return {"updates": steps, "seconds": seconds, "windows": len(windows.x_BHD), "errors": errors, "ends": loop.ends()}


def as_table(rows: list[dict[str, Any]]) -> str:
    titles = ["dataset", "model", "updates", "seconds", *[f"{guess}, {t}" for guess in ("mean", "sample") for t in AT]]
    lines = [f"| {' | '.join(titles)} |", "|" + " --- |" * len(titles)]
    for row in rows:
        errors = [f"{row['errors'][guess][t - 1]:.4f}" if t <= len(row["errors"][guess]) else "-"
                  for guess in ("mean", "sample") for t in AT]
        lines.append(f"| {Path(row['dataset']).stem} | {row['model']} | {row['updates']} | {row['seconds']:.0f} | "
                     f"{' | '.join(errors)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
