"""What a run loses on episodes that it was not trained on: measures of a checkpoint that need no environment.

They are functions of the weights and the episodes: windows and noise are always the same, so that the numbers of two
checkpoints differ by their weights alone. A part is measured with the averages of its weights, by which an agent acts.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.fql import FQL
from gentraj.agents.policies.policy import ActionModel
from gentraj.agents.prior import log_prob

from ...data import Episodes, Windows, windows_of
from ...data.windows import repeat_last
from ...distillation import FewStep
from ...randomness import fold, generator, unfold
from ...training.optimization import MovingAverage
from ...training.step import Trial
from ...trajectory import Agent, SupportsLogProb, TrajectorySpec
from ..kinds.policy_run import PolicyRun
from ..kinds.run import HELD_OUT_SEED, Run, copy_of, straight
from ..kinds.world_run import WorldModelRun

BATCHES = 8  # of each part, as large as in its training
LOSSES = ("loss", "pull", "error", "energy_score", "reconstruction")  # in the names of what an `update` reports
ACTION_ERROR, LOG_LIKELIHOOD = "action_error", "log_likelihood"
DECISIONS, PLANS = 256, 32  # that are compared with the data's actions; a planner samples many candidates in each


def held_out_measures(run: Run, episodes: Episodes, device: torch.device | None = None) -> dict[str, float]:
    """What a run loses on episodes, by name; those that are not finite are left out.

    "{part}/{metric}" are the losses that its parts report in training. "action_error" is the mean squared error of its
    actions to those of the data, in units of half their range, if it is a planner or a policy. "log_likelihood" is the
    mean log density of the data's actions under the model that a policy acts by, where it has one, in nats per entry.
    """
    own = copy_of(run, device or run.device)
    found = losses(own, episodes)
    if not isinstance(own, WorldModelRun):
        found |= decisions(own, episodes)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def losses(run: Run, episodes: Episodes) -> dict[str, float]:
    """The losses of a run's parts on windows of the episodes. The parts take over the averages of their weights."""
    found = dict[str, list[float]]()
    for name, part in run.components.items():
        for module in part.modules():
            if isinstance(module, MovingAverage):
                module.hand_back()
        windows, optimizers = windows_of(episodes, part.spec, run.context), part.optimizers()
        key = zlib.crc32(name.encode())
        for step in range(BATCHES):
            batch = windows.batch(step, fold(HELD_OUT_SEED, key), part.batch_size).to(run.device)
            with warnings.catch_warnings(action="ignore"):  # of a GAN's health, as in its training
                updated = part.update(Trial(batch, optimizers, generator(HELD_OUT_SEED, step, key)))
            for metric, value in updated.items():
                if any(word in metric for word in LOSSES):
                    found.setdefault(f"{name}/{metric}", []).append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


def decisions(run: Run, episodes: Episodes) -> dict[str, float]:
    """The error of an agent's actions to those of the episodes, and their log density where there is one."""
    spec, number = TrajectorySpec(episodes.obs_dim, episodes.act_dim, 2), PLANS
    if isinstance(run, PolicyRun):
        spec, number = replace(run.policy.spec, horizon=run.policy.chunk + 1), DECISIONS
    starts_B = np.random.default_rng(HELD_OUT_SEED).integers(episodes.num_steps, size=number)
    batch = Windows(episodes, spec).gather(starts_B)
    obs_BHO, act_BHA = spec.split(batch.x_BHD)
    seen_BW, goal_BG = spec.seen(obs_BHO[:, 0], batch.past_BPD), goals(run, episodes, starts_B)
    low_A, high_A = episodes.act.min(0), episodes.act.max(0)
    chosen_BA = decided(straight(run).agent(Box(low_A, high_A)), seen_BW, goal_BG, unfold(number, HELD_OUT_SEED))
    error_BA = (chosen_BA - act_BHA[:, 0])[:, high_A > low_A]
    half_A = torch.from_numpy(high_A - low_A)[high_A > low_A] / 2
    found = {ACTION_ERROR: float((error_BA / half_A).square().mean())}
    if isinstance(run, PolicyRun) and acts_by_density(run):
        whole_B = batch.mask_BHD[:, 1:, 0].all(1)
        goal_BG = None if goal_BG is None else goal_BG[whole_B]
        log_p_B = log_prob(run.policy, seen_BW[whole_B].to(run.device), act_BHA[whole_B, :-1], goal_BG,
                           seeds=HELD_OUT_SEED)
        found[LOG_LIKELIHOOD] = float(log_p_B.mean()) / (run.policy.chunk * len(half_A))
    return found


@torch.no_grad()
def decided(agent: Agent, seen_BW: Tensor, goal_BG: Tensor | None, seeds: Sequence[int]) -> Tensor:
    """(B, A) the first action that an agent decides on for what it sees, `TrajectorySpec.seen`, on the CPU."""
    if isinstance(agent, Actor):  # whose own memory is empty
        return agent.decide(seen_BW, goal_BG, seeds)[:, 0].cpu()
    agent.reset(seeds)
    return agent.act(seen_BW, goal_BG).cpu()


def goals(run: Run, episodes: Episodes, starts_B: np.ndarray) -> Tensor | None:
    """(B, G) the goals of the data's actions at these steps: those that a policy is conditioned on, or where a
    planner's window ends. None without goals."""
    windows = windows_of(episodes, run.main.spec, run.context).gather(starts_B)
    if isinstance(run, PolicyRun):
        return windows.context_BC
    if not run.data.goal_dims:
        return None
    return repeat_last(windows)[:, -1, list(run.data.goal_dims)]


def acts_by_density(run: PolicyRun) -> bool:
    """Whether a policy acts by a model that has a density of its own; that of a student is its teacher's."""
    policy = run.policy
    own = policy._modules.get("model")  # `action_model` may be that of a frozen policy
    if isinstance(policy, FQL) or not isinstance(own, ActionModel):
        return False
    model = own.model
    return isinstance(model, SupportsLogProb) and not isinstance(model, FewStep)
