"""What steering gains: scores of frozen policies, of the same without noise, and of the same steered.

    python -m benchmarks.steering --data DIR --out steering.json

For each preset, dataset and seed it trains the preset by `gentraj train`, steers the run by `gentraj steer` on the same
data, and scores all three on the same episodes. Each part is kept in --runs and is not done again. The policy without
noise (temperature 0) shows how much of the gain needs no critic.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from gentraj.cli import main as gentraj
from gentraj.config import write_json
from gentraj.envs.evaluation.scoring import EvaluationConfig
from gentraj.envs.making import environment_factory
from gentraj.experiments.reproduce import episode_scores
from gentraj.experiments.statistics import difference, number, over_seeds
from gentraj.plots.page import markdown_table
from gentraj.runs.judge.evaluation import Acting, evaluate_run
from gentraj.runs.kinds.loading import load
from gentraj.training.checkpoint import has_checkpoints

DATASETS = {"hopper-medium": (("hopper-medium",), "Hopper-v5"), "walker2d-mixed": (("walker2d-mixed",), "Walker2d-v5"),
            "halfcheetah-medium+expert": (("halfcheetah-medium", "halfcheetah-expert"), "HalfCheetah-v5")}
WAYS = ("frozen", "without noise", "steered")


@dataclass(frozen=True)
class Args:
    data: Path
    """Folder of D4RL's files."""
    out: Path
    """The JSON file of the scores."""
    runs: Path = Path("runs/steering")
    presets: tuple[str, ...] = ("bc-flow", "diffusion-policy")
    datasets: tuple[str, ...] = tuple(DATASETS)
    seeds: tuple[int, ...] = (0, 1)
    updates: int = 5_000
    """Updates of the frozen policy."""
    steering: int = 3_000
    """Updates of the steering."""
    episodes: int = 20


def main(args: Args) -> None:
    scores: dict[str, dict[str, list[list[float]]]] = {}
    for preset in args.presets:
        for name in args.datasets:
            rows = scores.setdefault(f"{preset}, {name}", {way: [] for way in WAYS})
            for seed in args.seeds:
                for way, returns in one(args, preset, name, seed).items():
                    rows[way].append(returns)
            write_json(args.out, {"updates": args.updates, "steering": args.steering, "scores": scores})
    table = []
    for title, rows in scores.items():
        by_seed = {way: dict(enumerate(each)) for way, each in rows.items()}
        gain = difference([by_seed["steered"]], [by_seed["frozen"]])
        shown = [*map(over_seeds, rows.values()), gain]
        table.append((title, *(f"{number(each.mean)} {number(each.interval)}" for each in shown)))
    print(markdown_table(("", *WAYS, "gain of steering"), table))


def one(args: Args, preset: str, name: str, seed: int) -> dict[str, list[float]]:
    """The scores of the episodes by the way of acting, of one training and its steering."""
    folder = args.runs / f"{preset}-{name}-{seed}"
    base, steered = folder / "frozen", folder / "steered"
    kept = folder / "scores.json"
    if kept.exists():
        return json.loads(kept.read_text())
    train(preset, args.data, name, base, ["--seed", str(seed), "--steps", str(args.updates)])
    steering = ["steer", str(base), "--steps", str(args.steering), "--seed", str(seed), "--run-dir", str(steered)]
    trained(steering, [*steering, "--resume"], steered)
    config = EvaluationConfig(episodes=args.episodes, baselines=False)
    run = load(base)
    still = Acting(replace(run.acting, temperature=0.0))
    found = {"frozen": evaluate_run(run, config)[0], "without noise": evaluate_run(run, config, still)[0],
             "steered": evaluate_run(load(steered), config)[0]}
    factory = environment_factory(DATASETS[name][1])
    scores = {way: episode_scores("score_d4rl", each["returns"], None, factory) for way, each in found.items()}
    write_json(kept, scores)
    return scores


def train(preset: str, data: Path, name: str, folder: Path, options: list[str]) -> None:
    """Trains a preset on a dataset of these names, whose files are in `data`, or goes on with its training."""
    files, env = DATASETS[name]
    dataset = "+".join(str(data / f"{file}.hdf5") for file in files)
    trained(["train", preset, "--dataset", dataset, "--env-id", env, *options, "--run-dir", str(folder)],
            ["train", "--resume", str(folder)], folder)


def trained(start: list[str], resume: list[str], folder: Path) -> None:
    if gentraj(resume if has_checkpoints(folder) else start):
        raise SystemExit(f"{folder} was not trained")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
