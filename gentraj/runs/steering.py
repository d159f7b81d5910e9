"""Steers a trained run: an actor over the noise of its frozen generator, trained on data, as a new run."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from gentraj.agents.policies.policy import PolicyConfig
from gentraj.agents.policies.steering import Steered, SteeredConfig

from ..config import JsonObject, from_json, to_json, with_settings
from ..randomness import generator
from ..training.loop import TrainingConfig
from .export import examples
from .policy import PolicyRun, PolicyRunConfig, check_acting
from .presets import reward_settings
from .run import Run, of_kind
from .training import resolve_paths, train

CHECKED = 16  # observations in which two actions of different noise are compared

def steered_settings(run: Run, dataset: str = "") -> PolicyRunConfig:
    """The default settings by which a run is steered, on `dataset` or by default on its own data.

    Raises ValueError for a run that is no policy.
    """
    if not isinstance(run, PolicyRun):
        raise ValueError(f"{run.description}; the actions of policies alone can be steered, by the noise that they are "
                         "sampled from: `gentraj distill --method decision` makes a policy of a planner")
    own = run.config
    frozen = frozen_settings(own.policy)
    policy = SteeredConfig(frozen=frozen, chunk=frozen.execute, execute=frozen.execute,
                           observations=frozen.observations)
    if frozen.critic is not None:
        policy = replace(policy, rewards=frozen.rewards)
    training = TrainingConfig(min_episode_start_fraction=own.training.min_episode_start_fraction)
    config = replace(own, dataset=dataset or resolve_paths(own.dataset, run.folder), policy=policy, training=training)
    return with_settings(config, reward_settings(config.dataset))


def frozen_settings(policy: PolicyConfig) -> PolicyConfig:
    """The settings of a frozen policy: a single action is sampled, without noise after the first."""
    settings: JsonObject = to_json(policy)
    if "candidates" in settings:
        settings["candidates"] = 1
    model = settings.get("model") or {}
    for each in (model, model.get("prior", {})):
        if "eta" in each:
            each["eta"] = 0.0
    return from_json(PolicyConfig, settings)


def steer(run: Run, config: PolicyRunConfig, folder: Path | str, *, resume: bool = False,
          device: torch.device | None = None, progress: bool = True) -> PolicyRun:
    """Steers a policy by settings such as `steered_settings`, as a new run in `folder`, which holds the frozen policy.

    Raises ValueError for a run that is no policy, for other settings of the frozen policy than those by which it acts,
    for data of other observations, actions or goals, and for a policy that needs no noise; and what
    `gentraj.runs.training.train` raises.
    """
    run = of_kind(run, PolicyRun)
    if not isinstance(config.policy, SteeredConfig):
        raise ValueError(f"policy is a {type(config.policy).__name__}; a SteeredConfig is expected, such as that of "
                         "steered_settings(run)")
    check_acting(frozen_settings(run.config.policy), config.policy.frozen, "policy.frozen")
    check_noise(run, config.policy)
    steered = train(config, folder, resume=resume, device=device, progress=progress, begin=partial(freeze, run))
    return of_kind(steered, PolicyRun)


def freeze(run: PolicyRun, steered: Run) -> None:
    """Gives the new run the policy that it steers. Raises ValueError for data of other widths."""
    for name in ("obs_dim", "act_dim", "context_dim"):
        own, other = getattr(run.data, name), getattr(steered.data, name)
        if own != other:
            raise ValueError(f"{steered.config.dataset} has {name} {other}, and {run.folder} was trained on data with "
                             f"{own}; give data of the same environment")
    policy = of_kind(steered, PolicyRun).policy
    assert isinstance(policy, Steered)  # noqa: S101  by its settings
    policy.freeze(run.policy)


def check_noise(run: PolicyRun, config: SteeredConfig) -> None:
    """Raises ValueError where the actions of a policy do not depend on noise."""
    policy = run.policy
    if policy.noise_dim:
        steered = Steered(config, deepcopy(policy.scales)).to(run.device)
        steered.freeze(policy)
        obs_RO, goal_RG = examples(run)
        state_BS = policy.scales.state(obs_RO, goal_RG)[:CHECKED]
        one_BKA, other_BKA = (steered.generate(state_BS, steered.normal(state_BS, generator(seed))) for seed in (0, 1))
        if not torch.equal(one_BKA, other_BKA):
            return
    raise ValueError(f"{run.description}, whose actions do not depend on noise, so that there is nothing to steer; "
                     "raise --policy.frozen.temperature, if it has one, or take a run of a diffusion model, a flow or "
                     "a GAN")
