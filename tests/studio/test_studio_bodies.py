"""Bodies are drawn where the simulator has them, and plans where their observations say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib import colormaps

from gentraj.envs.making import environment_factory
from gentraj.envs.rendering import placed, postures
from gentraj.studio.bodies import GHOST, BodyScene
from gentraj.studio.driving import MOST_AHEAD
from gentraj.studio.loading import Loaded
from gentraj.studio.local_server import LocalServer
from gentraj.studio.session import Session


def played(env_id: str, steps: int) -> tuple[object, np.ndarray, np.ndarray]:
    """The environment, the observations (S, O) and the positions (S, Q) of an episode of random actions."""
    env = environment_factory(env_id)()
    obs, rng = env.reset(seed=0)[0], np.random.default_rng(0)
    rows = [(obs, env.unwrapped.data.qpos.copy())]
    for _ in range(steps):
        act = rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
        rows.append((env.step(act)[0], env.unwrapped.data.qpos.copy()))
    env.close()
    return env.unwrapped, np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Ant-v5"])
def test_observations_tell_the_posture_and_velocities_the_way(env_id):
    base, obs_SO, qpos_SQ = played(env_id, 20)
    found_SQ = postures(base, env_id, obs_SO[None], base.dt, qpos_SQ[0])[0]
    hidden = 2 if env_id[0] in "AS" else 1
    np.testing.assert_allclose(found_SQ[:, hidden:], qpos_SQ[:, hidden:])
    way = np.abs(qpos_SQ[:, :hidden] - qpos_SQ[0, :hidden]).max()
    error = np.abs(found_SQ[:, :hidden] - qpos_SQ[:, :hidden]).max()
    assert error < 0.25 * way + 0.01  # the trapezoid rule between steps with contacts


def test_the_way_of_a_constant_velocity_is_exact():
    env = environment_factory("Hopper-v5")()
    obs_NHO = np.zeros((2, 5, 11))
    obs_NHO[:, :, 5] = [[2.0], [-1.0]]  # the root's velocity
    env.close()
    found_NHQ = postures(env.unwrapped, "Hopper-v5", obs_NHO, 0.5, np.array([3.0, 9, 9, 9, 9, 9]))
    np.testing.assert_allclose(found_NHQ[:, :, 0], [[3, 4, 5, 6, 7], [3, 2.5, 2, 1.5, 1]])


@pytest.fixture
def session(bodies: list[Loaded]) -> Iterator[Session]:
    session = Session(bodies)
    yield session
    session.close()


def test_the_chosen_plan_is_where_it_will_be_and_the_others_stand_behind_by_value(server: LocalServer,
                                                                                 session: Session) -> None:
    scene = BodyScene(server.scene, session)
    session.ask()
    answer = session.plan()
    scene.draw(answer)
    assert answer.value_N is not None
    torso = scene.ghosts.handles[1]
    qpos_NHQ = postures(scene.base, "Hopper-v5", answer.x_NHD[..., :11].astype(float), scene.seconds, scene.qpos_Q)
    count = len(torso.batched_positions) - 2  # ghosts along the chosen plan; the other two candidates have one each
    np.testing.assert_allclose(torso.batched_positions[:count, 0], qpos_NHQ[answer.chosen, 1:, 0], atol=1e-5)
    np.testing.assert_allclose(torso.batched_positions[:count, 1], 0)
    np.testing.assert_allclose(torso.batched_positions[count:, 1], [scene.lane, 2 * scene.lane], rtol=1e-6)
    assert (torso.batched_opacities[:count] == np.float32(GHOST)).all()
    ends = (255 * np.array(colormaps["viridis"]([1.0, 0.0]))[:, :3]).astype(np.uint8)
    np.testing.assert_array_equal(torso.batched_colors[[0, -1]], ends)  # the best is chosen, the worst is last
    scene.close()


def test_a_closed_loop_moves_the_body_and_its_plans_along(server: LocalServer, session: Session) -> None:
    scene = BodyScene(server.scene, session)
    session.step(5)
    drive = session.drive
    assert drive is not None and len(drive.postures) == len(drive.path) == 6
    for step in (3, 5):
        scene.draw(None, step)
        np.testing.assert_array_equal(scene.qpos_Q, drive.postures[step])
        assert scene.frame.position[0] == pytest.approx(-drive.postures[step][0])  # the root stays in the middle
        torso = placed(scene.model, scene.qpos_Q[None])[0][0, 1]
        np.testing.assert_allclose(scene.body.handles[1].batched_positions[0], torso, atol=1e-6)
    assert [answer.made for answer in drive.decisions] == [0, 1, 2, 3, 4]  # it plans in every step
    session.reset()
    scene.draw(None)  # back at the start
    np.testing.assert_allclose(scene.qpos_Q[1:], session.obs[:5], atol=1e-6)
    scene.close()


@pytest.mark.filterwarnings("ignore::gentraj.ranges.FarFromData")  # after four steps of training
def test_a_policy_is_shown_where_it_will_be_until_its_closed_loop_begins(server: LocalServer,
                                                                         session: Session) -> None:
    session.choose(session.runs[1])
    scene = BodyScene(server.scene, session)
    answer = session.plan()
    steps = answer.x_NHD.shape[1] - 1
    assert 1 < steps <= MOST_AHEAD and f"next {steps} steps" in str(answer)
    scene.draw(answer)
    shown = scene.ghosts.handles[1]
    session.step(steps)
    drive = session.drive
    assert drive is not None
    np.testing.assert_array_equal(answer.x_NHD[0], drive.path)  # it does what was shown
    torso = placed(scene.model, np.array(drive.postures[-1:]))[0][0, 1]
    np.testing.assert_allclose(shown.batched_positions[-1], torso, atol=0.01)  # the way is integrated
    scene.draw(answer, steps)
    assert not shown.visible
