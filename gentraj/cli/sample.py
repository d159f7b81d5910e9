"""`gentraj sample`: trajectories or actions from a run's model, into an .npz file."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import PositiveInt

from ..acceleration import BackendName, accelerate
from ..config import settings
from ..files import check_output
from ..progress import busy, print_saved, say
from ..runs.planner import PlannerRun
from ..runs.sampling import Given, sample_run
from .options import Device, RunPath, SamplerOptions, Step, load_trained, parse


@settings
class Sample:
    """Sample trajectories from a planner's model, or chunks of actions from a policy's, and write them to a file.

    All numbers are in environment units. For a policy, --start is the observation to act in and --goal is the goal that
    the policy is conditioned on, if it has one; the samples are chunks of K actions.

    Examples: gentraj sample runs/demo --num 64 --start 1 1 --goal -1 -1 --out plans.npz
              gentraj sample runs/demo --num 64 --steps 10 --temperature 0.5 --seed 1 --out plans.npz
    """

    run: RunPath
    """The folder of a run, as `gentraj train` writes it."""
    out: Path
    """The .npz file to write. It holds the arrays obs (N, H, O), act (N, H, A) and stride, where N is --num, H the
    horizon, O the width of an observation and A that of an action; for a policy obs (N, 1, O) and act (N, K, A)."""
    step: Step = None
    num: PositiveInt = 16
    """Number of trajectories, or of chunks of actions, to sample."""
    given: Annotated[Given, tyro.conf.arg(name="")] = field(default_factory=Given)
    steps: int | None = None
    """Number of sampling steps; by default the model's own."""
    sampling: Annotated[SamplerOptions, tyro.conf.arg(name="")] = field(default_factory=SamplerOptions)
    temperature: float = 1.0
    """Scale of the noise; a value below 1 makes the samples more likely and less varied."""
    seed: int = 0
    """Seed; the same seed gives the same samples."""
    accelerate: BackendName = "eager"
    """What runs the networks. compile: torch.compile, which takes a minute or more at first; openvino and
    openvino-bf16: OpenVINO (extra openvino), the latter in bfloat16."""
    device: Device = None


def main(argv: list[str]) -> None:
    args = parse(Sample, argv, "gentraj sample")
    if args.out.suffix != ".npz":
        raise ValueError(f"--out is {args.out}; a file that ends in .npz is expected")
    check_output(args.out, "--out")
    run = accelerate(load_trained(args.run, args.device, args.step), args.accelerate)
    with busy(f"sampling {args.num}"):
        options = args.sampling.options(args.steps, args.temperature)
        samples = sample_run(run, args.num, args.given, seed=args.seed, options=options)
    samples.save(args.out)
    if isinstance(run, PlannerRun):
        say(f"{args.num} trajectories of {samples.obs_NHO.shape[1]} timesteps, {samples.stride} environment steps "
            "apart")
    else:
        say(f"{args.num} chunks of {samples.act_NHA.shape[1]} actions")
    print_saved(args.out)
