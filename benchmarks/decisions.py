"""How long does one decision take, from the observation to the action, through `Agent.act` for one environment?

    python -m benchmarks.decisions runs/umaze runs/umaze-student

The agents see the same episodes of the first run's environment, in which the last one acts. Their decisions are timed
by turns, in wall time and in the CPU time of the thread, which is what matters where others use the machine. The calls
in which a planner only follows its plan count as decisions, too: the 99th percentile is that of a new plan.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import Tensor

from gentraj import runs
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.making import environment_factory
from gentraj.progress import bar
from gentraj.runs.kinds.run import environment_of
from gentraj.trajectory import Agent


@dataclass(frozen=True)
class Args:
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of agents of one environment."""
    steps: int = 2_000
    """Environment steps, each with a decision of every agent."""
    seed: int = 0
    threads: int = 1


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    loaded = [runs.load(folder, device=torch.device("cpu")) for folder in args.runs]
    envs = VectorEnvironment(environment_factory(environment_of(loaded[0])), 1, loaded[0].data.obs_keys)
    agents = [run.agent(envs.action_space) for run in loaded]
    wall, cpu = np.zeros((2, len(agents), args.steps))
    done_B, episode = np.ones(1, bool), args.seed
    with bar(args.steps, "timing decisions") as shown:
        for step in range(args.steps):
            if done_B.any():
                envs.reset(done_B, [episode := episode + 1])
                for agent in agents:
                    agent.reset([episode])
            obs_BO = torch.from_numpy(envs.obs_BO)
            goal_BG = None if envs.goal_BG is None else torch.from_numpy(envs.goal_BG)
            for a, agent in enumerate(agents):
                act_BA, wall[a, step], cpu[a, step] = timed(agent, obs_BO, goal_BG)
            result = envs.step(act_BA.numpy())
            done_B = result["terminated"] | result["truncated"]
            shown.update()
    print(f"{'':30}{'':>6}{'per second':>12}{'p50 ms':>10}{'p99 ms':>10}")
    for folder, *times in zip(args.runs, wall, cpu, strict=True):
        for kind, seconds in zip(("wall", "CPU"), times, strict=True):
            p50, p99 = 1000 * np.percentile(seconds, [50, 99])
            print(f"{folder.name:30}{kind:>6}{1 / seconds.mean():12,.0f}{p50:10.3f}{p99:10.3f}")


def timed(agent: Agent, obs_BO: Tensor, goal_BG: Tensor | None) -> tuple[Tensor, float, float]:
    """The actions, the wall time and the CPU time of the thread, in seconds."""
    wall, cpu = time.perf_counter(), time.thread_time()
    act_BA = agent.act(obs_BO, goal_BG)
    return act_BA, time.perf_counter() - wall, time.thread_time() - cpu


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
