"""Extends a dataset by rollouts of a world model (`gentraj augment`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from gymnasium.spaces import Box
from pydantic import NonNegativeFloat, PositiveInt
from pydantic_core import to_jsonable_python

from gentraj.agents.wrappers import NoisyAgent
from gentraj.envs.recording.recipes import make_missing
from gentraj.envs.worlds import branches
from gentraj.envs.worlds.branches import SampleStarts, Starts
from gentraj.envs.worlds.imagined import ImaginedConfig, goal_reward

from ...config import JsonObject, settings
from ...data import Episodes, concatenate, episodes_hash, load_episodes, save_minari
from ...data.minari_io import check_new_id
from ...data.sources import split_names
from ...device import pick_device
from ...models.conditioning import KINDS
from ...progress import say
from ...randomness import fold
from ...trajectory import Agent, Condition, SamplingOptions, TrajectorySpec
from ..kinds.environment import compute_reward
from ..kinds.loading import load
from ..kinds.planner_run import PlannerRun
from ..kinds.policy_run import PolicyRun
from ..kinds.run import of_kind
from ..kinds.world_run import WorldModelRun


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
    """The run folder of a policy that acts in the branches."""
    trajectories: Path | None = None
    """The run folder of a planner whose model samples the starts and the actions of the branches. Its trajectories must
    have actions and a stride of 1 (train it with --joint --stride 1 --conditioning.start 0.5)."""
    max_uncertainty: NonNegativeFloat = 1.0
    """The uncertainty at which a branch ends, as a multiple of the largest error that is expected on held-out data."""
    termination_cost: NonNegativeFloat | None = None
    """By default a branch is truncated before a step of that uncertainty. With a number it terminates with the step, in
    the state before it, and the number is subtracted from its reward, so that critics value unknown states little
    (MOReL: Kidambi et al. 2020). Where rewards are negative, ending early pays unless the number is large enough."""
    penalty: NonNegativeFloat = 0.0
    """Reward that is subtracted for each unit of uncertainty, which is the standard deviation of the change in one step
    (MOPO: Yu et al. 2020)."""
    own_rewards: bool = False
    """Take the rewards from the real environment's compute_reward of goals, instead of the model's predictions."""
    seed: int = 0
    """Seed; the same seed gives the same dataset."""
    device: str | None = None
    """A PyTorch device such as cuda or mps; by default the accelerator if there is one, else the CPU."""

    def __post_init__(self) -> None:
        if self.policy is not None and self.trajectories is not None:
            raise ValueError("policy and trajectories both say which actions are taken in the branches; give one of "
                             "them")


def augment(config: AugmentConfig, *, progress: bool = True) -> Path:
    """Saves the new dataset and returns its folder. Raises ValueError for runs and data that do not fit together."""
    if not isinstance(config, AugmentConfig):
        raise TypeError(f"config is a {type(config).__name__}; an AugmentConfig is expected")
    check_new_id(config.out)  # before the work
    device = pick_device(config.device)
    world = of_kind(load(config.model, device=device), WorldModelRun)
    policy = of_kind(load(config.policy, device=device), PolicyRun) if config.policy else None
    planner = of_kind(load(config.trajectories, device=device), PlannerRun) if config.trajectories else None
    data = concatenate([load_episodes(make_missing(name)) for name in split_names(config.dataset)])
    check_fit(data, world, policy, planner)
    sample_starts, agent = source(config, data.real(), policy, planner, world.world_model.spec)
    imagined = ImaginedConfig(max_episode_steps=config.branch, max_uncertainty=config.max_uncertainty,
                              termination_cost=config.termination_cost, penalty=config.penalty)
    reward = None
    if config.own_rewards:
        reward = goal_reward(compute_reward(world), world.data.goal_dims)
    rollouts = branches.imagine(world.world_model, sample_starts, config.steps, imagined, config.seed, agent, reward,
                                progress=progress)
    counts = rollouts.counts()
    checkpoints = {f"{run.folder}": {"kind": run.summary, "step": run.step} for run in (world, policy, planner) if run}
    provenance = {"settings": to_jsonable_python(config), "sha256": episodes_hash(data), "checkpoints": checkpoints,
                  "imagined": counts}
    whole = rollouts.episodes(data)
    description = f"{counts['steps']} steps imagined by {config.model}"
    if not config.only_synthetic:
        if planner is None:  # else the actions are like those of the data
            whole = marked(whole)
        whole = concatenate([data, whole])
        description = f"{config.dataset} and {description}"
    if not whole.env:
        whole = replace(whole, env=world.data.env)
    folder = save_minari(whole, config.out, description=description, algorithm="gentraj augment", provenance=provenance)
    say(_summary(config, data, counts))
    return folder


def check_fit(data: Episodes, world: WorldModelRun, policy: PolicyRun | None, planner: PlannerRun | None) -> None:
    """Raises ValueError unless each run was trained on data of the same widths, and trajectories can be branches."""
    goals = data.extras.get("goal")
    goal_dim = 0 if goals is None else goals.shape[1]
    for run in filter(None, (world, policy, planner)):
        trained, given = (run.data.obs_dim, run.data.act_dim), (data.obs_dim, data.act_dim)
        if run is world or (run is policy and run.data.context_dim):
            trained, given = (*trained, run.data.context_dim), (*given, goal_dim)
        if trained != given:
            raise ValueError(f"{run.folder} was trained on observations, actions and goals of the widths {trained}, "
                             f"and those of {data.name} are {given}; take data of the run's environment")
    if planner is None:
        return
    spec = planner.model.spec
    if not spec.act_dim or spec.stride > 1:
        raise ValueError(f"{planner.folder}: its trajectories have {spec.act_dim} numbers of an action in a timestep, "
                         f"and timesteps are {spec.stride} steps apart; train one with joint=True and stride=1")
    for kind in KINDS:
        if kind != "start" and getattr(planner.config.conditioning, kind) == 1:
            raise ValueError(f"{planner.folder}: its model was always conditioned on {kind}; train one with "
                             f"conditioning.{kind}=0.5")


def source(config: AugmentConfig, data: Episodes, policy: PolicyRun | None, planner: PlannerRun | None,
           memory: TrajectorySpec | None = None) -> tuple[SampleStarts, Agent | None]:
    """Where branches start, and the agent that acts in them; None if the starts come with actions.

    `memory` says which steps before the starts the world model remembers.
    """
    if planner is not None:
        return from_samples(planner, data, config.branch), None
    if policy is not None:
        low_A, high_A = data.act.min(0), data.act.max(0)
        agent = policy.agent(Box(low_A, high_A))
        return branches.from_data(data, config.branch, None, memory), NoisyAgent(agent, low_A, high_A, config.noise)
    return branches.from_data(data, config.branch, config.noise, memory), None


def from_samples(planner: PlannerRun, data: Episodes, length: int) -> SampleStarts:
    """Starts and actions of the planner's trajectories (SynthER: Lu et al. 2023), with goals of the data.

    A model that was always conditioned on the first observation is conditioned on observations of the data.
    """
    model = planner.model
    spec = model.spec
    data_starts = branches.from_data(data, length, None)
    limit = min(length, spec.horizon)

    def sample_starts(seeds: Sequence[int]) -> Starts:
        starts = data_starts(seeds)
        condition = Condition.empty(spec, len(seeds), device=planner.device)
        if planner.config.conditioning.start == 1:
            condition = condition.with_obs(0, torch.from_numpy(starts.obs_BO))
        x_BHD = model.sample(condition, seed=[fold(seed, 3) for seed in seeds],
                             options=SamplingOptions(steps=planner.planning.steps))[:, 0]
        obs_BHO, act_BHA = (x.cpu().numpy() for x in spec.split(x_BHD))
        act_BKA = np.clip(act_BHA[:, :limit], data.act.min(0), data.act.max(0))
        return Starts(obs_BHO[:, 0], starts.goal_BG, np.full(len(seeds), limit), act_BKA)

    return sample_starts


def marked(synthetic: Episodes) -> Episodes:
    """The episodes marked as synthetic: critics learn from their steps, policies do not; see
    `gentraj.trajectory.Batch`."""
    return replace(synthetic, extras={**synthetic.extras, "imagined": np.ones((len(synthetic.obs), 1))})


def _summary(config: AugmentConfig, data: Episodes, counts: JsonObject) -> str:
    ended = "truncated" if config.termination_cost is None else "terminated"
    untrusted = ", ".join(f"{why} {n['branches']}" for why, n in counts["untrusted"].items()) or "none"
    lost = ", ".join(data.extras.keys() - {"goal", "imagined"}) or "nothing"
    return (f"{config.out}: {counts['steps']} synthetic steps of {counts['branches kept']} branches; of all "
            f"{counts['branches']} branches were {ended}: {untrusted}; left out of the data, as it cannot be imagined: "
            f"{lost}")
