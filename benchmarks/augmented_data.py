"""Does an agent learn more of a small dataset where a world model of the same data has added what it imagines?

    python -m benchmarks.augmented_data --datasets hopper-medium.hdf5 walker2d-mixed.hdf5 halfcheetah-mixed.hdf5 \\
        --env-ids Hopper-v5 Walker2d-v5 HalfCheetah-v5 --out augmented

Of each dataset episodes, or pieces of long ones, are drawn until they have `--small` steps. For each seed a world model
is trained on them, `gentraj augment` adds `--added` steps (as a dataset of Minari's, benchmark/...), and the same
agent, with as many updates, learns of the small data and of both. Its last checkpoint is scored by D4RL's score where
there is one, else by the return. A line of OUT/results.jsonl is one agent; what is there is not trained again.
OUT/table.md is written anew.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from minari.storage import get_dataset_path
from scipy.stats import t as student

from benchmarks.lines import rows_of
from benchmarks.scoring import score, source, train
from envs.evaluation.evaluate import EvaluationConfig
from gentraj.cli.augment import Augment, augment
from gentraj.data import load_episodes, save_npz
from gentraj.data.episodes import hold_out
from gentraj.runs import folder as runs
from gentraj.runs.evaluation import play

DATA = ("small", "augmented")
OF = {"small": ("small", "agent", "updates"), "world": ("small", "world", "world_updates")}  # what decides it
SAME = ("branch", "noise", "trust", "unknown", "cost", "penalty")  # settings of `gentraj augment`
OF["augmented"] = (*OF["small"], *OF["world"], "added", "by_agent", "own_rewards", *SAME)


@dataclass(frozen=True)
class Args:
    out: Path
    """Folder of the data, the runs and the results."""
    datasets: tuple[str, ...]
    """random/ENV_ID is 2,000 episodes of random actions."""
    env_ids: tuple[str, ...] = ()
    """One for each dataset, - where the data say it; by default for all."""
    small: int = 10_000
    """Steps of the small data."""
    added: int = 40_000
    """Imagined steps."""
    branch: int = 5
    noise: float = 0.1
    trust: float = 1.0
    unknown: Literal["cut", "end"] = "cut"
    cost: float = 0.0
    penalty: float = 0.0
    by_agent: bool = False
    """Imagined actions are those of the agent that learnt of the small data, not the data's; with noise."""
    own_rewards: bool = False
    """Where the data have goals."""
    agent: str = "td3bc"
    """A preset."""
    updates: int = 5_000
    """Of the agent."""
    world: str = "world-ensemble"
    """A preset."""
    world_updates: int = 3_000
    seeds: int = 3
    episodes: int = 20
    threads: int = 1


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    named = list(zip(args.datasets, args.env_ids or ["-"] * len(args.datasets), strict=True))
    cases = itertools.product(range(args.seeds), named, DATA)
    rows = rows_of(args.out, (
        ({"settings": digest(args, OF[data], args.episodes), "dataset": dataset, "env_id": env_id, "data": data,
          "seed": seed}, partial(measured, dataset, env_id, data, seed, args))
        for seed, (dataset, env_id), data in cases))
    (args.out / "table.md").write_text(table := as_table(rows))
    print(table)


def digest(args: Args, names: Sequence[str], *also: Any) -> str:
    """Of the settings of these names."""
    settings = [getattr(args, name) for name in names]
    return hashlib.sha256(json.dumps([*settings, *also]).encode()).hexdigest()[:8]


def measured(dataset: str, env_id: str, data: str, seed: int, args: Args) -> dict[str, Any]:
    """What an agent scores that learnt of these data."""
    agent = learnt(dataset, env_id, data, seed, args)
    scores = play(agent, EvaluationConfig(episodes=args.episodes, seed=seed, baselines=False), progress=False)[0]
    return score(scores) | {"steps": load_episodes(agent.config.dataset).num_steps}


def learnt(dataset: str, env_id: str, data: str, seed: int, args: Args) -> runs.Run:
    """The agent."""
    place = {of: args.out / f"{Path(dataset).stem}-{seed}-{of}-{digest(args, names, dataset, env_id)}"
             for of, names in OF.items()}
    learnt_of = small(source(dataset, args.out), place["small"].with_suffix(".npz"), args.small, seed)
    if data == "augmented":
        policy = learnt(dataset, env_id, "small", seed, args).folder if args.by_agent else None
        world = train(args.world, learnt_of, env_id, place["world"], args.world_updates, seed)
        learnt_of = augmented(learnt_of, world.folder, f"benchmark/{place[data].name}-v0", policy, seed, args)
    return train(args.agent, learnt_of, env_id, place[data], args.updates, seed)


def small(dataset: str, path: Path, steps: int, seed: int) -> str:
    """A file of some episodes of the dataset."""
    episodes = load_episodes(dataset)
    return str(save_npz(hold_out(episodes, steps / episodes.num_steps, seed)[1], path))


def augmented(dataset: str, world: Path, made: str, policy: Path | None, seed: int, args: Args) -> str:
    """The id of the dataset that is made."""
    if not get_dataset_path(made).exists():
        own_rewards = args.own_rewards and "goal" in load_episodes(dataset).extras
        same = {name: getattr(args, name) for name in SAME}
        augment(Augment(dataset, world, args.added, made, policy=policy, own_rewards=own_rewards, seed=seed, **same),
                progress=False)
    return made


def as_table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, and the mean of the differences of two agents of one seed with its 95 % interval."""
    titles = ("dataset", "seeds", *DATA, "difference", "95 % interval")
    lines = [f"| {' | '.join(titles)} |", "|" + " --- |" * len(titles)]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        scores = {data: {row["seed"]: row["score"] for row in rows if (row["dataset"], row["data"]) == (dataset, data)}
                  for data in DATA}
        seeds = sorted(set.intersection(*map(set, scores.values())))
        if not seeds:
            continue
        more = np.array([scores["augmented"][s] - scores["small"][s] for s in seeds])
        reach = student.ppf(0.975, len(more) - 1) * more.std(ddof=1) / len(more) ** 0.5 if len(more) > 1 else np.nan
        means = [f"{np.mean([scores[data][s] for s in seeds]):.1f}" for data in DATA]
        lines.append(f"| {dataset} | {len(seeds)} | {' | '.join(means)} | {more.mean():+.1f} | "
                     f"[{more.mean() - reach:.1f}, {more.mean() + reach:.1f}] |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
