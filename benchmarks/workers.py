"""Steps a second of environments in this process and in worker processes, without the start of the workers.

    python -m benchmarks.workers

The rounds of all ways are interleaved, and the medians are printed with the smallest and largest rate. CPU seconds are
those of this process alone: what its agent has less of.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tyro

from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.making import environment_factory


@dataclass(frozen=True)
class Args:
    envs: tuple[str, ...] = ("pointmaze-umaze", "Hopper-v5")
    numbers: tuple[int, ...] = (1, 8, 50)
    """Numbers of environments."""
    workers: tuple[int, ...] = (0, 1, 2)
    """Numbers of worker processes; 0 is this process."""
    steps: int = 400
    """Steps of a round, over all environments."""
    rounds: int = 5


class Way(NamedTuple):
    """Environments in some processes, and the rates of their rounds."""

    workers: int
    envs: VectorEnvironment
    starting: float
    wall: list[float]
    cpu: list[float]


def main(args: Args) -> None:
    print(f"{'environment':18}{'number':>8}{'workers':>9}{'steps/s':>9}{'from':>8}{'to':>8}{'per CPU s':>11}"
          f"{'start s':>9}")
    for env in args.envs:
        for number in args.numbers:
            ways = [started(env, number, workers) for workers in args.workers if workers <= number]
            for _ in range(args.rounds):
                for way in ways:
                    play(way, max(1, args.steps // number))
            for way in ways:
                way.envs.close()
                low, mid, high = np.percentile(way.wall, [0, 50, 100])
                print(f"{env:18}{number:8}{way.workers:9}{mid:9,.0f}{low:8,.0f}{high:8,.0f}{np.median(way.cpu):11,.0f}"
                      f"{way.starting:9.1f}", flush=True)


def started(env: str, number: int, workers: int) -> Way:
    start = time.perf_counter()
    envs = VectorEnvironment(environment_factory(env), number, workers=workers)
    envs.reset(np.ones(number, bool), range(number))
    return Way(workers, envs, time.perf_counter() - start, [], [])


def play(way: Way, steps: int) -> None:
    """Takes this many steps in each environment; those that end begin again, outside of the time."""
    envs, wall, cpu = way.envs, 0.0, 0.0
    act_BA = np.zeros((len(envs.obs_BO), envs.act_dim), np.float32)
    for _ in range(steps):
        before = time.perf_counter(), time.process_time()
        result = envs.step(act_BA)
        wall, cpu = wall + time.perf_counter() - before[0], cpu + time.process_time() - before[1]
        if (ended_B := result["terminated"] | result["truncated"]).any():
            envs.reset(ended_B, envs.seeds)
    way.wall.append(steps * len(act_BA) / wall)
    way.cpu.append(steps * len(act_BA) / cpu)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
