"""How often a planner misses its deadlines, and its returns, on an idle machine and beside other busy processes.

    python -m benchmarks.deadlines runs/demo
    python -m benchmarks.deadlines runs/demo --fallback runs/demo-student --neighbours 0 2

Every deadline is given the same episodes in one environment, which waits for the agent however late it is. A neighbour
is a process that multiplies matrices all the time. The first line is the planner without a deadline.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from gentraj import runs
from gentraj.envs.evaluation.scoring import EvaluationConfig
from gentraj.runs.judge.evaluation import Acting, score_run

SPIN = "import torch; torch.set_num_threads(1); x = torch.ones(512, 512)\nwhile True: x @ x"


@dataclass(frozen=True)
class Args:
    run: Annotated[Path, tyro.conf.Positional]
    """The folder of a planner's run."""
    fallback: Path | None = None
    """The folder of a run that acts until the first plan is ready, such as the planner's student."""
    deadlines_ms: tuple[float, ...] = (5, 10, 50, 200)
    neighbours: tuple[int, ...] = (0, 1)
    """Numbers of other busy processes."""
    episodes: int = 20
    seed: int = 0
    threads: int = 1


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    device = torch.device("cpu")
    run, fallback = runs.load(args.run, device=device), args.fallback and runs.load(args.fallback, device=device)
    print(f"{'neighbours':>10}{'deadline':>9}{'return':>8} {'(95 %)':16}{'success':>8}{'missed':>9}{'p50':>7}{'p99':>7}"
          f"{'worst':>7}  acted by; plans", flush=True)
    for neighbours in args.neighbours:
        with busy(neighbours):
            for deadline in (None, *args.deadlines_ms):
                config = EvaluationConfig(episodes=args.episodes, seed=args.seed, num_envs=1, batch_invariant=False,
                                          baselines=False, deadline_ms=deadline)
                acting = Acting(fallback=fallback if deadline else None)
                scores = score_run(run, config, acting=acting, progress=False)
                print(line({"neighbours": neighbours, "deadline_ms": deadline} | scores), flush=True)


@contextmanager
def busy(neighbours: int) -> Iterator[None]:
    """Runs `neighbours` busy processes during the block."""
    processes = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(neighbours)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def line(scores: dict[str, Any]) -> str:
    low, high = scores["return_ci95"]
    start = (f"{scores['neighbours']:10}{scores['deadline_ms'] or '-':>9}{scores['return_mean']:8.1f} "
             f"{f'({low:.1f} to {high:.1f})':16}{scores['success_rate'] or 0:8.2f}")
    if (deadline := scores.get("deadline")) is None:
        return f"{start}{'':9}{scores['latency_ms_p50']:7.2f}{scores['latency_ms_p99']:7.1f}  (of new plans)"
    counts = "; ".join(", ".join(f"{name} {count}" for name, count in deadline[key].items())
                       for key in ("acted_by", "plans"))
    return (f"{start}{100 * deadline['miss_rate']:7.2f} %{deadline['act_ms_p50']:7.2f}{deadline['act_ms_p99']:7.1f}"
            f"{deadline['act_ms_worst']:7.1f}  {counts}")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
