"""Fine-tunes a policy online: one half of each batch comes from its data, the other from the episodes that it collects.

This symmetric sampling is that of Ball et al. 2023, "Efficient Online Reinforcement Learning with Offline Data",
section 4.1. Whole episodes are collected in rounds, and saved before the policy learns from them. A round is a function
of the policy's weights and of seeds, so a training that was killed reads its rounds again and goes on. The weights that
play a round are a checkpoint, and those whose round has the highest mean return are the result.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Interval
from pydantic import NonNegativeInt, PositiveInt

from gentraj.agents.policies.policy import Policy
from gentraj.agents.wrappers import NoisyAgent
from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.making import EnvironmentFactory, environment_factory

from ...config import settings, to_json
from ...data import ContextConfig, Episodes, concatenate, load_episodes, save_npz, windows_of
from ...data.windows import WHOLE
from ...randomness import fold, for_choosing
from ...training.loop import MAY_CHANGE_ON_RESUME, TrainingData
from ...training.parallel import SINGLE
from ...trajectory import Agent, Batch, TrajectorySpec
from ..judge.choosing import true_returns
from ..kinds.datasets import data_of
from ..kinds.folder import RunFolder
from ..kinds.policy_run import PolicyRun
from ..kinds.run import Run, copy_of, environment_of
from .training import RunTrainer, check_fit

NOISE = 0.02  # of FinetuneConfig, by default
SLOWER = 0.1  # of the policy's learning rates; at full ones, a good policy is lost before it could get better
SAME_ACTION = 1e-3  # how far the entries of two equal actions may differ, normalised
COMPARED = 20  # episodes in which the result and the start are compared
PLAYED = "played"  # the folder, inside the run's, of the collected episodes: one file per round


@settings
class FinetuneConfig:
    """How to fine-tune a policy, by its own losses and a tenth of its own learning rates."""

    steps: PositiveInt = 20_000
    """Environment steps to collect; the last episodes are carried on to their end."""
    updates: Annotated[float, Interval(ge=1e-3, le=1e3)] = 0.1
    """Updates of the policy per environment step."""
    episodes: PositiveInt = 10
    """Episodes that are collected side by side in each round. The weights of the round with the highest mean return
    are the result."""
    noise: Annotated[float, Interval(ge=0, le=10)] | None = None
    """Standard deviation of the exploration noise that is added to each action, in units of half their range. By
    default it is 0.02, or 0 for a policy that samples chunks of actions, which explores by its samples."""
    seed: NonNegativeInt = 0
    """Seed of the episodes and of the updates."""


def finetune(run: Run, config: FinetuneConfig, folder: Path | str, *, env_id: str | None = None, resume: bool = False,
             progress: bool = True) -> Run:
    """Fine-tunes the policy of `run` in the environment `env_id`, by default the run's own, as a new run in `folder`,
    and returns its best checkpoint, which may be its start.

    Raises ValueError for a run without a policy that has a critic, for an unknown environment, and for a dataset that
    was changed since the run was trained; `EnvironmentFault` for an error in the environment; and what
    `gentraj.training.Trainer` raises.
    """
    if not isinstance(run, PolicyRun) or run.config.policy.critic is None:
        raise ValueError(f"{run.description}; only a policy with a critic, such as fql, can learn from the episodes "
                         "that it collects; `gentraj steer` gives one to a run without")
    if config.noise is None:
        config = replace(config, noise=0.0 if samples_chunks(run.policy) else NOISE)
    factory = environment_factory(environment_of(run, env_id))
    data, device, files = data_of(run).train, run.device, RunFolder(Path(folder).absolute())
    if not resume and (files / PLAYED).exists():
        raise ValueError(f"{files / PLAYED} holds episodes of another fine-tuning; give another folder")
    steps = max(1, round(config.steps * config.updates))
    training = replace(run.config.training, steps=steps, eval_every=0, save_every=steps, keep=steps + 1,
                       seed=config.seed, min_episode_start_fraction=0.0)
    tuned = copy_of(run, device)
    tuned.config = replace(run.config, training=training)
    given = {key: value for key, value in to_json(config).items() if key not in MAY_CHANGE_ON_RESUME}
    about = {"env": factory.spec_json, "from": run.step, "acting": to_json(tuned.acting)}
    halves = Halves(data, tuned.main.spec, run.context)
    trainer = RunTrainer(tuned, TrainingData(data, run.context, lambda _: halves), files,
                         about={"finetune": given | about}, processes=SINGLE.on(device), progress=progress)
    for each in trainer.components:
        each.slow_down(SLOWER)
    player = Player(tuned, factory, config, files / PLAYED, progress)

    trainer.fit(resume, until=0)
    played_by, due = list[int](), 0
    while due < steps:
        halves.add(player.play(f"{len(played_by):08d}", len(played_by)))
        played_by.append(due)
        due = min(steps, math.ceil(config.updates * halves.num_steps))
        if trainer.step < due:
            trainer.fit(until=due)
    last = player.play(f"result-{steps:08d}", len(played_by))
    means = [played.returns.mean() for played in (*halves.rounds, last)]
    best = [*played_by, steps][int(np.argmax(means))]
    if best != steps:
        files.choose(best)
    return files.load(best, device)


def gain(start: Run, tuned: Run, config: FinetuneConfig, env_id: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(E,) the returns of a run and of what it was fine-tuned to, in the same `COMPARED` episodes.

    These are the first ones that `gentraj evaluate` plays with the seed of the config: no round had any of them, so
    that they do not favour the checkpoint whose round was the best.
    """
    before_E, after_E = (true_returns(run, env_id, COMPARED, config.seed) for run in (start, tuned))
    return before_E, after_E


@torch.no_grad()
def samples_chunks(policy: Policy) -> bool:
    """Whether the policy decides several actions at once, and other ones by another seed."""
    if policy.execute == 1:
        return False
    one, other = policy.sample_actions(torch.zeros(2, policy.state_dim, device=policy.device), [0, 1])
    return not torch.allclose(one, other, atol=SAME_ACTION)


class Halves:
    """Batches of which one half is drawn from the data, and the other from all rounds of episodes that were added."""

    def __init__(self, data: Episodes, spec: TrajectorySpec, contexts: ContextConfig):
        self.spec = spec
        self.contexts = contexts
        self.old = windows_of(data, spec, contexts)
        self.rounds: list[Episodes] = []

    def add(self, played: Episodes) -> None:
        """Adds a round."""
        self.rounds.append(played)
        self.new = windows_of(concatenate(self.rounds), self.spec, self.contexts)

    @property
    def num_steps(self) -> int:
        """The environment steps of all rounds."""
        return sum(played.num_steps for played in self.rounds)

    def batch(self, step: int, seed: int, size: int, rows: slice = WHOLE) -> Batch:
        """The batch of one training step, or some of its rows."""
        old = self.old.batch(step, fold(seed, 2), size - size // 2)  # not those of this step of the first training
        return _joined(old, self.new.batch(step, fold(seed, 1), size // 2)).take(rows)


def _joined(one: Batch, other: Batch) -> Batch:
    """Both batches in one; the windows of `other` are real."""
    if one.synthetic_B is not None:
        other = replace(other, synthetic_B=torch.zeros(len(other.x_BHD), dtype=torch.bool))
    both = {name: None if tensor is None else torch.cat([tensor, getattr(other, name)])
            for name, tensor in vars(one).items()}
    return replace(one, **both)


class Player:
    """Plays rounds of episodes in an environment by a policy in training, and keeps them in a folder.

    Raises ValueError for an environment of other observations or actions.
    """

    def __init__(self, run: Run, factory: EnvironmentFactory, config: FinetuneConfig, folder: Path, progress: bool):
        space = run.data.allowed(run.action_space(factory.spec_json))
        check_fit(run.data, factory.spec_json)
        self.run = run
        self.factory = factory
        self.config = config
        self.folder = folder
        self.progress = progress
        self.agent: Agent = run.agent(space)
        if config.noise:
            self.agent = NoisyAgent(self.agent, space.low, space.high, config.noise)

    def play(self, name: str, number: int) -> Episodes:
        """The episodes of the round of this number, from the file of this name if they were played before."""
        path, data, episodes = self.folder / f"{name}.npz", self.run.data, self.config.episodes
        if not path.exists():
            settings = RolloutSettings(episodes, obs_keys=data.obs_keys, goal_dims=data.goal_dims, name="exploring")
            self.run.main.eval()
            played = rollout(self.agent, self.factory, episodes, fold(for_choosing(self.config.seed), number), settings,
                             record=True, progress=self.progress)
            self.run.main.train()
            assert played.recorded is not None  # noqa: S101  as asked for
            save_npz(played.recorded, path)
        return load_episodes(path)
