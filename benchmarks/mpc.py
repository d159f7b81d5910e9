"""How many samples does MPPI need with a generated prior, and how many without, for the same return?

    gentraj train bc-flow --dataset hopper-medium.hdf5 --env-id Hopper-v5 --run-dir runs/prior \\
        --policy.chunk 32 --policy.batch-size 128 --steps 4000
    python benchmarks/mpc.py runs/prior --out mpc

Both plan over the same horizon in the true simulator. The spread and the temperature of each, and the share of prior
draws, are the best of a small grid, on episodes of their own; every number of samples is then played on the same new
episodes. A cell that is done is kept in OUT.json, so a stopped benchmark goes on.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from agents.mpc import MPC, MPCConfig
from agents.prior import policy_prior
from envs.making import environment_factory
from envs.rollout import rollout
from envs.simulation import Simulator
from gentraj import runs
from gentraj.randomness import fold

PLAIN, PRIOR = "plain MPPI", "MPPI with the prior"
GRID = {PLAIN: {"spread": (0.3, 0.6, 1.0), "temperature": (0.3, 1.0, 10.0)},
        PRIOR: {"spread": (0.1, 0.3), "temperature": (0.3, 1.0, 10.0), "drawn": (0.5, 0.9)}}


@dataclass(frozen=True)
class Args:
    run: Annotated[Path, tyro.conf.Positional]
    """A run folder of a policy whose chunks are the prior."""
    out: Path = Path("mpc")
    """Where results go: OUT.json."""
    env_id: str | None = None
    """The run's own by default."""
    steps: int = 150
    """Environment steps of an episode."""
    episodes: int = 5
    tuning_episodes: int = 3
    tuning_samples: int = 16
    horizon: int = 32
    samples: tuple[int, ...] = (4, 8, 16, 32)
    """Of plain MPPI; with the prior a quarter of each."""
    threads: int = 1


class Benchmark:
    def __init__(self, args: Args):
        run = runs.load(args.run)
        self.args, self.path = args, args.out.with_suffix(".json")
        self.done: dict[str, list[float]] = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.factory = environment_factory(args.env_id or str(run.data.env), {"max_episode_steps": args.steps})
        self.simulator, self.prior = Simulator(self.factory), policy_prior(run.main)
        self.policy, self.obs_keys, self.goal_dims = run.agent, run.data.obs_keys, run.data.goal_dims
        self.space = self.simulator.base.action_space

    def returns(self, name: str, config: MPCConfig | None, episodes: int, seed: int) -> np.ndarray:
        """(E,) of MPC with these settings, or without settings of the policy itself."""
        key = json.dumps([name, config and asdict(config), self.args.steps, episodes, seed])
        if key not in self.done:
            agent: Any = self.policy(self.space) if config is None else MPC(
                self.simulator, config, self.space.low, self.space.high, self.prior if name == PRIOR else None)
            played = rollout(agent, self.factory, episodes, seed, obs_keys=self.obs_keys, goal_dims=self.goal_dims,
                             progress=False)
            self.done[key] = played.returns.tolist()
            self.path.write_text(json.dumps(self.done))
        return np.array(self.done[key])

    def tuned(self, name: str) -> MPCConfig:
        """The best of the grid."""
        base = MPCConfig(horizon=self.args.horizon, samples=self.args.tuning_samples)
        configs = [replace(base, **dict(zip(GRID[name], values, strict=True)))
                   for values in itertools.product(*GRID[name].values())]
        means = [self.returns(name, c, self.args.tuning_episodes, fold(1)).mean() for c in configs]
        for config, mean in zip(configs, means, strict=True):
            print(f"  {name}: {({key: getattr(config, key) for key in GRID[name]})} {mean:.1f}", flush=True)
        return configs[int(np.argmax(means))]


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    bench = Benchmark(args)
    print("tuning")
    best = {name: bench.tuned(name) for name in GRID}
    alone = bench.returns("policy", None, args.episodes, fold(2))
    print(f"the policy alone: {alone.mean():.1f} +- {error(alone):.1f}")
    counts = {PLAIN: args.samples, PRIOR: tuple(sorted({max(2, n // 4) for n in args.samples}))}
    curves = {name: {n: bench.returns(name, replace(best[name], samples=n), args.episodes, fold(2))
                     for n in counts[name]} for name in GRID}
    for name, curve in curves.items():
        for n, returns in curve.items():
            print(f"{name}, {n} samples: {returns.mean():.1f} +- {error(returns):.1f}")
    for n, returns in curves[PLAIN].items():
        enough = [m for m, others in curves[PRIOR].items() if others.mean() >= returns.mean()]
        print(f"as good as {PLAIN} with {n} samples: the prior with {min(enough) if enough else 'more'}")


def error(returns: np.ndarray) -> float:
    """Standard error of the mean."""
    return float(returns.std(ddof=1) / len(returns) ** 0.5)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
