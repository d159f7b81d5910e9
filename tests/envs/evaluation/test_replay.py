"""A replay equals `env.step` from the states of observations, and a plan that obeys the dynamics has no error."""

import re
from importlib.metadata import version

import numpy as np
import pytest
import torch
from packaging.version import Version

from gentraj.envs.evaluation.replay import RECOVERY, CannotReplay, dynamics_error, replay
from gentraj.envs.making import EnvironmentFactory, environment_factory
from gentraj.envs.recording.pointmaze import MAX_SPEED
from gentraj.trajectory import TrajectorySpec

NO_FORCES = {f"include_{name}_in_observation": False for name in ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")}
FACTORIES = {name: environment_factory(*args) for name, *args in (
    ("PointMaze", "pointmaze-open"), ("Humanoid", "Humanoid-v5", NO_FORCES),
    ("Ant", "Ant-v5", {"include_cfrc_ext_in_observation": False}),
    *((name, f"{name}-v5") for name in ("InvertedPendulum", "HalfCheetah", "Hopper", "Walker2d", "Swimmer")))}
PLACES_TOO = "HalfCheetah-v5", {"exclude_current_positions_from_observation": False}


def steps(factory: EnvironmentFactory, act_RTA: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first observations (R, O) and those after each step (R, T, O) of the environment itself."""
    env = factory().unwrapped  # without the time limit
    flat = lambda obs: obs["observation"] if isinstance(obs, dict) else obs  # noqa: E731
    played = []
    for r, act_TA in enumerate(act_RTA):
        first = flat(env.reset(seed=r)[0])
        played.append([first, *(flat(env.step(act)[0]) for act in act_TA)])
    obs = np.array(played)
    return obs[:, 0], obs[:, 1:]


def actions(factory: EnvironmentFactory, R: int, T: int, held: int = 1) -> np.ndarray:
    space, rng = factory().action_space, np.random.default_rng(0)
    act = rng.uniform(space.low, space.high, (R, -(-T // held), len(space.low)))
    return np.repeat(act, held, 1)[:, :T].astype(np.float32)


# -- the simulator


@pytest.mark.parametrize("name", RECOVERY)
def test_a_replay_equals_the_environment(name: str) -> None:
    """The replay has 20 steps, as contacts amplify rounding errors; Walker2d must stay below its clipped speed."""
    factory = FACTORIES[name]
    act = actions(factory, 3, 20) * (0.1 if name == "Walker2d" else 1)
    first, obs = steps(factory, act)
    speed = np.abs(obs[..., -obs.shape[2] // 2 :]).max()
    assert speed < RECOVERY[name].seen_speed
    np.testing.assert_allclose(replay(factory, first, act), obs, rtol=0, atol=1e-6)
    assert np.abs(obs - first[:, None]).max() > 1e-2  # something happened


def test_a_replay_in_a_maze_clips_the_speed_and_hits_the_walls() -> None:
    factory = FACTORIES["PointMaze"]
    act = 1.5 * actions(factory, 4, 300, held=50)
    first, obs = steps(factory, act)
    assert np.abs(obs[..., 2:]).max() > MAX_SPEED
    at_wall = (np.abs(np.diff(obs[..., 2:], axis=1)) > 1).any((1, 2))  # no action changes the speed that fast
    assert at_wall.any()
    rounding = 1e-6
    if Version(version("mujoco")) >= Version("3.11"):
        rounding = 1e-5  # it was 6e-6 at walls
    np.testing.assert_allclose(replay(factory, first, act), obs, rtol=0, atol=rounding)


def test_velocities_are_clipped_as_the_observation_does() -> None:
    factory = FACTORIES["Walker2d"]
    first, _ = steps(factory, actions(factory, 1, 1))
    fast = np.repeat(first, 2, 0)
    fast[:, 8:] = [[30.0], [10.0]]
    out = replay(factory, fast, np.zeros((2, 1, 6)))
    assert np.abs(out[:, :, 8:]).max() == 10 and (out[0] != out[1]).any()


def test_the_roots_position_may_be_observed_and_changes_nothing_else() -> None:
    hidden, seen = FACTORIES["HalfCheetah"], environment_factory(*PLACES_TOO)
    act = actions(seen, 2, 10)
    first, obs = steps(seen, act)
    np.testing.assert_allclose(replay(seen, first, act), obs, rtol=0, atol=1e-6)
    np.testing.assert_allclose(replay(hidden, first[:, 1:], act), obs[..., 1:], rtol=0, atol=1e-6)


def test_a_replay_depends_neither_on_its_batch_nor_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = FACTORIES["Hopper"]
    act = actions(factory, 7, 30)
    first, _ = steps(factory, act[:, :1])
    alone = np.concatenate([replay(factory, first[r : r + 1], act[r : r + 1]) for r in range(7)])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert (replay(factory, first, act) == alone).all()


@pytest.mark.parametrize(("env", "width"), [
    ("Pendulum-v1", 3), ("Reacher-v5", 10), ("Ant-v5", 105), ("AntMaze_UMaze-v5", 27), ("pointmaze-umaze", 6)])
def test_what_cannot_be_recovered_is_refused(env: str, width: int) -> None:
    factory = environment_factory(env)
    with pytest.raises(CannotReplay, match=f"{re.escape(factory.env_id)}: an observation of width {width}"):
        replay(factory, np.zeros((1, width)), np.zeros((1, 1, 2)))


# -- the error of plans


def played_plan() -> tuple[EnvironmentFactory, TrajectorySpec, torch.Tensor, torch.Tensor]:
    """Returns plans that are rollouts of the environment itself, and their actions."""
    stride, rows = 4, 5
    factory, spec = FACTORIES["PointMaze"], TrajectorySpec(4, 0, rows, stride)
    act = actions(factory, 3, (rows - 1) * stride)
    first, obs = steps(factory, act)
    x = np.concatenate([first[:, None], obs[:, stride - 1 :: stride]], 1)
    return factory, spec, torch.from_numpy(x).float(), torch.from_numpy(act)


def test_an_error_is_the_distance_to_where_the_actions_lead_from_the_timestep_before() -> None:
    """Timestep 2 is moved by (3, 4); the plan after it is where the actions lead from where it was."""
    factory, spec, x, act = played_plan()
    x[:, 2, :2] += torch.tensor([3.0, 4.0])
    error = dynamics_error(factory, spec, x, act)
    torch.testing.assert_close(error[:, :2], torch.tensor([0.0, 5]).expand(3, 2), atol=1e-4, rtol=0)
    assert (error[:, 2] > 0.5).all() and error[:, 3].max() < 1e-4
    assert dynamics_error(factory, spec, x, act, dims=[1])[:, 1].sub(4).abs().max() < 1e-4
