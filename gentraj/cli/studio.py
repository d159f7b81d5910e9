"""`gentraj studio`: plans of trained runs in a browser."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..device import pick_device
from ..progress import busy, print_saved
from ..studio.loading import load_runs
from ..studio.server import Studio as Server
from .options import parse

Exact = Literal["eager", "openvino", "openvino-bf16"]  # auto may take another backend the next time


@dataclass(frozen=True)
class Studio:
    """See plans in a browser while you drag start and goal, change settings, place obstacles and let the agent act.

    The studio is served to this machine only, until Ctrl-C.

    Examples: gentraj studio runs/demo
              gentraj studio runs/umaze runs/umaze-gan runs/umaze-student --port 8090
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """The folders of runs, as `gentraj train` and `gentraj distill` write them: planners, and policies in mazes."""
    port: int = 8080
    """The port of this machine that the browser connects to."""
    accelerate: Exact = "eager"
    """What runs the networks. openvino and openvino-bf16: OpenVINO (extra openvino), the latter in bfloat16."""
    device: str | None = None
    """A PyTorch device such as cuda or mps; by default the accelerator if there is one, else the CPU."""


def main(argv: list[str]) -> None:
    args = parse(Studio, argv, "gentraj studio")
    if not args.runs:
        raise ValueError("no run was given; give the folder of at least one, such as gentraj studio runs/demo")
    with busy("loading the runs"):
        loaded = load_runs(args.runs, args.accelerate, pick_device(args.device))
    server = Server(loaded, args.port)
    print_saved(f"the studio is at {server.url} until Ctrl-C")
    try:
        threading.Event().wait()
    finally:
        server.stop()
