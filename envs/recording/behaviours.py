"""Locomotion data by policies that stable-baselines3's PPO trains here: an expert, a medium one, or a mix of several.

Needs the package stable-baselines3 (pip install 'gentraj[sb3]').
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gentraj.data import Episodes, concatenate, d4rl_reference
from gentraj.progress import bar
from gentraj.randomness import fold, seeded

from ..evaluation.rollout import RolloutSettings, rollout
from ..making import EnvironmentFactory, environment_factory
from ..tasks.registry import LOCOMOTION
from .baselines import Seeded

SNAPSHOTS = 20  # policies that are kept of a training, evenly spaced
MIXED = 5  # how many of them record mixed data
NUM_ENVS = 8  # environments that run side by side, in training and in recording
CLIP_OBS = 10.0  # normalised observations are clipped to this number of standard deviations
# The settings of CleanRL's PPO for continuous actions (Huang et al. 2022), with the same 2,048 steps per update.
SETTINGS: dict[str, Any] = {"n_steps": 2048 // NUM_ENVS, "batch_size": 64, "n_epochs": 10, "learning_rate": 3e-4}


def record(task: str, steps: int, seed: int = 0, *, train_steps: int | None = None,
           progress: bool = True) -> Episodes:
    """Records at least `steps` steps of the task "mujoco/NAME-KIND"; the last episode is recorded to its end.

    PPO is trained for `train_steps` steps, the task's number by default. The kind "expert" is the policy at the end of
    training, "medium" the first snapshot whose return is halfway between D4RL's random agent and the expert, and
    "mixed" five snapshots in equal shares. All sample their actions, as in training. On one kind of machine, the data
    are a function of (seed, train_steps). Raises ImportError without stable-baselines3.
    """
    name, kind = task.removeprefix("mujoco/").split("-")
    train_steps = LOCOMOTION[name].train_steps if train_steps is None else train_steps
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
    """Chooses the policies whose data are of that kind from the snapshots of a training, in their order."""
    last = trained[-1]
    half = (last.return_mean + random_return) / 2
    chosen = {"expert": [last], "medium": [next((p for p in trained if p.return_mean >= half), last)],
              "mixed": trained[SNAPSHOTS // MIXED - 1 :: SNAPSHOTS // MIXED]}
    return chosen[kind]


class Behaviour(Seeded):
    """An `Agent`: a snapshot of a Gaussian policy in training, with the scales of its observations."""

    folds = True

    def __init__(self, model: Any, envs: Any):
        """Copies the policy of stable-baselines3's PPO `model` and the statistics of its VecNormalize `envs`."""
        super().__init__()
        self.space = model.action_space
        self.policy = type(model.policy)(model.observation_space, self.space, lambda _: 0.0)  # no learning rate
        self.policy.load_state_dict(model.policy.state_dict())
        self.mean_O, self.spread_O = envs.obs_rms.mean.copy(), np.sqrt(envs.obs_rms.var + envs.epsilon)
        ended = [info["r"] for info in model.ep_info_buffer]
        self.return_mean = float(np.mean(ended)) if ended else -np.inf
        """Mean return of the last 100 training episodes before the snapshot."""

    @torch.no_grad()
    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """Returns actions (B, A), float32, sampled and clipped to the action space."""
        seen = np.clip((obs_BO.numpy() - self.mean_O) / self.spread_O, -CLIP_OBS, CLIP_OBS)
        normal = self.policy.get_distribution(torch.from_numpy(seen).float()).distribution
        noise_BA = np.stack([stream.standard_normal(normal.mean.shape[1]) for stream in self._streams])
        act_BA = normal.mean.numpy() + normal.stddev.numpy() * noise_BA
        return torch.from_numpy(np.clip(act_BA, self.space.low, self.space.high).astype(np.float32))


def train(factory: EnvironmentFactory, steps: int, seed: int = 0, *, progress: bool = True) -> list[Behaviour]:
    """Trains PPO and returns `SNAPSHOTS` evenly spaced snapshots; in a short training neighbours may be equal.

    Training stops after the update of 2,048 steps in which `steps` are reached. Raises ImportError, in one line,
    without stable-baselines3.
    """
    try:
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env
        from stable_baselines3.common.vec_env import VecNormalize
    except ImportError as error:
        raise ImportError(f"{factory.env_id}: training its policies needs {error.name}: "
                          "pip install 'gentraj[sb3]'") from error
    trained, seed = [], seed & 0x7FFFFFFF
    with seeded(seed), bar(steps, f"training in {factory.env_id}", shown=progress) as done:
        envs = VecNormalize(make_vec_env(factory, NUM_ENVS, seed), clip_obs=CLIP_OBS)
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
    """Yields one episode after another, without end."""
    block = 0
    while True:
        played = rollout(policy, factory, NUM_ENVS, fold(seed, block), RolloutSettings(NUM_ENVS), record=True,
                         progress=False).recorded
        yield from played or ()
        block += 1
