"""What do hard constraints cost? Plans of a trained PointMaze run with walls and a speed bound, and plans without.

    python -m benchmarks.constraints runs/demo

Starts and goals are drawn from the data, and a plan arrives at the timestep that the run's arrival network finds most
likely. Both kinds of plans are sampled with the same seeds in the same process, so that their times are comparable.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from gentraj import runs
from gentraj.constraints import THOROUGH, Blocks, Certificate, Constraints, Speed
from gentraj.diffusion.constrained import Constrained
from gentraj.envs.evaluation.evaluate import EvaluationConfig, evaluate
from gentraj.envs.making import environment_factory
from gentraj.randomness import fold
from gentraj.trajectory import Condition


@dataclass(frozen=True)
class Args:
    run: Annotated[Path, tyro.conf.Positional]
    """A run folder of a PointMaze."""
    samples: int = 10_000
    """Number of plans of each kind."""
    speed: float = 5.0
    """Bound on the speed, in maze units per second."""
    margin: float = 0.1
    """Distance to keep from walls: the ball's radius."""
    dt: float = 0.01
    """Seconds of an environment step."""
    episodes: int = 50
    """Episodes of closed-loop control, with and without constraints; 0 leaves them out."""
    threads: int = 1


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    run = runs.load(args.run)
    factory = environment_factory(run.data.env)
    low, high = factory.maze.wall_boxes()
    goal_dims = run.data.goal_dims
    constraints = Constraints(run.model.spec, {"walls": Blocks(low, high, goal_dims, args.margin),
                                               "speed": Speed(args.speed, goal_dims, args.dt)})
    requests = requested(run, args.samples, constraints)
    free = timed("free", lambda: run.model.sample(requests, seed=1)[:, 0])
    print(f"free: {constraints.certificate(free)}")
    plugin = Constrained(constraints, strict=False)
    constrained = timed("constrained", lambda: run.model.sample(requests, seed=1, guide=plugin)[:, 0])
    report(constraints.certificate(constrained))
    # A planner also tries arrivals that are too early to be feasible, so its search for a feasible plan is short.
    brief = Constrained(constraints, strict=False, attempts=1, efforts=THOROUGH[:1])
    for name, guide in (("free", None), ("constrained", brief)) if args.episodes else ():
        env = factory()
        planner = run.planner(env.action_space, guide=guide)
        env.close()
        scores, _ = evaluate(planner, run.data.env, EvaluationConfig(episodes=args.episodes, baselines=False),
                             obs_keys=run.data.obs_keys, goal_dims=goal_dims)
        print(f"{name}: return {scores['return_mean']:.1f} {scores['return_ci95']}, success {scores['success_rate']}, "
              f"{scores['latency_ms_p50']:.0f} ms a decision of 25 environments")


def requested(run: runs.Run, samples: int, constraints: Constraints) -> Condition:
    """Returns conditions on starts and goals of the data, with the most likely arrival by the arrival network.

    Conditions that no straight trajectory can meet within the speed bound are left out, and others drawn.
    """
    spec, g = run.model.spec, torch.Generator().manual_seed(fold(0))
    obs, dims = run.reference.x_BHD[:, 0, : spec.obs_dim], list(run.data.goal_dims)
    i, j = torch.randint(len(obs), (2, 2 * samples), generator=g)
    start, goal = obs[i], obs[j][:, dims]
    row = run.likeliest_arrival(start, goal)
    condition = Condition.empty(spec, len(start)).with_obs(0, start).with_obs(row, goal, dims)
    reach = constraints.constraints["speed"].limit * constraints.constraints["speed"].dt * spec.stride * row
    possible = ((start[:, dims] - goal).norm(dim=1) <= reach).nonzero()[:samples, 0]
    print(f"{len(possible)} requests; {float(1 - len(possible) / max(1, int(possible.max()) + 1)):.1%} of those drawn "
          "were too far for their arrival in a straight line")
    return Condition(spec, condition.values_BHD[possible], condition.mask_BHD[possible])


def timed(name: str, work):
    began = time.perf_counter()
    result = work()
    print(f"{name}: {time.perf_counter() - began:.1f} s")
    return result


def report(certificate: Certificate) -> None:
    print(f"constrained: {certificate}; largest violation {float(certificate.worst.max()):.2g}")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
