"""`gentraj sample`."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
import tyro
from torch import Tensor

from agents.policies.policy import Policy
from envs.making import recorded_factory

from ..device import pick_device
from ..diffusion.composition import ClassifierFree
from ..files import write_file
from ..progress import busy, say
from ..runs.folder import Run, load
from ..trajectory import Condition
from .common import RunFolder, check_output, parse_numbers
from .options import parse
from .sampling import SamplerOptions


@dataclass(frozen=True)
class Sample:
    """Sample trajectories from a planner's model, or actions from a policy's generator, in environment units.

    Of a policy, --start is the observation to act in, --goal where to, and what is drawn are chunks of K actions.

    Example: gentraj sample runs/demo --num 64 --start 1,1 --goal -1,-1 --out plans.npz
    """

    run: RunFolder
    """A run folder."""
    out: Path
    """File to write: .npz with obs (N, H, O), act (N, H, A) and stride; of a policy obs (N, 1, O) and act (N, K, A)."""
    num: int = 16
    """Trajectories."""
    start: str | None = None
    """First observation, numbers with commas between them: all of it, or the entries that a goal has."""
    goal: str | None = None
    """Where to arrive, as many numbers as a goal has."""
    arrival: int | None = None
    """Row of the arrival; by default the likeliest one, or the last."""
    context: str | None = None
    """What the model was conditioned on beside the trajectory (a return, a goal, a task), numbers with commas between
    them."""
    guidance: float = 1.0
    """Weight of the context: 1 as it was trained, more exaggerates it, 0 leaves it out."""
    steps: int | None = None
    """Denoising steps."""
    sampling: Annotated[SamplerOptions, tyro.conf.arg(name="")] = field(default_factory=SamplerOptions)
    temperature: float = 1.0
    """Scale of the noise: less than 1 for likelier and less varied trajectories."""
    seed: int = 0
    device: str | None = None


def main(argv: list[str]) -> None:
    args = parse(Sample, argv, "gentraj sample")
    if args.num < 1:
        raise ValueError(f"--num is {args.num}; give at least 1")
    if args.out.suffix != ".npz":
        raise ValueError(f"--out is {args.out}; a file that ends in .npz is expected")
    if args.arrival is not None and args.goal is None:
        raise ValueError("--arrival says when to be at a goal; give --goal too")
    check_output(args.out, "--out")
    run = load(args.run, device=pick_device(args.device))
    if run.config.world_model(run.components) is not None:
        raise ValueError(f"{run.description}, which says what comes of actions: gymnasium.make("
                         "'gentraj/WorldModel-v0', run=...) steps it, run.world_model.imagine takes many at once")
    check_places(run, args)
    with busy(f"sampling {args.num}"):
        obs, act, stride, said = (actions if run.config.planning is None else trajectories)(run, args)
    write_npz(args.out, {"obs": obs.cpu().numpy(), "act": act.cpu().numpy(), "stride": np.array(stride)})
    say(said)
    print(args.out)


def check_places(run: Run, args: Sample) -> None:
    """Raises ValueError for a start or a goal in a wall of the run's maze, or beyond it."""
    factory, dims = recorded_factory(run.data.env), list(run.data.goal_dims)
    if factory is None or factory.maze is None or len(dims) != 2:
        return
    for option, text in (("--start", args.start), ("--goal", args.goal)):
        place = parse_numbers(text, option).numpy() if text is not None else np.zeros(0)
        place = place[dims] if len(place) == run.data.obs_dim else place
        if len(place) == 2 and not factory.maze.is_free(place):
            centres = ", ".join(f"{x:g},{y:g}" for x, y in factory.maze.centre(factory.maze.cells))
            raise ValueError(f"{option} {text} lies in a wall of {factory.env_id}, or beyond it; free are the cells "
                             f"around {centres}")


def trajectories(run: Run, args: Sample) -> tuple[Tensor, Tensor, int | tuple[int, ...], str]:
    """Observations (N, H, O), actions (N, H, A), the steps between rows or to each, and all that in words."""
    guide, spec = ClassifierFree(args.guidance) if args.guidance != 1 else None, run.model.spec
    x_NHD = run.model.sample(condition(run, args), args.num, guide=guide, seed=args.seed,
                             options=args.sampling.options(args.steps, args.temperature))[0]
    said = f"{args.num} trajectories of {spec.horizon} rows, {spec.spacing} environment steps apart"
    return *spec.split(x_NHD), spec.spacing, said


def actions(run: Run, args: Sample) -> tuple[Tensor, Tensor, int, str]:
    """Observation (N, 1, O), what a policy's generator draws for it (N, K, A), 1, and all that in words.

    That is what a policy chooses from, or learnt from: not always what it would do. Raises ValueError where the
    observation or the goal is missing, or more is asked for.
    """
    model, policy, contexts = run.model, cast(Policy, run.main), run.config.context.kinds
    foreign = args.arrival is not None or args.context is not None or args.guidance != 1
    if foreign or args.start is None or (args.goal is None) == bool(contexts):
        raise ValueError(f"{run.description}, which is told --start"
                         f"{' and --goal' if contexts else ''} and nothing else; give just that")
    given = {option: parse_numbers(text, option)[None].to(model.device)
             for option, text in (("--start", args.start), ("--goal", args.goal)) if text is not None}
    for option, width in (("--start", run.data.obs_dim), ("--goal", run.data.context_dim)):
        if option in given and given[option].shape[1] != width:
            raise ValueError(f"{option} has {given[option].shape[1]} numbers; {width} are expected")
    with torch.no_grad():
        known = policy.condition(policy.state(given["--start"], given.get("--goal")))
        options = args.sampling.options(args.steps, args.temperature)
        x_NKD = model.sample(known, args.num, seed=args.seed, options=options)[0]
        act_NKA = policy.act_scale.unnormalize(policy.actions(x_NKD))
    return given["--start"].expand(args.num, 1, -1), act_NKA, 1, f"{args.num} chunks of {policy.chunk} actions"


def condition(run: Run, args: Sample) -> Condition:
    """Start, goal and context as given. Raises ValueError for a wrong number of numbers."""
    spec, goal_dims = run.model.spec, list(run.planning.goal_dims) or list(range(run.data.obs_dim))
    known = Condition.unknown(spec, device=run.model.device)
    if args.start is not None:
        start = parse_numbers(args.start, "--start")
        if len(start) not in (spec.obs_dim, len(goal_dims)):
            raise ValueError(f"--start has {len(start)} numbers; {spec.obs_dim} (an observation) or {len(goal_dims)} "
                             f"(its entries {goal_dims}) are expected")
        known = known.with_obs(0, start, goal_dims if len(start) == len(goal_dims) else None)
    if args.goal is not None:
        goal = parse_numbers(args.goal, "--goal")
        if len(goal) != len(goal_dims):
            raise ValueError(f"--goal has {len(goal)} numbers; {len(goal_dims)} (entries {goal_dims}) are expected")
        row = spec.horizon - 1 if args.arrival is None else args.arrival
        if args.arrival is None and args.start is not None:
            row = run.likeliest_arrival(known.values_BHD[:, 0, : spec.obs_dim], goal[None].to(run.model.device))
        known = known.with_obs(row, goal, goal_dims)
    return known if args.context is None else replace(known, context_BC=context(run, args.context))


def context(run: Run, text: str) -> Tensor:
    """(1, C), on the run's device."""
    numbers, width = parse_numbers(text, "--context"), run.data.context_dim
    if len(numbers) != width:
        expected = f"{width} ({', '.join(run.config.context.kinds)})" if width else "none: the run was trained without"
        raise ValueError(f"--context has {len(numbers)} numbers; expected are {expected}")
    return numbers[None].to(run.model.device)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays under their names, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_file(path, buffer.getvalue())
