"""Agents of OGBench (Park et al. 2025) by their own code, from a checkout, which learn from our data.

They are given what their own `main.py` gives them: the data in the layout of its "compact" datasets, and the settings
of its `hyperparameters.sh`. Their goals are whole observations, in training those of the data. Where an environment
gives only the entries `goal_dims` of a goal, the others are those of the data's observation that is nearest in them.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gentraj.config import ConfigError
from gentraj.data import Episodes

from .peer import Peer, Task, first_on_path, one_core


def compact(data: Episodes) -> dict[str, np.ndarray]:
    """The data as OGBench's `load_dataset(compact_dataset=True)` gives them: a row (S + E) for each observation.

    `valids` is 0 in the last row of an episode, whose action is none; `terminals` is 1 there and in the row before.
    """
    last_N = np.zeros(len(data.obs), bool)
    last_N[data.last_rows] = True
    act_NA = np.zeros((len(data.obs), data.act_dim), np.float32)
    act_NA[~last_N] = data.act
    return {"observations": data.obs, "actions": act_NA, "valids": (~last_N).astype(np.float32),
            "terminals": (last_N | np.roll(last_N, -1)).astype(np.float32)}


class OGBench(Peer):
    """An agent of OGBench that acts without noise."""

    def __init__(self, name: str, task: Task):
        one_core()
        data = self.episodes = task.data
        self.goal_dims, self.goal_NG = list(data.goal_dims), data.obs[:, list(data.goal_dims)]
        self.completed: dict[bytes, np.ndarray] = {}
        impls = Path(str(task.checkout)) / "impls"
        first_on_path(impls)
        self.settings = settings(name, task.like or Path(task.dataset).stem, impls)
        datasets = import_module("utils.datasets")
        self.supply_rng = import_module("utils.evaluation").supply_rng
        random.seed(task.seed)
        np.random.seed(task.seed)
        source = getattr(datasets, self.settings["dataset_class"])
        self.source = source(datasets.Dataset.create(**compact(data)), self.settings)
        example = self.source.sample(1)
        self.agent = import_module("agents").agents[self.settings["agent_name"]].create(
            task.seed, example["observations"], example["actions"], self.settings)

    def train(self, after_update: Callable[[], None]) -> None:
        while True:
            self.agent, losses = self.agent.update(self.source.sample(self.settings["batch_size"]))
            float(next(iter(losses.values())))  # waits for the update
            self.decide = self.supply_rng(self.agent.sample_actions)
            after_update()

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        if goal_BG is None:
            raise ValueError("the environment gives no goals, which agents of OGBench need; give one that does")
        goal_BO = np.stack([self.whole(goal_G) for goal_G in goal_BG.numpy().astype(np.float32)])
        act_BA = self.decide(observations=obs_BO.numpy().astype(np.float32), goals=goal_BO, temperature=0.0)
        return torch.from_numpy(np.array(act_BA))

    def whole(self, goal_G: np.ndarray) -> np.ndarray:
        """(O,) the goal as a whole observation."""
        key = goal_G.tobytes()
        if key not in self.completed:
            goal_O = self.episodes.obs[np.square(self.goal_NG - goal_G).sum(1).argmin()].copy()
            goal_O[self.goal_dims] = goal_G
            self.completed[key] = goal_O
        return self.completed[key]


def settings(name: str, like: str, impls: Path) -> Any:
    """The settings of an agent, with the changes that `hyperparameters.sh` has for OGBench's dataset `like`.

    Raises `ConfigError` where it has none.
    """
    chosen, path = import_module(f"agents.{name}").get_config(), impls / "hyperparameters.sh"
    found = re.search(rf"--env_name={re.escape(like)} .*--agent=agents/{name}\.py(.*)", path.read_text())
    if found is None:
        raise ConfigError(f"{path}: has no settings of {name} for {like}; give by --like a dataset that it has, such "
                          "as pointmaze-medium-stitch-v0")
    chosen.update({key: ast.literal_eval(text) for key, text in re.findall(r"--agent\.(\w+)=(\S+)", found[1])})
    return chosen


made = OGBench
