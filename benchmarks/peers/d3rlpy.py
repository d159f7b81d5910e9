"""IQL and TD3+BC of d3rlpy (Seno and Imai 2022), trained by its `fit` with the settings of its own reproductions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gentraj.data import Episodes

from .peer import Peer, Task

EPOCH = 1_000  # updates, as in the reproductions
REWARDS = 1000.0  # IQL divides rewards by the range of the data's returns, and multiplies them by this


def replay_buffer(d3rlpy: Any, episodes: Episodes) -> Any:
    """The episodes as a replay buffer of d3rlpy, which is given as a module."""
    made = [episode(d3rlpy, one) for one in episodes]
    return d3rlpy.dataset.ReplayBuffer(d3rlpy.dataset.InfiniteBuffer(), episodes=made)


def episode(d3rlpy: Any, e: Episodes) -> Any:
    """An episode of d3rlpy, which has as many observations as actions.

    It lacks the last observation where it ends for good, which d3rlpy never looks at. Where it is cut off, it has one
    row more than steps, whose action and reward d3rlpy never trains on.
    """
    done = bool(e.terminated[-1])
    more = 0 if done else 1
    return d3rlpy.dataset.Episode(e.obs[: len(e.act) + more], np.pad(e.act, ((0, more), (0, 0))),
                                  np.pad(e.reward, (0, more))[:, None], done)


class D3rlpy(Peer):
    """An algorithm of d3rlpy that acts without noise."""

    def __init__(self, name: str, task: Task):
        self.updates = task.updates
        self.d3rlpy: Any = import_module("d3rlpy")
        structlog: Any = import_module("structlog")  # by which d3rlpy says its settings
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        self.dataset = replay_buffer(self.d3rlpy, task.data)
        self.d3rlpy.seed(task.seed)
        self.algorithm = self.configured(name).create(device="cpu:0")

    def configured(self, name: str) -> Any:
        preprocessing, optimizers = self.d3rlpy.preprocessing, self.d3rlpy.optimizers
        if name == "td3bc":
            return self.d3rlpy.algos.TD3PlusBCConfig(observation_scaler=preprocessing.StandardObservationScaler())
        decay = optimizers.lr_schedulers.CosineAnnealingLRFactory(T_max=self.updates)
        return self.d3rlpy.algos.IQLConfig(
            reward_scaler=preprocessing.ReturnBasedRewardScaler(multiplier=REWARDS),
            actor_optim_factory=optimizers.AdamFactory(lr_scheduler_factory=decay))

    def train(self, after_update: Callable[..., None]) -> None:
        self.algorithm.fit(self.dataset, self.updates + EPOCH, EPOCH, show_progress=False,
                           logger_adapter=self.d3rlpy.logging.NoopAdapterFactory(),
                           callback=lambda algorithm, epoch, step: after_update())

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        return torch.from_numpy(self.algorithm.predict(obs_BO.numpy().astype(np.float32)))


made = D3rlpy
