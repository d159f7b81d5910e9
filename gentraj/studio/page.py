"""A page of what the studio shows, as one HTML file that needs neither the studio nor a network."""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from .driving import Drive
from .guard import GuardedServer
from .loading import Loaded, alike
from .planning import described
from .scene import Scene, scene_of
from .session import Session
from .side_by_side import Request, SideBySide, compare_with_simulator
from .world_view import FRAMES_PER_SECOND, Pair

if TYPE_CHECKING:
    from viser import ViserServer

Frames = Callable[["ViserServer"], Iterator[float]]
"""A function that draws into a server's scene, and yields after each drawing the seconds for which it is shown."""
CAPTION = """<aside style="position:fixed;right:12px;top:12px;max-width:46ch;padding:8px 12px;border-radius:6px;
background:rgba(255,255,255,.88);color:#333;font:13px/1.4 system-ui,sans-serif;pointer-events:none;z-index:9">{}</aside>
"""
MOST_FRAMES = 300  # of a closed loop
LAST_FRAME_SECONDS = 2.0  # seconds for which the last drawing is shown


def static_page(frames: Frames, caption: str) -> str:
    """Returns an HTML page that shows what `frames` draws, with a player if it draws more than once.

    `caption` is plain text, whose lines stay lines.
    """
    server = GuardedServer(port=0)  # viser's scenes belong to a server; nobody connects to this one
    try:
        drawn = frames(server)
        first = next(drawn)  # a recording begins with what is there
        serializer = server.get_scene_serializer()
        for seconds in itertools.chain([first], drawn):
            serializer.insert_sleep(seconds)
        page = serializer.as_html()
    finally:
        server.stop()
    lines = "<br>".join(html.escape(line) for line in caption.splitlines())
    head, body, tail = page.rpartition("</body>")
    return head + CAPTION.format(lines) + body + tail


def session_page(session: Session, by: str = "trust") -> str:
    """Returns a page of a session's newest plans, coloured by "trust" or "value", and of its closed loop so far."""
    drive = session.loop.drive

    def frames(server: ViserServer) -> Iterator[float]:
        scenes = [scene_of(server.scene, session)]
        if session.second is not None:
            scenes.append(scene_of(server.scene, session, 1))
        server.initial_camera.position, server.initial_camera.look_at = scenes[0].camera
        for side, scene in enumerate(scenes):
            scene.place(session)
            scene.show(session.answers.get(side), None, by)
        if drive is not None:
            every = max(-(-drive.steps // MOST_FRAMES), 1)
            for step in range(0, drive.steps, every):
                show(scenes[0], drive, step)
                yield every / drive.fps
            show(scenes[0], drive, drive.steps)
        yield LAST_FRAME_SECONDS

    def show(scene: Scene, drive: Drive, step: int) -> None:
        scene.move(drive, step)
        scene.show(drive.plan_at(step) or session.answers.get(0), None, by)

    lines = [f"{each.name}: {each.run.summary}" for each in (session.loaded, session.second) if each is not None]
    if 0 in session.answers:
        lines.append(described(session.answers[0]).replace("**", ""))
    if drive is not None:
        lines.append(session.loop.described())
    return static_page(frames, "\n".join(lines))


def world_page(world: Loaded, beside: SideBySide) -> str:
    """Returns a page of a prediction beside the simulator."""
    def frames(server: ViserServer) -> Iterator[float]:
        pair = Pair(server.scene, "/prediction", world.base, world.maze is not None)
        server.initial_camera.position, server.initial_camera.look_at = pair.camera
        for step in range(len(beside.act_TA)):
            pair.draw(beside, step)
            yield 1 / FRAMES_PER_SECOND
        pair.draw(beside, len(beside.act_TA))
        yield LAST_FRAME_SECONDS

    lines = [f"{world.name}: {world.run.summary}",
             "the simulator and, in blue to orange, what the world model predicts for the same actions",
             f"after {len(beside.act_TA)} steps: error {beside.error_T[-1]:.2f}, uncertainty "
             f"{beside.uncertainty_T[-1]:.2f}, trusted for {beside.trusted} steps"]
    return static_page(frames, "\n".join(lines))


def first_page(loaded: Sequence[Loaded], steps: int) -> str:
    """Returns a page of the first run: its plan and `steps` steps of its closed loop, or for a world model so many
    steps beside the simulator, with the actions of the first other run in its environment, or random ones.

    Raises ValueError where there is no plan, or the closed loop fails.
    """
    first, *others = loaded
    if first.kind == "world model":
        actor = next((each for each in others if each.kind != "world model" and alike(each, first)), None)
        return world_page(first, compare_with_simulator(first, Request(actor, steps)))
    session = Session(loaded)
    try:
        session.ask()
        session.plan(None)
        session.loop.step(steps)
        if session.problem:
            raise ValueError(f"{first.name}: the closed loop failed: {session.problem}")
        return session_page(session, by="value")
    finally:
        session.close()
