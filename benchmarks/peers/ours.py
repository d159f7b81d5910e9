"""Presets of gentraj, trained as by `gentraj train`, without checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from gentraj.runs.kinds.presets import PRESETS
from gentraj.runs.kinds.run import copy_of
from gentraj.runs.learn.training import prepare
from gentraj.training.log import Log
from gentraj.training.loop import RunStore, Trainer, TrainingData, cpu_resources
from gentraj.trajectory import Agent

from .peer import Peer, Task


class Ours(Peer):
    """A run in training, and its agent."""

    def __init__(self, name: str, task: Task):
        preset = PRESETS[name]
        training = replace(preset.training, seed=task.seed, threads=1, steps=task.updates)
        self.run, parts = prepare(replace(preset, dataset=task.dataset, env_id=task.env_id, training=training))
        self.trainer = Trainer(self.run.components, TrainingData(parts.train, self.run.context), training,
                               RunStore(Path()))
        self.agent: Agent | None = None

    def train(self, after_update: Callable[[], None]) -> None:
        sums = self.trainer.begin(resume=False)
        settings = self.trainer.settings
        with cpu_resources(1), Log(settings.log_every, settings.steps, 0, sums) as log:  # which is written nowhere
            while True:
                self.trainer.train_step(log)
                self.agent = None
                after_update()

    def fresh(self) -> Agent:
        """The agent of the weights as they are now."""
        run = copy_of(self.run, torch.device("cpu"))
        return run.agent(run.action_space())

    def _reset(self, seeds_B: list[int], mask_B: Tensor) -> None:
        self.agent = self.agent or self.fresh()
        self.agent.reset(seeds_B, mask_B)

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        self.agent = self.agent or self.fresh()
        return self.agent.act(obs_BO, goal_BG)


made = Ours
