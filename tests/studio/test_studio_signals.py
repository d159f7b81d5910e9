"""Where nothing is MuJoCo's, the studio draws what was observed, done and planned over time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from browserless import Browserless, drag, until

from gentraj import runs
from gentraj.data import Episodes, save_npz
from gentraj.networks import ResidualMLPConfig
from gentraj.runs.kinds.presets import PRESETS, SHORT_PLANS, VETERAN_PLUS
from gentraj.studio.controls import Controls
from gentraj.studio.lanes import WIDTH, Lanes, SignalScene
from gentraj.studio.loading import Loaded, load_runs
from gentraj.studio.server import Studio
from gentraj.studio.session import Session
from gentraj.training import TrainingConfig

pytestmark = pytest.mark.filterwarnings("ignore::gentraj.ranges.FarFromData")  # after four steps of training


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> list[Loaded]:
    """A planner and a policy in Pendulum."""
    folder = tmp_path_factory.mktemp("plant")
    env = gymnasium.make("Pendulum-v1")
    env.action_space.seed(0)
    obs, act = [], []
    for episode in range(6):
        obs.append(env.reset(seed=episode)[0])
        for _ in range(40):
            act.append(env.action_space.sample())
            obs.append(env.step(act[-1])[0])
    steps = len(act)
    ends = np.arange(1, steps + 1) % 40 == 0
    assert env.spec is not None
    episodes = Episodes(np.array(obs), np.array(act), np.ones(steps), np.zeros(steps, bool), ends, np.full(6, 40),
                        env=env.spec.to_json(), obs_names=("cosine", "sine", "speed"), act_names=("torque",))
    data = str(save_npz(episodes, folder / "plant.npz"))
    brief = TrainingConfig(4, warmup=1, threads=1)
    model = replace(SHORT_PLANS, network=ResidualMLPConfig(8, 1, frequencies=0))
    runs.train(replace(VETERAN_PLUS, dataset=data, model=model, batch_size=8, training=brief,
                       planner=replace(VETERAN_PLUS.planner, candidates=3)), folder=folder / "planner")
    runs.train(replace(PRESETS["bc-gaussian"], dataset=data, training=brief), folder=folder / "policy")
    return load_runs([folder / name for name in ("planner", "policy")])


@pytest.fixture
def session(plant: list[Loaded]) -> Iterator[Session]:
    session = Session(plant)
    yield session
    session.close()


def drawn(lanes: Lanes, name: str, entry: int) -> tuple[np.ndarray, np.ndarray]:
    """The steps and the values (M, 2) of the ends of the parts of a line in the lane of an entry."""
    handle = lanes.lines[name].handle
    points_M23 = handle.points[: len(handle.points) * handle.visible]
    points_M23 = points_M23[(points_M23[:, 0] != points_M23[:, 1]).any(1)]
    [row] = np.flatnonzero(lanes.entries == entry)
    part_M2 = (points_M23[..., 2] - lanes.bottom_E[row]) / lanes.height
    here_M = ((part_M2 > -0.13) & (part_M2 < 1.13)).all(1)
    step_M2 = lanes.first + points_M23[here_M, :, 0] / WIDTH * (lanes.last - lanes.first)
    return step_M2, lanes.low_E[row] + lanes.size_E[row] * part_M2[here_M]


def test_the_plan_and_what_came_before_it_are_drawn_at_their_steps_and_values(client: Any, session: Session) -> None:
    session.ask()
    answer = session.plan()
    scene = SignalScene(client.scene, session)
    scene.draw(answer)
    steps, values = drawn(scene.lanes, "chosen", 2)
    np.testing.assert_allclose(steps[:, 0], np.arange(len(answer.step_H) - 1), atol=1e-4)
    low, high = scene.lanes.low_E[2], scene.lanes.low_E[2] + scene.lanes.size_E[2]
    margin = 0.12 * (high - low)
    planned_H = np.clip(answer.x_NHD[answer.chosen, :, 2], low - margin, high + margin)
    np.testing.assert_allclose(values[:, 1], planned_H[1:], atol=1e-3)
    assert scene.starts[0].handle.visible

    session.step(3)
    assert session.drive is not None
    scene.draw(session.drive.plan_at(3), 3)
    steps, values = drawn(scene.lanes, "executed", 3)  # the torque, which nothing follows
    np.testing.assert_allclose(values[:, 0], np.array(session.drive.actions)[:2, 0], atol=1e-4)
    assert scene.lanes.lines["executed"].handle.visible and not scene.starts[0].handle.visible
    steps, _ = drawn(scene.lanes, "chosen", 2)
    assert steps.min() == pytest.approx(session.drive.decisions[-1].made, abs=1e-4)


def test_a_policy_is_drawn_where_it_will_be_until_its_closed_loop_begins(client: Any, plant: list[Loaded]) -> None:
    controls = Controls(Session(plant[1:]), client)
    session = controls.session
    answer = session.plan()
    scene = controls.scene
    assert isinstance(scene, SignalScene) and not scene.starts
    scene.draw(answer)
    _, values = drawn(scene.lanes, "chosen", 2)
    np.testing.assert_allclose(values[:5, 0], answer.x_NHD[0, :5, 2], atol=1e-3)
    session.step(2)
    scene.draw(answer, 2)
    assert not scene.lanes.lines["chosen"].handle.visible
    session.close()


def test_a_ball_that_is_dragged_up_changes_what_the_plans_start_from(plant: list[Loaded]) -> None:
    studio = Studio(plant[:1], port=0)
    with closing(Browserless(studio.server.get_port())) as browser:
        until(lambda: studio.views)
        [view] = studio.views.values()
        scene, session = view.scene, view.session
        assert isinstance(scene, SignalScene)
        before = session.plan().question.obs
        drag(browser, "/run/start2", (0.0, 0.0, float(scene.lanes.bottom_E[2] + scene.lanes.height / 2)))
        middle = scene.lanes.low_E[2] + scene.lanes.size_E[2] / 2
        until(lambda: session.obs[2] == pytest.approx(middle, abs=1e-4))
        assert session.plan().question.obs == (*before[:2], session.obs[2])
    studio.stop()
