"""20,000 decisions of a planner and 100,000 training updates: memory does not grow, and none gets slower.

The growth is that of a line through the resident memory after the first fifth, over as many decisions or updates as
there were. A list that kept one small tensor of each would grow by more than the bound. Times are CPU times of this
process, as other processes may begin and end meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.pointmaze import record
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import fold
from gentraj.runs.presets import POINTMAZE
from gentraj.training import TrainingConfig, train
from gentraj.trajectory import TrajectorySpec

from .small_run import ENV, memory, mib, trained_planner

DECISIONS, UPDATES = 20_000, 100_000
EVERY = 100  # decisions or updates between two readings
MOST_BYTES = 200  # that the memory may grow by in a decision or an update
MOST_SLOWDOWN = 1.5  # of the median of the last tenth over that of the first: a busy machine has colder caches


def run(seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Raises AssertionError if memory grows, or if the last decisions or updates are much slower than the first.

    Fewer decisions and updates are made where the `minutes` do not suffice.
    """
    torch.set_num_threads(1)
    begin = time.monotonic()
    figures = decisions(seed, 30 * minutes, folder)
    figures |= updates(seed, 60 * minutes - (time.monotonic() - begin), folder)
    for what in ("decision", "update"):
        growth, slowdown = figures[f"bytes_per_{what}"], figures[f"{what}_slowdown"]
        assert growth <= MOST_BYTES, f"the memory grew by {growth} bytes for each {what}, above {MOST_BYTES}: {figures}"
        assert slowdown <= MOST_SLOWDOWN, f"the last {what}s took {slowdown} times as long as the first: {figures}"
    return figures


def decisions(seed: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Plans in every step, episode after episode."""
    planner = replace(POINTMAZE.planner, replan=1, steps=1, arrival_thresholds=(1.0,), hold_radius=0.0)
    run = trained_planner(folder, seed, planner, TrainingConfig(200, save_every=200))
    envs, agent = VectorEnvironment(environment_factory(ENV), 1), run.agent(run.action_space())
    resident, took = np.zeros(0), np.zeros(DECISIONS)
    end, episode, done = time.monotonic() + seconds, 0, np.ones(1, bool)
    try:
        for number in range(DECISIONS):
            if done.any():
                envs.reset(done, [fold(seed, episode)])
                agent.reset(None, [fold(seed, episode)])
                episode += 1
            goal_BG = None if envs.goal_BG is None else torch.from_numpy(envs.goal_BG)
            start = time.process_time()
            act_BA = agent.act(torch.from_numpy(envs.obs_BO), goal_BG)
            took[number] = time.process_time() - start
            result = envs.step(act_BA.numpy())
            done = result["terminated"] | result["truncated"]
            if number % EVERY == EVERY - 1:
                resident = np.append(resident, memory())
                if time.monotonic() > end:
                    break
    finally:
        envs.close()
    return {"decisions": number + 1, "episodes": episode} | flatness("decision", resident, 1000 * took[: number + 1])


def updates(seed: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Trains a small diffusion model in the real loop, which logs every 100 updates and saves every 1,000."""
    episodes = record(ENV, 20_000, seed, progress=False)
    spec, normalizer = TrajectorySpec(4, 2, 4), Normalizer.fit("limits", [episodes.obs, episodes.act])
    readings: list[tuple[int, float]] = []

    def trained(steps: int, name: str) -> float:
        readings.clear()
        model = Diffusion(spec, DiffusionConfig(ResidualMLPConfig(16, 1, 0)), normalizer, batch_size=8)
        settings = TrainingConfig(steps, warmup=10, save_every=1000, log_every=EVERY, seed=seed)
        start = time.perf_counter()
        train({"model": model}, episodes, settings, folder / name, meta={}, progress=False,
              on_log=lambda row: readings.append((memory(), time.process_time())))
        return time.perf_counter() - start

    few = UPDATES // 50
    took = trained(few, "rate")
    number = min(UPDATES, int(few * (seconds - took) / took) // EVERY * EVERY)
    trained(number, "updates")
    resident, at = np.array(readings).T
    return {"updates": number} | flatness("update", resident, 1000 * np.diff(at) / EVERY)


def flatness(what: str, resident: Sequence[float] | np.ndarray, took_ms: np.ndarray) -> dict[str, Any]:
    """How much the memory grew from one to the next, and how the times of the last tenth compare with the first's."""
    late = np.asarray(resident)[len(resident) // 5 :]
    slope = np.polyfit(np.arange(len(late)), late, 1)[0] / EVERY
    tenth = len(took_ms) // 10
    first, last = np.median(took_ms[:tenth]), np.median(took_ms[-tenth:])
    return {f"bytes_per_{what}": round(float(slope), 1), f"{what}_rss_mib": [mib(late[0]), mib(late[-1])],
            f"{what}_cpu_ms": [round(float(first), 3), round(float(last), 3)],
            f"{what}_slowdown": round(float(last / first), 3)}
