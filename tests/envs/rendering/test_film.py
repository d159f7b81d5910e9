"""Films of an agent: every step is a frame, and an environment that cannot be rendered is refused in one line."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
from mujoco import mjtCamLight  # pyright: ignore[reportAttributeAccessIssue]

from gentraj.envs.evaluation.rollout import rollout
from gentraj.envs.evaluation.scoring import EvaluationConfig, score_agent
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import RandomAgent
from gentraj.envs.rendering import CannotRender, Film, rendering, videos

LENGTH = 6
BOX = gymnasium.spaces.Box(-1, 1, (1,))


class Blind(gymnasium.Env):
    """An environment without render_mode, as in examples/plan_on_your_own.py."""

    observation_space, action_space = BOX, BOX

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        return np.zeros(1, np.float32), 1.0, False, False, {}


class Grey(Blind):
    """An environment that renders a grey square, which grows lighter with each step."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def render(self) -> np.ndarray:
        return np.full((32, 48, 3), 5 + 40 * self.steps, np.uint8)


class Broken(Grey):
    def render(self) -> np.ndarray:
        raise KeyError("camera")


class Black(Grey):
    def render(self) -> np.ndarray:
        return np.zeros((32, 48, 3), np.uint8)


for kind in (Blind, Grey, Broken, Black):
    gymnasium.register(f"Film{kind.__name__}-v0", f"{__name__}:{kind.__name__}", max_episode_steps=LENGTH)


@pytest.fixture(autouse=True)
def no_driver_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gentraj.envs.rendering.rendering_problem", lambda: None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio_ffmpeg leaves pipes open
def test_the_first_episodes_are_videos_of_every_step(tmp_path: Path) -> None:
    config = EvaluationConfig(episodes=3, num_envs=2, baselines=False)
    with videos(tmp_path / "new", 2) as watch:
        scores, played = score_agent(RandomAgent([-1], [1]), "FilmGrey-v0", config, progress=False, watch=watch)
    assert played.env == environment_factory("FilmGrey-v0").spec_json  # without the render_mode
    assert scores["returns"] == [LENGTH] * 3
    assert [path.name for path in sorted((tmp_path / "new").iterdir())] == ["episode-000.mp4", "episode-001.mp4"]
    about, *frames = imageio_ffmpeg.read_frames(str(tmp_path / "new/episode-001.mp4"))
    assert about["size"] == (48, 32) and about["fps"] == 10
    grey = [np.frombuffer(frame, np.uint8).mean() for frame in frames]
    np.testing.assert_allclose(grey, 5 + 40 * np.arange(LENGTH + 1), atol=6)


@pytest.mark.parametrize(("env", "why"), [("FilmBlind-v0", "takes no arguments"), ("FilmBroken-v0", "KeyError")])
def test_an_environment_that_cannot_be_rendered_is_refused_before_the_episodes(env: str, why: str) -> None:
    config = EvaluationConfig(episodes=1, baselines=False)
    with pytest.raises(CannotRender, match=f"^{env} cannot be rendered .*{why}[^\\n]*$"):
        score_agent(RandomAgent([-1], [1]), env, config, progress=False, watch=lambda episode, env: None)


def test_black_frames_are_no_film() -> None:
    with pytest.raises(CannotRender, match="the frames of FilmBlack-v0 are black"):
        rendering(environment_factory("FilmBlack-v0"))


def test_a_film_has_evenly_spaced_frames_of_the_first_episode() -> None:
    film = Film(4)
    rollout(RandomAgent([-1], [1]), rendering(environment_factory("FilmGrey-v0")), 2, progress=False, watch=film)
    assert [frame[0, 0, 0] for frame in film.frames] == [5, 85, 165, 245] and film.seconds == 0.2


def test_the_camera_follows_a_body_of_gymnasium(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gentraj.envs.rendering.render_frame", lambda env: np.ones((2, 2, 3), np.uint8))
    with closing(rendering(environment_factory("Hopper-v5"))()) as env:
        model: Any = env.unwrapped.model  # pyright: ignore[reportAttributeAccessIssue]
        camera = model.camera(env.unwrapped.camera_name).id  # pyright: ignore[reportAttributeAccessIssue]
        assert model.cam_mode[camera] == mjtCamLight.mjCAMLIGHT_TRACKCOM
    for env_id, own in (("Hopper-v5", {"camera_id": 0}), ("PointMaze_UMaze-v3", {}), ("FilmGrey-v0", {})):
        factory = environment_factory(env_id, own)
        assert rendering(factory).kwargs == factory.kwargs | {"render_mode": "rgb_array"}
