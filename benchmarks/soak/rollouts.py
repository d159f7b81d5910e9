"""1,000 environments in one rollout, in this process and in two workers: the episodes are those of smaller groups.

The environment is Pendulum, whose own memory is small. That of a maze is stated beside it: it is MuJoCo's.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gentraj
from gentraj.agents.policies.bc import BCConfig
from gentraj.agents.policies.generators import DIFFUSION
from gentraj.data import save_npz
from gentraj.envs.evaluation.rollout import Rollout, rollout
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import RandomAgent
from gentraj.networks import ResidualMLPConfig
from gentraj.runs import PolicyRunConfig, Run
from gentraj.training import TrainingConfig

from .small_run import ENV, Meter, memory, mib

ENVIRONMENTS, GROUP, MAZES = 1000, 64, 50
WAYS = {"groups": (GROUP, 0), "one": (ENVIRONMENTS, 0), "workers": (ENVIRONMENTS, 2)}  # environments and workers
COSTS = {"latency_ms", "act_ms", "network_calls"}  # what may depend on the number of environments


def run(seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Plays the same episodes in groups, all at once, and all at once in workers, however many `minutes` are given.

    Raises AssertionError where an episode differs by a bit. The memory is that of all processes, with the episodes.
    """
    torch.set_num_threads(1)
    policy, factory = trained_policy(folder, seed), environment_factory("Pendulum-v1")
    figures: dict[str, Any] = {"environments": ENVIRONMENTS, "group": GROUP}
    found: dict[str, Rollout] = {}
    for name, (number, workers) in WAYS.items():
        start, before = time.perf_counter(), memory()
        with Meter() as meter:
            found[name] = rollout(policy.agent(policy.action_space()), factory, ENVIRONMENTS, seed, number,
                                  workers=workers, record=True, progress=False)
        figures |= {f"{name}_seconds": round(time.perf_counter() - start, 1),
                    f"{name}_mib_per_environment": round((meter.peak - before) / number / 2**20, 3)}
        different = [field.name for field in fields(Rollout) if field.name not in COSTS
                     and not same(getattr(found[name], field.name), getattr(found["groups"], field.name))]
        assert not different, (f"{number} environments in {workers} workers: {', '.join(different)} differ from those "
                               f"of {GROUP} environments at a time, with seed {seed}")
    before = memory()
    with closing(VectorEnvironment(environment_factory(ENV), MAZES)) as mazes:
        mazes.reset(np.ones(MAZES, bool), range(MAZES))
        figures["maze_mib_per_environment"] = round(mib((memory() - before) / MAZES), 1)
    return figures | {"steps": int(found["one"].lengths.sum()), "return_mean": float(found["one"].returns.mean())}


def trained_policy(folder: Path, seed: int) -> Run:
    """A small diffusion policy that clones a random agent's actions."""
    agent = RandomAgent(np.array([-2.0]), np.array([2.0]))
    played = rollout(agent, environment_factory("Pendulum-v1"), 20, seed, record=True, progress=False)
    assert played.recorded is not None
    data = save_npz(played.recorded, folder / "pendulum.npz")
    model = replace(DIFFUSION, network=ResidualMLPConfig(32, 1), steps=2)
    return gentraj.train(PolicyRunConfig(policy=BCConfig(model=model), dataset=str(data), training=TrainingConfig(200)),
                         folder / "policy", progress=False)


def same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(one, other)) if isinstance(one, np.ndarray) else one == other
