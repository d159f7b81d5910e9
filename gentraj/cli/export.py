"""`gentraj export`: one decision of a run as an ONNX or torch.export program."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from gymnasium.spaces import Box

from ..files import check_output, write_file
from ..progress import busy, print_saved, say
from ..runs.export import export_run, signature, to_onnx, to_pt2
from ..runs.folder import load
from ..runs.run import Run
from .options import RunPath, SamplerOptions, parse

WRITERS = {".onnx": to_onnx, ".pt2": to_pt2}


@dataclass(frozen=True)
class Export:
    """Write one decision of a trained planner or policy as a program that runs without gentraj.

    The inputs of the program are the observation, the goal (if the run is conditioned on one) and standard normal
    noise; the output is the actions until the next decision. A planner decides by its settings in RUN/config.json,
    under `planner`, which may be edited if the line with `sha256`, the hash of the file, is removed.

    Examples: gentraj export runs/fql --out fql.onnx
              gentraj export runs/demo --batch 8 --out demo.pt2
              gentraj export runs/robot --low -1 --high 1 --out robot.onnx
    """

    run: RunPath
    """The folder of a run, as `gentraj train` writes it."""
    out: Path
    """The file to write: .onnx for ONNX Runtime, or .pt2 for torch.export.load."""
    batch: int = 1
    """Number of observations per call; the program accepts exactly this many."""
    env_id: str | None = None
    """The environment whose action space bounds the actions, if --low and --high do not; by default the run's own."""
    low: tuple[float, ...] | None = None
    """Lowest values of the actions of a robot without an environment: one number, or one for each entry."""
    high: tuple[float, ...] | None = None
    """Highest values of these actions."""
    sampling: Annotated[SamplerOptions, tyro.conf.arg(name="")] = field(default_factory=SamplerOptions)


def main(argv: list[str]) -> None:
    args = parse(Export, argv, "gentraj export")
    if args.out.suffix not in WRITERS:
        raise ValueError(f"--out is {args.out}; a file that ends in {' or '.join(WRITERS)} is expected")
    check_output(args.out, "--out")
    run = load(args.run, device=torch.device("cpu"))
    space = limits(args, run)
    with busy(f"exporting to {args.out}"):
        program = export_run(run, args.batch, args.env_id, args.sampling.options(), space)
        write_file(args.out, WRITERS[args.out.suffix](program))
    say(signature(program))
    print_saved(args.out)


def limits(args: Export, run: Run) -> Box | None:
    """The box from --low to --high, or None for the action space of an environment. Raises ValueError for a bad box."""
    if args.low is None and args.high is None:
        if (args.env_id or run.data.env) is None:
            raise ValueError(f"{run.folder}: its data do not say which environment they come from; give --env-id, or "
                             "the limits of the actions, such as --low -1 --high 1")
        return None
    width = run.data.act_dim
    low, high = np.array(args.low or (), np.float32), np.array(args.high or (), np.float32)
    if not ({len(low), len(high)} <= {1, width} and (low < high).all()):
        raise ValueError(f"--low is {args.low} and --high {args.high}; one number for each of the {width} entries of "
                         "an action is expected, or one for all, each low below its high")
    return Box(np.broadcast_to(low, width), np.broadcast_to(high, width))
