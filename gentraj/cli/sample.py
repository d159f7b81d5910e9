"""`gentraj sample`: trajectories or actions from a run's model, into an .npz file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..acceleration import BackendName, accelerate
from ..files import check_output
from ..progress import busy, print_saved, say
from ..runs.planner import PlannerRun
from ..runs.sampling import Given, sample_run
from .options import Device, RunPath, SamplerOptions, Step, load_trained, parse


@dataclass(frozen=True)
class Sample:
    """Sample trajectories from a planner's model, or chunks of actions from a policy's, and write them to a file.

    All numbers are in environment units. For a policy, --start is the observation to act in and --goal is the goal that
    the policy is conditioned on, if it has one; the samples are chunks of K actions.

    Examples: gentraj sample runs/demo --num 64 --start 1,1 --goal -1,-1 --out plans.npz
              gentraj sample runs/demo --num 64 --steps 10 --temperature 0.5 --seed 1 --out plans.npz
    """

    run: RunPath
    """The folder of a run, as `gentraj train` writes it."""
    out: Path
    """The .npz file to write. It holds the arrays obs (N, H, O), act (N, H, A) and stride, where N is --num, H the
    horizon, O the width of an observation and A that of an action; for a policy obs (N, 1, O) and act (N, K, A)."""
    step: Step = None
    num: int = 16
    """Number of trajectories, or of chunks of actions, to sample."""
    start: str | None = None
    """The first observation as numbers separated by commas: a whole observation, or only the entries that a goal
    has."""
    goal: str | None = None
    """The goal to reach, as numbers separated by commas."""
    arrival: int | None = None
    """The timestep of the plan, counted from 0, at which it reaches --goal; by default the most probable one if --start
    is given, else the last one."""
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
    accelerate: BackendName = "eager"
    """What runs the networks. auto: the faster of eager and openvino on this machine; compile: torch.compile, which
    takes a minute or more at first; openvino and openvino-bf16: OpenVINO (extra openvino), the latter in bfloat16."""
    device: Device = None


def main(argv: list[str]) -> None:
    args = parse(Sample, argv, "gentraj sample")
    if args.out.suffix != ".npz":
        raise ValueError(f"--out is {args.out}; a file that ends in .npz is expected")
    start, goal, context = (None if text is None else parse_numbers(text, option) for option, text in (
        ("--start", args.start), ("--goal", args.goal), ("--context", args.context)))
    check_output(args.out, "--out")
    run = accelerate(load_trained(args.run, args.device, args.step), args.accelerate)
    with busy(f"sampling {args.num}"):
        samples = sample_run(run, args.num, Given(start, goal, args.arrival, context, args.guidance), seed=args.seed,
                             options=args.sampling.options(args.steps, args.temperature))
    samples.save(args.out)
    if isinstance(run, PlannerRun):
        say(f"{args.num} trajectories of {samples.obs_NHO.shape[1]} timesteps, {samples.stride} environment steps "
            "apart")
    else:
        say(f"{args.num} chunks of {samples.act_NHA.shape[1]} actions")
    print_saved(args.out)


def parse_numbers(text: str, option: str) -> list[float]:
    """The numbers of "1.5,0,-2". Raises ValueError, which names the option, for other text."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{option} is '{text}'; numbers separated by commas are expected, such as 0.5,-1")
    return numbers
