"""What a browser can take along: a picture, the plan, a video of the closed loop, and pages: what the studio shows as
one HTML file that needs neither the studio nor a network."""

from __future__ import annotations

import html
import io
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gentraj.envs.evaluation.replay import CannotReplay, simulated
from gentraj.envs.rendering import rendering, videos

from .driving import Drive, SideBySide, compare_with_simulator, put
from .loading import Loaded, agents_like
from .planning import Answer
from .scene import scene_of
from .session import Session
from .world_view import FRAMES_PER_SECOND, pair_of

if TYPE_CHECKING:
    from viser import ClientHandle, ViserServer

Download = Callable[[], tuple[str, bytes]]
"""A function that makes a file: its name and its content."""
Frames = Callable[["ViserServer"], Iterator[float]]
"""A function that draws into a server's scene, and yields after each drawing the seconds for which it is shown."""
PICTURE = 900, 1400  # height and width in pixels
PATIENCE = 60.0  # seconds that a browser has to draw it
CAPTION = """<aside style="position:fixed;right:12px;top:12px;max-width:46ch;padding:8px 12px;border-radius:6px;
background:rgba(255,255,255,.88);color:#333;font:13px/1.4 system-ui,sans-serif;pointer-events:none;z-index:9">{}</aside>
"""
MOST_FRAMES = 300  # of a closed loop
LAST_FRAME_SECONDS = 2.0  # seconds for which the last drawing is shown


def downloads(session: Session, client: ClientHandle) -> dict[str, Download]:
    """The files of a session that a client can have, by the labels of their buttons."""
    def picture() -> tuple[str, bytes]:
        from PIL import Image

        buffer = io.BytesIO()
        height, width = PICTURE
        shown = client.get_render(height=height, width=width, timeout=PATIENCE)
        Image.fromarray(shown).save(buffer, "PNG")
        return "studio.png", buffer.getvalue()

    def plan() -> tuple[str, bytes]:
        if 0 not in session.answers:
            raise ValueError(session.problem or "there is no plan yet")
        return "plan.npz", plan_npz(session.answers[0])

    return {"Picture": picture,
            "Page (.html)": lambda: ("studio.html", session_page(session).encode()),
            "Plan (.npz)": plan,
            "Video of the closed loop": lambda: ("loop.mp4", video(session.drive))}


def plan_npz(answer: Answer) -> bytes:
    """The plans as the bytes of an .npz file.

    It has `obs` (N, H, O), `act` (N, H, A), `stride`, `arrival` (N,), `trust_ratio` (N,), `chosen`, the start and the
    goal.
    """
    buffer = io.BytesIO()
    loaded = answer.loaded
    obs_NHO, act_NHA = np.split(answer.x_NHD, [loaded.run.data.obs_dim], axis=-1)
    stride = 1
    if loaded.kind == "planner":
        stride = loaded.run.model.spec.spacing
    np.savez_compressed(buffer, allow_pickle=False, obs=obs_NHO, act=act_NHA, stride=np.array(stride),
                        arrival=answer.arrival_step_N, trust_ratio=answer.ratio_N, chosen=np.array(answer.chosen),
                        start=np.array(answer.question.obs), goal=np.array(answer.question.goal))
    return buffer.getvalue()


def video(drive: Drive | None) -> bytes:
    """The closed loop so far as an MP4, drawn by the simulator at its own speed.

    Raises ValueError before the first step, and `CannotRender` where the simulator cannot draw.
    """
    if drive is None:
        raise ValueError("the closed loop has not begun; press Play first")
    if drive.loaded.base is None:
        raise ValueError(f"{drive.loaded.factory.env_id} is not MuJoCo's, so it cannot be set to the states of the "
                         "closed loop again; gentraj evaluate --video has films")
    from mujoco import mj_forward  # pyright: ignore[reportAttributeAccessIssue]

    env = rendering(drive.loaded.factory)()
    env.reset(seed=0)
    with suppress(CannotReplay):
        put(drive.loaded, env, drive.path[0], np.array(drive.question.goal))  # for the goal
    base = simulated(env.unwrapped)
    with tempfile.TemporaryDirectory() as folder:
        with videos(Path(folder), 1) as watch:
            for qpos_Q in drive.postures:
                base.data.qpos[:] = qpos_Q
                mj_forward(base.model, base.data)
                watch(0, env)
        env.close()
        [path] = Path(folder).iterdir()
        return path.read_bytes()


def static_page(frames: Frames, lines: Sequence[str]) -> str:
    """Returns an HTML page that shows what `frames` draws, with a player if it draws more than once, and these lines
    of plain text."""
    from .local_server import LocalServer  # with viser, which may be missing

    server = LocalServer()  # viser's scenes belong to a server; nobody connects to this one
    try:
        drawn = frames(server)
        first = next(drawn)  # a recording begins with what is there
        serializer = server.get_scene_serializer()
        for seconds in itertools.chain([first], drawn):
            serializer.insert_sleep(seconds)
        page = serializer.as_html()
    finally:
        server.stop()
    head, tail = page.rsplit("</body>", 1)
    return f"{head}{CAPTION.format('<br>'.join(map(html.escape, lines)))}</body>{tail}"


def session_page(session: Session) -> str:
    """Returns a page of a session's newest plans and of its closed loop so far."""
    drive = session.drive

    def frames(server: ViserServer) -> Iterator[float]:
        scenes = [scene_of(server.scene, session, side) for side in range(len(session.shown))]
        server.initial_camera.position, server.initial_camera.look_at = scenes[0].camera
        for side, scene in enumerate(scenes):
            scene.draw(session.answers.get(side))
        if drive is not None:
            every = max(-(-drive.steps // MOST_FRAMES), 1)
            for step in [*range(0, drive.steps, every), drive.steps]:
                scenes[0].draw(drive.plan_at(step) or session.answers.get(0), step)
                yield every / drive.fps
        yield LAST_FRAME_SECONDS

    lines = [f"{each.name}: {each.run.summary}" for each in session.shown]
    if 0 in session.answers:
        lines.append(str(session.answers[0]).replace("**", ""))
    if drive is not None:
        lines.append(str(drive))
    return static_page(frames, lines)


def world_page(world: Loaded, beside: SideBySide) -> str:
    """Returns a page of a prediction beside the simulator."""
    steps = len(beside.act_TA)

    def frames(server: ViserServer) -> Iterator[float]:
        pair = pair_of(server.scene, "/prediction", world)
        server.initial_camera.position, server.initial_camera.look_at = pair.camera
        for step in range(steps + 1):
            pair.draw(beside, step)
            yield 1 / FRAMES_PER_SECOND
        yield LAST_FRAME_SECONDS

    return static_page(frames, [
        f"{world.name}: {world.run.summary}",
        "the simulator and, in blue to orange, what the world model predicts for the same actions",
        f"after {steps} steps: error {beside.error_T[-1]:.2f}, uncertainty {beside.uncertainty_T[-1]:.2f}, trusted for "
        f"{beside.trusted} steps"])


def first_page(loaded: Sequence[Loaded], steps: int) -> str:
    """Returns a page of the first run: its plan and `steps` steps of its closed loop, or for a world model so many
    steps beside the simulator, with the actions of the first other run in its environment, or random ones.

    Raises ValueError where there is no plan, or the closed loop fails.
    """
    first = loaded[0]
    if first.kind == "world model":
        actor = next(iter(agents_like(first, loaded)), None)
        return world_page(first, compare_with_simulator(first, actor, steps))
    session = Session(loaded)
    try:
        session.ask()
        session.plan(None)
        session.step(steps)
        return session_page(session)
    finally:
        session.close()
