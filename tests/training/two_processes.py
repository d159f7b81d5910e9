"""Trainings that are small enough to be tried by one process and by two, and what a process of two does."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gentraj.data import Episodes
from gentraj.families import FAMILIES
from gentraj.networks import ResidualMLPConfig
from gentraj.networks.discriminator import DiscriminatorConfig
from gentraj.runs import PlannerRunConfig, PolicyRunConfig
from gentraj.runs.kinds.folder import run_class
from gentraj.runs.kinds.presets import PRESETS
from gentraj.runs.kinds.run import DataFacts
from gentraj.training import RunStore, Trainer, TrainingConfig, TrainingData, TrainingStopped
from gentraj.training.loop import TrainingResult
from gentraj.training.parallel import SINGLE, Processes, ProcessLost, launched
from gentraj.training.step import TrainingStep

NARROW = ResidualMLPConfig(width=8, depth=1, frequencies=0)
STEPS = 8


def data() -> Episodes:
    """9 short episodes, most of which terminate, so that windows differ in how much of them is padding."""
    rng, lengths = np.random.default_rng(0), np.array([9, 14, 30, 5, 8, 40, 12, 7, 25])
    ends = np.isin(np.arange(lengths.sum()), np.cumsum(lengths) - 1)
    obs = rng.normal(size=(lengths.sum() + len(lengths), 3)).cumsum(0) / 10
    terminated = ends & (np.cumsum(ends) % 3 > 0)
    return Episodes(obs, rng.uniform(-1, 1, (lengths.sum(), 2)), rng.normal(size=lengths.sum()), terminated,
                    ends & ~terminated, lengths)


def planner(family: str, preset: str = "diffuser") -> PlannerRunConfig:
    model: Any = FAMILIES[family].with_network(NARROW)
    if family == "gan":  # without the statistic over the batch that each process computes for itself
        model = replace(model, discriminator=DiscriminatorConfig(width=8, minibatch_std=False))
    config: Any = PRESETS[preset]
    if config.critic is not None:
        noised = config.critic.noise_fraction if family == "diffusion" else 0.0
        config = replace(config, critic=replace(config.critic, width=8, noise_fraction=noised))
    if config.inverse is not None:
        config = replace(config, inverse=replace(config.inverse, width=8, batch_size=12))
    return replace(config, model=model, batch_size=8)


def policy(name: str) -> PolicyRunConfig:
    settings: Any = PRESETS[name]
    settings = settings.policy
    changes: dict[str, Any] = {"batch_size": 16}
    if settings.model is not None:
        changes["model"] = settings.model.with_network(NARROW)
    if settings.critic is not None:
        changes["critic"] = replace(settings.critic, width=8, depth=1, n_step=4)
    if name == "diffusion-ql":  # with all that the published preset draws
        changes |= {"gradient": "chain", "backup": 3, "critic": replace(changes["critic"], gradient="random")}
    return PolicyRunConfig(policy=replace(settings, **changes))


def world() -> Any:
    config: Any = PRESETS["world-model"]
    model = config.world.model.with_network(NARROW)
    return replace(config, world=replace(config.world, width=8, batch_size=16, model_batch=8, model=model))


CONFIGS: dict[str, Callable[[], Any]] = {  # losses that are divided by statistics of a batch, and all kinds of draws
    "planner": lambda: planner("diffusion"), "latent": lambda: planner("latent"), "gan": lambda: planner("gan"),
    **{name: lambda name=name: policy(name) for name in ("bc-diffusion", "iql", "diffusion-ql", "fql")},
    "world": world}


def run(kind: str, folder: Path, processes: Processes = SINGLE, *, resume: bool = False,
        spoil: Callable[[dict[str, Any]], None] = lambda components: None,
        evaluate: Callable[[int], None] | None = None, **changes: Any) -> TrainingResult:
    """Trains a kind of run and writes a hash of the weights that this process ends with beside the checkpoints."""
    config, episodes = CONFIGS[kind](), data()
    settings = TrainingConfig(**{"steps": STEPS, "warmup": 2, "log_every": 1, "save_every": 3} | changes)
    made = run_class(config)
    config, context = made.resolve(replace(config, training=settings), episodes)
    components = dict(made.build(config, DataFacts.of(episodes, context, None, []), episodes).components)
    spoil(components)
    trainer = Trainer(components, TrainingData(episodes, context), settings, RunStore(folder), processes=processes,
                      progress=False)
    if evaluate is not None:
        trainer.evaluate = lambda: evaluate(trainer.step)
    result = trainer.fit(resume)
    (folder / f"rank-{processes.rank}").write_text(fingerprint(components))
    return result


def fingerprint(components: dict[str, Any]) -> str:
    tensors = [tensor for _, component in sorted(components.items()) for tensor in component.state_dict().values()]
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


# -- what two processes do


def child(rank: int, port: int, folder: Path, jobs: list[str]) -> int:
    """Does jobs as one process of two; what it says in the end is in FOLDER/RANK.txt."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port))
    try:
        with launched("cpu") as processes:
            for job in jobs:
                JOBS[job](folder, processes)
    except BaseException as error:
        (folder / f"{rank}.txt").write_text(f"{type(error).__name__}: {error}")
        return getattr(error, "exit_code", 1)
    return 0


def all_kinds(folder: Path, processes: Processes) -> None:
    for kind in CONFIGS:
        run(kind, folder / kind, processes)


def resumed(folder: Path, processes: Processes) -> None:
    run("planner", folder / "resumed", processes, resume=True)


def spoiled(folder: Path, processes: Processes) -> None:
    """One process has a batch that is not finite in its fourth step."""
    def spoil(components: dict[str, Any]) -> None:
        policy, steps = components["policy"], []

        def update(step: TrainingStep) -> dict[str, torch.Tensor]:
            steps.append(step)
            if processes.rank == 1 and len(steps) == 4:
                step = step.on(replace(step.batch, x_BHD=step.batch.x_BHD * torch.nan))
            return type(policy).update(policy, step)

        policy.update = update

    try:
        run("bc-diffusion", folder / "spoiled", processes, spoil=spoil)
    except TrainingStopped as error:
        (folder / "spoiled" / f"rank-{processes.rank}").write_text(str(error))


def failing(folder: Path, processes: Processes) -> None:
    """The evaluation at step 2, which the main process makes, fails."""
    def evaluate(step: int) -> None:
        raise OSError(f"rank {processes.rank} has no environment at step {step}")

    try:
        run("bc-diffusion", folder / "failing", processes, evaluate=evaluate, eval_every=2)
    except (OSError, ProcessLost) as error:
        (folder / f"failing-{processes.rank}").write_text(f"{type(error).__name__} {error}")


def endless(folder: Path, processes: Processes) -> None:
    def spoil(components: dict[str, Any]) -> None:
        policy = components["policy"]
        policy.update = lambda *args: (time.sleep(0.05), type(policy).update(policy, *args))[1]

    run("bc-diffusion", folder, processes, spoil=spoil, steps=10**6, log_every=10**5, save_every=10**5)


JOBS: dict[str, Callable[[Path, Processes], None]] = {
    each.__name__: each for each in (all_kinds, resumed, spoiled, failing, endless)}
