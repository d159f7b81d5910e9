"""How the costs of gentraj grow: fits of log cost over log size, whose slopes are the exponents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.speed_cases import HOPPER, model_of, planner, start_of
from benchmarks.timing import CPU, Call, by_turns, summary
from gentraj.data import Episodes, Windows
from gentraj.diffusion import Diffusion
from gentraj.randomness import generator
from gentraj.trajectory import SamplingOptions

DDIM = SamplingOptions("ddim", 5)
LENGTH = 1_000  # steps of an episode


@dataclass(frozen=True)
class Growth:
    """Work that is done at several sizes."""

    title: str
    """The work, for a table, and what the size is."""
    sizes: tuple[int, ...]
    call: Callable[[int], Call]
    """The work at a size."""


def of_horizon(horizon: int) -> Call:
    setting = replace(HOPPER, horizon=horizon)
    return partial(model_of(setting).sample, start_of(setting, 1), options=DDIM)


def of_batch(batch: int) -> Call:
    return partial(model_of(HOPPER).sample, start_of(HOPPER, batch), options=DDIM)


def of_planner(candidates: int, environments: int) -> Call:
    return partial(planner(candidates=candidates).act, torch.zeros(environments, HOPPER.obs_dim))


def windows_of(steps: int) -> Windows:
    """The windows of a dataset of random numbers."""
    rng, episodes = np.random.default_rng(0), steps // LENGTH
    ends = np.arange(1, steps + 1) % LENGTH == 0
    return Windows(Episodes(
        rng.standard_normal((steps + episodes, HOPPER.obs_dim), np.float32),
        rng.standard_normal((steps, HOPPER.act_dim), np.float32), np.zeros(steps, np.float32),
        np.zeros(steps, bool), ends, np.full(episodes, LENGTH), validate=False), HOPPER.spec)


def of_dataset(steps: int) -> Call:
    """The windows of a training step, and the step."""
    windows, model = windows_of(steps), model_of(HOPPER)
    return partial(training_step, windows, model, model.optimizers(), generator(0))


def training_step(windows: Windows, model: Diffusion, optimizers: dict[str, Any], source: torch.Generator) -> None:
    seed = int(torch.randint(1 << 30, (), generator=source))
    model.update(windows.batch(0, seed, 32), optimizers, source)


GROWTH: dict[str, Growth] = {
    "horizon": Growth("a plan, over its horizon", (32, 64, 128, 256, 512), of_horizon),
    "batch": Growth("plans sampled in one call, over their number", (1, 4, 16, 64, 256), of_batch),
    "candidates": Growth("a decision, over the planner's candidates", (1, 4, 16, 64, 256),
                         partial(of_planner, environments=1)),
    "environments": Growth("a decision with 4 candidates in each environment, over the environments", (1, 4, 16, 64),
                           partial(of_planner, 4)),
    "dataset": Growth("a training step of 32 windows, over the transitions in the data",
                      (10_000, 100_000, 1_000_000, 4_000_000), of_dataset),
}


def exponents(sizes: Sequence[int], costs: Sequence[float]) -> dict[str, float]:
    """The slopes of log cost over log size: of the line through all sizes, and between the two largest.

    A fixed cost lowers the first, so that the second shows better how the cost grows on.
    """
    x, y = np.log(sizes), np.log(costs)
    slope, last = np.polyfit(x, y, 1)[0], (y[-1] - y[-2]) / (x[-1] - x[-2])
    return {"overall": round(float(slope), 3), "at the largest": round(float(last), 3)}


def measured(growth: Growth, rounds: int, seconds: float) -> Mapping[str, Any]:
    """Milliseconds at each size, measured by turns, and the exponents of their medians."""
    times = by_turns({str(size): growth.call(size) for size in growth.sizes}, rounds, seconds, CPU)
    ms = [summary(1000 * np.array(each)) for each in times.values()]
    return {"title": growth.title, "sizes": growth.sizes, "ms": ms,
            "exponents": exponents(growth.sizes, [each["median"] for each in ms])}
