"""What an agent does, as others see it: MP4 files of whole episodes, and the few frames of a GIF."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..making import EnvironmentFactory
from .headless import CannotRender, render_frame

Watch = Callable[[int, Any], None]
"""(number of an episode, its environment): called at the episode's start and after each of its steps."""

FRAMES_A_SECOND = 30  # where an environment does not say


def rendering(factory: EnvironmentFactory) -> EnvironmentFactory:
    """The same environments, made so that they render frames. Raises `CannotRender`, in one line, where they cannot."""
    made = replace(factory, kwargs=factory.kwargs | {"render_mode": "rgb_array"})
    try:
        with warnings.catch_warnings(action="ignore"), closing(made()) as env:  # Gymnasium's of the modes there are
            env.reset(seed=0)
            render_frame(env)
    except CannotRender:
        raise
    except Exception as error:  # it is somebody's class, and a picture is worth no traceback
        why = str(error).partition(" was raised from the environment creator")[0].partition("\n")[0]
        raise CannotRender(f"{factory.env_id} cannot be rendered ({type(error).__name__}: {why}); its class must take "
                           "render_mode='rgb_array' and draw a picture in render()") from error
    return made


def speed(env: Any) -> int:
    """Frames a second: one frame is one step of the environment."""
    return round(env.metadata.get("render_fps") or FRAMES_A_SECOND)


@contextmanager
def videos(folder: Path, episodes: int) -> Iterator[Watch]:
    """A watcher that writes the first episodes as `folder`/episode-000.mp4 and so on; they are whole at its end."""
    import imageio_ffmpeg

    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[int, Any] = {}

    def watch(episode: int, env: Any) -> None:
        if episode >= episodes:
            return
        frame = np.ascontiguousarray(render_frame(env))
        if episode not in writers:
            height, width, _ = frame.shape
            writers[episode] = imageio_ffmpeg.write_frames(folder / f"episode-{episode:03d}.mp4", (width, height),
                                                           fps=speed(env), macro_block_size=2)  # whose sides are even
            writers[episode].send(None)  # it is a generator that is now ready for frames
        writers[episode].send(frame)

    try:
        yield watch
    finally:
        for writer in writers.values():
            writer.close()


class Film:
    """A watcher that keeps evenly spaced frames of episode 0 for a GIF: `most` of an episode of `steps` steps."""

    def __init__(self, most: int, steps: int):
        self.every, self.seen, self.seconds = -(-steps // most), 0, 0.0
        self.frames: list[np.ndarray] = []
        """`seconds` are those of the simulation from one to the next."""

    def __call__(self, episode: int, env: Any) -> None:
        if episode != 0:
            return
        if self.seen % self.every == 0:
            self.seconds = self.every / speed(env)
            self.frames.append(render_frame(env))
        self.seen += 1
