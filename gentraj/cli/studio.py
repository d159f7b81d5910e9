"""`gentraj studio`: plans of trained runs in a browser."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import tyro

from ..acceleration import BackendName
from ..config import settings
from ..device import pick_device
from ..progress import busy, print_saved
from ..studio.loading import load_runs
from .options import Command, Device

SHOWN = ("zoo:pointmaze-large", "zoo:pointmaze-large-student")  # without runs


@settings
class Studio(Command):
    """See plans in a browser while you drag start and goal, change settings, place obstacles and let the agent act.

    Without runs, it shows a planner that comes with gentraj. It is served to this machine only, until Ctrl-C.

    Examples: gentraj studio
              gentraj studio runs/demo
              gentraj studio runs/umaze runs/umaze-gan runs/umaze-student --port 8090
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")] = ()
    """The folders of runs, as `gentraj train` and `gentraj distill` write them: planners and policies."""
    port: int = 8080
    """The port of this machine that the browser connects to; the next free one if it is taken."""
    accelerate: BackendName = "eager"
    """What runs the networks of planners. compile: torch.compile, which takes a minute or more at first; openvino and
    openvino-bf16: OpenVINO (extra openvino), the latter in bfloat16."""
    device: Device = None

    def __call__(self) -> None:
        from ..studio.server import Studio as Server  # with viser, which may be missing

        with busy("loading the runs"):
            loaded = load_runs(self.runs or SHOWN, self.accelerate, pick_device(self.device))
        server = Server(loaded, self.port)
        print_saved(f"the studio is at {server.url} until Ctrl-C")
        try:
            threading.Event().wait()
        finally:
            server.stop()
