"""Does an agent learn more from a small dataset if a world model of the same data adds synthetic steps to it?

    python -m benchmarks.augmented_data --datasets hopper-medium.hdf5 walker2d-mixed.hdf5 halfcheetah-mixed.hdf5 \\
        --env-ids Hopper-v5 Walker2d-v5 HalfCheetah-v5 --out augmented

The small data are episodes of a dataset, or pieces of long ones, drawn until they have `--small` steps. For each seed
a world model is trained on them, `gentraj augment` adds `--added` steps (as a Minari dataset, benchmark/...), and the
same agent is trained with the same number of updates on the small data and on the augmented data. Its last checkpoint
is scored by D4RL's score, or by the return if there is none. Each line of OUT/results.jsonl is one agent; agents that
are there are not trained again. OUT/table.md is rewritten.
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
from gentraj import runs
from gentraj.data import load_episodes, save_npz
from gentraj.data.episodes import hold_out
from gentraj.envs.evaluation.evaluate import EvaluationConfig
from gentraj.runs.augmentation import AugmentConfig, augment
from gentraj.runs.evaluation import evaluate_run

DATA = ("small", "augmented")
OF = {"small": ("small", "agent", "agent_settings", "updates"),  # names of the settings that each run depends on
      "world": ("small", "world", "world_settings", "world_updates")}
SAME = ("branch", "noise", "max_uncertainty", "unknown", "cost", "penalty")  # settings of `gentraj augment`
OF["augmented"] = (*OF["small"], *OF["world"], "added", "by_agent", "own_rewards", *SAME)


@dataclass(frozen=True)
class Args:
    out: Path
    """Folder of the data, the runs and the results."""
    datasets: tuple[str, ...]
    """Files or dataset ids; random/ENV_ID stands for 2,000 episodes of random actions."""
    env_ids: tuple[str, ...] = ()
    """The environment of each dataset; - takes it from the data, which is the default."""
    small: int = 10_000
    """Number of steps of the small data."""
    added: int = 40_000
    """Number of synthetic steps that are added."""
    branch: int = 5
    noise: float = 0.1
    max_uncertainty: float = 1.0
    unknown: Literal["truncated", "terminated"] = "truncated"
    cost: float = 0.0
    penalty: float = 0.0
    by_agent: bool = False
    """Whether synthetic actions are those of the agent trained on the small data, with noise, and not the data's."""
    own_rewards: bool = False
    """Whether rewards are computed by the environment, where the data have goals."""
    agent: str = "td3bc"
    """Preset of the agent."""
    agent_settings: tuple[str, ...] = ()
    """Settings of the agent that differ from its preset, KEY=VALUE, such as policy.alpha=10."""
    updates: int = 5_000
    """Number of updates of the agent."""
    world: str = "world-ensemble"
    """Preset of the world model."""
    world_settings: tuple[str, ...] = ()
    """Settings of the world model that differ from its preset, KEY=VALUE, such as world.members=7."""
    world_updates: int = 3_000
    """Number of updates of the world model."""
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
    """Returns a hash of the settings of these names."""
    settings = [getattr(args, name) for name in names]
    return hashlib.sha256(json.dumps([*settings, *also]).encode()).hexdigest()[:8]


def measured(dataset: str, env_id: str, data: str, seed: int, args: Args) -> dict[str, Any]:
    """Returns the score of the agent trained on these data."""
    agent = trained(dataset, env_id, data, seed, args)
    evaluation = EvaluationConfig(episodes=args.episodes, seed=seed, baselines=False)
    scores = evaluate_run(agent, evaluation, progress=False)[0]
    return score(scores) | {"steps": load_episodes(agent.config.dataset).num_steps}


def trained(dataset: str, env_id: str, data: str, seed: int, args: Args) -> runs.Run:
    """Returns the run of the agent, trained on the small or the augmented data."""
    place = {what: args.out / f"{Path(dataset).stem}-{seed}-{what}-{digest(args, names, dataset, env_id)}"
             for what, names in OF.items()}
    used = small(source(dataset, args.out), place["small"].with_suffix(".npz"), args.small, seed)
    if data == "augmented":
        policy = trained(dataset, env_id, "small", seed, args).folder if args.by_agent else None
        world = train(args.world, used, env_id, place["world"], args.world_updates, seed,
                      args.world_settings)
        used = augmented(used, world.folder, f"benchmark/{place[data].name}-v0", policy, seed, args)
    return train(args.agent, used, env_id, place[data], args.updates, seed, args.agent_settings)


def small(dataset: str, path: Path, steps: int, seed: int) -> str:
    """Returns a file with episodes of the dataset of about `steps` steps."""
    episodes = load_episodes(dataset)
    return str(save_npz(hold_out(episodes, steps / episodes.num_steps, seed)[1], path))


def augmented(dataset: str, world: Path, dataset_id: str, policy: Path | None, seed: int, args: Args) -> str:
    """Makes the augmented dataset, unless it exists, and returns its id."""
    if not get_dataset_path(dataset_id).exists():
        own_rewards = args.own_rewards and "goal" in load_episodes(dataset).extras
        same = {name: getattr(args, name) for name in SAME}
        augment(AugmentConfig(dataset, world, args.added, dataset_id, policy=policy, own_rewards=own_rewards, seed=seed,
                              **same), progress=False)
    return dataset_id


def as_table(rows: list[dict[str, Any]]) -> str:
    """Returns a table of mean scores over seeds, and of the mean difference per seed with its 95 % interval."""
    titles = ("dataset", "seeds", *DATA, "difference", "95 % interval")
    lines = [f"| {' | '.join(titles)} |", "|" + " --- |" * len(titles)]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        scores = {data: {row["seed"]: row["score"] for row in rows if (row["dataset"], row["data"]) == (dataset, data)}
                  for data in DATA}
        seeds = sorted(set.intersection(*map(set, scores.values())))
        if not seeds:
            continue
        gains = np.array([scores["augmented"][s] - scores["small"][s] for s in seeds])
        half = student.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else np.nan
        means = [f"{np.mean([scores[data][s] for s in seeds]):.1f}" for data in DATA]
        lines.append(f"| {dataset} | {len(seeds)} | {' | '.join(means)} | {gains.mean():+.1f} | "
                     f"[{gains.mean() - half:.1f}, {gains.mean() + half:.1f}] |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
