"""IQL and TD3+BC of d3rlpy (Seno and Imai 2022), trained by its `fit` with the settings of its own reproductions."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gentraj.data import Episodes, save_d3rlpy

from .peer import Peer, Task

EPOCH = 1_000  # updates, as in the reproductions
REWARDS = 1000.0  # IQL divides rewards by the range of the data's returns, and multiplies them by this


def replay_buffer(d3rlpy: Any, episodes: Episodes) -> Any:
    """The episodes as a replay buffer of d3rlpy, which is given as a module."""
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of last observations, which it never looks at
        path = save_d3rlpy(episodes, f"{folder}/data.h5")
        with path.open("rb") as file:
            return d3rlpy.dataset.ReplayBuffer.load(file, d3rlpy.dataset.InfiniteBuffer())


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
