"""Q-chunking (Li et al. 2025) by the code of github.com/ColinQiyangLi/qc, with the settings of its README for OGBench:
chunks of 5 actions, which are all carried out.

They are given what its `main.py` gives them for a task of D4RL.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .peer import Peer, Task, first_on_path, masked_transitions, one_core

CHUNK = 5
CHANGES: dict[str, dict[str, Any]] = {"qc": {"actor_type": "best-of-n"}, "qc-fql": {}}  # to the settings of acfql.py


class Qc(Peer):
    """An agent of the repository, and the actions of each environment that are still to be carried out."""

    def __init__(self, name: str, task: Task):
        one_core()
        first_on_path(task.checkout)
        datasets, agents = import_module("utils.datasets"), import_module("agents.acfql")
        self.supply_rng = import_module("evaluation").supply_rng
        self.settings: Any = agents.get_config()
        self.settings.update({"horizon_length": CHUNK} | CHANGES[name])
        random.seed(task.seed)
        np.random.seed(task.seed)
        self.data = datasets.Dataset.create(**masked_transitions(task.data))
        example = self.data.sample(())
        self.agent = agents.ACFQLAgent.create(task.seed, example["observations"], example["actions"], self.settings)
        self.act_dim = task.data.act_dim
        self.queue_BKA = np.zeros((0, CHUNK, self.act_dim), np.float32)
        self.left_B = np.zeros(0, int)

    def train(self, after_update: Callable[[], None]) -> None:
        while True:
            batch = self.data.sample_sequence(self.settings["batch_size"], CHUNK, self.settings["discount"])
            self.agent, losses = self.agent.update(batch)
            float(next(iter(losses.values())))  # waits for the update
            self.decide = self.supply_rng(self.agent.sample_actions)
            after_update()

    def _reset(self, seeds_B: list[int], mask_B: Tensor) -> None:
        if len(mask_B) != len(self.left_B):
            self.left_B = np.zeros(len(mask_B), int)
            self.queue_BKA = np.zeros((len(mask_B), CHUNK, self.act_dim), np.float32)
        self.left_B[mask_B.numpy()] = 0

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        out_B = self.left_B == 0
        if out_B.any():  # all are asked, as another number of them would be compiled anew
            chunk_BX = np.array(self.decide(observations=obs_BO.numpy().astype(np.float32)))
            self.queue_BKA[out_B] = chunk_BX.reshape(-1, CHUNK, self.act_dim)[out_B]
            self.left_B[out_B] = CHUNK
        act_BA = self.queue_BKA[np.arange(len(obs_BO)), CHUNK - self.left_B]
        self.left_B -= 1
        return torch.from_numpy(np.clip(act_BA, -1, 1))


made = Qc
