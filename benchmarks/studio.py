"""How many plans a second does the studio make and draw while somebody drags the goal in a browser?

    python -m benchmarks.studio runs/umaze runs/umaze-student
    python -m benchmarks.studio

Without runs, it is told first how long `gentraj studio` takes from the command to the first plan that a browser shows,
and the run is the first that it shows. For each run, a studio serves it to Chromium on this machine, and the mouse
drags the goal to and fro between two places for some seconds. The browser draws without a GPU here, on the same cores
as the studio; `--no-browser` drags by the same messages without one, which is what is left for a browser with a GPU or
on another machine. The CPU time of a frame is that of all processes of Chromium while it is dragged, divided by the
frames drawn; unlike rates it hardly depends on what else the machine does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from gentraj.acceleration import BackendName
from gentraj.cli.studio import SHOWN
from gentraj.studio.controls import Controls
from gentraj.studio.loading import Loaded, load_runs
from gentraj.studio.local_server import LocalServer
from gentraj.studio.server import Studio
from gentraj.studio.session import Session

from .browser import COUNTING, Newcomer, chromium, cpu_seconds, until

PERIOD = 2.0  # seconds for which the goal moves to and fro once
PLACES = 60  # a second, as a mouse reports them

Dragging = tuple[Session, Callable[[np.ndarray, bool], None], Callable[[], tuple[int, float]]]
"""A session, a function that moves its goal to a place, and one that tells the frames drawn and the browser's CPU
seconds so far."""


@dataclass(frozen=True)
class Args:
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Run folders of planners in mazes; by default the first that `gentraj studio` shows."""
    seconds: float = 10.0
    browser: bool = True
    accelerate: BackendName = "eager"
    threads: int = 1


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    runs = args.runs or SHOWN[:1]
    if not args.runs:
        served, shown = first_plan()
        print(f"`gentraj studio`: {served:.1f} s to its address, {shown:.1f} s to the first plan; load "
              f"{os.getloadavg()[0]:.1f}\n", flush=True)
    print("| run | plans a second | ms a plan (median) | sampling steps | frames a second | CPU ms a frame |\n"
          "|---|---|---|---|---|---|")
    for loaded in load_runs(runs, args.accelerate):
        with (in_browser if args.browser else without_browser)(loaded) as (session, move, used):
            before = used()
            rate, ms = dragged(session, move, args.seconds)
            frames, cpu = np.subtract(used(), before)
        drawn = "- | -"
        if frames:
            drawn = f"{frames / args.seconds:.1f} | {1000 * cpu / frames:.0f}"
        steps = session.settings[loaded].steps
        print(f"| {loaded.name} ({loaded.run.summary}) | {rate:.1f} | {ms:.0f} | {steps} | {drawn} |", flush=True)
    print(f"load {os.getloadavg()[0]:.1f}")


def first_plan() -> tuple[float, float]:
    """Seconds from the command `gentraj studio`, in an empty folder, to its address and to a plan in Chromium."""
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory() as profile, \
            chromium(Path(profile)) as window:
        page = window.new_page()
        start = time.perf_counter()
        command = [sys.executable, "-m", "gentraj", "studio", "--port", "0"]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        with subprocess.Popen(command, cwd=work, env=environment, stdout=subprocess.PIPE, text=True) as studio:
            try:
                assert studio.stdout is not None
                _, _, said = studio.stdout.readline().partition("the studio is at ")
                served = time.perf_counter() - start
                page.goto(said.split()[0])
                page.get_by_text("plans trusted").wait_for()
                return served, time.perf_counter() - start
            finally:
                studio.terminate()


def dragged(session: Session, move: Callable[[np.ndarray, bool], None], seconds: float) -> tuple[float, float]:
    """Moves the goal for some seconds; returns the plans a second and the median of their milliseconds."""
    ms: list[float] = []
    shown = session.on_change

    def count() -> None:
        ms.extend(answer.ms for answer in session.answers.values())
        shown()

    goal_2 = np.array(session.goal[:2])
    ends = np.stack([goal_2, goal_2 - np.array([0.6, 0.0])])
    move(ends[0], True)
    session.on_change = count
    start = time.perf_counter()
    now = 0.0
    while now < seconds:
        part = (1 - np.cos(2 * np.pi * now / PERIOD)) / 2
        move(ends[0] + part * (ends[1] - ends[0]), False)
        now = time.perf_counter() - start
    session.on_change = shown
    return len(ms) / now, float(np.median(ms))


@contextmanager
def in_browser(loaded: Loaded) -> Iterator[Dragging]:
    """A session of a studio in Chromium, whose mouse holds the goal."""
    studio = Studio([loaded], port=0)
    try:
        with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as window:
            page = window.new_page()
            page.add_init_script(COUNTING)
            page.goto(studio.url)
            page.get_by_text("plans trusted").wait_for()
            client, = studio.server.get_clients().values()
            person = Newcomer(page, client, Path(folder))
            person.dismiss()
            box = person.canvas  # which takes the page as long to tell as to take several places

            def move(place_2: np.ndarray, begins: bool) -> None:
                x, y = place_2
                if begins:
                    person.hover(x, y, 0.12)
                    page.mouse.down()
                else:
                    page.mouse.move(*person.where(x, y, 0.12, box=box))
                    page.wait_for_timeout(1000 / PLACES)

            yield studio.views[client.client_id].session, move, lambda: (page.evaluate("framesDrawn"), cpu_seconds())
            page.mouse.up()
            until(page, lambda: True)
    finally:
        studio.stop()


@contextmanager
def without_browser(loaded: Loaded) -> Iterator[Dragging]:
    """A session that is drawn on a server without a browser."""
    server = LocalServer()
    session = Session([loaded])
    Controls(session, server)  # type: ignore[arg-type]  # which draws as for a client
    try:
        session.plan()

        def move(place_2: np.ndarray, begins: bool) -> None:
            session.worker.do("move goal", lambda: session.move_goal(place_2))
            time.sleep(1 / PLACES)

        yield session, move, lambda: (0, 0.0)
    finally:
        session.close()
        server.stop()


if __name__ == "__main__":
    main(tyro.cli(Args))
