"""`gentraj studio`: plans of trained runs in a browser."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import tyro

from ..acceleration import BackendName
from ..config import settings
from ..device import pick_device
from ..files import check_output, write_file
from ..progress import busy, print_saved
from ..studio.export import first_page
from ..studio.loading import Loaded, load_runs
from .options import Command, Device

SHOWN = ("zoo:pointmaze-large", "zoo:pointmaze-large-student")  # without runs


@settings
class Studio(Command):
    """See plans in a browser while you drag start and goal, change settings, place obstacles and let the agent act.

    Without runs, it shows a planner that comes with gentraj. It is served to this machine only, until Ctrl-C.

    Examples: gentraj studio
              gentraj studio runs/demo --export-page demo.html
              gentraj studio runs/umaze runs/umaze-gan runs/umaze-student --port 8090
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")] = ()
    """The folders of runs, as `gentraj train` and `gentraj distill` write them: planners, policies and world models."""
    port: int = 8080
    """The port of this machine that the browser connects to; the next free one if it is taken."""
    export_page: Path | None = None
    """Write a page of the first run to this .html file, and serve nothing. It shows a plan and the closed loop, or what
    a world model predicts for another run's actions, and can be opened offline and without gentraj."""
    page_steps: int = 200
    """Number of environment steps that --export-page shows."""
    accelerate: BackendName = "eager"
    """What runs the networks of planners. compile: torch.compile, which takes a minute or more at first; openvino and
    openvino-bf16: OpenVINO (extra openvino), the latter in bfloat16."""
    device: Device = None

    def __call__(self) -> None:
        if self.export_page is not None:
            self._export(self.export_page)
            return
        from ..studio.server import Studio as Server  # with viser, which may be missing

        server = Server(self._loaded(), self.port)
        print_saved(f"the studio is at {server.url} until Ctrl-C")
        try:
            threading.Event().wait()
        finally:
            server.stop()

    def _loaded(self) -> list[Loaded]:
        with busy("loading the runs"):
            return load_runs(self.runs or SHOWN, self.accelerate, pick_device(self.device))

    def _export(self, path: Path) -> None:
        """Writes the page of the first run."""
        if path.suffix != ".html" or self.page_steps < 1:
            raise ValueError(f"--export-page is {path} and --page-steps {self.page_steps}; a file that ends in .html "
                             "and at least 1 step are expected")
        check_output(path, "--export-page")
        loaded = self._loaded()
        with busy(f"{self.page_steps} steps"):
            page = first_page(loaded, self.page_steps)
        print_saved(write_file(path, page.encode()))
