"""What a browser can take along: a picture, the plan, a video of the closed loop and the Python call."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gentraj.envs.evaluation.replay import place
from gentraj.envs.rendering.film import rendering, videos

from .driving import Drive
from .loading import Loaded
from .planning import Answer
from .session import Session
from .side_by_side import SideBySide

PICTURE = 900, 1400  # height and width in pixels
PATIENCE = 60.0  # seconds that a browser has to draw it


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


def python_call(answer: Answer) -> str:
    """A Python program that makes these plans again as `answer`, bit for bit on the same machine.

    It loads the run as the studio has it, whatever is trained in the meantime.
    """
    run = answer.loaded.run
    module, function = "planning", "plan_for"
    if answer.loaded.kind == "policy":
        module, function = "driving", "ahead"
    return f"""import torch

import gentraj
from gentraj.studio.loading import ready
from gentraj.studio.planning import Disc, Question, Settings
from gentraj.studio.{module} import {function}

device = torch.device({str(run.reference.x_BHD.device)!r})
run = gentraj.load({str(run.folder.absolute())!r}, device=device, step={run.step})
answer = {function}(ready(run, backend={answer.loaded.backend!r}), {answer.question!r})
places = answer.places(answer.chosen)
"""


def video(drive: Drive) -> bytes:
    """The closed loop so far as an MP4, drawn by the simulator at its own speed.

    Raises ValueError before the first step, and `CannotRender` where the simulator cannot draw.
    """
    if drive.steps == 0:
        raise ValueError("the closed loop has not begun; press Play first")
    env = rendering(drive.loaded.factory)()
    env.reset(seed=0)
    with tempfile.TemporaryDirectory() as folder:
        with videos(Path(folder), 1) as watch:
            for obs_O in drive.path:
                place(env, drive.envs.env_id, obs_O, np.array(drive.question.goal))
                watch(0, env)
        env.close()
        [path] = Path(folder).iterdir()
        return path.read_bytes()


def downloads(session: Session, client: Any, by: Callable[[], str]) -> dict[str, Callable[[], None]]:
    """The buttons that send a file of the session to a client, each with what it does; `by` says what colours plans."""
    def send(name: str, content: bytes) -> None:
        client.send_file_download(name, content, save_immediately=True)

    def picture() -> None:
        from PIL import Image

        buffer = io.BytesIO()
        height, width = PICTURE
        shown = client.get_render(height=height, width=width, timeout=PATIENCE)
        Image.fromarray(shown).save(buffer, "PNG")
        send("studio.png", buffer.getvalue())

    def film() -> None:
        if session.loop.drive is None:
            raise ValueError("the closed loop has not begun; press Play first")
        send("loop.mp4", video(session.loop.drive))

    def page() -> None:
        from .page import session_page  # with viser, which may be missing

        session.plan()
        send("studio.html", session_page(session, by()).encode())

    return {"Picture": picture, "Page (.html)": page, "Plan (.npz)": lambda: send("plan.npz", plan_npz(session.plan())),
            "Video of the closed loop": film,
            "Python call": lambda: send("plan.py", python_call(session.plan()).encode())}


def send_prediction(client: Any, world: Loaded, beside: SideBySide) -> None:
    """Sends a page of a world model's prediction to a client."""
    from .page import world_page  # with viser, which may be missing

    client.send_file_download("prediction.html", world_page(world, beside).encode(), save_immediately=True)
