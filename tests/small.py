"""Helpers for small real runs: PointMaze-UMaze, narrow networks, a few steps. See `small_run` in conftest.py."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gentraj import runs
from gentraj.agents.planning.arrival import ArrivalConfig
from gentraj.agents.planning.inverse_dynamics import InverseDynamicsConfig
from gentraj.agents.roadmap.far_goals import RoadmapConfig
from gentraj.cli import main
from gentraj.data import Episodes, save_npz
from gentraj.diffusion import DiffusionConfig
from gentraj.envs.making import environment_factory
from gentraj.networks import TemporalUNetConfig
from gentraj.runs import PlannerRunConfig, Run, RunConfig
from gentraj.runs.kinds.presets import PRESETS
from gentraj.training import TrainingConfig

DATASET = "tests/umaze-v0"
WORDS = ("--model.network.width", "8", "--batch-size", "8", "--inverse.width", "16", "--inverse.batch-size", "8",
         "--arrival.width", "16", "--arrival.batch-size", "8", "--training.warmup", "2",
         "--planner.replan", "60", "--planner.steps", "1")  # few plans, each sampled in one step
SHORT = "--env-id", "PointMaze_UMaze-v3", "--env-kwargs", "max_episode_steps=30"  # episodes, for `gentraj evaluate`
JOINT_WORDS = WORDS[:4] + WORDS[8:]  # plans with actions have no inverse dynamics


def config(dataset: str | Path = DATASET, steps: int = 6) -> PlannerRunConfig:
    """Returns the config that the options above stand for."""
    preset = PRESETS["pointmaze"]
    return replace(
        preset, dataset=str(dataset), training=TrainingConfig(steps, warmup=2, save_every=2, log_every=3),
        model=DiffusionConfig(TemporalUNetConfig(width=8)), batch_size=8,
        inverse=InverseDynamicsConfig(width=16, batch_size=8), arrival=ArrivalConfig(width=16, batch_size=8),
        planner=replace(preset.planner, replan=60, steps=1))


def gentraj(*args: object) -> int:
    """Runs the gentraj command in this process and returns its exit code."""
    return main([str(arg) for arg in args])


def train(folder: Path, dataset: object = DATASET, *more: object) -> None:
    """Trains a run by the command for 6 steps and saves a checkpoint every 2 steps."""
    words = JOINT_WORDS if "--joint" in more else WORDS
    options = "--steps", 6, "--training.save-every", 2, "--training.log-every", 3, *words
    assert gentraj("train", "pointmaze", "--dataset", dataset, "--run-dir", folder, *options, *more) == 0


def train_far(folder: Path) -> None:
    """Trains a run of `far-goals` for 2 steps on one walk through OGBench's medium maze, from cell to cell and back."""
    factory = environment_factory("ogbench/pointmaze-medium")
    maze = factory.maze
    assert maze is not None
    cells = [int(maze.cells[0])]
    for last in maze.cells:
        while cells[-1] != last:
            cells.append(int(maze.next_cell[last, cells[-1]]))
    corner_C2 = maze.centre(np.array(cells + cells[-2::-1]))
    t = np.arange(0, len(corner_C2) - 1, 0.05)
    obs = np.stack([np.interp(t, np.arange(len(corner_C2)), corner_C2[:, dim]) for dim in (0, 1)], 1)
    T = len(obs) - 1
    never = np.zeros(T, bool)
    walk = Episodes(obs.astype(np.float32), np.diff(obs, axis=0).astype(np.float32), np.zeros(T, np.float32), never,
                    never, np.array([T]), goal_dims=(0, 1), obs_keys=("observation",), env=factory.spec_json)
    small = config(save_npz(walk, folder.with_name("walk.npz")), steps=2)
    planner = replace(small.planner, rest_dims=(), replan=4)
    runs.train(replace(small, roadmap=RoadmapConfig(), planner=planner), folder=folder, progress=False)


def changed(run: Run, **attributes: object) -> Any:
    """A copy of a run with other attributes, and with the same parts."""
    made = copy(run)
    vars(made).update(attributes)
    return made


def edit(run: Path, change: Callable[[dict], object]) -> None:
    """Changes the settings in config.json as a person does."""
    config = json.loads((run / "config.json").read_text())
    change(config)
    (run / "config.json").write_text(json.dumps(config))


def killed(once: Path, work: Callable[..., object], *args: object) -> None:
    """Does this work in a process of its own, which SIGKILL ends in the first optimiser step after `once` exists.

    `work` is a function of a module. See `forked`.
    """
    process = forked.context().Process(target=_until_killed, args=(dict(os.environ), once, work, *args))
    process.start()
    process.join()
    assert once.exists() and process.exitcode == -signal.SIGKILL


def _until_killed(environment: dict[str, str], once: Path, work: Callable[..., object], *args: object) -> None:
    os.environ.clear()  # that of the test which made the first such process
    os.environ.update(environment)

    def kill(*_: object) -> None:
        if once.exists():
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_pre_hook(kill)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    work(*args)


def same_when_killed(config: RunConfig, folder: Path, after: int) -> Run:
    """Trains a run, and once more in a process that is killed in the step after checkpoint `after`; resumes that one,
    checks that the weights are equal and returns it."""
    whole = runs.train(config, folder=folder / "whole", progress=False)
    killed(folder / "killed" / f"step-{after:08}", _train, config, folder / "killed")
    assert runs.load(folder / "killed").step == after < whole.step
    run = runs.train(config, folder=folder / "killed", resume=True, progress=False)
    assert whole.step == run.step and whole.components.keys() == run.components.keys()
    for key, value in whole.main.state_dict().items():
        assert torch.equal(value, run.main.state_dict()[key]), key
    return run


def _train(config: RunConfig, folder: Path) -> None:
    runs.train(config, folder=folder, progress=False)
