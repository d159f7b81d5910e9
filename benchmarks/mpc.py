"""How many samples do MPPI and CEM need for the same return, with and without a generative prior?

    gentraj train bc-flow --dataset hopper-medium.hdf5 --env-id Hopper-v5 --run-dir runs/prior \\
        --policy.chunk 32 --policy.batch-size 128 --steps 4000
    python -m benchmarks.mpc runs/prior --out mpc

Both variants plan over the same horizon in the true simulator. Spread and temperature (for CEM the share of the elites
and the iterations) and the share of samples from the prior are the best of a small grid on tuning episodes. Every
number of samples is then evaluated on the same new episodes. Results are kept in OUT.json, so that a benchmark that was
stopped can be continued.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

from gentraj import runs
from gentraj.agents.mpc import MPC, MPCConfig
from gentraj.agents.prior import policy_prior
from gentraj.envs.evaluation.replay import Simulator
from gentraj.envs.evaluation.rollout import rollout
from gentraj.envs.making import environment_factory
from gentraj.randomness import fold

PLAIN, PRIOR = "plain", "with the prior"
SPREADS = {PLAIN: {"spread": (0.3, 0.6, 1.0)}, PRIOR: {"spread": (0.1, 0.3), "prior_fraction": (0.5, 0.9)}}
OF = {"mppi": {"temperature": (0.3, 1.0, 10.0)}, "cem": {"elites": (0.25, 0.5), "iterations": (1, 2)}}


@dataclass(frozen=True)
class Args:
    run: Annotated[Path, tyro.conf.Positional]
    """Run folder of the policy whose action chunks are the prior."""
    out: Path = Path("mpc")
    """The results are written to OUT.json."""
    method: Literal["mppi", "cem"] = "mppi"
    env_id: str | None = None
    """Environment; the default is the run's own."""
    steps: int = 150
    """Environment steps of an episode."""
    episodes: int = 5
    tuning_episodes: int = 3
    tuning_samples: int = 16
    horizon: int = 32
    samples: tuple[int, ...] = (4, 8, 16, 32)
    """Numbers of samples without the prior; with the prior a quarter of each is used."""
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
        """Returns the returns (E,) of MPC with these settings, or of the policy itself if `config` is None."""
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
        """Returns the best settings of the grid."""
        base = MPCConfig(self.args.method, horizon=self.args.horizon, samples=self.args.tuning_samples)
        grid = SPREADS[name] | OF[self.args.method]
        every = itertools.product(*grid.values())
        configs = [replace(base, **dict(zip(grid, values, strict=True))) for values in every]
        means = [self.returns(name, c, self.args.tuning_episodes, fold(1)).mean() for c in configs]
        for config, mean in zip(configs, means, strict=True):
            print(f"  {name}: {({key: getattr(config, key) for key in grid})} {mean:.1f}", flush=True)
        return configs[int(np.argmax(means))]


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    bench = Benchmark(args)
    print("tuning")
    best = {name: bench.tuned(name) for name in SPREADS}
    alone = bench.returns("policy", None, args.episodes, fold(2))
    print(f"the policy alone: {alone.mean():.1f} +- {error(alone):.1f}")
    counts = {PLAIN: args.samples, PRIOR: tuple(sorted({max(2, n // 4) for n in args.samples}))}
    curves = {name: {n: bench.returns(name, of_samples(best[name], n), args.episodes, fold(2)) for n in counts[name]}
              for name in SPREADS}
    for name, curve in curves.items():
        for n, returns in curve.items():
            print(f"{args.method} {name}, {n} samples: {returns.mean():.1f} +- {error(returns):.1f}")
    for n, returns in curves[PLAIN].items():
        enough = [m for m, others in curves[PRIOR].items() if others.mean() >= returns.mean()]
        print(f"as good as {args.method} with {n} samples: the prior with {min(enough) if enough else 'more'}")


def of_samples(config: MPCConfig, number: int) -> MPCConfig:
    """Sets the number of samples, at least two per iteration, as one of them is the plan of the previous iteration."""
    return replace(config, samples=number, iterations=max(1, min(config.iterations, number // 2)))


def error(returns: np.ndarray) -> float:
    """Returns the standard error of the mean."""
    return float(returns.std(ddof=1) / len(returns) ** 0.5)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
