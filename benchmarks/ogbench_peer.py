"""Agents of OGBench (Park et al. 2025) by their own code, from a checkout, which learn from our data.

They are given what their own `main.py` gives them: the data in the layout of its "compact" datasets, and the settings
of its `hyperparameters.sh`. Their goals are whole observations, in training those of the data. Where an environment
gives only the entries `goal_dims` of a goal, the others are those of the data's observation that is nearest in them.
"""

from __future__ import annotations

import ast
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gentraj.config import ConfigError, check_known
from gentraj.data import Episodes
from gentraj.trajectory import Agent


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


class Peer(Agent):
    """An agent of OGBench that acts without noise; `decide` is its `sample_actions`."""

    def __init__(self, decide: Callable[..., np.ndarray], data: Episodes):
        self.decide, self.obs_NO, self.goal_dims = decide, data.obs, list(data.goal_dims)
        self.goal_NG = data.obs[:, self.goal_dims]
        self.completed: dict[bytes, np.ndarray] = {}

    def reset(self, mask_B: Tensor | None = None, seeds_B: Sequence[int] | None = None) -> None:
        """Does nothing, as the agent has no state."""

    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        if goal_BG is None:
            raise ValueError("the environment gives no goals, which agents of OGBench need; give one that does")
        goal_BO = np.stack([self.whole(goal_G) for goal_G in goal_BG.numpy().astype(np.float32)])
        act_BA = self.decide(observations=obs_BO.numpy().astype(np.float32), goals=goal_BO, temperature=0.0)
        return torch.from_numpy(np.array(act_BA))

    def whole(self, goal_G: np.ndarray) -> np.ndarray:
        """(O,) the goal as a whole observation."""
        key = goal_G.tobytes()
        if key not in self.completed:
            goal_O = self.obs_NO[np.square(self.goal_NG - goal_G).sum(1).argmin()].copy()
            goal_O[self.goal_dims] = goal_G
            self.completed[key] = goal_O
        return self.completed[key]


class Checkout:
    """OGBench's code in a folder. Raises `ConfigError` where that is something else, or needs what is not installed."""

    def __init__(self, folder: Path):
        self.impls = folder.expanduser().absolute() / "impls"
        if not (self.impls / "agents").is_dir():
            raise ConfigError(f"--checkout {folder}: has no impls/agents; give a checkout of "
                              "github.com/seohongpark/ogbench")
        sys.path.insert(0, str(self.impls))  # before the working directory, which may hold gentraj's own agents/
        try:
            self.agents = import_module("agents").agents
            self.datasets = import_module("utils.datasets")
            self.supply_rng = import_module("utils.evaluation").supply_rng
        except ModuleNotFoundError as error:
            raise ConfigError(f"agents of OGBench need {error.name}: pip install jax flax distrax optax "
                              "ml_collections") from None

    def settings(self, name: str, like: str) -> Any:
        """The settings of an agent, with the changes that `hyperparameters.sh` has for OGBench's dataset `like`."""
        check_known((name,), self.agents, "agent")
        settings, path = import_module(f"agents.{name}").get_config(), self.impls / "hyperparameters.sh"
        found = re.search(rf"--env_name={re.escape(like)} .*--agent=agents/{name}\.py(.*)", path.read_text())
        if found is None:
            raise ConfigError(f"{path}: has no settings of {name} for {like}; give by --like a dataset that it has, "
                              "such as pointmaze-medium-stitch-v0")
        settings.update({key: ast.literal_eval(text) for key, text in re.findall(r"--agent\.(\w+)=(\S+)", found[1])})
        return settings

    def trained(self, settings: Any, data: Episodes, seed: int, limits: tuple[int, float],
                shown: tqdm) -> tuple[Peer, int, float]:
        """The agent after so many updates or core-seconds, the limits, of which the first ends the training; and both.

        `shown` counts in percent. Seeds the global generators, from which OGBench draws.
        """
        random.seed(seed)
        np.random.seed(seed)
        source = getattr(self.datasets, settings["dataset_class"])(
            self.datasets.Dataset.create(**compact(data)), settings)
        example = source.sample(1)
        agent = self.agents[settings["agent_name"]].create(seed, example["observations"], example["actions"], settings)
        began, step, seconds, done = time.process_time(), 0, 0.0, 0.0
        while done < 1:
            agent, losses = agent.update(source.sample(settings["batch_size"]))
            float(next(iter(losses.values())))  # waits for the update
            step += 1
            seconds = time.process_time() - began
            done = max(step / limits[0], seconds / limits[1])
            shown.update(int(100 * min(1, done)) - shown.n)
        return Peer(self.supply_rng(agent.sample_actions), data), step, seconds
