"""`gentraj export`: one decision of a run as an ONNX or torch.export program."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from ..files import check_output, write_file
from ..progress import busy, print_saved, say
from ..runs.export import export_run, signature, to_onnx, to_pt2
from ..runs.folder import load
from .common import RunFolder
from .options import parse
from .sampling import SamplerOptions

WRITERS = {".onnx": to_onnx, ".pt2": to_pt2}


@dataclass(frozen=True)
class Export:
    """Write one decision of a trained planner or policy as a program that runs without gentraj.

    The inputs of the program are the observation, the goal (if the run is conditioned on one) and standard normal
    noise; the output is the actions until the next decision. A planner decides by its settings in RUN/config.json,
    under `planner`, which may be edited.

    Examples: gentraj export runs/fql --out fql.onnx
              gentraj export runs/demo --batch 8 --out demo.pt2
    """

    run: RunFolder
    """The folder of a run, as `gentraj train` writes it."""
    out: Path
    """The file to write: .onnx for ONNX Runtime, or .pt2 for torch.export.load."""
    batch: int = 1
    """Number of observations per call; the program accepts exactly this many."""
    env_id: str | None = None
    """The environment whose action space bounds the actions; by default the run's own."""
    sampling: Annotated[SamplerOptions, tyro.conf.arg(name="")] = field(default_factory=SamplerOptions)


def main(argv: list[str]) -> None:
    args = parse(Export, argv, "gentraj export")
    if args.out.suffix not in WRITERS:
        raise ValueError(f"--out is {args.out}; a file that ends in {' or '.join(WRITERS)} is expected")
    check_output(args.out, "--out")
    run = load(args.run, device=torch.device("cpu"))
    with busy(f"exporting to {args.out}"):
        program = export_run(run, args.batch, args.env_id, args.sampling.options())
        write_file(args.out, WRITERS[args.out.suffix](program))
    say(signature(program))
    print_saved(args.out)
