"""Everything that gentraj trains, each with tiny networks and data. As a script it brings one training to its end:

    python -m benchmarks.soak.trainings DATA KIND FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from gentraj import runs
from gentraj.agents.policies.student import StudentConfig
from gentraj.config import from_json, to_json
from gentraj.data import Episodes, save_npz
from gentraj.envs.evaluation.rollout import rollout
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import RandomAgent
from gentraj.envs.recording.pointmaze import record
from gentraj.families import FAMILIES
from gentraj.runs.dagger import SETTINGS, DecisionConfig
from gentraj.runs.distillation import METHODS, distill
from gentraj.runs.few_step import FewStepRunConfig
from gentraj.runs.finetuning import FinetuneConfig, finetune
from gentraj.runs.presets import PLANNERS, PRESETS
from gentraj.training import TrainingConfig, checkpoint

T = TypeVar("T")
SMALL = {"width": 8, "depth": 1, "batch_size": 8, "model_batch": 8, "members": 2, "candidates": 2}
TRAINING = TrainingConfig(steps=40, warmup=5, save_every=4, log_every=3, keep=2, threads=1)
SCORED = "td3bc"  # it is evaluated while it is trained, as every agent can be
TEACHERS = {"decision": "td3bc", "value-aware": "diffuser", "finetune": "td3bc"}  # that of the others is a planner
TEACHER, PLANNER = "veteran", "pointmaze"


def narrow(config: T) -> T:
    """The settings with the smallest networks and batches."""

    def smaller(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: min(one, SMALL[key]) if key in SMALL and type(one) is int else smaller(one)
                    for key, one in value.items()}
        return value

    return from_json(type(config), smaller(to_json(config)), "narrow settings")


def tiny(preset: str, data: Path, family: str | None = None, training: TrainingConfig = TRAINING) -> runs.AnyRunConfig:
    """The preset, or the preset with another family of models, with the smallest networks, on a dataset in `data`."""
    config: Any = PRESETS[preset]
    if family is not None:
        config = config.with_generator(FAMILIES[family])
    dataset = "maze" if (preset in PLANNERS and "maze" in preset) or "goals" in preset else "hopper"
    return replace(narrow(config), dataset=str(data / f"{dataset}.npz"), training=training)


def prepare(data: Path) -> None:
    """Writes the datasets and trains the teachers into the folder `data`, which all trainings read."""
    record_hopper(data)
    save_npz(record("pointmaze-umaze", 2_000, progress=False), data / "maze.npz")
    for teacher in {TEACHER, *TEACHERS.values()}:
        runs.train(tiny(teacher, data, training=replace(TRAINING, steps=4)), data / teacher, progress=False)


def record_hopper(data: Path) -> None:
    """Writes hopper.npz, 12 episodes of random actions."""
    factory = environment_factory("Hopper-v5")
    space = factory().action_space
    hopper = rollout(RandomAgent(space.low, space.high), factory, 12, num_envs=6, record=True, progress=False)
    save_npz(cast(Episodes, hopper.recorded), data / "hopper.npz")


def train(config: Callable[[Path], runs.AnyRunConfig], data: Path, folder: Path) -> None:
    runs.train(config(data), folder, resume=checkpoint.has_checkpoints(folder), progress=False)


def teach(method: str, data: Path, folder: Path) -> None:
    """Distils a teacher into a student."""
    teacher, config = runs.load(data / TEACHERS.get(method, TEACHER)), METHODS[method].config
    if isinstance(config, FewStepRunConfig):
        config, resume = replace(config, training=TRAINING), checkpoint.has_checkpoints(folder)
    else:
        config = DecisionConfig(episodes=2, rounds=1, num_envs=2, policy=narrow(StudentConfig()), training=TRAINING)
        resume = (folder / SETTINGS).exists()
    distill(teacher, config, folder, resume=resume, progress=False)


def tune(data: Path, folder: Path) -> None:
    """Fine-tunes a policy in its environment."""
    config = FinetuneConfig(steps=60, updates=0.5, save_every=4)
    finetune(runs.load(data / TEACHERS["finetune"]), config, folder, resume=checkpoint.has_checkpoints(folder),
             progress=False)


def _kinds() -> dict[str, Callable[[Path, Path], None]]:
    presets = [name for name in PRESETS if not name.startswith(("pointmaze-", "diffuser-pointmaze-"))]
    kinds = {name: partial(train, partial(
        tiny, name, training=replace(TRAINING, eval_every=20 * (name == SCORED), eval_episodes=2))) for name in presets}
    kinds |= {f"planner-{family}": partial(train, partial(tiny, PLANNER, family=family)) for family in FAMILIES}
    kinds |= {f"student-{method}": partial(teach, method) for method in METHODS}
    return {**kinds, "finetune": tune}


KINDS = _kinds()
"""What can be trained: name -> a function (data, folder) that trains it into the folder, or resumes it to its end."""


def main() -> None:
    data, kind, folder = sys.argv[1:]
    torch.set_num_threads(1)
    KINDS[kind](Path(data), Path(folder))


if __name__ == "__main__":
    main()
