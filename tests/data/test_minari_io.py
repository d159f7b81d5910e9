"""Episodes as Minari datasets: what is saved is loaded, and what others wrote is understood or refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minari.data_collector import EpisodeBuffer
from some_episodes import any_episodes, some

from gentraj.data import DataError, Episodes, load_episodes, save_minari
from gentraj.data.minari_io import flat_names, local_ids
from gentraj.progress import say_once

ID = "gentraj/test/some-v0"
PENDULUM = gymnasium.spec("Pendulum-v1").to_json()
pytestmark = pytest.mark.usefixtures("root")


def record(observations: list, observation_space: spaces.Space, infos: list | None = None, steps: int = 3) -> str:
    """A dataset as Minari alone would write it: float64, no notes of ours."""
    buffer = [EpisodeBuffer(observations=obs, actions=np.full((steps, 1), 0.1), rewards=np.ones(steps),
                            terminations=np.zeros(steps, bool), truncations=np.arange(steps) == steps - 1,
                            infos=infos[i] if infos else None) for i, obs in enumerate(observations)]
    about = dict.fromkeys(("description", "algorithm_name", "author", "author_email", "code_permalink"), "x")
    with pytest.warns(UserWarning, match="env"):
        minari.create_dataset_from_buffers(ID, buffer, observation_space=observation_space, action_space=box(1),
                                           **about)
    return ID


def box(width: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (width,), np.float64)


def goal_space(observation: int, goal: int) -> spaces.Dict:
    return spaces.Dict(observation=box(observation), achieved_goal=box(goal), desired_goal=box(goal))


@given(any_episodes, st.sampled_from([None, PENDULUM]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_saved_is_loaded(e: Episodes, env: str | None):
    e = replace(e, env=None if (e.obs_dim, e.act_dim, e.obs_keys) != (3, 1, ()) else env)  # Pendulum's widths
    save_minari(e, ID, description="law", overwrite=True)
    assert load_episodes(ID) == e


@pytest.mark.parametrize("goals", ["within", "joined"])
def test_goal_conditioned_episodes_are_minaris_dicts(goals):
    e = some([3, 2], obs_dim=4, goals=goals)
    save_minari(e, ID, description="dicts")
    dataset = minari.load_dataset(ID)
    episode = dataset[1]
    assert set(dataset.observation_space.spaces) == set(episode.observations) == {
        "observation", "achieved_goal", "desired_goal"}
    assert np.array_equal(episode.observations["achieved_goal"], e[1].obs[:, list(e.goal_dims)])
    assert np.array_equal(episode.observations["desired_goal"], e[1].extras["goal"])
    assert np.array_equal(episode.observations["observation"], e[1].obs[:, 2:] if goals == "joined" else e[1].obs)
    assert all(space.contains(episode.observations[key][0]) for key, space in dataset.observation_space.spaces.items())


def test_goals_within_the_observation_are_found_in_anyones_dataset():
    obs = np.random.default_rng(0).normal(size=(2, 4, 5))
    part = [{"observation": o, "achieved_goal": o[:, [3, 1]], "desired_goal": o[:, :2] + 1} for o in obs]
    infos = [{"qpos": o, "success": np.zeros(4, bool), "qvel": o[:3], "goal": o} for o in obs]
    e = load_episodes(record(part, goal_space(5, 2), infos=infos))
    assert (e.obs_keys, e.goal_dims) == (("observation",), (3, 1))
    assert np.array_equal(e.obs, obs.reshape(-1, 5).astype(np.float32))
    assert np.array_equal(e.extras["goal"], (obs[..., :2] + 1).reshape(-1, 2).astype(np.float32))
    assert set(e.extras) == {"goal", "qpos"}  # qvel has no row for the last observation


@pytest.mark.parametrize("goal", [{"x": np.arange(4.0)}, np.array([b"door"] * 4)], ids=["dict", "text"])
def test_infos_that_are_no_vectors_are_left_out(goal):
    obs = np.random.default_rng(0).normal(size=(2, 4, 2))
    e = load_episodes(record(list(obs), box(2), infos=[{"goal": goal, "qpos": o} for o in obs]))
    assert set(e.extras) == {"qpos"} and len(e) == 2


def test_goals_outside_the_observation_come_first():
    obs = np.random.default_rng(0).normal(size=(1, 4, 5))
    part = [{"observation": o[:, 2:], "achieved_goal": o[:, :2], "desired_goal": o[:, :2]} for o in obs]
    e = load_episodes(record(part, goal_space(3, 2)))
    assert (e.obs_keys, e.goal_dims) == (("achieved_goal", "observation"), (0, 1))
    assert np.array_equal(e.obs, obs[0].astype(np.float32))


def test_antmaze_is_evaluated_in_the_environment_that_its_data_name_for_that(root):
    obs = np.random.default_rng(0).normal(size=(1, 4, 27))
    record([{"observation": o, "achieved_goal": o[:, :2], "desired_goal": o[:, :2]} for o in obs], goal_space(27, 2))
    home = root / "D4RL" / "antmaze" / "medium-play-v1"
    home.parent.mkdir(parents=True)
    (root / ID).rename(home)
    file = home / "data" / "metadata.json"
    for more, expected in (({"env_spec": "recorded"}, "recorded"), ({"eval_env_spec": "judged"}, "judged")):
        file.write_text(json.dumps(json.loads(file.read_text()) | more))
        e = load_episodes("D4RL/antmaze/medium-play-v1")
        assert e.env == expected and "goal" in e.extras


def test_what_was_noted_on_saving_is_not_guessed_again():
    e = some([3], obs_dim=4, goals="joined")
    e = replace(e, obs=e.obs[:, [0, 1, 0, 1]])  # the observation contains the goal, yet was joined
    save_minari(e, ID, description="x")
    assert load_episodes(ID) == e


def test_a_download_that_was_stopped_is_begun_anew(root, monkeypatch):
    (root / "mine/some-v0/data").mkdir(parents=True)
    asked = []
    monkeypatch.setattr(minari, "download_dataset", lambda name, force_download: asked.append((name, force_download)))
    with pytest.raises(DataError):  # nothing came
        load_episodes("mine/some-v0")
    assert asked == [("mine/some-v0", True)]


def test_other_dicts_of_boxes_are_flattened_as_gymnasium_does_and_a_line_says_so(capsys):
    """Whatever the order of the entries, and with a number, a vector and a matrix among them."""
    say_once.cache_clear()
    space = spaces.Dict({"speed": spaces.Box(-1, 1, (), np.float64), "arm": box(3),
                         "grid": spaces.Box(-9, 9, (2, 2), np.float64)})
    rng = np.random.default_rng(0)
    part = {"speed": rng.normal(size=4), "arm": rng.normal(size=(4, 3)), "grid": rng.normal(size=(4, 2, 2))}
    e = load_episodes(record([part], space))
    expected = [flatten(space, {key: value[t] for key, value in part.items()}) for t in range(4)]
    assert np.array_equal(e.obs, np.array(expected, np.float32)) and e.obs_keys == tuple(space.spaces)
    assert e.obs_names == ("arm_0", "arm_1", "arm_2", "grid_0", "grid_1", "grid_2", "grid_3", "speed")
    assert "flattened, as by gymnasium.spaces.utils.flatten: arm (3), grid (4), speed (1)" in capsys.readouterr().err
    save_minari(e, "gentraj/test/again-v0", description="flat")
    assert load_episodes("gentraj/test/again-v0") == replace(e, name="gentraj/test/again-v0")


def test_entries_whose_names_would_be_the_same_have_none():
    assert flat_names({"x": box(2), "x_1": box(1)}) == flat_names({"observation": box(3)}) == ()


def test_a_tuple_of_boxes_is_flattened_in_its_order():
    space = spaces.Tuple([box(3), spaces.Box(-9, 9, (2, 2), np.float64)])
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(4, 3)), rng.normal(size=(4, 2, 2))
    e = load_episodes(record([parts], space))
    expected = [flatten(space, tuple(part[t] for part in parts)) for t in range(4)]
    assert np.array_equal(e.obs, np.array(expected, np.float32)) and e.obs_keys == ("0", "1")
    assert e.obs_names == ()


def test_t_observations_for_t_actions_names_both_numbers():
    with pytest.raises(DataError, match=r"episode 1: observations has shape \(3, 2\); its 3 steps need \(4, 2\)"):
        load_episodes(record([np.zeros((4, 2)), np.zeros((3, 2))], box(2)))


def test_an_absent_id_names_those_that_are_close():
    save_minari(some([3]), "gentraj/pointmaze/umaze-v0", description="x")
    with pytest.raises(DataError, match=r"did you mean gentraj/pointmaze/umaze-v0.*gentraj data make"):
        load_episodes("gentraj/pointmaze/umase-v0")


@pytest.mark.parametrize(("changes", "message"), [
    ({"observation_space": spaces.Discrete(4)}, rf"{ID}: observation space Discrete\(4\) is not supported"),
    ({"action_space": spaces.Box(0, 255, (4, 4, 3), np.uint8)}, f"{ID}: action space .* is not supported"),
    ({"observation_space": None, "env_spec": json.dumps({"id": "a-v0", "entry_point": "os:mkdir"})}, "no Minari"),
], ids=str)
def test_what_cannot_be_read_is_refused_before_its_data_and_never_run(root, changes, message):
    """Minari makes the environment, and so runs whatever code the file names, where the spaces are missing."""
    record([np.zeros((4, 2))], box(2))
    path = root / ID / "data" / "metadata.json"
    (path.parent / "main_data.hdf5").write_bytes(b"never opened")
    changes = {key: minari.serialization.serialize_space(value) if isinstance(value, spaces.Space) else value
               for key, value in changes.items()}
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(DataError, match=message):
        load_episodes(ID)


def test_only_the_observation_of_a_kitchen_is_read():
    """Its goals are dicts of tasks, the same in each episode."""
    tasks = spaces.Dict(kettle=box(7), microwave=box(1))
    space = spaces.Dict(observation=box(3), achieved_goal=tasks, desired_goal=tasks)
    obs = np.random.default_rng(0).normal(size=(4, 3))
    goal = {"kettle": np.zeros((4, 7)), "microwave": np.zeros((4, 1))}
    e = load_episodes(record([{"observation": obs, "achieved_goal": goal, "desired_goal": goal}], space))
    assert np.array_equal(e.obs, obs.astype(np.float32)) and not e.extras


# -- whatever stops a write, a dataset that was there stays, and nothing half-made is seen


@pytest.mark.parametrize("keys", [("observation",), ()])
def test_goals_that_are_no_entries_of_an_observation_are_kept_beside_it(keys):
    """The environment's own achieved goals are unknown, so its dicts cannot be written."""
    e = replace(some([3, 4], obs_dim=4, goals="within"), goal_dims=(), obs_keys=keys)
    save_minari(e, ID, description="x")
    assert load_episodes(ID) == e


def test_minaris_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minari looked for the size of the file in a folder `there/.../there/...`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", "there")
    assert save_minari(some([3]), ID, description="") == tmp_path / "there" / ID and load_episodes(ID) == some([3])


def test_a_full_disk_is_refused_before_hdf5_writes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write of HDF5 that fails is a segmentation fault."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 999, 999))
    with pytest.raises(OSError, match=r"cannot be written: about [\d,]+ bytes are needed, 999 are free"):
        save_minari(some([3]), ID, description="")
    assert not list(root.rglob("*.hdf5"))


def names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ID).parent.iterdir() if path.is_dir())


def test_a_taken_id_is_refused_and_overwriting_replaces_it(root):
    save_minari(some([3]), ID, description="first")
    with pytest.raises(DataError, match=r"gentraj/test/some-v0 exists already.*overwrite=True"):
        save_minari(some([4]), ID, description="second")
    save_minari(some([5]), ID, description="third", overwrite=True)
    assert load_episodes(ID) == some([5]) and names(root) == ["some-v0"]


def test_an_interrupted_write_leaves_nothing_half_made(root, monkeypatch):
    """And what a killed one left is not listed, and goes with the next."""
    save_minari(some([3]), ID, description="before")
    shutil.copytree(root / ID, (root / ID).with_name("unfinished-some-v0"))
    assert [*local_ids()] == [ID]
    monkeypatch.setattr("minari.data_collector.EpisodeBuffer", lambda **arrays: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_minari(some([3, 4]), ID, description="after", overwrite=True)
    assert load_episodes(ID) == some([3]) and names(root) == ["some-v0"]
