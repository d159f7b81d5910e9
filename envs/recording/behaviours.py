"""Locomotion data by policies that are trained here, by stable-baselines3's PPO: a good one, a middling one, several.

Needs the package stable-baselines3 (pip install 'gentraj[sb3]').
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gentraj.data import Episodes, concatenate, d4rl_reference
from gentraj.progress import bar
from gentraj.randomness import fold

from ..evaluation.rollout import rollout
from ..making import EnvironmentFactory, environment_factory
from ..tasks.registry import LOCOMOTION
from .baselines import Seeded
from .seeding import seeded

SNAPSHOTS = 20  # of a training, evenly spaced
MIXED = 5  # of these
ABREAST = 8  # environments, while training and while recording
FAR = 10.0  # deviations: what is observed is clipped there
# Those of CleanRL's PPO for continuous actions (Huang et al. 2022), of the same 2,048 steps an update.
SETTINGS: dict[str, Any] = {"n_steps": 2048 // ABREAST, "batch_size": 64, "n_epochs": 10, "learning_rate": 3e-4}


def record(task: str, steps: int, seed: int = 0, *, train_steps: int | None = None,
           progress: bool = True) -> Episodes:
    """At least `steps` steps of "mujoco/NAME-KIND", up to the end of the episode in which they are reached.

    PPO is trained for `train_steps` steps, by default the task's. "expert" is the policy at the end, "medium" the first
    one on the way that is half as good, counted from D4RL's random agent, "mixed" five of the way in equal shares. All
    draw their actions, as they did while they learnt. All depends on (seed, train_steps) alone, on one kind of machine.
    Raises ValueError for numbers below 1 and ImportError without stable-baselines3.
    """
    name, kind = task.removeprefix("mujoco/").split("-")
    train_steps = LOCOMOTION[name].train_steps if train_steps is None else train_steps
    if min(steps, train_steps) < 1:
        raise ValueError(f"steps are {steps}, of training {train_steps}; give at least 1 of each")
    factory, parts = environment_factory(name), []
    trained = train(factory, train_steps, fold(seed, 0), progress=progress)
    chosen = choose(kind, trained, d4rl_reference(LOCOMOTION[name].d4rl_id)[0])
    with bar(steps, f"recording {task}", shown=progress) as done:
        for k, policy in enumerate(chosen, 1):
            for episode in _episodes(policy, factory, fold(seed, k)):
                parts.append(episode)
                done.update(episode.num_steps)
                if sum(part.num_steps for part in parts) >= steps * k / len(chosen):
                    break
    return replace(concatenate(parts), name=task)


def choose(kind: str, trained: list[Behaviour], random_return: float) -> list[Behaviour]:
    """Those whose data are of that kind, of the snapshots of a training in their order."""
    last = trained[-1]
    half = (last.return_mean + random_return) / 2
    chosen = {"expert": [last], "medium": [next((p for p in trained if p.return_mean >= half), last)],
              "mixed": trained[SNAPSHOTS // MIXED - 1 :: SNAPSHOTS // MIXED]}
    return chosen[kind]


class Behaviour(Seeded):
    """An `Agent`: a Gaussian policy as it was on the way of its training, with the scales of its observations."""

    def __init__(self, model: Any, envs: Any):
        """Of stable-baselines3's PPO and VecNormalize."""
        super().__init__()
        self.space = model.action_space
        self.policy = type(model.policy)(model.observation_space, self.space, lambda _: 0.0)  # it learns no more
        self.policy.load_state_dict(model.policy.state_dict())
        self.mean_O, self.spread_O = envs.obs_rms.mean.copy(), np.sqrt(envs.obs_rms.var + envs.epsilon)
        ended = [info["r"] for info in model.ep_info_buffer]
        self.return_mean = float(np.mean(ended)) if ended else -np.inf
        """Of the last 100 episodes of the training so far."""

    def reset(self, mask_B: Tensor | None = None, seeds_B: Sequence[int] | None = None) -> None:
        """Its noise is not what an environment of the same seed draws its start from."""
        super().reset(mask_B, None if seeds_B is None else [fold(seed, 1) for seed in seeds_B])

    @torch.no_grad()
    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        """(B, A) float32, drawn and clipped to the action space."""
        self._allocate(len(obs_BO))
        seen = np.clip((obs_BO.numpy() - self.mean_O) / self.spread_O, -FAR, FAR)
        normal = self.policy.get_distribution(torch.from_numpy(seen).float()).distribution
        noise_BA = np.stack([stream.standard_normal(normal.mean.shape[1]) for stream in self._streams])
        act_BA = normal.mean.numpy() + normal.stddev.numpy() * noise_BA
        return torch.from_numpy(np.clip(act_BA, self.space.low, self.space.high).astype(np.float32))


def train(factory: EnvironmentFactory, steps: int, seed: int = 0, *, progress: bool = True) -> list[Behaviour]:
    """`SNAPSHOTS` of a training by PPO, evenly spaced; of a short one neighbours are the same.

    It stops with the update of 2,048 steps in which `steps` are reached. Raises ImportError in one line.
    """
    try:
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env
        from stable_baselines3.common.vec_env import VecNormalize
    except ImportError as error:
        raise ImportError(f"{factory.env_id}: to train its policies needs {error.name}: "
                          "pip install 'gentraj[sb3]'") from error
    trained, seed = [], seed & 0x7FFFFFFF
    with seeded(seed), bar(steps, f"training in {factory.env_id}", shown=progress) as done:
        envs = VecNormalize(make_vec_env(factory, ABREAST, seed), clip_obs=FAR)
        model = PPO("MlpPolicy", envs, seed=seed, device="cpu", **SETTINGS)
        for k in range(1, SNAPSHOTS + 1):
            if (more := -(-steps * k // SNAPSHOTS) - model.num_timesteps) > 0:
                model.learn(more, reset_num_timesteps=model.num_timesteps == 0)
                done.update(more)
            trained.append(Behaviour(model, envs))
            done.set_postfix(return_mean=f"{trained[-1].return_mean:.0f}")
        envs.close()
    return trained


def _episodes(policy: Behaviour, factory: EnvironmentFactory, seed: int) -> Iterator[Episodes]:
    """One after another, without end."""
    block = 0
    while True:
        played = rollout(policy, factory, ABREAST, fold(seed, block), ABREAST, record=True, progress=False).recorded
        yield from played or ()
        block += 1
