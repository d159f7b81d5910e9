"""`gentraj export`: one decision of a run as an ONNX or torch.export program."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast

import torch
import tyro
from torch import Tensor
from torch.export import ExportedProgram

from agents.planning.planner import Planner
from agents.policies.actor import Actor
from agents.policies.policy import Policy

from ..files import write_file
from ..progress import busy, say
from ..randomness import generator
from ..runs.export import export_decision, signature, to_onnx, to_pt2
from ..runs.folder import Run, load
from ..trajectory import DEFAULT_OPTIONS, SamplingOptions
from .common import RunFolder, check_output
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
        program = exported(run, args.batch, args.env_id, args.sampling.options())
        write_file(args.out, WRITERS[args.out.suffix](program))
    say(signature(program))
    print(args.out)


def exported(run: Run, batch: int = 1, env_id: str | None = None,
             options: SamplingOptions = DEFAULT_OPTIONS) -> ExportedProgram:
    """One decision of the run as a program for `batch` observations. Raises ValueError if it cannot be exported."""
    agent = run.agent(run.action_space(env_id), options=options)
    if not isinstance(agent, Actor | Planner):
        raise ValueError(f"{run.description}, which plans by trying actions and cannot be exported; "
                         "export a planner or a policy")
    return export_decision(agent.decide, *examples(run), batch)


def examples(run: Run) -> tuple[Tensor, Tensor | None]:
    """Example inputs: observations (R, O) of the run's own data, and goals (R, G) if it is conditioned on goals."""
    obs_RO = run.reference.x_BHD[:, 0, : run.data.obs_dim]
    if run.config.planning is None:
        context = cast(Policy, run.main).context
        return obs_RO, context and context.unnormalize(torch.randn(len(obs_RO), run.data.context_dim,
                                                                   generator=generator(0)))
    goal_dims = list(run.planning.goal_dims)
    return obs_RO, obs_RO.roll(1, 0)[:, goal_dims] if goal_dims else None
