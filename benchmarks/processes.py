"""Measures the training of a diffusion planner's model by one process and by all that are launched, in turns.

    torchrun --standalone --nproc-per-node 2 -m benchmarks.processes
    accelerate launch --num_processes 4 -m benchmarks.processes --batch-size 1024 --horizon 64

The model is a U-Net of the default size, on windows of random numbers. In each round the main process first trains
alone, with whole batches, while the others wait; then all train, with their rows of the same batches. The table has the
steps per second, the CPU time of a step in the main process, which a busy machine changes less, and the time in which
gradients are averaged.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import tyro

from gentraj.data import Episodes
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.normalize import Normalizer
from gentraj.training import RunStore, Trainer, TrainingConfig, TrainingData
from gentraj.training.parallel import Processes, launched
from gentraj.trajectory import TrajectorySpec

OBS, ACT = 11, 3


@dataclass(frozen=True)
class Options:
    """What is measured."""

    batch_size: int = 64
    """Windows in a batch of all processes together."""
    horizon: int = 32
    """Timesteps of a window."""
    steps: int = 20
    """Training steps of each measurement."""
    rounds: int = 7
    """Rounds, after one that is not counted."""


def episodes() -> Episodes:
    rng, count, length = np.random.default_rng(0), 50, 200
    ends = np.arange(count * length) % length == length - 1
    return Episodes(rng.normal(size=(count * (length + 1), OBS)), rng.uniform(-1, 1, (count * length, ACT)),
                    np.zeros(count * length), np.zeros_like(ends), ends, np.full(count, length))


class Times(NamedTuple):
    """The seconds of a training step in one process."""

    wall: float
    cpu: float


def measure(options: Options, data: Episodes, folder: Path, processes: Processes) -> Times:
    """The times of a step in this process, as means over a training; saving at its end is left out."""
    spec, began = TrajectorySpec(OBS, ACT, options.horizon), list[float]()
    with torch.random.fork_rng(devices=()):
        model = Diffusion(spec, DiffusionConfig(), Normalizer.identity(spec.dim), batch_size=options.batch_size)
    update: Any = model.update

    def noted(*args: Any) -> Any:
        if not began:
            began.extend((time.perf_counter(), time.process_time()))
        out = update(*args)
        now = time.perf_counter(), time.process_time()
        took[:] = [(end - start) / options.steps for start, end in zip(began, now, strict=True)]
        return out

    took, changed = [0.0, 0.0], cast(Any, model)
    changed.update = noted
    config = TrainingConfig(steps=options.steps, save_every=10**9, log_every=10**9)
    Trainer({"model": model.to(processes.device)}, TrainingData(data), config, RunStore(folder), processes=processes,
            progress=False).fit()
    return Times(*took)


def averaging(options: Options, processes: Processes) -> float:
    """The seconds in which gradients of all weights are averaged once."""
    spec = TrajectorySpec(OBS, ACT, options.horizon)
    network = Diffusion(spec, DiffusionConfig(), Normalizer.identity(spec.dim)).network.to(processes.device)
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        float(processes.average_gradients(torch.zeros((), device=processes.device), list(network.parameters())))
        times.append(time.perf_counter() - began)
    return median(times)


def main(options: Options) -> None:
    """Runs the measurement in every process; the main one prints."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    data, rounds = episodes(), list[tuple[Times, Times]]()
    with launched() as processes:
        one = Processes(device=processes.device)
        for _ in range(options.rounds + 1):
            with tempfile.TemporaryDirectory() as folder:
                alone = processes.on_main(partial(measure, options, data, Path(folder) / "one", one))
                together = measure(options, data, Path(folder) / "all", processes)
            rounds.append((alone or together, together))
        reduced = averaging(options, processes)
        if processes.is_main:
            report(rounds[1:], processes, reduced)


def report(rounds: list[tuple[Times, Times]], processes: Processes, reduced: float) -> None:
    for what in Times._fields:
        alone, together = (median(getattr(pair[i], what) for pair in rounds) for i in (0, 1))
        ratios = sorted(getattr(a, what) / getattr(b, what) for a, b in rounds)
        print(f"{what} time of a step: {1e3 * alone:.0f} ms by one process, {1e3 * together:.0f} ms by "
              f"{processes.world_size}; ratio {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f} in "
              f"{len(ratios)} rounds)")
    print(f"gradients are averaged in {1e3 * reduced:.1f} ms; load of the machine {os.getloadavg()[0]:.1f} on "
          f"{os.cpu_count()} cores")


if __name__ == "__main__":
    main(tyro.cli(Options))
