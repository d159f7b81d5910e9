"""Measures what the updates of the presets with published settings take on one core, beside those of the short presets.

    python -m benchmarks.published
    python -m benchmarks.published --presets iql iql-published --updates 100

A preset's update is one of each of its components, as the training loop does it, with its batch. The data are random
numbers with the sizes of HalfCheetah: 17 observations, 6 actions and episodes of 1,000 steps. The table has the mean
CPU time of an update, the hours of CPU time that the preset's training takes, and the number of trained weights.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import tyro

from gentraj.data import Episodes, Windows
from gentraj.randomness import generator
from gentraj.runs.kinds import AnyRunConfig
from gentraj.runs.presets import PRESETS
from gentraj.runs.settings import DataFacts
from gentraj.training.memory import freed_memory_kept
from gentraj.training.optimization import checked_later, read_finite

OBS, ACT, EPISODES, LENGTH = 17, 6, 20, 1_000
BESIDE = {f"{name}-published": name for name in PRESETS if f"{name}-published" in PRESETS}


@dataclass(frozen=True)
class Options:
    """What is measured."""

    presets: tuple[str, ...] = (*(name for pair in BESIDE.items() for name in reversed(pair)), "bc-published")
    """The presets."""
    updates: int = 20
    """Updates of each preset that are timed, after three that are not."""


def episodes() -> Episodes:
    rng, steps = np.random.default_rng(0), EPISODES * LENGTH
    last = np.arange(LENGTH - 1, steps, LENGTH)
    truncated = np.zeros(steps, bool)
    truncated[last] = True
    return Episodes(rng.normal(size=(steps + EPISODES, OBS)), rng.uniform(-1, 1, (steps, ACT)), rng.normal(size=steps),
                    np.zeros(steps, bool), truncated, np.full(EPISODES, LENGTH))


def update_of(config: AnyRunConfig, data: Episodes) -> tuple[Callable[[int], None], int]:
    """An update of all components as a function of the step, and the number of weights that are trained."""
    config = config.resolve(data)
    components: Mapping[str, Any] = config.build(DataFacts.of(data, config.context, config.env_id, ()), data)
    trained = [(component, component.optimizers(), Windows(data, component.spec, config.context))
               for component in components.values()]

    def update(step: int) -> None:
        for component, optimizers, windows in trained:
            batch = windows.batch(step, 0, component.batch_size)
            with checked_later() as checked:
                metrics = component.update(batch, optimizers, generator(0, step))
            read_finite([*checked, *metrics.items()])

    weights = sum(p.numel() for component in components.values() for p in component.parameters() if p.requires_grad)
    return update, weights


def main(options: Options) -> None:
    torch.set_num_threads(1)
    data = episodes()
    print("| preset | ms / update | updates | hours | weights |\n|---|---|---|---|---|")
    with freed_memory_kept():
        for name in options.presets:
            config = PRESETS[name]
            update, weights = update_of(config, data)
            for step in range(3):
                update(step)
            began = time.process_time()
            for step in range(options.updates):
                update(3 + step)
            seconds = (time.process_time() - began) / options.updates
            hours = config.training.steps * seconds / 3600
            print(f"| {name} | {1e3 * seconds:.3g} | {config.training.steps:,} | {hours:.2g} | {weights:,} |",
                  flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
