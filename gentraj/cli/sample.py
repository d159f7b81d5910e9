"""`gentraj sample`: trajectories or actions from a run's model, into an .npz file."""

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
    """Sample trajectories from a planner's model, or chunks of actions from a policy's, and write them to a file.

    All numbers are in environment units. For a policy, --start is the observation to act in and --goal is the goal that
    the policy is conditioned on, if it has one; the samples are chunks of K actions.

    Examples: gentraj sample runs/demo --num 64 --start 1,1 --goal -1,-1 --out plans.npz
              gentraj sample runs/demo --num 64 --steps 10 --temperature 0.5 --seed 1 --out plans.npz
    """

    run: RunFolder
    """The folder of a run, as `gentraj train` writes it."""
    out: Path
    """The .npz file to write. It holds the arrays obs (N, H, O), act (N, H, A) and stride, where N is --num, H the
    horizon, O the width of an observation and A that of an action; for a policy obs (N, 1, O) and act (N, K, A)."""
    num: int = 16
    """Number of trajectories, or of chunks of actions, to sample."""
    start: str | None = None
    """The first observation as numbers separated by commas: a whole observation, or only the entries that a goal
    has."""
    goal: str | None = None
    """The goal to reach, as numbers separated by commas."""
    arrival: int | None = None
    """The timestep of the plan, counted from 0, at which it reaches --goal; by default the likeliest one if --start is
    given, else the last one."""
    context: str | None = None
    """The context that the model is conditioned on (such as a return, a goal or a task), as numbers separated by
    commas."""
    guidance: float = 1.0
    """Weight of classifier-free guidance by the context: 0 ignores the context, 1 samples as the model was trained, and
    more exaggerates the context."""
    steps: int | None = None
    """Number of sampling steps; by default the model's own."""
    sampling: Annotated[SamplerOptions, tyro.conf.arg(name="")] = field(default_factory=SamplerOptions)
    temperature: float = 1.0
    """Scale of the noise; a value below 1 makes the samples more likely and less varied."""
    seed: int = 0
    """Seed; the same seed gives the same samples."""
    device: str | None = None
    """A PyTorch device such as cuda or mps; by default the accelerator if there is one, else the CPU."""


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
        raise ValueError(f"{run.description}, which predicts what actions lead to: gymnasium.make("
                         "'gentraj/WorldModel-v0', run=...) steps it, run.world_model.imagine rolls out batches")
    check_places(run, args)
    with busy(f"sampling {args.num}"):
        obs, act, stride, summary = (actions if run.config.planning is None else trajectories)(run, args)
    write_npz(args.out, {"obs": obs.cpu().numpy(), "act": act.cpu().numpy(), "stride": np.array(stride)})
    say(summary)
    print(args.out)


def check_places(run: Run, args: Sample) -> None:
    """Raises ValueError if the start or the goal lies in a wall of the run's maze or outside the maze."""
    factory, dims = recorded_factory(run.data.env), list(run.data.goal_dims)
    if factory is None or factory.maze is None or len(dims) != 2:
        return
    for option, text in (("--start", args.start), ("--goal", args.goal)):
        place = parse_numbers(text, option).numpy() if text is not None else np.zeros(0)
        place = place[dims] if len(place) == run.data.obs_dim else place
        if len(place) == 2 and not factory.maze.is_free(place):
            centres = ", ".join(f"{x:g},{y:g}" for x, y in factory.maze.centre(factory.maze.cells))
            raise ValueError(f"{option} {text} lies in a wall of {factory.env_id} or outside it; the free cells have "
                             f"the centres {centres}")


def trajectories(run: Run, args: Sample) -> tuple[Tensor, Tensor, int | tuple[int, ...], str]:
    """Samples trajectories: observations (N, H, O), actions (N, H, A), the stride or the timesteps, and a summary."""
    guide, spec = ClassifierFree(args.guidance) if args.guidance != 1 else None, run.model.spec
    x_NHD = run.model.sample(conditioned(run, args), args.num, guide=guide, seed=args.seed,
                             options=args.sampling.options(args.steps, args.temperature))[0]
    summary = f"{args.num} trajectories of {spec.horizon} timesteps, {spec.spacing} environment steps apart"
    return *spec.split(x_NHD), spec.spacing, summary


def actions(run: Run, args: Sample) -> tuple[Tensor, Tensor, int, str]:
    """Samples actions of a policy's model: observations (N, 1, O), actions (N, K, A), the stride 1 and a summary.

    These are the candidates that the policy chooses from, or the actions that it was trained on, not always the action
    that it takes. Raises ValueError if the observation or the goal is missing, or if the policy does not use an option.
    """
    model, policy, contexts = run.model, cast(Policy, run.main), run.config.context.kinds
    foreign = args.arrival is not None or args.context is not None or args.guidance != 1
    if foreign or args.start is None or (args.goal is None) == bool(contexts):
        raise ValueError(f"{run.description}, which is conditioned on --start"
                         f"{' and --goal' if contexts else ''} and nothing else; give just that")
    given = {option: parse_numbers(text, option)[None].to(model.device)
             for option, text in (("--start", args.start), ("--goal", args.goal)) if text is not None}
    for option, width in (("--start", run.data.obs_dim), ("--goal", run.data.context_dim)):
        if option in given and given[option].shape[1] != width:
            raise ValueError(f"{option} has {given[option].shape[1]} numbers; {width} are expected")
    with torch.no_grad():
        condition = policy.condition(policy.state(given["--start"], given.get("--goal")))
        options = args.sampling.options(args.steps, args.temperature)
        x_NKD = model.sample(condition, args.num, seed=args.seed, options=options)[0]
        act_NKA = policy.act_scale.unnormalize(policy.actions(x_NKD))
    return given["--start"].expand(args.num, 1, -1), act_NKA, 1, f"{args.num} chunks of {policy.chunk} actions"


def conditioned(run: Run, args: Sample) -> Condition:
    """The condition on --start, --goal and --context. Raises ValueError if one has a wrong number of numbers."""
    spec, goal_dims = run.model.spec, list(run.planning.goal_dims) or list(range(run.data.obs_dim))
    condition = Condition.unknown(spec, device=run.model.device)
    if args.start is not None:
        start = parse_numbers(args.start, "--start")
        if len(start) not in (spec.obs_dim, len(goal_dims)):
            raise ValueError(f"--start has {len(start)} numbers; {spec.obs_dim} (an observation) or {len(goal_dims)} "
                             f"(its entries {goal_dims}) are expected")
        condition = condition.with_obs(0, start, goal_dims if len(start) == len(goal_dims) else None)
    if args.goal is not None:
        goal = parse_numbers(args.goal, "--goal")
        if len(goal) != len(goal_dims):
            raise ValueError(f"--goal has {len(goal)} numbers; {len(goal_dims)} (entries {goal_dims}) are expected")
        timestep = spec.horizon - 1 if args.arrival is None else args.arrival
        if args.arrival is None and args.start is not None:
            start_BO = condition.values_BHD[:, 0, : spec.obs_dim]
            timestep = run.likeliest_arrival(start_BO, goal[None].to(run.model.device))
        condition = condition.with_obs(timestep, goal, goal_dims)
    return condition if args.context is None else replace(condition, context_BC=context(run, args.context))


def context(run: Run, text: str) -> Tensor:
    """The context (1, C) on the run's device. Raises ValueError for a wrong number of numbers."""
    numbers, width = parse_numbers(text, "--context"), run.data.context_dim
    if len(numbers) != width:
        expected = (f"{width} ({', '.join(run.config.context.kinds)}) are" if width
                    else "none, as the run was trained without a context, is")
        raise ValueError(f"--context has {len(numbers)} numbers; {expected} expected")
    return numbers[None].to(run.model.device)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes the arrays under their names; the file is written whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_file(path, buffer.getvalue())
