"""D4RL's AntMaze and Kitchen by name: tiny files of the exact layouts, and what is made of them."""

import h5py
import numpy as np
import pytest

from gentraj.cli.train import preset
from gentraj.data import d4rl_reference, load_episodes
from gentraj.data.d4rl import d4rl_table
from gentraj.experiments.sweep import base_card
from gentraj.runs.kinds.policy_run import PolicyRunConfig

N, MAZE, KITCHEN = 12, "antmaze-medium-play-v2", "kitchen-partial-v0"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    return tmp_path


def write(path, arrays):
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value


def antmaze(folder, name=MAZE):
    """Two trajectories of six rows, which end by a timeout; in the first the ant is at the goal in rows 2 and 3."""
    obs = np.arange(N * 29, dtype=np.float32).reshape(N, 29)
    reached, last = np.isin(np.arange(N), [2, 3]), np.isin(np.arange(N), [5, 11])
    write(folder / d4rl_table()[name]["file"], {
        "observations": obs, "actions": np.full((N, 8), 0.5, np.float32), "rewards": reached.astype(np.float32),
        "terminals": reached, "timeouts": last, "infos/goal": np.full((N, 2), 20, np.float32),
        "infos/qpos": obs[:, :15], "infos/qvel": obs[:, 15:]})
    return obs


def test_a_trajectory_of_antmaze_goes_on_after_the_goal_and_keeps_its_rewards(folder):
    obs = antmaze(folder)
    with pytest.warns(UserWarning, match="2 trajectories that do not terminate lose"):
        e = load_episodes(MAZE)
    assert e.lengths.tolist() == [3, 1, 1, 5] and e.reward.tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]
    assert np.flatnonzero(e.terminated).tolist() == [2, 3] and np.flatnonzero(e.truncated).tolist() == [4, 9]
    assert (e.obs == obs[[0, 1, 2, 3, 3, 4, 4, 5, *range(6, 12)]]).all()  # each ends in what its last step led to
    assert e.goal_dims == () and set(e.extras) == {"qpos", "qvel"}  # a policy is not told the goal
    assert e.env is None


@pytest.mark.filterwarnings("ignore:.*has no next observations")
def test_a_file_whose_name_tells_what_it_is_is_read_as_by_its_id(folder):
    antmaze(folder)
    path, by_id = folder / d4rl_table()[MAZE]["file"], load_episodes(MAZE)
    assert load_episodes(path) == by_id == load_episodes(path.rename(folder / f"{MAZE}.hdf5"))
    assert rewards("fql", str(path)) == rewards("fql", f"{MAZE}.hdf5") == "minus-one"
    other = load_episodes((folder / f"{MAZE}.hdf5").rename(folder / "antmaze-mine.h5"))
    assert other.goal_dims == (0, 1) and "goal" in other.extras and other.env is None and other.name == "antmaze-mine"


def kitchen(folder):
    """Two trajectories of five and seven rows."""
    obs = np.arange(N * 60, dtype=np.float32).reshape(N, 60)
    write(folder / d4rl_table()[KITCHEN]["file"], {
        "observations": obs, "actions": np.linspace(-1, 1, N * 9, dtype=np.float32).reshape(N, 9),
        "rewards": np.full(N, 2, np.float32), "terminals": np.isin(np.arange(N), [4, 11]).astype(np.float32),
        "infos": np.zeros(N)})
    return obs


def test_kitchen_has_floats_for_ends_no_timeouts_and_infos_that_are_a_dataset(folder):
    obs = kitchen(folder)
    with pytest.warns(UserWarning, match="2 trajectories that terminate repeat their last observation"):
        e = load_episodes(KITCHEN)
    assert e.lengths.tolist() == [5, 7] and e.goal_dims == () and e.terminated.nonzero()[0].tolist() == [4, 11]
    assert (e.obs == np.insert(obs, [5, 12], obs[[4, 11]], 0)).all() and (e.reward == 2).all()
    assert e.env is None and d4rl_reference(KITCHEN) == (0, 4)


def test_critics_learn_of_antmazes_rewards_minus_one_unless_told_otherwise():
    for dataset in (MAZE, "D4RL/antmaze/medium-play-v1"):
        assert rewards("fql", dataset) == rewards("iql-published", dataset) == "minus-one"
        card = base_card("fql", dataset, None, 5, seeds=(0,), episodes=1, protocol="random-goal", score="success_rate")
        assert card.settings == {"policy.rewards": "minus-one", "training.steps": 5}
    assert preset("fql", KITCHEN) == preset("fql", "antmaze-medium-navigate-singletask-v0") == preset("fql", "")
    assert preset("bc-flow", MAZE) == preset("bc-flow", "")  # it learns nothing from rewards


def rewards(name, dataset):
    config = preset(name, dataset)
    assert isinstance(config, PolicyRunConfig)
    return config.policy.rewards
