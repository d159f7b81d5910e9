"""Chooses a checkpoint of a run by data alone: by held-out episodes, fitted Q evaluation and a world model.

A return in the environment never chooses: the best of several returns is too high by luck. Where returns are asked for,
they show how well each measure ranks the checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Box
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from gentraj.agents.policies.policy import Policy, PolicyConfig
from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.making import environment_factory
from gentraj.envs.worlds.imagined import ImaginedConfig, ImaginedEpisodes

from ...config import JsonObject, settings
from ...data import Episodes, Windows
from ...normalize import Normalizer
from ...progress import busy
from ...randomness import for_choosing, unfold
from ...training.checkpoint import saved_steps
from ..kinds.datasets import data_of, read_data
from ..kinds.loading import load
from ..kinds.policy_run import PolicyRun
from ..kinds.run import HELD_OUT_SEED, Run, check_widths, environment_of, of_kind
from ..kinds.world_run import WorldModelRun
from .fqe import Experience, FQEConfig, fitted_q_evaluation
from .held_out import ACTION_ERROR, LOG_LIKELIHOOD, held_out_measures
from .off_policy import imagined_returns, spearman

FQE, IMAGINED = "fqe", "imagined"
RETURN = "return"  # in the environment, which never decides
HIGHER = {LOG_LIKELIHOOD, FQE, IMAGINED, RETURN}  # the measures of which more is better; of the others less is
MOST_STARTS = 2_000  # of episodes, that values are asked of
BLOCK = 4096  # decisions that are taken at a time


@settings
class ChooseConfig:
    """How a checkpoint is chosen. Raises ValueError for a setting outside its range."""

    by: str | None = None
    """The measure that decides, such as fqe; by default the first of action_error, imagined, fqe and the loss of the
    main part that was measured."""
    world: Path | None = None
    """The run of a world model of the same environment, in which each checkpoint acts for --world-episodes."""
    world_episodes: PositiveInt = 50
    """Episodes of each checkpoint in the world model, as long as the longest of the data."""
    fqe: FQEConfig = field(default_factory=FQEConfig)
    """Fitted Q evaluation, of policies."""
    episodes: NonNegativeInt = 0
    """Episodes that each checkpoint plays in its environment, to show how well the measures rank the checkpoints. Their
    returns do not decide."""
    env_id: str | None = None
    """The environment of these episodes; by default the run's own."""
    seed: NonNegativeInt = 0
    """Seed of fitted Q evaluation and of the episodes, none of which is one of `gentraj evaluate`."""


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
    points = decision_points(last, episodes, config, left_out)
    if not last.config.held_out:
        left_out["losses on held-out data"] = "nothing was held out; train with held_out=0.05"
    acts = list[Tensor]()
    for step in steps:
        run = load(folder, step=step, device=device)
        found = by_step[step] = dict[str, float]()
        with busy(f"measuring step {step}"):
            if run.config.held_out:
                found |= held_out_measures(run, parts.test)
            if points is not None:
                acts.append(decisions_at(run, points))
            if world is not None:
                found[IMAGINED] = imagined(run, world, episodes, config)
            if step == steps[0]:  # refused before the work
                deciding(last, {*found} | ({FQE} if points is not None else set()), config.by, left_out)
            if config.episodes:
                returns_E = true_returns(run, config.env_id, config.episodes, for_choosing(config.seed))
                found[RETURN] = float(returns_E.mean())
    if points is not None:
        data = points.experience(torch.stack(acts))
        worth_P = fitted_q_evaluation(data, config.fqe, points.initial_value, config.seed)
        for row, value in zip(by_step.values(), worth_P, strict=True):
            row[FQE] = float(value) * points.unit
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
            raise ValueError(f"--by is {by}; what was measured is {', '.join(known) or 'nothing'}{reasons}")
        return by
    for name in (ACTION_ERROR, IMAGINED, FQE, f"{run.MAIN}/loss"):
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


class Points(NamedTuple):
    """M whole transitions of the data, as long as a policy acts by one decision, that values are learned from, and E
    starts of episodes that they are asked of; they are fields of `Experience`."""

    state_MS: Tensor
    act_MX: Tensor
    reward_M: Tensor
    discount_M: Tensor
    next_MS: Tensor
    start_ES: Tensor
    initial_value: float
    """The value of constant mean rewards, with terminations at their mean rate."""
    unit: float
    """The root mean square of the rewards, in units of which values are learned."""

    @classmethod
    def of(cls, run: PolicyRun, episodes: Episodes, config: ChooseConfig) -> Points:
        """Those of a run's data. All checkpoints share the scales of the run."""
        rng, execute = np.random.default_rng(config.seed), run.policy.execute
        some = min(config.fqe.transitions, episodes.num_steps)
        step_M = np.sort(rng.choice(episodes.num_steps, some, replace=False))
        start_E = rng.permutation(episodes.starts + np.arange(len(episodes)))[:MOST_STARTS]  # rows of observations
        unit = float(np.sqrt(np.square(episodes.reward, dtype=np.float64).mean())) or 1.0
        scales = deepcopy(run.policy.scales)
        scales.reward = Normalizer(torch.zeros(1), torch.full((1,), unit)).to(run.device)
        acting = Policy(PolicyConfig(chunk=execute, execute=execute), scales)
        batch = Windows(episodes, acting.spec, run.context).gather(step_M).to(run.device)
        t = acting.transition(batch, config.fqe.discount)
        whole_B = t.whole_B
        goal_EG = torch.from_numpy(episodes.extras["goal"][start_E]) if run.data.context_dim else None
        start_ES = scales.state(acting.spec.seen(torch.from_numpy(episodes.obs[start_E])), goal_EG)
        mean, ends = float(episodes.reward.mean(dtype=np.float64)), float(episodes.terminated.mean())
        return cls(t.state_BS[whole_B], t.chunk_BX[whole_B], t.reward_B[whole_B], t.discount_B[whole_B],
                   t.next_BS[whole_B], start_ES, mean / unit / (1 - config.fqe.discount * (1 - ends)), unit)

    def experience(self, act_PNX: Tensor) -> Experience:
        """What fitted Q evaluation learns from: the transitions, with the decisions (P, M + E, X) of the checkpoints
        after them and at the starts."""
        next_PMX, start_PEX = act_PNX.split([len(self.next_MS), len(self.start_ES)], 1)
        return Experience(self.state_MS, self.act_MX, self.reward_M, self.discount_M, self.next_MS, next_PMX,
                          self.start_ES, start_PEX)


def decision_points(run: Run, episodes: Episodes, config: ChooseConfig, left_out: dict[str, str]) -> Points | None:
    """Where the checkpoints of a run decide for fitted Q evaluation; None, and why in `left_out`, if it has none."""
    if not isinstance(run, PolicyRun):
        left_out[FQE] = f"only policies decide fast enough in each step of the data, and this is a {run.NAME}"
        return None
    if run.context.goals is not None or (run.data.context_dim and "goal" not in episodes.extras):
        left_out[FQE] = "goals in hindsight have rewards of their own"
        return None
    points = Points.of(run, episodes, config)
    if not len(points.state_MS):
        left_out[FQE] = f"no episode has the {run.policy.execute} steps that the policy acts by one decision"
        return None
    return points


@torch.no_grad()
def decisions_at(run: Run, points: Points) -> Tensor:
    """(N, X) the normalised actions that a policy carries out after the transitions and at the starts, until it decides
    again."""
    policy, parts = of_kind(run, PolicyRun).policy, list[Tensor]()
    for k, state_NS in enumerate((points.next_MS, points.start_ES)):
        for i, state_BS in zip(range(0, len(state_NS), BLOCK), state_NS.split(BLOCK), strict=True):
            act_BKA = policy.sample_actions(state_BS, unfold(len(state_BS), HELD_OUT_SEED, k, i))
            parts.append((act_BKA[:, : policy.execute] * policy.scales.varies_A).flatten(1))
    return torch.cat(parts)


def table(ranking: Ranking, config: ChooseConfig) -> str:
    """The measures of all checkpoints and their ranks as a text table, and which is chosen."""
    names = [*next(iter(ranking.measures.values()))]
    rows = [["step", *names, "rank"]]
    rows += [[f"{step:,}", *(f"{row[name]:.4g}" for name in names), str(ranking.order.index(step) + 1)]
             for step, row in ranking.measures.items()]
    if config.episodes:
        found = ranking.correlations()
        rows.append(["rank correlation", *(f"{found[name]:.2f}" if name in found else "" for name in names), ""])
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(len(rows[0]))]
    lines = ["".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    step, by = ranking.step, ranking.by
    why = f"{'most' if by in HIGHER else 'least'} {by}, {ranking.measures[step][by]:.4g}"
    lines += [f"no {name}: {reason}" for name, reason in ranking.left_out.items()]
    chosen = "the last step" if step == max(ranking.measures) else f"step {step:,}"
    return "\n".join([*lines, f"{chosen} has the {why}"])


def to_store(ranking: Ranking, config: ChooseConfig) -> JsonObject:
    """The ranking as JSON."""
    correlations = ranking.correlations() if config.episodes else None
    return {"step": ranking.step, "by": ranking.by, "left_out": ranking.left_out, "rank_correlations": correlations,
            "checkpoints": [{"step": step} | row for step, row in ranking.measures.items()]}
