"""Does TD3+BC learn more from few real steps if branches of a world model are rolled out anew while it learns?

    python -m benchmarks.branching halfcheetah-mixed.hdf5 --env-id HalfCheetah-v5 --out branching
    python -m benchmarks.branching halfcheetah-mixed.hdf5 --env-id HalfCheetah-v5 --out branching --share 0

It is the loop of MBPO and MOPO (Janner et al. 2019, Yu et al. 2020), which `gentraj augment` is not: every `--every`
updates the present actor acts, with noise, in branches from states of the data, and the actor maximises its value in
synthetic states, too. Real actions alone are imitated. `--share 0` is the same agent with the same updates without a
world model. Actor and critics are perceptrons of two layers; returns are of `--n-step` steps, and in branches of as
many as are left. Each line of OUT/results.jsonl is one agent; agents that are there are not trained again.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import tyro
from torch import Tensor

from benchmarks.augmented_data import small
from benchmarks.lines import rows_of
from benchmarks.scoring import score, source, train
from gentraj.agents.exploration import NoisyAgent
from gentraj.data import Episodes, load_episodes
from gentraj.envs.evaluation.evaluate import EvaluationConfig, evaluate
from gentraj.envs.worlds import branches
from gentraj.envs.worlds.imagined import ImaginedConfig
from gentraj.networks.mlp import EnsembleMLP, ValueEnsemble
from gentraj.randomness import fold, generator
from gentraj.training.optimization import MovingAverage
from gentraj.trajectory import Agent
from gentraj.worlds.model import WorldModel


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional]
    """File or dataset id; random/ENV_ID stands for 2,000 episodes of random actions."""
    env_id: str
    out: Path
    small: int = 10_000
    """Number of real steps."""
    share: float = 0.8
    """Share of synthetic transitions in a batch; 0 is without a world model."""
    every: int = 1_000
    """Updates between rollouts; before the first ones the batches are real."""
    steps: int = 10_000
    """Synthetic steps of one rollout; the last `kept` rollouts are learnt from."""
    kept: int = 3
    branch: int = 5
    noise: float = 0.1
    max_uncertainty: float = 1.0
    penalty: float = 0.0
    early: float = 0.0
    """Share of the branches that start in one of the first 32 steps of an episode."""
    world_settings: tuple[str, ...] = ()
    """Settings of the ensemble that differ from its preset, KEY=VALUE, such as world.members=7."""
    world_updates: int = 2_000
    updates: int = 3_000
    batch: int = 128
    alpha: float = 2.5
    """Weight of the value beside the squared error to real actions."""
    cloning: float = 1.0
    """Weight of that error; 0 is TD3 alone."""
    n_step: int = 32
    width: int = 128
    learning_rate: float = 5e-4
    seed: int = 0
    episodes: int = 10
    threads: int = 1


DISCOUNT, TAU, DECAY = 0.99, 0.01, 0.995
EARLY = 32  # steps of an episode
KEYS = ("share", "every", "steps", "kept", "branch", "noise", "max_uncertainty", "penalty", "early", "world_settings",
        "world_updates")  # settings that have no effect without a world model


class Transitions(NamedTuple):
    """n-step transitions: states, actions, discounted rewards, next states and the discounts of their values."""

    state: Tensor
    act: Tensor
    reward: Tensor
    next: Tensor
    discount: Tensor

    def draw(self, number: int, rng: np.random.Generator) -> Transitions:
        rows = torch.from_numpy(rng.integers(len(self.state), size=number))
        return Transitions(*(x[rows] for x in self))

    @classmethod
    def joined(cls, parts: Sequence[Transitions]) -> Transitions:
        return cls(*map(torch.cat, zip(*parts, strict=True)))


class Learner(Agent):
    """TD3+BC, and an `Agent`; `data` set the scales of observations, actions and rewards."""

    def __init__(self, data: Episodes, args: Args):
        self.args, self.generator = args, generator(args.seed)
        low_A, high_A = data.act.min(0), data.act.max(0)
        self.shift_O, self.scale_O = map(torch.from_numpy, (data.obs.mean(0), data.obs.std(0) + 1e-6))
        self.middle_A, self.half_A = map(torch.from_numpy, ((low_A + high_A) / 2, (high_A - low_A) / 2))
        self.unit, start = float((data.reward**2).mean() ** 0.5), float(data.reward.mean()) / (1 - DISCOUNT)
        with torch.random.fork_rng():
            torch.manual_seed(args.seed)
            self.actor = EnsembleMLP([data.obs_dim, args.width, args.width, data.act_dim], 1)
            self.critic = ValueEnsemble(data.obs_dim + data.act_dim, args.width, 2, 2, start / self.unit)
        self.slow_actor, self.slow_critic = MovingAverage(self.actor, DECAY), MovingAverage(self.critic, 1 - TAU)
        self.optimizers = [torch.optim.Adam(net.parameters(), args.learning_rate) for net in (self.actor, self.critic)]

    def reset(self, mask_B: Tensor | None = None, seeds_B: Sequence[int] | None = None) -> None:
        """Does nothing, as the agent has no state."""

    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            return self.slow_actor(self.state(obs_BO))[0].clamp(-1, 1) * self.half_A + self.middle_A

    def state(self, obs_BO: Tensor) -> Tensor:
        return ((obs_BO.float() - self.shift_O) / self.scale_O).clamp(-10, 10)

    def transitions(self, episodes: Episodes) -> Transitions:
        """All transitions of at most `n_step` steps."""
        number, lengths = episodes.num_steps, episodes.lengths
        step_S, episode_S = np.arange(number), np.repeat(np.arange(len(lengths)), lengths)
        taken_S = np.minimum(np.cumsum(lengths)[episode_S] - step_S, self.args.n_step)
        reward_S = np.zeros(number)
        for k in range(self.args.n_step):
            left_S = k < taken_S
            reward_S[left_S] += DISCOUNT**k * episodes.reward[step_S[left_S] + k] / self.unit
        going_S = ~episodes.terminated[step_S + taken_S - 1]
        now_S, act = step_S + episode_S, (torch.from_numpy(episodes.act) - self.middle_A) / self.half_A
        first, last = (self.state(torch.from_numpy(episodes.obs[rows])) for rows in (now_S, now_S + taken_S))
        return Transitions(first, act.clamp(-1, 1), torch.from_numpy(reward_S).float(), last,
                           torch.from_numpy(DISCOUNT**taken_S * going_S).float())

    def update(self, t: Transitions, real: int, rate: float) -> None:
        """One update of the critics and of the actor; the first `real` transitions are real."""
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = rate
        with torch.no_grad():
            noise = torch.randn(t.act.shape, generator=self.generator).clamp(-2.5, 2.5)
            act = (self.slow_actor(t.next)[0].clamp(-1, 1) + 0.2 * noise).clamp(-1, 1)
            target_B = t.reward + t.discount * self.slow_critic(torch.cat([t.next, act], 1)).amin(0)
        self.minimise(1, ((self.critic(torch.cat([t.state, t.act], 1)) - target_B) ** 2).sum(0).mean())
        own = self.actor(t.state)[0]
        self.critic.requires_grad_(False)
        value_B = self.critic(torch.cat([t.state, own.clamp(-1, 1)], 1)).mean(0)
        self.critic.requires_grad_(True)
        cloning = ((own - t.act)[:real] ** 2).sum(1).mean() if real else 0.0
        outside = ((own.abs() - 1).clamp(min=0) ** 2).sum(1).mean()
        relative = value_B.mean() / value_B.detach().abs().mean()
        self.minimise(0, self.args.cloning * cloning - self.args.alpha * relative + 0.1 * outside)
        self.slow_actor.update_parameters(self.actor)
        self.slow_critic.update_parameters(self.critic)

    def minimise(self, which: int, loss: Tensor) -> None:
        optimizer = self.optimizers[which]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 10.0)
        optimizer.step()


def learn(data: Episodes, world: WorldModel | None, args: Args) -> Learner:
    """Trains the agent; the learning rate falls to 0 by a cosine."""
    learner, rng, synthetic = Learner(data, args), np.random.default_rng(args.seed), []
    real = learner.transitions(data)
    for step in range(args.updates):
        if world is not None and step and step % args.every == 0:
            synthetic = [*synthetic, learner.transitions(rolled_out(world, data, learner, step, args))][-args.kept :]
        number = round(args.batch * (1 - args.share)) if synthetic else args.batch
        parts = [real.draw(number, rng)]
        if synthetic:
            parts.append(Transitions.joined(synthetic).draw(args.batch - number, rng))
        rate = args.learning_rate * min(1, (step + 1) / 200) * (1 + math.cos(math.pi * step / args.updates)) / 2
        learner.update(Transitions.joined(parts), number, rate)
    return learner


def rolled_out(world: WorldModel, data: Episodes, agent: Learner, step: int, args: Args) -> Episodes:
    """Branches in which the agent acts with noise."""
    anywhere, low_A, high_A = branches.from_data(data, args.branch, None), data.act.min(0), data.act.max(0)

    def sample_starts(seeds: Sequence[int]) -> branches.Starts:
        start = anywhere(seeds)
        for i, rng in enumerate(np.random.default_rng(fold(seed, 5)) for seed in seeds):
            if rng.random() < args.early:
                episode = rng.integers(len(data))
                row = data.starts[episode] + episode + rng.integers(min(data.lengths[episode], EARLY))
                start.obs_BO[i] = data.obs[row]
        return start

    config = ImaginedConfig(args.branch, max_uncertainty=args.max_uncertainty, penalty=args.penalty)
    return branches.imagine(world, sample_starts, args.steps, config, fold(args.seed, step),
                            NoisyAgent(agent, low_A, high_A, args.noise), progress=False).episodes(data)


def measured(args: Args) -> dict[str, Any]:
    """Returns the score of the trained agent, and the seconds of the processor that its training took."""
    name = f"{Path(args.dataset).stem}-{args.seed}"
    used = small(source(args.dataset, args.out), args.out / f"{name}-{args.small}.npz", args.small, args.seed)
    data, world = load_episodes(used), None
    if args.share:
        digest = hashlib.sha256(json.dumps([args.world_settings, args.world_updates, args.small]).encode()).hexdigest()
        world = train("world-ensemble", used, args.env_id, args.out / f"{name}-world-{digest[:8]}", args.world_updates,
                      args.seed, args.world_settings).world_model
    began = time.process_time()
    agent = learn(data, world, args)
    seconds = time.process_time() - began
    evaluation = EvaluationConfig(episodes=args.episodes, seed=args.seed, baselines=False)
    return score(evaluate(agent, args.env_id, evaluation, progress=False)[0]) | {"seconds": seconds}


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    settings = asdict(args) | {"world_settings": list(args.world_settings)}
    without = () if args.share else set(KEYS) - {"share"}
    key = {name: value for name, value in settings.items() if name not in {"out", "threads", *without}}
    print(rows_of(args.out, [(key, partial(measured, args))])[-1])


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
