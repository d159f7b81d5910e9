"""The smallest real runs: PointMaze-UMaze, narrow networks, a few steps. conftest.py makes the first one of them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from agents.planning.arrival import ArrivalConfig
from agents.planning.inverse_dynamics import InverseDynamicsConfig
from gentraj.cli import main
from gentraj.diffusion import DiffusionConfig
from gentraj.networks import TemporalUNetConfig
from gentraj.runs import AnyRunConfig, PlannerRunConfig, Run
from gentraj.runs import folder as runs
from gentraj.runs.presets import PRESETS
from gentraj.training import TrainingConfig

DATASET = "tests/umaze-v0"
WORDS = ("--model.network.width", "8", "--batch-size", "8", "--inverse.width", "16", "--inverse.batch-size", "8",
         "--arrival.width", "16", "--arrival.batch-size", "8", "--training.warmup", "2",
         "--planner.replan", "60", "--planner.steps", "1")  # few decisions, each of one step
JOINT_WORDS = WORDS[:4] + WORDS[8:]  # plans with actions have no inverse dynamics


def config(dataset: str | Path = DATASET, steps: int = 6) -> PlannerRunConfig:
    """What the words above say."""
    preset = PRESETS["pointmaze"]
    return replace(
        preset, dataset=str(dataset), training=TrainingConfig(steps, warmup=2, save_every=2, log_every=3),
        model=DiffusionConfig(TemporalUNetConfig(width=8)), batch_size=8,
        inverse=InverseDynamicsConfig(width=16, batch_size=8), arrival=ArrivalConfig(width=16, batch_size=8),
        planner=replace(preset.planner, replan=60, steps=1))


def gentraj(*words: object) -> int:
    """The command, in this process; its exit code."""
    return main([str(word) for word in words])


def train(folder: Path, dataset: object = DATASET, *more: object) -> None:
    """Trains 6 steps through the command, saved every second."""
    words = JOINT_WORDS if "--joint" in more else WORDS
    words = "--steps", 6, "--training.save-every", 2, "--training.log-every", 3, *words
    assert gentraj("train", "pointmaze", "--dataset", dataset, "--run-dir", folder, *words, *more) == 0


def same_when_resumed(config: AnyRunConfig, folder: Path, lost: Sequence[int]) -> Run:
    """Trains whole, and again from before the checkpoints of the steps `lost`, to the same bits. Returns the second."""
    whole = runs.train(config, folder / "whole", progress=False)
    shutil.copytree(folder / "whole", folder / "cut")
    for step in lost:
        shutil.rmtree(folder / "cut" / f"step-{step:08}")
    torch.rand(())  # a resumed run is in another process, whose own generator is anywhere
    run = runs.train(config, folder / "cut", resume=True, progress=False)
    assert whole.step == run.step == lost[-1] and whole.components.keys() == run.components.keys()
    for key, value in whole.main.state_dict().items():
        assert torch.equal(value, run.main.state_dict()[key]), key
    return run
