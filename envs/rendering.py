"""Pictures without a screen: frames, films of an agent, and the simulator set to the state of an observation.

A film is an MP4 file of a whole episode, or a few frames for a GIF.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gentraj.files import new_path

from .evaluation.replay import RECOVERY, CannotReplay, kind, place
from .making import EnvironmentFactory, environment_factory, load_gymnasium

Watch = Callable[[int, Any], None]
"""A function of the number of an episode and its environment, called at the start and after each step."""

FOLLOWING = "track"  # the camera's name in Gymnasium's models
FRAMES_PER_SECOND = 30  # of an environment whose metadata have no render_fps
PROBE = "import mujoco; mujoco.GLContext(64, 64).make_current()"


class CannotRender(RuntimeError):
    """No picture of an environment can be drawn; the message says why in one line."""


@functools.cache
def rendering_problem() -> str | None:
    """Returns why MuJoCo can draw no frame, or None. A child process tries, because a bad driver may abort."""
    load_gymnasium()
    backend = os.environ.get("MUJOCO_GL", "")
    advice = "for pictures install libegl1, libegl-mesa0 and libgl1-mesa-dri"
    try:
        subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, timeout=60)  # noqa: S603
    except (subprocess.SubprocessError, OSError):
        return f"no frame can be drawn here (MUJOCO_GL={backend}); {advice}, or set MUJOCO_GL"
    return None


def render_frame(env: Any) -> np.ndarray:
    """Returns a frame (height, width, 3), uint8, of an environment made with "rgb_array", or raises `CannotRender`."""
    if env.render_mode != "rgb_array":
        raise CannotRender(f"the environment has render_mode={env.render_mode!r}; make it with 'rgb_array'")
    if _draws_by_mujoco(env) and (problem := rendering_problem()):
        raise CannotRender(problem)
    try:
        frame = np.asarray(env.render())
    except (load_gymnasium().error.Error, ImportError) as error:  # such as pygame, which only some environments need
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise CannotRender(f"no frame can be drawn here: {why}") from error
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise CannotRender(f"the environment renders no picture, but {frame.dtype} of shape {frame.shape}; uint8 of "
                           "shape (height, width, 3) is expected of rgb_array")
    return frame


def _draws_by_mujoco(env: Any, deep: bool = True) -> bool:
    """Whether an environment, or one directly in it, holds anything of MuJoCo. Others need no driver to draw frames."""
    parts, kind = vars(env.unwrapped).values(), load_gymnasium().Env
    return any("mujoco" in type(part).__module__ or (deep and isinstance(part, kind) and _draws_by_mujoco(part, False))
               for part in parts)


def rendering(factory: EnvironmentFactory) -> EnvironmentFactory:
    """Returns a factory whose environments render frames, in which a body of Gymnasium stays in the middle.

    Raises `CannotRender`, in one line, if they cannot.
    """
    renders = replace(factory, kwargs=factory.kwargs | {"render_mode": "rgb_array"})
    try:
        with warnings.catch_warnings(action="ignore"), closing(renders()) as env:  # of render modes
            env.reset(seed=0)
            if not render_frame(env).any():
                raise CannotRender(f"the frames of {factory.env_id} are black, as where its renderer finds no screen; "
                                   "some environments have an argument for one that needs none")
            camera = {} if {"camera_id", "camera_name"} & factory.kwargs.keys() else following(env)
    except CannotRender:
        raise
    except Exception as error:  # the class may be a user's own and raise anything
        why = str(error).partition(" was raised from the environment creator")[0].partition("\n")[0]
        raise CannotRender(f"{factory.env_id} cannot be rendered ({type(error).__name__}: {why}); its class must take "
                           "render_mode='rgb_array' and draw a picture in render()") from error
    return replace(renders, kwargs=renders.kwargs | camera)


def following(env: Any) -> dict[str, str]:
    """Returns the settings with which the camera of one of Gymnasium's MuJoCo bodies follows it; {} for others.

    By default it stands still, and the body soon leaves the picture.
    """
    base = env.unwrapped
    if not type(base).__module__.startswith("gymnasium.envs.mujoco."):
        return {}
    cameras = [base.model.camera(number).name for number in range(base.model.ncam)]
    return {"camera_name": FOLLOWING} if FOLLOWING in cameras else {}


def speed(env: Any) -> int:
    """Returns the frames per second, at least 1, of a film in real time: a frame is a step of the environment."""
    return max(round(env.metadata.get("render_fps") or FRAMES_PER_SECOND), 1)


@contextmanager
def videos(folder: Path, episodes: int) -> Iterator[Watch]:
    """Gives a watcher that writes the first `episodes` episodes as `folder`/episode-000.mp4 and so on.

    The files are complete when the context ends.
    """
    import imageio_ffmpeg

    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[int, Any] = {}
    files = ExitStack()

    def watch(episode: int, env: Any) -> None:
        if episode >= episodes:
            return
        frame = np.ascontiguousarray(render_frame(env))
        if episode not in writers:
            height, width = frame.shape[:2]
            path = files.enter_context(new_path(folder / f"episode-{episode:03d}.mp4"))
            writers[episode] = imageio_ffmpeg.write_frames(path, (width, height), fps=speed(env),
                                                           macro_block_size=2)  # sides must be even
            files.callback(writers[episode].close)
            writers[episode].send(None)  # starts the generator that frames are sent to
        writers[episode].send(frame)

    with files:
        yield watch


class Film:
    """A watcher that keeps evenly spaced frames of episode 0 for a GIF: at most `most`, and at least half of them."""

    def __init__(self, most: int):
        self.most = most
        self.every = 1
        self.seen = 0
        self.seconds = 0.0
        self.frames: list[np.ndarray] = []
        """The frames (height, width, 3); `seconds` is the simulated time between two of them."""

    def __call__(self, episode: int, env: Any) -> None:
        if episode != 0:
            return
        if self.seen % self.every == 0:
            self.frames.append(render_frame(env))
            if len(self.frames) > self.most:  # the episode is longer: every other frame will do
                self.frames = self.frames[::2]
                self.every *= 2
            self.seconds = self.every / speed(env)
        self.seen += 1


class Renderer:
    """`renderer(obs_O, goal_G)` returns a frame (height, width, 3), uint8, of the environment `env`.

    Raises `CannotRender` if the machine cannot draw or the observation does not determine the simulator's state.
    """

    def __init__(self, env: str):
        self.factory: EnvironmentFactory = environment_factory(env, {"render_mode": "rgb_array"})
        self.env: Any = None

    def __call__(self, obs_O: np.ndarray, goal_G: np.ndarray) -> np.ndarray:
        if self.env is None:
            self.env = self.factory()
            self.env.reset(seed=0)
        try:
            place(self.env, self.factory.env_id, obs_O, goal_G)
        except CannotReplay as error:
            raise CannotRender(str(error)) from error
        return render_frame(self.env)

    def close(self) -> None:
        if self.env is not None:
            self.env.close()
            self.env = None


def postures(base: Any, env_id: str, obs_NHO: np.ndarray, seconds: float,
             root_K: np.ndarray | None = None) -> np.ndarray:
    """Returns the positions qpos (N, H, Q) that sequences of observations show, in the MuJoCo environment `base`.

    Entries that the observation leaves out, the root's position on an endless floor, begin at `root_K` (0 by default)
    and follow the observed velocities, `seconds` from one observation to the next. Further entries of an
    observation, such as the contact forces of Ant, are not needed. Raises `CannotReplay` where an observation does not
    begin with positions and velocities.
    """
    known = RECOVERY.get(kind(env_id))
    model = getattr(base, "model", None)
    width = obs_NHO.shape[-1]
    if known is None or model is None:
        raise CannotReplay(f"{env_id}: its observations do not tell the posture of a body; those of "
                           f"{', '.join(RECOVERY)} do")
    hidden = known.hidden if getattr(base, "_exclude_current_positions_from_observation", False) else 0
    if width < model.nq + model.nv - hidden:
        raise CannotReplay(f"{env_id}: an observation of width {width} does not hold {model.nq - hidden} positions and "
                           f"{model.nv} velocities")
    seen_NHQ, speed_NHV = np.split(obs_NHO[..., : model.nq + model.nv - hidden].astype(float), [model.nq - hidden], -1)
    speed_NHK = speed_NHV[..., :hidden]
    moved_NHK = np.zeros_like(speed_NHK)
    moved_NHK[:, 1:] = np.cumsum((speed_NHK[:, 1:] + speed_NHK[:, :-1]) / 2 * seconds, 1)
    root_K = np.zeros(hidden) if root_K is None else np.asarray(root_K, float)[:hidden]
    return np.concatenate([root_K + moved_NHK, seen_NHQ], -1)


def placed(model: Any, qpos_MQ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions (M, P, 3) and the orientations (M, P, 4), w first, of the P bodies of a MuJoCo model in
    each of M postures. A posture that is not finite is drawn as the model's own."""
    from mujoco import MjData, mj_kinematics  # pyright: ignore[reportAttributeAccessIssue]

    data = MjData(model)
    position_MP3, turn_MP4 = np.empty((len(qpos_MQ), model.nbody, 3)), np.empty((len(qpos_MQ), model.nbody, 4))
    for m, qpos_Q in enumerate(qpos_MQ):
        data.qpos[:] = qpos_Q if np.isfinite(qpos_Q).all() else model.qpos0
        mj_kinematics(model, data)
        position_MP3[m], turn_MP4[m] = data.xpos, data.xquat
    return position_MP3, turn_MP4
