"""How much faster two workers of Ray are than one: the episodes of an evaluation, and trainings with several seeds.

    python -m benchmarks.ray_scaling RUN DATASET

RUN is a trained run, and an IQL policy is trained on DATASET. Both are done by 1 and by 2 workers in turns, and Ray's
start and the workers' imports are not counted. Beside the wall time stand the CPU seconds of the workers: where other
processes use the machine, 2 * (CPU seconds of one worker) / (CPU seconds of two) is what two free CPUs would gain.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from gentraj.envs.evaluation.scoring import EvaluationConfig
from gentraj.experiments import engine
from gentraj.experiments.cards import Card, CardData
from gentraj.experiments.pools import Job, RayTasks, ray_rollout, run_jobs
from gentraj.experiments.reproduce import Cards
from gentraj.runs import load
from gentraj.runs.judge.evaluation import evaluate_run


@dataclass(frozen=True)
class Args:
    run: Annotated[Path, tyro.conf.Positional]
    dataset: Annotated[str, tyro.conf.Positional]
    episodes: int = 40
    seeds: int = 4
    steps: int = 300
    rounds: int = 3


class Timed(RayTasks):
    """Ray with the wall and CPU seconds of its workers since `begin`."""

    def begin(self) -> None:
        self.began, self.used = time.monotonic(), cpu_seconds()

    def seconds(self) -> tuple[float, float]:
        return time.monotonic() - self.began, cpu_seconds() - self.used


def cpu_seconds() -> float:
    """CPU seconds so far of the workers of this process: the children of its raylet."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            own = parent_of(Path("/proc") / str(parent_of(folder))) == os.getpid()
            if own and (folder / "cmdline").read_text().startswith("ray::"):
                ticks += sum(map(int, (folder / "stat").read_text().rpartition(")")[2].split()[11:13]))
        except OSError:  # has ended meanwhile
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def parent_of(folder: Path) -> int:
    """The parent of the process that a folder of /proc tells of."""
    return int((folder / "stat").read_text().rpartition(")")[2].split()[1])


def main(args: Args) -> None:
    folder = Path(tempfile.mkdtemp(prefix="ray-scaling-"))
    pools = {number: Timed(folder, number=number) for number in (2, 1)}  # the first one starts Ray, with two CPUs
    run_jobs([Job(f"warm {i}", time.sleep, (15.0,), lambda: "warm") for i in range(2)], pools[2])
    run, config = load(args.run), EvaluationConfig(episodes=args.episodes, num_envs=5, baselines=False)

    def evaluation(pool: Timed, _: str) -> None:
        evaluate_run(run, config, progress=False, play=ray_rollout(pool))

    def seeds(pool: Timed, name: str) -> None:
        data = CardData("data", args.dataset, None, None, None)
        card = Card("", "", name, "iql", {"training.steps": args.steps}, (data,), tuple(range(args.seeds)), 2,
                    "random-goal", "return_mean")
        cards = Cards.of({name: card}, (), lambda name, _, seed: folder / name / f"seed-{seed}")
        pool.begin()  # reading the data is the same for any number of workers
        assert not engine.run(cards.tasks, pool, "cpu", lambda _: "done")

    work: dict[str, Callable[[Timed, str], None]] = {"evaluation": evaluation, "seeds": seeds}
    for what, do in work.items():
        found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for round_ in range(args.rounds):
            for number, pool in pools.items():
                pool.begin()
                do(pool, f"{what}-{number}-{round_}")
                found[number].append(pool.seconds())
        (wall_1, cpu_1), (wall_2, cpu_2) = (np.median(found[number], 0) for number in (1, 2))
        print(f"{what}: wall {wall_1:.1f} and {wall_2:.1f} s, {wall_1 / wall_2:.2f} times; CPU {cpu_1:.1f} and "
              f"{cpu_2:.1f} s, {2 * cpu_1 / cpu_2:.2f} times on free CPUs", flush=True)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(tyro.cli(Args))
