"""Is an agent trained only inside a world model better than one that clones the data's behaviour?

    python -m benchmarks.trained_inside --datasets gentraj/pointmaze/umaze-v0 random/InvertedPendulum-v5 --out inside
    python -m benchmarks.trained_inside --datasets hopper-medium.hdf5 --env-ids Hopper-v5 --out inside

For each seed a world model, stable-baselines3's SAC inside it (`examples/train_in_a_world_model.py`) and policies that
clone the data are trained on the same data and scored on the same episodes of the real environment. If the data have
goals, SAC trains with hindsight, for which the environment needs `compute_reward`. Each line of OUT/results.jsonl is
one agent; agents that are there are not trained again. OUT/table.md is rewritten. Needs pip install 'gentraj[sb3]'.
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
from examples.train_in_a_world_model import learn, learn_by_hindsight
from gentraj.envs.evaluation.evaluate import EvaluationConfig, evaluate
from gentraj.runs.evaluation import evaluate_run

INSIDE = "SAC inside"


@dataclass(frozen=True)
class Args:
    out: Path
    """Folder of the data, the runs and the results."""
    datasets: tuple[str, ...]
    """Files or dataset ids; random/ENV_ID stands for 2,000 episodes of random actions."""
    env_ids: tuple[str, ...] = ()
    """The environment of each dataset; - takes it from the data, which is the default."""
    copies: tuple[str, ...] = ("bc-gaussian", "bc-diffusion")
    """Presets of the policies that clone the data."""
    updates: int = 5_000
    """Number of updates of such a policy."""
    world: str = "world-ensemble"
    """Preset of the world model."""
    world_updates: int = 4_000
    """Number of updates of the world model."""
    steps: int = 60_000
    """Number of synthetic steps of SAC."""
    penalty: float = 1.0
    """Reward that a unit of uncertainty costs, if there are no goals."""
    per_step: int = 8
    """Updates of SAC for each step of 32 environments."""
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
    """Returns the settings that a score depends on."""
    names = ("world", "world_updates", "steps", "penalty", "per_step")
    own = {name: getattr(args, name) for name in names} if agent == INSIDE else {"updates": args.updates}
    return {"dataset": dataset, "env_id": env_id, "agent": agent, "seed": seed, "episodes": args.episodes} | own


def measured(dataset: str, env_id: str, agent: str, seed: int, args: Args) -> dict[str, Any]:
    """Returns the score of an agent, and the minutes that SAC's training took."""
    preset, updates = (args.world, args.world_updates) if agent == INSIDE else (agent, args.updates)
    place = hashlib.sha256(f"{dataset} {env_id}".encode()).hexdigest()[:8]
    run = train(preset, source(dataset, args.out), env_id,
                args.out / f"{Path(dataset).stem}-{place}" / f"{preset}-{updates}-{seed}", updates, seed)
    run.action_space()  # raises ValueError if the environment is unknown
    evaluation = EvaluationConfig(episodes=args.episodes, seed=seed, baselines=False)
    if agent != INSIDE:
        return score(evaluate_run(run, evaluation, progress=False)[0]) | {"minutes": None}
    began = time.perf_counter()
    if run.data.context_dim:
        inside = learn_by_hindsight(run, args.steps, seed, updates=args.per_step)
    else:
        inside = learn(run, args.steps, seed, updates=args.per_step, penalty=args.penalty)
    minutes = (time.perf_counter() - began) / 60
    scores, _ = evaluate(inside, run.data.env, evaluation, obs_keys=run.data.obs_keys,
                         goal_dims=run.data.goal_dims, progress=False)
    return score(scores) | {"minutes": minutes}


def as_table(rows: list[dict[str, Any]]) -> str:
    """Returns a table of the mean scores over seeds with their 95 % intervals."""
    agents = list(dict.fromkeys(row["agent"] for row in rows))
    lines = [f"| {' | '.join(('dataset', 'seeds', *agents, 'minutes inside'))} |", "|" + " --- |" * (len(agents) + 3)]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        by_agent = {agent: [row for row in rows if (row["dataset"], row["agent"]) == (dataset, agent)]
                    for agent in agents}
        minutes = [row["minutes"] for row in by_agent.get(INSIDE, ())]
        cells = dataset, str(min(map(len, by_agent.values()))), *map(interval, by_agent.values())
        lines.append(f"| {' | '.join(cells)} "
                     f"| {np.mean(minutes):.1f} |")
    return "\n".join(lines) + "\n"


def interval(rows: list[dict[str, Any]]) -> str:
    scores = np.array([row["score"] for row in rows])
    if len(scores) < 2:
        return f"{scores.mean():.1f}" if len(scores) else "-"
    return f"{scores.mean():.1f} ± {student.ppf(0.975, len(scores) - 1) * scores.std(ddof=1) / len(scores) ** 0.5:.1f}"


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
