"""IQL, TD3+BC and ReBRAC by the single files of CORL (Tarasov et al. 2023), from a checkout.

Their own `train` or `main` runs to the last update, without evaluations, on all steps of our data. The modules that it
imports for D4RL, its environments, options and logs are replaced by stand-ins. Settings are those of configs/offline.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from gymnasium.spaces import Box
from pydantic import TypeAdapter
from torch import Tensor
from torch.distributions import Distribution

from .peer import Nothing, Peer, Task, first_on_path, one_core, stand_in, transitions

TRAINERS = {"iql": "ImplicitQLearning", "td3_bc": "TD3_BC"}  # the class whose `train` is an update
EACH = 10  # updates of ReBRAC that are compiled as one loop


class Corl(Peer):
    """An algorithm of CORL; it acts without noise, by observations that are normalised as in training."""

    normalise: Callable[[np.ndarray], np.ndarray]

    def __init__(self, name: str, task: Task):
        self.name, self.task, self.rows = name, task, transitions(task.data)
        first_on_path(Path(str(task.checkout)) / "algorithms" / "offline")
        stand_in("d4rl", "gym", "pyrallis", "wandb")
        self.module: Any = import_module(name)
        env = SimpleNamespace(observation_space=Box(-np.inf, np.inf, (task.data.obs_dim,)), seed=Nothing,
                              action_space=Box(-1, 1, (task.data.act_dim,)), get_dataset=lambda: self.rows)

        def transform_observation(env: object, normalise: Callable[[np.ndarray], np.ndarray]) -> object:
            self.normalise = normalise
            return env

        wrappers = SimpleNamespace(TransformObservation=transform_observation)
        self.module.gym = SimpleNamespace(make=lambda name: env, wrappers=wrappers)
        self.module.d4rl = SimpleNamespace(qlearning_dataset=lambda env: self.rows)
        self.module.print = Nothing

    def settings(self, kind: type, **changes: object) -> Any:
        """Their settings for the dataset, with changes, as an object of their class."""
        configs = Path(str(self.task.checkout)) / "configs" / "offline" / self.name
        files = {f"{path.parent.name}-{path.stem.replace('_', '-')}": path for path in configs.glob("*/*.yaml")}
        chosen = yaml.safe_load(self.task.settings_file(files).read_text())
        return TypeAdapter(kind).validate_python(chosen | changes)


class WithTorch(Corl):
    """IQL or TD3+BC."""

    actor: Any

    def train(self, after_update: Callable[[], None]) -> None:
        updates, trainer = self.task.updates, getattr(self.module, TRAINERS[self.name])
        chosen = self.settings(self.module.TrainConfig, device="cpu", seed=self.task.seed, max_timesteps=updates,
                               eval_freq=updates + 1, buffer_size=len(self.rows["actions"]))
        update = trainer.train

        def followed(trainer: Any, batch: list[Tensor]) -> dict[str, float]:
            losses = update(trainer, batch)
            self.actor = trainer.actor
            after_update()
            return losses

        with patch.object(trainer, "train", followed):
            self.module.train(chosen)

    @torch.no_grad()
    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        self.actor.eval()
        found = self.actor(torch.as_tensor(self.normalise(obs_BO.numpy()), dtype=torch.float32))
        self.actor.train()
        if isinstance(found, Distribution):
            found = found.mean
        return found.clamp(-1, 1)


class WithJax(Corl):
    """ReBRAC. Its loop is compiled for a few updates at a time; an update by itself would cost 1.4 times as much."""

    decide: Callable[[np.ndarray], Any]

    def train(self, after_update: Callable[..., None]) -> None:
        jax, chosen = self.module.jax, self.settings(self.module.Config, train_seed=self.task.seed,
                                                     num_updates_on_epoch=self.task.updates)
        fori_loop = jax.lax.fori_loop

        def loop(lower: int, upper: int, body_fun: Callable[..., Any], init_val: Any) -> None:
            some = jax.jit(lambda first, carry, number: fori_loop(first, first + number, body_fun, carry))
            carry = init_val
            for first in range(lower, upper, EACH):
                number = min(EACH, upper - first)
                carry = some(first, carry, number)
                jax.block_until_ready(carry["key"])
                self.decide = self.module.action_fn(carry["actor"])
                after_update(number)

        self.module.trange = lambda epochs, desc: range(epochs)
        with patch.object(jax.lax, "fori_loop", loop), patch.object(jax, "tree_map", jax.tree.map, create=True):
            self.module.main(chosen)

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        return torch.from_numpy(np.array(self.decide(self.normalise(obs_BO.numpy()))))


def made(name: str, task: Task) -> Corl:
    if name in TRAINERS:
        return WithTorch(name, task)
    one_core()
    return WithJax(name, task)
