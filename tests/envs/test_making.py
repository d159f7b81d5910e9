"""Environments are made for an honest evaluation, and a dataset's environment specification can do no harm."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

from gentraj.envs.making import environment_factory, imported, load_gymnasium
from gentraj.envs.tasks.registry import MAZES

ROOT = Path(__file__).parents[2]
L_MAP = [[1, 1, 1, 1, 1], [1, 0, 1, 1, 1], [1, 0, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
LONG_MAP = [[1] * 22, [1] + [0] * 20 + [1], [1] * 22]


def recorded(env_id="PointMaze_UMaze-v3", limit=1_000_000, **kwargs):
    """An EnvSpec as a recording stores it: endless, a new goal after each success."""
    kwargs = {"continuing_task": True, "reset_target": True} | kwargs
    return json.dumps({"id": env_id, "entry_point": "os:system", "max_episode_steps": limit, "kwargs": kwargs})


@pytest.mark.parametrize("name", MAZES)
def test_every_task_is_made_with_its_limit_and_recognised_by_its_map(name):
    factory, task = environment_factory(name), MAZES[name]
    assert factory.task is task and factory.max_episode_steps == task.max_episode_steps
    assert environment_factory(factory.spec_json) == factory
    assert factory.maze.free[task.d4rl_goal]


@pytest.mark.parametrize(("maze_map", "limit", "expected"), [
    (None, None, 300), (None, 1_000_000, 300), (L_MAP, 1_000_000, 300), (LONG_MAP, -1, 950), (LONG_MAP, 700, 700)])
def test_an_endless_recording_gets_a_limit_that_its_map_needs(maze_map, limit, expected):
    kwargs = {} if maze_map is None else {"maze_map": maze_map}
    assert environment_factory(recorded(limit=limit, **kwargs)).max_episode_steps == expected


def test_overrides_win():
    factory = environment_factory("pointmaze-umaze", {"max_episode_steps": 7, "reset_target": True, "maze_map": L_MAP})
    assert (factory.max_episode_steps, factory.kwargs["reset_target"], factory.kwargs["maze_map"]) == (7, True, L_MAP)


def test_a_time_limit_is_taken_as_it_is_given_or_refused():
    for limit in (0, 2.5, "many"):
        with pytest.raises(ValueError, match=f"Hopper-v5: max_episode_steps is {limit!r}; a whole number of at least"):
            environment_factory("hopper", {"max_episode_steps": limit})
    with pytest.raises(ValueError, match="max_episode_steps is 0"):
        environment_factory("hopper", max_episode_steps=0)
    with pytest.raises(TypeError, match="max_episode_steps="):
        environment_factory("hopper", **{"overrides": 250})
    assert environment_factory("hopper", max_episode_steps=9) == environment_factory("hopper", {"max_episode_steps": 9})
    for given, limit in (({}, 300), ({"max_episode_steps": 100}, 100)):
        assert environment_factory("pointmaze-umaze", given, protocol="d4rl-single-goal").max_episode_steps == limit


def test_an_environment_of_ones_own_may_be_called_a_maze(counter):
    load_gymnasium()
    gymnasium.register("PointMazeMine-v0", counter, max_episode_steps=5)
    try:
        factory = environment_factory("PointMazeMine-v0")
        assert factory.maze is None and isinstance(factory().unwrapped, counter)
        assert environment_factory(factory.spec_json) == factory
    finally:
        del gymnasium.registry["PointMazeMine-v0"]


def test_reaching_the_goal_ends_nothing_and_the_goal_stays():
    env = environment_factory(recorded(maze_map=L_MAP), {"max_episode_steps": 20})()
    obs, _ = env.reset(seed=3)
    base = env.unwrapped
    base.point_env.set_state(obs["desired_goal"], np.zeros(2))
    for step in range(1, 21):
        now, reward, terminated, truncated, info = env.step(np.zeros(2, np.float32))
        assert reward == 1 and info["success"] and not terminated and truncated == (step == 20)
        assert (now["desired_goal"] == obs["desired_goal"]).all()


@pytest.mark.parametrize(("env", "message"), [
    ("PointMaze_UMase-v3", "did you mean PointMaze_UMaze-v3"), ("os:Thing-v0", "unknown environment 'os:Thing-v0'"),
    (recorded("os:Thing-v0"), "unknown environment"), ("{", "not an environment"), ("{}", "not an environment"),
    ("[[[", "unknown environment"), ('{"id":' + "[" * 100_000, "not an environment specification"),
    (recorded(maze_map=5, limit=100), "the maze map is 5; a list of rows"),
    (recorded("Hopper-v5", xml_file="/etc/passwd"), "names a file, xml_file='/etc/passwd'")])
def test_what_is_no_environment_is_refused_in_one_line(env, message):
    with pytest.raises(ValueError, match=message) as error:
        environment_factory(env)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("given", "meant"), [
    ("Hoper-v5", "did you mean Hopper-v5 or"), ("halfchetah", "did you mean .*halfcheetah"),
    ("Mottor-v0", "give a Gymnasium id"), ("Qrst-v0", "give a Gymnasium id")])
def test_an_unknown_environment_is_compared_by_its_name_and_not_by_its_version(given, meant):
    with pytest.raises(ValueError, match=meant):
        environment_factory(given)


def test_a_robot_whose_joints_are_of_a_newer_mujoco_is_refused_with_the_version_that_acts(monkeypatch):
    """From mujoco 3.12 on, a joint's type as numpy holds it equals none that mujoco names."""
    types = ("mjJNT_FREE", "mjJNT_BALL", "mjJNT_HINGE", "mjJNT_SLIDE")
    monkeypatch.setattr("mujoco.mjtJoint", SimpleNamespace(**dict.fromkeys(types, object())))
    with pytest.raises(ImportError, match=r"^FetchReach-v4: .* \"mujoco<3\.12\"$"):
        environment_factory("FetchReach-v4")()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MuJoCo needs no choice")
def test_a_module_that_imports_mujoco_finds_how_to_render_without_a_screen(tmp_path, monkeypatch):
    (tmp_path / "bridge.py").write_text("import os\nfound = os.environ.get('MUJOCO_GL')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setenv("GENTRAJ_IMPORT", "")
    monkeypatch.delenv("MUJOCO_GL")
    imported("bridge:Any-v0")
    assert sys.modules.pop("bridge").found in ("egl", "disabled")


class IgnoresSeeds(gymnasium.Env):
    """Begins as Meta-World does: `reset` ignores the seed, and another method sets the generator."""

    observation_space = action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def seed(self, seed):
        self.np_random = np.random.default_rng(seed)

    def reset(self, *, seed=None, options=None):
        return self.np_random.uniform(-1, 1, 2), {}


def test_the_seed_decides_an_episode_of_metaworld():
    gymnasium.register("Meta-World/Any", IgnoresSeeds, max_episode_steps=5)
    try:
        one, other = (environment_factory("Meta-World/Any")() for _ in range(2))
        one.reset()
        begun = [env.reset(seed=seed)[0].tolist() for seed in (1, 2**40) for env in (one, other)]
        assert begun[0] == begun[1] != begun[2] == begun[3] != one.reset()[0].tolist()
    finally:
        del gymnasium.registry["Meta-World/Any"]


def test_a_stored_entry_point_is_never_used():
    env = environment_factory(recorded())()
    assert type(env.unwrapped).__name__ == "PointMazeEnv"


def test_making_environments_leaves_no_files_behind(tmp_path):
    code = """if True:
        from gentraj.envs.making import environment_factory
        environment_factory("pointmaze-umaze")()
        import mujoco
        model = mujoco.MjModel.from_xml_string(
            "<mujoco><worldbody><body><joint/><geom size='1'/></body></worldbody></mujoco>")
        data = mujoco.MjData(model)
        data.qvel[0] = float("inf")  # makes it warn
        mujoco.mj_step(model, data)
    """
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True,
                         cwd=tmp_path, env={"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
