from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from some_episodes import any_episodes, some

from gentraj.data import DataError, Episodes, d4rl_reference, load_episodes, save_d4rl
from gentraj.envs.making import environment_factory
from gentraj.envs.tasks.registry import MAZES

N = 12
OBS, ACT, REWARD = (np.arange(N * n, dtype=np.float64).reshape(N, n) for n in (3, 2, 1))
NEXT = OBS + 3  # the observation of the row after each
TERMINAL, TIMEOUT = np.isin(np.arange(N), [4]), np.isin(np.arange(N), [8])  # trajectories of 5, 4 and 3 rows


def write(path: Path, **arrays: np.ndarray) -> Path:
    layout = {"observations": OBS, "actions": ACT, "rewards": REWARD[:, 0], "terminals": TERMINAL, "timeouts": TIMEOUT}
    with h5py.File(path, "w") as file:
        for key, value in (layout | arrays).items():
            if value is not None:
                file[key] = value
        file["metadata/algorithm"] = "scalars must not be sliced"
    return path


def test_next_observations_end_each_trajectory(tmp_path):
    ends = np.isin(np.arange(N), [4, 8, 11])[:, None]
    e = load_episodes(write(tmp_path / "a.hdf5", next_observations=np.where(ends, OBS + 100, NEXT)))
    assert e.lengths.tolist() == [5, 4, 3]
    assert np.array_equal(e.obs, np.insert(OBS, [5, 9, 12], OBS[[4, 8, 11]] + 100, axis=0))
    assert np.array_equal(e.act, ACT)
    assert np.array_equal(e.reward, REWARD[:, 0])
    assert np.flatnonzero(e.terminated).tolist() == [4]
    assert np.flatnonzero(e.truncated).tolist() == [8, 11]  # the last one ends without a flag
    assert e.obs.dtype == np.float32


def test_a_trajectory_is_cut_where_its_next_observation_is_not_the_following_row(tmp_path):
    """Rows that were shuffled are transitions, and were read as trajectories that jump from row to row."""
    order = np.random.default_rng(0).permutation(N)
    arrays = {"terminals": np.zeros(N, bool), "timeouts": np.zeros(N, bool)}
    path = write(tmp_path / "a.hdf5", observations=OBS[order], next_observations=NEXT[order], **arrays)
    following = np.diff(order) == 1
    with pytest.warns(UserWarning, match=f"^a: in {np.count_nonzero(~following)} rows next_observations is not"):
        e = load_episodes(path)
    assert len(e) == 1 + np.count_nonzero(~following)
    firsts = np.arange(e.num_steps) + np.repeat(np.arange(len(e)), e.lengths)
    assert np.array_equal(e.obs[firsts], OBS[order])
    assert np.array_equal(e.obs[firsts + 1], NEXT[order])
    assert e.truncated.sum() == len(e)


def as_d4rl_holds_it(e: Episodes) -> Episodes:
    """The same, but an episode has one end, no extras but the goal, and in its last observation the goal of its last
    step."""
    last, truncated = np.cumsum(e.lengths) - 1, np.zeros_like(e.truncated)
    truncated[last] = ~e.terminated[last]
    extras = {key: value.copy() for key, value in e.extras.items() if key == "goal"}
    for value in extras.values():
        value[e.last_rows] = value[e.last_rows - 1]
    return replace(e, truncated=truncated, extras=extras)


@pytest.mark.filterwarnings("ignore:.*its layout has no place for:UserWarning")
@given(any_episodes)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(tmp_path, e: Episodes):
    """Also under a name of D4RL's, whose files are in another frame, without an environment, and name no goals."""
    e = replace(e, env='{"id": "Own-v0"}')
    for name in ("a.hdf5", "maze2d-umaze-sparse-v1.hdf5"):
        assert load_episodes(save_d4rl(e, tmp_path / name)) == as_d4rl_holds_it(e)


def test_others_find_transitions_and_ends_in_what_is_written(tmp_path):
    e = some([3, 1, 5])
    with h5py.File(save_d4rl(e, tmp_path / "a.hdf5")) as file:
        read = {key: value[()] for key, value in file.items() if key != "metadata"}
    ends = np.flatnonzero(read["terminals"] | read["timeouts"])
    assert ends.tolist() == [2, 3, 8] and np.array_equal(read["terminals"], e.terminated)
    for episode, end in zip(e, ends, strict=True):
        rows = slice(end + 1 - episode.num_steps, end + 1)
        assert np.array_equal(read["observations"][rows], episode.obs[:-1])
        assert np.array_equal(read["next_observations"][rows], episode.obs[1:])
    assert np.array_equal(read["actions"], e.act) and np.array_equal(read["rewards"], e.reward)


def test_what_the_layout_has_no_place_for_is_counted(tmp_path):
    e = some([3, 1], goals="within", extras=("qpos",))
    e.extras["goal"][4:] = 0
    with pytest.warns(UserWarning, match=r"a\.hdf5: .* the qpos of 6 observations, the goal at the last .* of 1 epis"):
        save_d4rl(e, tmp_path / "a.hdf5")


@pytest.mark.parametrize("wrong", [np.nan, 0.5])
def test_flags_are_zero_or_one(tmp_path, wrong):
    """NaN and -1 were read as true, so each row ended a trajectory."""
    flags = np.where(TERMINAL, wrong, 0)
    for key in ("terminals", "timeouts"):
        with pytest.raises(DataError, match=f"^a: {key} has {wrong}; only 0 and 1"):
            load_episodes(write(tmp_path / "a.hdf5", next_observations=NEXT, **{key: flags}))


def test_without_next_observations_the_last_row_of_a_trajectory_that_was_cut_off_is_only_an_observation(tmp_path):
    path = write(tmp_path / "a.hdf5", terminals=np.zeros(N, bool), timeouts=TIMEOUT | TERMINAL)
    with pytest.warns(UserWarning, match=r"3 trajectories that do not terminate lose .* \(3 of them a reward .*, 0 "):
        e = load_episodes(path)
    assert e.lengths.tolist() == [4, 3, 2]
    assert np.array_equal(e.obs, OBS)
    assert np.array_equal(e.act, np.delete(ACT, [4, 8, 11], 0))
    assert np.flatnonzero(e.truncated).tolist() == [3, 6, 8]


def test_a_terminal_step_keeps_its_reward_and_flag_without_next_observations(tmp_path):
    """Sparse rewards stand there. A trajectory of one row is a step, where that is terminal, and else none."""
    ends = np.isin(np.arange(N), [0, 4, 5])
    arrays = {"terminals": np.isin(np.arange(N), [4, 5, 11]), "timeouts": ends, "rewards": np.where(ends, 0, 1.0)}
    with pytest.warns(UserWarning, match=r"1 traj.* \(0 of them a reward .*, 1 their only step\), and 3 traj"):
        e = load_episodes(write(tmp_path / "a.hdf5", **arrays))
    assert e.lengths.tolist() == [4, 1, 6] and e.terminated.nonzero()[0].tolist() == [3, 4, 10]
    assert np.array_equal(e.obs, OBS[[1, 2, 3, 4, 4, 5, 5, *range(6, 12), 11]])
    assert np.array_equal(e.act, ACT[1:]) and e.reward.tolist() == [1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1]
    assert not e.truncated.any()


@pytest.mark.parametrize(("name", "file"), [
    ("large-dense-v1", "large-dense-v1"), ("open-v0", "open-sparse")])
def test_maze2d_is_in_the_frame_of_its_pointmaze(tmp_path, monkeypatch, name, file):
    """A point in a cell's centre is 0.2 before its numbers in D4RL, and moves by an action as the maze is drawn."""
    size = name.split("-")[0]
    task, maze = MAZES[f"pointmaze-{size}"], environment_factory(f"pointmaze-{size}").maze
    cell_N2, centre_N2 = np.argwhere(maze.free), maze.centre(maze.cells)
    N, no = len(cell_N2), np.zeros(len(cell_N2), bool)
    arrays = {"observations": np.concatenate([cell_N2 - 0.2, np.tile([1.0, 2.0], (N, 1))], 1), "terminals": no,
              "actions": np.tile([0.5, 0.25], (N, 1)), "rewards": np.zeros(N), "infos/goal": cell_N2 - 0.2,
              "infos/qpos": cell_N2, "infos/qvel": cell_N2, "timeouts": no}
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    write(tmp_path / f"maze2d-{file}.hdf5", **arrays)
    with pytest.warns(UserWarning, match="1 trajectories that do not terminate lose"):
        e = load_episodes(f"maze2d-{name}")
    assert (e.name, e.goal_dims, e.lengths.tolist()) == (f"maze2d-{name}", (0, 1), [N - 1])
    np.testing.assert_allclose(e.obs, np.concatenate([centre_N2, np.tile([2.0, -1.0], (N, 1))], 1), atol=1e-6)
    np.testing.assert_allclose(e.extras["goal"], centre_N2, atol=1e-6)
    assert (e.act == [0.25, -0.5]).all() and e.extras.keys() == {"goal"} and e.obs_keys == ("observation",)
    made, rewards = environment_factory(str(e.env)), "dense" if "dense" in name else "sparse"
    assert (made.env_id, made.max_episode_steps, made.kwargs["reward_type"]) == (task.env_id, task.d4rl_steps, rewards)


def test_goals_are_kept_beside_next_observations_and_the_last_one_stays(tmp_path):
    goal = OBS[:, :2] + 7
    e = load_episodes(write(tmp_path / "a.hdf5", next_observations=NEXT, **{"infos/goal": goal, "infos/qpos": OBS}))
    assert set(e.extras) == {"goal"}
    for episode, start, T in zip(e, e.starts.tolist(), e.lengths.tolist(), strict=True):
        assert np.array_equal(episode.extras["goal"], goal[[*range(start, start + T), start + T - 1]])


def test_reference_scores_are_d4rls():
    assert d4rl_reference("maze2d-large-v1") == (6.7, 273.99)
    assert d4rl_reference("hopper-medium-v2") == (-20.272305, 3234.3)
    with pytest.raises(DataError, match="'hopper-v9' is no D4RL id"):
        d4rl_reference("hopper-v9")


@pytest.mark.parametrize(("arrays", "message"), [
    ({"next_observations": OBS[:, :1]}, r"a: next_observations have shape \(12, 1\)"),
    ({"terminals": np.float32(1)}, r"a: terminals has shape \(\)"),
    ({"rewards": OBS}, r"a: rewards has shape \(12, 3\)"),
    ({"actions": None, "rewards": None}, "lacks actions, rewards"), ({"timeouts": None}, "a: no 'timeouts'"),
    ({"terminals": np.zeros(N), "timeouts": np.ones(N)}, "a: no trajectory has two rows"),
])
def test_another_layout_is_refused(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        load_episodes(write(tmp_path / "a.hdf5", **arrays))
