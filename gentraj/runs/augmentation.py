"""Extends a dataset by rollouts of a world model (`gentraj augment`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.spaces import Box
from pydantic import NonNegativeFloat, PositiveInt

from gentraj.agents.exploration import NoisyAgent
from gentraj.agents.prior import likeness
from gentraj.envs.recording.recipes import make_missing
from gentraj.envs.worlds import branches
from gentraj.envs.worlds.branches import SampleStarts, Starts
from gentraj.envs.worlds.imagined import ImaginedConfig, goal_reward

from ..config import settings
from ..data import Episodes, concatenate, episodes_hash, load_episodes, save_minari
from ..data.minari_writer import check_new_id
from ..data.sources import split_names
from ..device import pick_device
from ..models.conditioning import KINDS
from ..progress import say
from ..randomness import fold
from ..trajectory import Agent, Condition, Guide, SamplingOptions
from .environment import compute_reward
from .folder import RunFolder, load
from .planner import PlannerRun, as_planner
from .policy import PolicyRun, as_policy
from .run import Run
from .world import WorldModelRun, as_world_model

# Settings that the provenance of the new dataset records, beside data, runs and seed.
SETTINGS = ("only_synthetic", "branch", "noise", "tilt", "max_uncertainty", "unknown", "cost", "penalty", "own_rewards")


@settings
class AugmentConfig:
    """What is added to a dataset, and from where; the result is saved as the Minari dataset `out`.

    Raises ValueError for a setting outside its range.
    """

    dataset: str
    """The dataset to extend, named as in `gentraj train --dataset`; '+' joins several."""
    model: Path
    """The run folder of a world model."""
    steps: PositiveInt
    """Approximate number of synthetic steps to keep."""
    out: str
    """The id of the new dataset, namespace/name-vN."""
    only_synthetic: bool = False
    """Leave the original episodes out of the new dataset. The synthetic steps are then not marked as synthetic, so that
    policies imitate them too."""
    branch: PositiveInt = 5
    """The largest number of steps in a branch."""
    noise: NonNegativeFloat = 0.1
    """Standard deviation of the noise added to the actions of the data or of the policy, in units of half the action's
    range. With --trajectories no noise is added."""
    policy: Path | None = None
    """The run folder of a policy that acts in the branches; with --trajectories, the sampled actions are tilted towards
    this policy's."""
    trajectories: Path | None = None
    """The run folder of a planner whose model samples the starts and the actions of the branches. Its trajectories must
    have actions and a stride of 1 (train it with --joint --stride 1 --conditioning.start 0.5)."""
    tilt: NonNegativeFloat = 5.0
    """Strength of the tilt of --trajectories towards --policy; 5 is as strong as if the policy acted with normal noise
    of 0.3 half ranges."""
    max_uncertainty: NonNegativeFloat = 1.0
    """The uncertainty at which a branch ends, as a multiple of the largest error that is expected on held-out data."""
    unknown: Literal["truncated", "terminated"] = "truncated"
    """How a branch ends at that uncertainty: truncated before the step, or terminated by the step in the state before
    it, so that critics value unknown states little (MOReL: Kidambi et al. 2020)."""
    cost: NonNegativeFloat = 0.0
    """Reward that is subtracted at such a termination with --unknown terminated; needed if rewards are negative, where
    ending early would pay."""
    penalty: NonNegativeFloat = 0.0
    """Reward that is subtracted for each unit of uncertainty, which is the standard deviation of the change in one step
    (MOPO: Yu et al. 2020)."""
    own_rewards: bool = False
    """Take the rewards from the real environment's compute_reward of goals, instead of the model's predictions."""
    seed: int = 0
    """Seed; the same seed gives the same dataset."""
    device: str | None = None
    """A PyTorch device such as cuda or mps; by default the accelerator if there is one, else the CPU."""


def augment(config: AugmentConfig, *, progress: bool = True) -> Path:
    """Saves the new dataset and returns its folder. Raises ValueError for runs and data that do not fit together."""
    check_new_id(config.out)  # before the work
    device = pick_device(config.device)
    world = as_world_model(load(config.model, device=device))
    policy = None
    if config.policy is not None:
        policy = as_policy(load(config.policy, device=device))
    planner = None
    if config.trajectories is not None:
        planner = as_planner(load(config.trajectories, device=device))
    model = world.world_model
    data = concatenate([load_episodes(make_missing(name)) for name in split_names(config.dataset)])
    check_fit(data, world, policy, planner)
    sample_starts, agent = source(config, data.real(), policy, planner)
    imagined = ImaginedConfig(max_episode_steps=config.branch, max_uncertainty=config.max_uncertainty,
                              unknown=config.unknown, cost=config.cost, penalty=config.penalty)
    reward = goal_reward(compute_reward(world), world.data.goal_dims) if config.own_rewards else None
    rollouts = branches.imagine(model, sample_starts, config.steps, imagined, config.seed, agent, reward,
                                progress=progress)
    synthetic, counts = rollouts.episodes(data), rollouts.counts()
    given = {key: getattr(config, key) for key in SETTINGS}
    provenance = {"dataset": config.dataset, "sha256": episodes_hash(data), "model": _about(world),
                  "policy": _about(policy), "trajectories": _about(planner), "seed": config.seed, "settings": given,
                  "imagined": counts}
    copied = planner is not None and policy is None  # the actions are like those of the data
    whole = synthetic if config.only_synthetic else concatenate([data, synthetic if copied else marked(synthetic)])
    whole = whole if whole.env else replace(whole, env=world.data.env)
    description = (f"{'' if config.only_synthetic else f'{config.dataset} and '}{counts['steps']} steps imagined by "
                   f"{config.model}")
    folder = save_minari(whole, config.out, description=description, algorithm="gentraj augment", provenance=provenance)
    say(_summary(config, data, counts))
    return folder


def check_fit(data: Episodes, world: WorldModelRun, policy: PolicyRun | None, planner: PlannerRun | None) -> None:
    """Raises ValueError unless each run is of the expected kind and was trained on data of the same widths."""
    goal_dim = data.extras["goal"].shape[1] if "goal" in data.extras else 0
    widths = {"observations": data.obs_dim, "actions": data.act_dim, "goals": goal_dim}
    if planner is not None:
        _check_planner(planner)
    for run in (world, policy, planner):
        if run is None:
            continue
        own = {"observations": run.data.obs_dim, "actions": run.data.act_dim, "goals": run.data.context_dim}
        required = {"goals"} if run is world or (run is policy and run.data.context_dim) else set()
        for key in ("observations", "actions", *required):
            if own[key] != widths[key]:
                raise ValueError(f"{run.folder} was trained on {key} of width {own[key]}, but those of {data.name} "
                                 f"have {widths[key]}; take data of the run's environment")


def _check_planner(planner: PlannerRun) -> None:
    spec, conditioning = planner.model.spec, planner.config.conditioning
    if not spec.act_dim or set(spec.gaps) != {1}:
        raise ValueError(f"{planner.folder}: its trajectories have {spec.act_dim} numbers of an action in a timestep, "
                         f"and timesteps are {spec.spacing} steps apart; train one with --joint --stride 1")
    if always := [kind for kind in KINDS if kind != "start" and getattr(conditioning, kind) == 1]:
        raise ValueError(f"{planner.folder}: its model was always conditioned on "
                         f"{', '.join(always)}; train one with --conditioning.{always[0]} 0.5")


def source(config: AugmentConfig, data: Episodes, policy: PolicyRun | None,
           planner: PlannerRun | None) -> tuple[SampleStarts, Agent | None]:
    """Where branches start, and the agent that acts in them; None if the starts come with actions."""
    low_A, high_A = data.act.min(0), data.act.max(0)
    if planner is not None:
        half_A = np.where(high_A > low_A, (high_A - low_A) / 2, 1)
        guide = None if policy is None else tilt(planner, policy, half_A, config.tilt)
        return from_samples(planner, data, config.branch, guide), None
    if policy is not None:
        agent = policy.agent(Box(low_A, high_A))
        return branches.from_data(data, config.branch, None), NoisyAgent(agent, low_A, high_A, config.noise)
    return branches.from_data(data, config.branch, config.noise), None


def from_samples(planner: PlannerRun, data: Episodes, length: int, guide: Guide | None) -> SampleStarts:
    """Starts and actions of the planner's trajectories (SynthER: Lu et al. 2023), with goals of the data.

    A model that was always conditioned on the first observation is conditioned on observations of the data.
    """
    model, spec, data_starts = planner.model, planner.model.spec, branches.from_data(data, length, None)
    with_start, limit = planner.config.conditioning.start == 1, min(length, spec.horizon)

    def sample_starts(seeds: Sequence[int]) -> Starts:
        starts = data_starts(seeds)
        condition = Condition.empty(spec, len(seeds), device=planner.device)
        if with_start:
            condition = condition.with_obs(0, torch.from_numpy(starts.obs_BO))
        x_BHD = model.sample(condition, guide=guide, seed=[fold(seed, 3) for seed in seeds],
                             options=SamplingOptions(steps=planner.planning.steps))[:, 0]
        obs_BHO, act_BHA = (x.cpu().numpy() for x in spec.split(x_BHD))
        act_BKA = np.clip(act_BHA[:, :limit], data.act.min(0), data.act.max(0))
        return Starts(obs_BHO[:, 0], starts.goal_BG, np.full(len(seeds), limit), act_BKA)

    return sample_starts


def tilt(planner: PlannerRun, run: PolicyRun, half_A: np.ndarray, weight: float) -> Guide:
    """A guide that makes trajectories more like those of a run's policy: `gentraj.agents.prior.likeness`.

    Raises ValueError for a policy that is conditioned on goals, which trajectories do not have.
    """
    policy = run.policy
    if policy.scales.context_dim:
        raise ValueError(f"{run.description} and is conditioned on goals, which trajectories do not have; leave "
                         "--policy or --trajectories out")
    return likeness(policy, planner.model.spec, torch.from_numpy(half_A).float(), weight)


def marked(synthetic: Episodes) -> Episodes:
    """The episodes marked as synthetic: critics learn from their steps, policies do not; see
    `gentraj.trajectory.Batch`."""
    return replace(synthetic, extras={**synthetic.extras, "imagined": np.ones((len(synthetic.obs), 1))})


def _about(run: Run[Any] | None) -> dict[str, Any] | None:
    if run is None:
        return None
    config = hashlib.sha256((run.folder / RunFolder.CONFIG).read_bytes()).hexdigest()
    return {"run": str(run.folder), "kind": run.summary, "step": run.step, "config_sha256": config}


def _summary(config: AugmentConfig, data: Episodes, counts: dict[str, Any]) -> str:
    untrusted = ", ".join(f"{why} {n['branches']}" for why, n in counts["untrusted"].items()) or "none"
    lost = [] if config.only_synthetic else [key for key in data.extras if key not in ("goal", "imagined")]
    left_out = f"; left out of the original, as they cannot be imagined: {', '.join(lost)}" if lost else ""
    return (f"{config.out}: {counts['steps']} synthetic steps of {counts['branches kept']} branches; of all "
            f"{counts['branches']} branches were {config.unknown}: {untrusted}{left_out}")
