"""Is an agent that was trained inside a world model alone better than a copy of the data's behaviour?

    python -m benchmarks.trained_inside --datasets gentraj/pointmaze/umaze-v0 random/InvertedPendulum-v5 --out inside
    python -m benchmarks.trained_inside --datasets hopper-medium.hdf5 --env-ids Hopper-v5 --out inside

For each seed the world model, stable-baselines3's SAC inside it (`examples/train_in_a_world_model.py`; by hindsight
where the data have goals, whose environment needs `compute_reward`) and the policies that clone the data, all of the
same data, are trained and then scored by the same episodes of the real environment. A line of OUT/results.jsonl is one
of them; what is there is not trained again. OUT/table.md is written anew. Needs pip install 'gentraj[sb3]'.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from scipy.stats import t as student

from benchmarks.lines import rows_of
from benchmarks.scoring import score, source, train
from envs.evaluation.evaluate import EvaluationConfig, evaluate
from examples.train_in_a_world_model import learn, learn_by_hindsight
from gentraj.runs.evaluation import play

INSIDE = "SAC inside"


@dataclass(frozen=True)
class Args:
    out: Path
    """Folder of the data, the runs and the results."""
    datasets: tuple[str, ...]
    """random/ENV_ID is 2,000 episodes of random actions."""
    env_ids: tuple[str, ...] = ()
    """One for each dataset, - where the data say it; by default for all."""
    copies: tuple[str, ...] = ("bc-gaussian", "bc-diffusion")
    """Presets."""
    updates: int = 5_000
    """Of a copy."""
    world: str = "world-ensemble"
    """A preset."""
    world_updates: int = 4_000
    steps: int = 60_000
    """Of SAC, imagined."""
    penalty: float = 1.0
    """Of a unit of uncertainty, where there are no goals."""
    per_step: int = 8
    """Updates of SAC for a step of 32 environments."""
    seeds: int = 3
    episodes: int = 20
    threads: int = 1


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    named = list(zip(args.datasets, args.env_ids or ["-"] * len(args.datasets), strict=True))
    cases = itertools.product(range(args.seeds), named, (INSIDE, *args.copies))
    rows = rows_of(args.out, ((key(dataset, env_id, agent, seed, args),
                               partial(measured, dataset, env_id, agent, seed, args))
                              for seed, (dataset, env_id), agent in cases))
    (args.out / "table.md").write_text(table := as_table(rows))
    print(table)


def key(dataset: str, env_id: str, agent: str, seed: int, args: Args) -> dict[str, Any]:
    """What decides a score."""
    names = ("world", "world_updates", "steps", "penalty", "per_step")
    own = {name: getattr(args, name) for name in names} if agent == INSIDE else {"updates": args.updates}
    return {"dataset": dataset, "env_id": env_id, "agent": agent, "seed": seed, "episodes": args.episodes} | own


def measured(dataset: str, env_id: str, agent: str, seed: int, args: Args) -> dict[str, Any]:
    """What an agent scores, and the minutes that its own training took."""
    preset, updates = (args.world, args.world_updates) if agent == INSIDE else (agent, args.updates)
    place = hashlib.sha256(f"{dataset} {env_id}".encode()).hexdigest()[:8]
    run = train(preset, source(dataset, args.out), env_id,
                args.out / f"{Path(dataset).stem}-{place}" / f"{preset}-{updates}-{seed}", updates, seed)
    run.action_space()  # raises ValueError where nobody has said which environment
    asked = EvaluationConfig(episodes=args.episodes, seed=seed, baselines=False)
    if agent != INSIDE:
        return score(play(run, asked, progress=False)[0]) | {"minutes": None}
    began = time.perf_counter()
    if run.data.context_dim:
        inside = learn_by_hindsight(run, args.steps, seed, updates=args.per_step)
    else:
        inside = learn(run, args.steps, seed, updates=args.per_step, penalty=args.penalty)
    minutes = (time.perf_counter() - began) / 60
    scores, _ = evaluate(inside, run.data.env, asked, obs_keys=run.data.obs_keys, goal_dims=run.data.goal_dims,
                         progress=False)
    return score(scores) | {"minutes": minutes}


def as_table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds with their 95 % intervals."""
    agents = list(dict.fromkeys(row["agent"] for row in rows))
    lines = [f"| {' | '.join(('dataset', 'seeds', *agents, 'minutes inside'))} |", "|" + " --- |" * (len(agents) + 3)]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        of = {agent: [row for row in rows if (row["dataset"], row["agent"]) == (dataset, agent)] for agent in agents}
        minutes = [row["minutes"] for row in of.get(INSIDE, ())]
        lines.append(f"| {' | '.join((dataset, str(min(map(len, of.values()))), *map(said, of.values())))} "
                     f"| {np.mean(minutes):.1f} |")
    return "\n".join(lines) + "\n"


def said(rows: list[dict[str, Any]]) -> str:
    scores = np.array([row["score"] for row in rows])
    if len(scores) < 2:
        return f"{scores.mean():.1f}" if len(scores) else "-"
    return f"{scores.mean():.1f} ± {student.ppf(0.975, len(scores) - 1) * scores.std(ddof=1) / len(scores) ** 0.5:.1f}"


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
