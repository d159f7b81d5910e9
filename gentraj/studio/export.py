"""What a browser can take along: a picture, the plan, and a video of the closed loop."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gentraj.envs.evaluation.replay import CannotReplay, simulated
from gentraj.envs.rendering import rendering, videos

from .driving import Drive, put
from .planning import Answer
from .session import Session

if TYPE_CHECKING:
    from viser import ClientHandle

Download = Callable[[], tuple[str, bytes]]
"""A function that makes a file: its name and its content."""
PICTURE = 900, 1400  # height and width in pixels
PATIENCE = 60.0  # seconds that a browser has to draw it


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
        if session.answer is None:
            raise ValueError(session.problem or "there is no plan yet")
        return "plan.npz", plan_npz(session.answer)

    return {"Picture": picture,
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
        stride = loaded.run.model.spec.stride
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
