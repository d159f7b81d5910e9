"""Steers a trained run: an actor over the noise of its frozen generator, trained on data, as a new run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from gentraj.agents.policies.expo import Expo
from gentraj.agents.policies.policy import PolicyConfig, check_acting
from gentraj.agents.policies.steering import Steered, SteeredConfig

from ...config import with_settings
from ...data.sources import resolve_paths
from ...randomness import generator
from ...training.loop import TrainingConfig
from ..kinds.folder import RunFolder
from ..kinds.planner_run import PlannerRun
from ..kinds.plans import PlannerPolicy, PlannerPolicyConfig
from ..kinds.policy_run import PolicyRun, PolicyRunConfig
from ..kinds.presets import reward_settings
from ..kinds.run import Run, examples, of_kind
from .training import RunTrainer, prepare, training_data

ARRIVAL = 0.1  # the threshold of the one arrival at a goal; later, likelier ones make a planner slow
CHECKED = 16  # observations in which two actions of different noise are compared


def steered_settings(run: Run, dataset: str = "") -> PolicyRunConfig:
    """The default settings by which a run is steered, on `dataset` or by default on its own data.

    Raises ValueError for a world model, and for a planner that needs more than an observation to make one plan.
    """
    frozen = frozen_settings(run)
    policy = SteeredConfig(frozen=frozen, chunk=frozen.execute, execute=frozen.execute,
                           observations=frozen.observations)
    if frozen.critic is not None:
        policy = replace(policy, rewards=frozen.rewards)
    training = TrainingConfig(min_episode_start_fraction=run.config.training.min_episode_start_fraction)
    config = replace(policy_run_settings(run, policy, dataset), training=training)
    return with_settings(config, reward_settings(config.dataset))


def policy_run_settings(run: Run, policy: PolicyConfig, dataset: str = "") -> PolicyRunConfig:
    """The settings of a policy that is made of a run, on `dataset` or by default on the run's own data."""
    config = run.config
    if not isinstance(config, PolicyRunConfig):
        config = PolicyRunConfig(env_id=config.env_id, stitch=config.stitch, held_out=config.held_out)
    return replace(config, dataset=dataset or resolve_paths(run.config.dataset, run.folder), policy=policy)


def frozen_settings(run: Run) -> PolicyConfig:
    """The settings of a run as a frozen policy, which makes one chunk or plan from its first noise and adds none later.

    Raises ValueError as `steered_settings` does.
    """
    if isinstance(run, PlannerRun):
        return plans_settings(run)
    if isinstance(run, PolicyRun):
        return run.config.policy.from_one_noise()
    raise ValueError(f"{run.description}, which has no actions to steer; give a policy or a planner")


def plans_settings(run: PlannerRun) -> PlannerPolicyConfig:
    """The settings of a planner as a policy. Raises ValueError where one plan is not made from noise, an observation
    and a goal alone."""
    config = run.config
    without = {"refine": config.refine, "a roadmap": config.roadmap,
               "a controller that tracks one plan to its end": config.planner.actions == "track"}
    needed = [name for name, value in without.items() if value]
    if needed:
        raise ValueError(f"{run.description} with {' and '.join(needed)}, and only planners that make one plan of an "
                         "observation and a goal can be steered; a distillation with method=decision makes a "
                         "policy of it")
    planner = replace(config.planner, candidates=1, select="trust")
    if run.arrival is None:
        planner = replace(planner, arrival="fixed")
    else:
        planner = replace(planner, arrival_thresholds=(ARRIVAL,))
    execute = planner.replan if planner.actions == "joint" else 1
    config = replace(config, dataset="", planner=planner, model=config.model.from_one_noise())
    return PlannerPolicyConfig(config, run.data, chunk=execute, execute=execute)


def steer(run: Run, config: PolicyRunConfig, folder: Path | str, *, resume: bool = False,
          device: torch.device | None = None, progress: bool = True) -> PolicyRun:
    """Steers a policy or a planner by settings such as `steered_settings`, as a new run in `folder`, which holds what
    is frozen.

    Raises ValueError for other settings of the frozen policy than those by which it acts, for data of other
    observations, actions or goals, and for a run whose actions do not depend on noise; and what `steered_settings` and
    `gentraj.train` raise.
    """
    if not isinstance(config.policy, SteeredConfig):
        raise ValueError(f"policy is a {type(config.policy).__name__}; a SteeredConfig is expected, such as that of "
                         "steered_settings(run)")
    check_acting(frozen_settings(run), config.policy.frozen, "policy.frozen")
    if isinstance(run, PolicyRun) and not run.policy.noise_dim:
        raise without_noise(run)
    config = replace(config, dataset=resolve_paths(config.dataset, Path(folder)))
    steered, parts = prepare(config, check=not resume)
    freeze(run, steered)
    check_noise(run, steered)
    trainer = RunTrainer(steered, training_data(steered, parts), RunFolder(folder), device=device, progress=progress)
    return of_kind(trainer.trained(resume), PolicyRun)


def freeze(run: Run, made: Run) -> Steered | Expo:
    """Gives the new run the frozen one that it acts by, and returns its policy. Raises ValueError for data of other
    widths."""
    policy = of_kind(made, PolicyRun).policy
    assert isinstance(policy, Steered | Expo)  # noqa: S101  by its settings
    goal_dim = len(run.planning.goal_dims) if isinstance(run, PlannerRun) else run.data.context_dim
    widths = {"obs_dim": run.data.obs_dim, "act_dim": run.data.act_dim, "context_dim": goal_dim}
    for name, own in widths.items():
        if own != (other := getattr(made.data, name)):
            raise ValueError(f"{made.config.dataset} has {name} {other}, and {run.folder} was trained on data with "
                             f"{own}; give data of the same environment")
    if isinstance(run, PolicyRun):
        policy.freeze(run.policy)
    elif isinstance(run, PlannerRun) and isinstance(policy.frozen, PlannerPolicy):
        policy.frozen.take(run)
    return policy


def check_noise(run: Run, steered: Run) -> None:
    """Raises ValueError for a frozen run whose actions do not depend on noise."""
    policy = of_kind(steered, PolicyRun).policy
    assert isinstance(policy, Steered)  # noqa: S101  by its settings
    state_BS = policy.scales.state(*examples(steered))[:CHECKED]
    one_BKA, other_BKA = (policy.generate(state_BS, policy.normal(state_BS, generator(seed))) for seed in (0, 1))
    if torch.equal(one_BKA, other_BKA):
        raise without_noise(run)


def without_noise(run: Run) -> ValueError:
    return ValueError(f"{run.description}, whose actions do not depend on noise, so that there is nothing to steer; "
                      "raise policy.frozen.temperature, if it has one, or take a run of a diffusion model, a flow or "
                      "a GAN")
