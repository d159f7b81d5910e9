"""Fine-tunes a policy online: one half of each batch comes from its data, the other from the episodes that it collects.

This symmetric sampling is that of Ball et al. 2023, "Efficient Online Reinforcement Learning with Offline Data",
section 4.1. Episodes are collected in rounds, whole ones, and saved before the policy learns from them. A round is a
function of the policy's weights and of seeds, so a training that was killed reads its rounds again and goes on. The
weights that play a round are a checkpoint, and those whose round has the highest mean return are the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
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

from ..config import settings, to_json
from ..data import ContextConfig, Episodes, Windows, concatenate, load_episodes, save_npz
from ..data.windows import WHOLE
from ..randomness import fold
from ..training.log import Log, Sums
from ..training.loop import MAY_CHANGE_ON_RESUME, Callbacks, RunStore, Trainer, TrainingData
from ..trajectory import Agent, Batch, TrajectorySpec
from .folder import RunFolder, fingerprint
from .policy import PolicyRun
from .run import Run, copy_of, environment_of
from .training import check_fit, trained, training_data

NOISE = 0.02  # of FinetuneConfig, by default
SLOWER = 0.1  # of the policy's learning rates; at full ones, a good policy is lost before it could get better
SAME_ACTION = 1e-3  # how far the entries of two equal actions may differ, normalised
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
    episodes, device = training_data(run), run.device
    store = RunFolder(Path(folder).absolute())
    steps = max(1, round(config.steps * config.updates))
    training = replace(run.config.training, steps=steps, eval_every=0, save_every=steps, keep=steps + 1,
                       seed=config.seed, min_episode_start_fraction=0.0)
    tuned = copy_of(run, device)
    tuned.config, tuned.folder = replace(run.config, training=training), store.path
    played = store / PLAYED
    if not resume and played.exists():
        raise ValueError(f"{played} holds episodes of another fine-tuning; give another folder")
    given = {key: value for key, value in to_json(config).items() if key not in MAY_CHANGE_ON_RESUME}
    meta = fingerprint(tuned) | {"finetune": given | {"env": factory.spec_json, "from": run.step}}
    experience = Experience(episodes, tuned.main.spec, run.context, played, _player(tuned, factory, config, progress),
                            config.updates)
    trainer = RoundTrainer(tuned.components, TrainingData(episodes, run.context, lambda _: experience), training,
                           RunStore(store.path, meta), Callbacks(partial(store.start, tuned, device, resume)),
                           progress=progress)
    trainer.experience = experience
    last = trained(tuned, trainer, resume, device).step
    best = experience.best(last)
    if best != last:
        store.choose(best)
    return store.load(best, device)


def returns(folder: Path) -> np.ndarray:
    """(E,) the returns of the episodes that were collected in a fine-tuning, in order of time."""
    return np.concatenate([load_episodes(path).returns for path in sorted((folder / PLAYED).glob("*.npz"))])


@torch.no_grad()
def samples_chunks(policy: Policy) -> bool:
    """Whether the policy decides several actions at once, and other ones by another seed."""
    if policy.execute == 1:
        return False
    one, other = policy.sample_actions(torch.zeros(2, policy.state_dim, device=policy.device), [0, 1])
    return not torch.allclose(one, other, atol=SAME_ACTION)


class Experience:
    """Batches for a training: one half from the data, the other from episodes that are collected as they are needed."""

    def __init__(self, episodes: Episodes, spec: TrajectorySpec, contexts: ContextConfig, folder: Path,
                 play: Callable[[int], Episodes], updates: float):
        """`play(r)` collects the episodes of round r. `updates` batches are taken per environment step of the rounds so
        far; then the next round is collected."""
        self.spec = spec
        self.contexts = contexts
        self.folder = folder
        self.play = play
        self.updates = updates
        self.old = Windows(episodes, spec, contexts)
        self.rounds: list[Episodes] = []
        self.steps: list[int] = []
        """The training step whose weights played each round."""
        self.due = 0
        """The training step whose batch needs a further round."""

    def batch(self, step: int, seed: int, size: int, rows: slice = WHOLE) -> Batch:
        """The batch of one training step, or some of its rows. Rounds that it needs are read from the folder, or
        collected now."""
        if step >= self.due:
            self.collect(step)
            self.new = Windows(concatenate(self.rounds), self.spec, self.contexts)
        old = self.old.batch(step, fold(seed, 2), size - size // 2)  # not those of this step of the first training
        return _joined(old, self.new.batch(step, fold(seed, 1), size // 2)).take(rows)

    def collect(self, step: int) -> None:
        """Reads or collects the rounds that the batches up to this training step need."""
        while step >= self.due:
            self.rounds.append(self._saved(f"{len(self.rounds):08d}"))
            self.steps.append(self.due)
            self.due = math.ceil(self.updates * sum(played.num_steps for played in self.rounds))

    def best(self, last: int) -> int:
        """The training step whose weights have the highest mean return. Those of the `last` step play a round for
        this alone."""
        self.collect(last - 1)
        result = self._saved(f"result-{last:08d}")
        means = [played.returns.mean() for played in (*self.rounds, result)]
        return [*self.steps, last][int(np.argmax(means))]

    def _saved(self, name: str) -> Episodes:
        path = self.folder / f"{name}.npz"
        if not path.exists():
            save_npz(self.play(len(self.rounds)), path)
        return load_episodes(path)


class RoundTrainer(Trainer):
    """Trains at lower learning rates, and saves the weights that play a round of episodes before they play it."""

    experience: Experience

    def begin(self, resume: bool) -> Sums:
        for each in self.components:
            for optimizer in each.optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] *= SLOWER
        return super().begin(resume)

    def train_step(self, log: Log) -> None:
        if self.step >= self.experience.due:
            self.record(log)
            self.save(log.sums)
        super().train_step(log)


def _joined(one: Batch, other: Batch) -> Batch:
    """Both batches in one; the windows of `other` are real."""
    if one.synthetic_B is not None:
        other = replace(other, synthetic_B=torch.zeros(len(other.x_BHD), dtype=torch.bool))
    both = {name: None if tensor is None else torch.cat([tensor, getattr(other, name)])
            for name, tensor in vars(one).items()}
    return replace(one, **both)


def _player(run: Run, factory: EnvironmentFactory, config: FinetuneConfig,
            progress: bool) -> Callable[[int], Episodes]:
    space = run.data.allowed(run.action_space(factory.spec_json))
    check_fit(run.data, factory.spec_json)
    agent: Agent = run.agent(space)
    if config.noise:
        agent = NoisyAgent(agent, space.low, space.high, config.noise)
    settings = RolloutSettings(config.episodes, obs_keys=run.data.obs_keys, goal_dims=run.data.goal_dims,
                               name="exploring")

    def play(number: int) -> Episodes:
        run.main.eval()
        played = rollout(agent, factory, config.episodes, fold(config.seed, number), settings, record=True,
                         progress=progress)
        run.main.train()
        assert played.recorded is not None  # noqa: S101  as asked for
        return played.recorded

    return play
