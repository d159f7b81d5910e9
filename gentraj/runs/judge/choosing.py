"""Chooses a checkpoint of a run by data alone: by held-out episodes and a world model.

A return in the environment never chooses: the best of several returns is too high by luck. Where returns are asked for,
they show how well each measure ranks the checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Box
from pydantic import NonNegativeInt, PositiveInt

from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.making import environment_factory
from gentraj.envs.worlds.imagined import ImaginedConfig, ImaginedEpisodes

from ...config import JsonObject, settings
from ...data import Episodes
from ...plots.page import text_table
from ...progress import busy
from ...randomness import for_choosing
from ...training.checkpoint import saved_steps
from ..kinds.datasets import data_of, read_data
from ..kinds.loading import load
from ..kinds.run import Run, check_widths, environment_of, of_kind
from ..kinds.world_run import WorldModelRun
from .held_out import ACTION_ERROR, LOG_LIKELIHOOD, held_out_measures
from .off_policy import imagined_returns, spearman

IMAGINED = "imagined"
RETURN = "return"  # in the environment, which never decides
HIGHER = {LOG_LIKELIHOOD, IMAGINED, RETURN}  # the measures of which more is better; of the others less is


@settings
class ChooseConfig:
    """How a checkpoint is chosen. Raises ValueError for a setting outside its range."""

    by: str | None = None
    """The measure that decides, such as imagined; by default the first of action_error, imagined and the loss of the
    main part that was measured."""
    world: Path | None = None
    """The run of a world model of the same environment, in which each checkpoint acts for --world-episodes."""
    world_episodes: PositiveInt = 50
    """Episodes of each checkpoint in the world model, as long as the longest of the data."""
    episodes: NonNegativeInt = 0
    """Episodes that each checkpoint plays in its environment, to show how well the measures rank the checkpoints. Their
    returns do not decide."""
    env_id: str | None = None
    """The environment of these episodes; by default the run's own."""
    seed: NonNegativeInt = 0
    """Seed of the episodes, none of which is one of `gentraj evaluate`."""


class Ranking(NamedTuple):
    """What was measured of each checkpoint, and which of them is chosen."""

    measures: dict[int, dict[str, float]]
    """By the step of the checkpoint, in increasing order, and by the name of the measure."""
    by: str
    """The measure that decides."""
    left_out: dict[str, str]
    """The measures that are missing, and why."""

    @property
    def order(self) -> list[int]:
        """The checkpoints, the best first; of equal ones the newer first."""
        return sorted(self.measures, key=lambda step: (-signed(self.by, self.measures[step][self.by]), -step))

    @property
    def step(self) -> int:
        """The checkpoint that is chosen."""
        return self.order[0]

    def correlations(self) -> dict[str, float]:
        """The rank correlation of each measure with the return: 1 if it ranks the checkpoints as their returns do."""
        rows = [*self.measures.values()]
        true_P = np.array([row[RETURN] for row in rows])
        return {name: spearman(np.array([signed(name, row[name]) for row in rows]), true_P)
                for name in rows[0] if name != RETURN}


def signed(name: str, value: float) -> float:
    """The value of a measure, negated where less is better."""
    return value if name in HIGHER else -value


def rank_checkpoints(folder: Path, config: ChooseConfig, device: torch.device | None = None) -> Ranking:
    """Measures the checkpoints of a run and ranks them.

    Raises ValueError for fewer than two trained ones, for data that were changed since the training, for a world model
    of other observations or actions, and if the measure that is to decide is missing; and what `load` raises.
    """
    last = load(folder, device=device)
    folder = last.folder
    steps = [step for step in saved_steps(folder) if step]
    if len(steps) < 2:
        raise ValueError(f"{folder}: {'one trained checkpoint' if steps else 'no trained checkpoint'} was found, and "
                         "at least 2 are needed to choose among them; train with training.keep=10 "
                         "training.save_every=N, where N is a tenth of training.steps=")
    by_step, left_out = dict[int, dict[str, float]](), dict[str, str]()
    parts, episodes = data_of(last), read_data(last.config, folder).real()
    world = world_for(last, config.world, device)
    if not last.config.held_out:
        left_out["losses on held-out data"] = "nothing was held out; train with held_out=0.05"
    for step in steps:
        run = load(folder, step=step, device=device)
        found = by_step[step] = dict[str, float]()
        with busy(f"measuring step {step}"):
            if run.config.held_out:
                found |= held_out_measures(run, parts.test)
            if world is not None:
                found[IMAGINED] = imagined(run, world, episodes, config)
            if step == steps[0]:  # refused before the work
                deciding(last, set(found), config.by, left_out)
            if config.episodes:
                returns_E = true_returns(run, config.env_id, config.episodes, for_choosing(config.seed))
                found[RETURN] = float(returns_E.mean())
    shared = set.intersection(*(set(row) for row in by_step.values()))  # a number that is not finite is left out
    by_step = {step: {name: row[name] for name in row if name in shared} for step, row in by_step.items()}
    return Ranking(by_step, deciding(last, shared, config.by, left_out), left_out)


def deciding(run: Run, measures: set[str], by: str | None, left_out: Mapping[str, str]) -> str:
    """The measure that decides. Raises ValueError if it is missing, or is a return in the environment."""
    known = sorted(measures - {RETURN})
    why = "; ".join(f"no {name}: {reason}" for name, reason in left_out.items())
    if by is not None:
        if by not in known:
            reasons = f" ({why})" if why else ""
            raise ValueError(f"by= is {by}; what was measured is {', '.join(known) or 'nothing'}{reasons}")
        return by
    for name in (ACTION_ERROR, IMAGINED, f"{run.MAIN}/loss"):
        if name in measures:
            return name
    if not known:
        raise ValueError(f"{run.folder}: nothing tells its checkpoints apart ({why})")
    return known[0]


def world_for(run: Run, path: Path | None, device: torch.device | None) -> WorldModelRun | None:
    """The run of the world model. Raises ValueError for one of other observations or actions."""
    if path is None:
        return None
    world = of_kind(load(path, device=device), WorldModelRun)
    check_widths(world, run)
    return world


def imagined(run: Run, world: WorldModelRun, episodes: Episodes, config: ChooseConfig) -> float:
    """The mean return of a run's agent in a world model."""
    limit = ImaginedConfig(int(episodes.lengths.max()), margin=1e9)
    made = ImaginedEpisodes(world.world_model, config.world_episodes, limit)
    return float(imagined_returns(run.agent(action_range(episodes)), made, config.seed)[0].mean())


def true_returns(run: Run, env_id: str | None, episodes: int, seed: int) -> np.ndarray:
    """(E,) the returns of a run's agent in the environment `env_id`, by default its own."""
    env = environment_of(run, env_id)
    how = RolloutSettings(obs_keys=run.data.obs_keys, goal_dims=run.data.goal_dims)
    agent = run.agent(run.action_space(env))
    agent.leave_data()  # where it leaves its data is told by an evaluation
    return rollout(agent, environment_factory(env), episodes, seed, how).returns


def action_range(episodes: Episodes) -> Box:
    """The range of the data's actions, in which an agent stays: no environment says which actions are allowed."""
    return Box(episodes.act.min(0), episodes.act.max(0))


def table(ranking: Ranking, config: ChooseConfig) -> str:
    """The measures of all checkpoints and their ranks as a text table, and which is chosen."""
    names = [*next(iter(ranking.measures.values()))]
    rows: list[list[object]] = [["step", *names, "rank"]]
    rows += [[step, *(row[name] for name in names), ranking.order.index(step) + 1]
             for step, row in ranking.measures.items()]
    if config.episodes:
        rows.append(["rank correlation", *map(ranking.correlations().get, names), ""])
    left_out = [f"no {name}: {reason}" for name, reason in ranking.left_out.items()]
    step, by = ranking.step, ranking.by
    why = f"{'most' if by in HIGHER else 'least'} {by}, {ranking.measures[step][by]:.4g}"
    chosen = "the last step" if step == max(ranking.measures) else f"step {step:,}"
    return "\n".join([text_table(rows), *left_out, f"{chosen} has the {why}"])


def to_store(ranking: Ranking, config: ChooseConfig) -> JsonObject:
    """The ranking as JSON."""
    correlations = ranking.correlations() if config.episodes else None
    return {"step": ranking.step, "by": ranking.by, "left_out": ranking.left_out, "rank_correlations": correlations,
            "checkpoints": [{"step": step} | row for step, row in ranking.measures.items()]}
