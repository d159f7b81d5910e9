"""Diffusion Veteran, Diffusion-QL and IDQL by CleanDiffuser (Dong et al. 2024), from a checkout, which learn our data.

They are trained by its own pipelines for Gym's tasks of D4RL with the settings of its configs, except that schedules of
learning rates end with the training, and that batches are loaded by the process that trains. Diffusion Veteran has two
pipelines, which its authors run one after the other: of the planner, its critic and the policy, and of the value by
which plans are chosen. An update here is one of each.

An agent acts as the pipelines do in their inference, by the average that a network keeps of its weights, which is made
for long trainings: in the planner and in IDQL it has a decay of 0.9999, so 37 % of it are the first weights after
10,000 updates, and "idql-raw" and "veteran-raw" act by the last weights; in Diffusion-QL, which also learns by it, it
has a decay of 0.995 at every fifth update from the 1,000th on. On hopper-medium, after 3,000 updates, 4 episodes of
Diffusion-QL have a score of 3.9 by the average and 22.5 by the weights, and of IDQL 2.9 and 26.3.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from greenlet import getcurrent, greenlet
from torch import Tensor
from torch.utils.data import DataLoader

from gentraj.config import ConfigError

from .peer import Nothing, Peer, Task, first_on_path, stand_in, transitions

LONGEST = 1000  # steps of an episode in the pipelines
RAW = "-raw"  # after a name: the average is the last weights
NEVER = 10 ** 9  # updates from one log or checkpoint to the next
UNUSED = ["cleandiffuser.env.wrapper", "d4rl", "gym", "hydra", "numba", "numcodecs", "omegaconf", "torchvision",
          "torchvision.transforms.functional", "wandb", "wandb.sdk.data_types.video", "zarr"]


class CleanDiffuser(Peer):
    """A method of the repository. Raises `ConfigError` for data with episodes of more than 1,000 steps."""

    modes: tuple[str, ...] = ("train",)
    """The pipelines that train it, as `mode` in its settings."""

    def __init__(self, name: str, task: Task):
        if task.data.lengths.max() > LONGEST:
            raise ConfigError(f"{task.dataset}: has episodes of {task.data.lengths.max()} steps, and this method takes "
                              f"those of up to {LONGEST}; cut them")
        self.name, self.rows = name.removesuffix(RAW), transitions(task.data)
        checkout = Path(str(task.checkout))
        self.settings = settings(checkout / "configs" / self.name / "mujoco", task)
        if name.endswith(RAW):
            self.settings |= {key: 0.0 for key in self.settings if key.endswith("ema_rate")}
        stand_in(*UNUSED)
        first_on_path(checkout)
        first_on_path(checkout / "pipelines")
        self.module: Any = import_module(f"{self.name}_d4rl_mujoco")
        self.local: dict[str, dict[str, Any]] = {}  # the variables of the pipelines, by their modes

    def train(self, after_update: Callable[[], None]) -> None:
        loops = import_module("cleandiffuser.dataset.dataset_utils")
        d4rl = SimpleNamespace(make=lambda name: SimpleNamespace(get_dataset=self.dataset),
                               qlearning_dataset=lambda environment: self.dataset())
        vars(self.module).update(gym=d4rl, d4rl=d4rl, os=Nothing, tqdm=Nothing, DataLoader=loader,
                                 loop_dataloader=partial(self.paused, loops.loop_dataloader),
                                 loop_two_dataloaders=partial(self.paused, loops.loop_two_dataloaders))
        self.caller = getcurrent()
        pipelines = [greenlet(partial(self.pipeline, mode)) for mode in self.modes]
        with redirect_stdout(None):
            while True:
                for pipeline in pipelines:
                    pipeline.switch()  # until it has done an update
                after_update()

    def pipeline(self, mode: str) -> None:
        self.module.pipeline(SimpleNamespace(**self.settings | {"mode": mode}))

    def dataset(self) -> dict[str, np.ndarray]:
        """A copy of the data, in which a pipeline may change the rewards."""
        return {key: rows.copy() for key, rows in self.rows.items()}

    def paused(self, loop: Callable[..., Iterable[Any]], *loaders: object) -> Iterator[Any]:
        """The batches of a pipeline's loop, which after each returns to what has called the pipeline."""
        local = sys._getframe(1).f_locals
        self.local[local["args"].mode] = dict(local)
        for batch in loop(*loaders):
            yield batch
            self.caller.switch()

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        with torch.no_grad():
            return self.chosen(obs_BO, SimpleNamespace(**self.local["train"])).clip(-1, 1)

    @abstractmethod
    def chosen(self, obs_BO: Tensor, its: SimpleNamespace) -> Tensor:
        """(B, A) the actions, where `its` are the variables of the pipeline that trains."""


class Veteran(CleanDiffuser):
    """It follows the plan whose states have the greatest sum of values."""

    modes = ("train", "train_expected_value")

    def chosen(self, obs_BO: Tensor, its: SimpleNamespace) -> Tensor:
        args, value = its.args, self.local["train_expected_value"]["EV"]
        obs_BO = normalised(its.planner_dataset, obs_BO)
        size, candidates = len(obs_BO), args.planner_num_candidates
        known_NHO = torch.zeros(size * candidates, args.task.planner_horizon, its.obs_dim)
        known_NHO[:, 0] = obs_BO.repeat_interleave(candidates, 0)
        plan_NHO, _ = its.planner.sample(
            known_NHO, solver=args.planner_solver, n_samples=len(known_NHO), sample_steps=args.planner_sampling_steps,
            use_ema=args.planner_use_ema, temperature=args.task.planner_temperature, w_cfg=1.0)
        value_BC = value(plan_NHO)[:, 1:].sum(1).view(size, candidates)
        next_BO = plan_NHO[:, 1].view(size, candidates, -1)[torch.arange(size), value_BC.argmax(1)]
        act_BA, _ = its.policy.sample(
            torch.zeros(size, its.act_dim), solver=args.policy_solver, n_samples=size,
            sample_steps=args.policy_sampling_steps, use_ema=args.policy_use_ema, temperature=args.policy_temperature,
            condition_cfg=torch.cat([obs_BO, next_BO], 1), w_cfg=1.0)
        return act_BA


class Policy(CleanDiffuser):
    """It draws one of several actions by the softmax of their Q-values. (IDQL subtracts the value of the state from
    them, which changes nothing.)"""

    def chosen(self, obs_BO: Tensor, its: SimpleNamespace) -> Tensor:
        args, size = its.args, len(obs_BO)
        obs_NO = normalised(its.dataset, obs_BO).repeat_interleave(args.num_candidates, 0)
        act_NA, _ = its.actor.sample(
            torch.zeros(len(obs_NO), its.act_dim), solver=args.solver, n_samples=len(obs_NO),
            sample_steps=args.sampling_steps, use_ema=args.use_ema, temperature=args.temperature, condition_cfg=obs_NO,
            w_cfg=1.0)
        q = its.critic_target.q_min if self.name == "dql" else its.iql_q_target
        chance_BC = torch.softmax(args.task.weight_temperature * q(obs_NO, act_NA).view(size, -1), 1)
        drawn_B = torch.multinomial(chance_BC, 1)[:, 0]
        return act_NA.view(size, args.num_candidates, -1)[torch.arange(size), drawn_B]


def normalised(dataset: Any, obs_BO: Tensor) -> Tensor:
    return torch.from_numpy(dataset.get_normalizer().normalize(obs_BO.numpy()).astype(np.float32))


def loader(dataset: Any, batch_size: int, **how: object) -> DataLoader[Any]:
    """The batches of a pipeline, without other processes. Raises `ConfigError` where the data do not fill one."""
    if len(dataset) < batch_size:
        raise ConfigError(f"the data have {len(dataset)} rows, and a batch has {batch_size}; give more data")
    return DataLoader(dataset, batch_size, shuffle=True, drop_last=bool(how.get("drop_last")))


def settings(configs: Path, task: Task) -> dict[str, Any]:
    """The settings in a folder of configs, which are those of `Task.settings_file`."""
    found = task.settings_file({path.stem: path for path in (configs / "task").glob("*.yaml")})
    chosen = read(configs / "mujoco.yaml")
    schedules = {key: task.updates for key in chosen if key.endswith("gradient_steps")}
    return chosen | schedules | {"task": SimpleNamespace(**read(found)), "seed": task.seed, "device": "cpu",
                                 "enable_wandb": False, "log_interval": NEVER, "save_interval": NEVER}


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def made(name: str, task: Task) -> Peer:
    if name.startswith("veteran"):
        return Veteran(name, task)
    return Policy(name, task)
