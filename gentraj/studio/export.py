"""What a browser can take along: a picture, the plan, a video of the closed loop and the Python call."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gentraj.envs.rendering.renderer import Renderer

from ..runs.planner import as_planner
from ..runs.run import environment_of
from .driving import Drive
from .loading import Loaded
from .planning import BUDGETS, MARGIN, Answer
from .session import Session
from .side_by_side import SideBySide

PICTURE = 900, 1400  # height and width in pixels
PATIENCE = 60.0  # seconds that a browser has to draw it
FILM_STEPS = 2  # environment steps between two frames of a video


def plan_npz(answer: Answer) -> bytes:
    """The plans as the bytes of an .npz file.

    It has `obs` (N, H, O), `act` (N, H, A), `stride`, `arrival` (N,), `trust_ratio` (N,), `chosen`, the start and the
    goal.
    """
    buffer = io.BytesIO()
    width = answer.loaded.run.data.obs_dim
    stride = 1
    if answer.loaded.kind == "planner":
        stride = answer.loaded.run.model.spec.spacing
    np.savez_compressed(buffer, allow_pickle=False, obs=answer.x_NHD[..., :width],
                        act=answer.x_NHD[..., width:], stride=np.array(stride), arrival=answer.arrival_step_N,
                        trust_ratio=answer.ratio_N, chosen=np.array(answer.chosen),
                        start=np.array(answer.question.obs), goal=np.array(answer.question.goal))
    return buffer.getvalue()


def python_call(answer: Answer) -> str:
    """A Python program that makes these plans again, bit for bit on the same machine: as `plans`, or as `answer`, the
    path of a policy."""
    if answer.loaded.kind != "planner":
        return _policy_call(answer)
    question = answer.question
    loaded = answer.loaded
    planner = as_planner(loaded.run)
    settings = "".join(f", {name}={value!r}" for name, value in vars(question.settings.config(loaded)).items()
                       if value != getattr(planner.planning, name))
    lines = ["from dataclasses import replace", "", "import torch", "", "import gentraj"]
    guide = "None"
    body = [f"run = gentraj.load({_where(loaded)})"]
    if loaded.backend != "eager":
        body.append(f"run = gentraj.accelerate(run, {loaded.backend!r})")
    if question.discs:
        lines += ["from gentraj.constraints import FULL_BUDGETS, Blocks, Circle, Constraints",
                  "from gentraj.diffusion import Constrained"]
        circles = ", ".join(f"Circle({(d.x, d.y)!r}, {d.radius!r}, dims={loaded.dims!r})" for d in question.discs)
        body.append(f"obstacles = [{circles}]")
        if loaded.maze is not None:
            lines.append("from gentraj.envs.making import environment_factory")
            body += ["maze = environment_factory(run.data.env).maze",
                     f"obstacles.append(Blocks(*maze.wall_boxes(), dims={loaded.dims!r}, margin={MARGIN}))"]
        body.append("guide = Constrained(Constraints(run.model.spec, obstacles), strict=False, "
                    f"budgets=FULL_BUDGETS[:{len(BUDGETS)}], attempts=1)")
        guide = "guide"
    goal = "None"
    if question.goal:
        goal = f"torch.tensor([{question.goal!r}])"
    body += [f"planner = run.planner(run.action_space(), replace(run.planning{settings}), {guide})",
             f"plans = planner.sampler.sample(torch.tensor([{question.obs!r}]), {goal}, [{question.settings.seed}])",
             "x_BHD, arrival_B = plans.chosen()"]
    return "\n".join([*lines, "", *body, ""])


def _policy_call(answer: Answer) -> str:
    return "\n".join([
        "import torch", "", "import gentraj", "from gentraj.studio.driving import ahead",
        "from gentraj.studio.loading import ready", "from gentraj.studio.planning import Question, Settings", "",
        f"loaded = ready(gentraj.load({_where(answer.loaded)}))", f"answer = ahead(loaded, {answer.question!r})",
        "places_T2 = answer.places(0)", ""])


def _where(loaded: Loaded) -> str:
    """The arguments of `gentraj.load` for the run as the studio has it, whatever is trained in the meantime."""
    where = f"{str(loaded.run.folder.absolute())!r}, step={loaded.run.step}"
    device = loaded.run.reference.x_BHD.device
    if device.type == "cpu":
        return where
    return f"{where}, device=torch.device({str(device)!r})"


def video(drive: Drive) -> bytes:
    """The closed loop so far as an MP4, drawn by the simulator at its own speed.

    Raises ValueError before the first step, and `CannotRender` where the simulator cannot draw.
    """
    import imageio_ffmpeg

    if drive.steps == 0:
        raise ValueError("the closed loop has not begun; press Play first")
    renderer = Renderer(environment_of(drive.loaded.run))
    goal_G = np.array(drive.question.goal)
    with tempfile.TemporaryDirectory() as folder:
        path, writer = Path(folder) / "loop.mp4", None
        try:
            for obs_O in drive.path[::FILM_STEPS]:
                frame = np.ascontiguousarray(renderer(obs_O, goal_G))
                if writer is None:
                    size = frame.shape[1], frame.shape[0]
                    fps = round(drive.fps / FILM_STEPS)
                    writer = imageio_ffmpeg.write_frames(path, size, fps=fps, macro_block_size=2)
                    writer.send(None)
                writer.send(frame)
        finally:
            renderer.close()
            if writer is not None:
                writer.close()
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
