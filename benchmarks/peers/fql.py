"""FQL, IFQL and ReBRAC (Park et al. 2025) by the code of github.com/seohongpark/fql, with the settings of its agents.

They are given what its `main.py` gives them for a task of D4RL. Its README recommends to divide the value by its size
for new tasks, with a weight `alpha` to be tuned: "fql-normalized" divides it, with the weight as it is.
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

CHANGES: dict[str, dict[str, Any]] = {"fql-normalized": {"normalize_q_loss": True}}  # to the settings of the agents


class Fql(Peer):
    """An agent of the repository; it samples actions by its own rule, with temperature 0 as its evaluation."""

    def __init__(self, name: str, task: Task):
        one_core()
        first_on_path(task.checkout)
        datasets, evaluation = import_module("utils.datasets"), import_module("utils.evaluation")
        self.supply_rng = evaluation.supply_rng
        agent = name.removesuffix("-normalized")
        self.settings: Any = import_module(f"agents.{agent}").get_config()
        self.settings.update(CHANGES.get(name, {}))
        random.seed(task.seed)
        np.random.seed(task.seed)
        self.data = datasets.Dataset.create(**masked_transitions(task.data))
        self.data.return_next_actions = agent == "rebrac"
        example = self.data.sample(1)
        self.agent = import_module("agents").agents[agent].create(
            task.seed, example["observations"], example["actions"], self.settings)

    def train(self, after_update: Callable[[], None]) -> None:
        step = 0
        while True:
            step += 1
            how = {}
            if self.settings["agent_name"] == "rebrac":
                how["full_update"] = step % self.settings["actor_freq"] == 0
            self.agent, losses = self.agent.update(self.data.sample(self.settings["batch_size"]), **how)
            float(next(iter(losses.values())))  # waits for the update
            self.decide = self.supply_rng(self.agent.sample_actions)
            after_update()

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        rows_BO = obs_BO.numpy().astype(np.float32)
        if self.settings["agent_name"] == "ifql":  # chooses among the samples of one observation
            act_BA = [self.decide(observations=obs_O, temperature=0) for obs_O in rows_BO]
        else:
            act_BA = self.decide(observations=rows_BO, temperature=0)
        return torch.from_numpy(np.clip(np.array(act_BA), -1, 1))


made = Fql
