import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from some_episodes import any_episodes, some

from gentraj.data import DataError, Episodes, concatenate, episodes_hash, inspect, stitch
from gentraj.data.splitting import continues


@given(any_episodes)
def test_the_episodes_joined_are_the_dataset(e: Episodes):
    assert concatenate(list(e)) == e
    assert [len(one.obs) for one in e] == [T + 1 for T in e.lengths]
    assert np.allclose(e.returns, [one.reward.sum(dtype=np.float64) for one in e])


@given(any_episodes, st.data())
def test_chosen_episodes_are_those_that_an_index_gives(e: Episodes, data: st.DataObject):
    """A slice, a list, a mask and a filter choose among the episodes as numpy chooses among their numbers."""
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(e), max_size=len(e)).filter(any)))
    chosen = np.flatnonzero(mask)
    expected = concatenate([e[int(i)] for i in chosen])
    assert e[mask] == expected == e[chosen.tolist()]
    assert e[::-1] == concatenate(list(e)[::-1]) and e[:2] == concatenate(list(e)[:2])
    longest = e.filter(lambda one: one.num_steps == e.lengths.max())
    assert longest.lengths.tolist() == [e.lengths.max()] * int((e.lengths == e.lengths.max()).sum())
    for wrong in (len(e), [], [True] * (len(e) + 1)):
        with pytest.raises(IndexError):
            e[wrong]


def test_the_hash_sees_the_data_and_not_the_name():
    e = some([3, 2], goals="within", extras=("qpos",))
    changes = [{key: getattr(e, key) + 1} for key in ("obs", "act", "reward")]
    changes += [{key: ~getattr(e, key)} for key in ("terminated", "truncated")]
    changes += [{"lengths": np.array([2, 3])}, {"goal_dims": (0, 1)}, {"obs_keys": ()}]
    changes += [{"extras": {}}, {"extras": {**e.extras, "qpos": e.extras["qpos"] + 1}}]
    hashes = {episodes_hash(replace(e, validate=False, **change)) for change in changes}
    assert len(hashes) == len(changes) and episodes_hash(e) not in hashes
    assert episodes_hash(e) == episodes_hash(replace(e, name="other"))


def cut(run: Episodes, lengths: list[int]) -> Episodes:
    """One episode cut into several that share their border observations."""
    ends = np.cumsum(lengths)
    rows = np.concatenate([np.arange(end - T, end + 1) for end, T in zip(ends, lengths, strict=True)])
    truncated = np.isin(np.arange(sum(lengths)), ends - 1)
    return replace(run, obs=run.obs[rows], truncated=truncated, terminated=np.zeros_like(truncated),
                   lengths=np.array(lengths), extras={k: v[rows] for k, v in run.extras.items()})


def test_an_endless_run_cut_at_each_goal_is_stitched_whole():
    run = some([12], goals="within", extras=("qpos",))
    run = replace(run, terminated=np.zeros(12, bool), truncated=np.arange(12) == 11)
    pieces = cut(run, [5, 1, 6])
    assert continues(pieces).tolist() == [True, True]
    assert stitch(pieces) == run
    assert stitch(concatenate([pieces, pieces])) == concatenate([run, run])  # a new recording starts elsewhere


def test_episodes_that_end_where_they_started_are_not_stitched():
    """Of a bandit each observation is the same, which says nothing of what came after what."""
    bandit = some([4, 3, 5])
    bandit = replace(bandit, obs=np.ones_like(bandit.obs), terminated=np.zeros(12, bool))
    assert not continues(bandit).any() and stitch(bandit) is bandit


def test_only_datasets_of_one_environment_are_joined():
    with pytest.raises(DataError, match="other: obs_dim is 4 but 3 in dataset"):
        concatenate([some([3]), replace(some([3], obs_dim=4), name="other")])
    with pytest.raises(DataError, match="at least one"):
        concatenate([])


def test_joined_data_have_the_environment_that_any_of_them_names(recwarn):
    maze, dense, other = (json.dumps({"id": name}) for name in ("Maze_U-v3", "Maze_U-v4", "Maze_Large-v3"))
    for envs, expected in (((None, maze), maze), ((maze, None), maze), ((maze, dense), maze), ((None, None), None)):
        assert concatenate([replace(some([3]), env=env) for env in envs]).env == expected
    assert not recwarn
    with pytest.warns(UserWarning, match="large is of Maze_Large; the joined data count as those of Maze_U"):
        concatenate([replace(some([3]), env=maze), replace(some([3]), env=other, name="large")])


def test_joining_keeps_the_extras_that_all_have():
    """A policy that was to be conditioned on a goal that is lost was trained without."""
    other = replace(some([2], extras=("qvel",), seed=1), name="other")
    joined = concatenate([some([3], extras=("qpos", "qvel")), other])
    assert set(joined.extras) == {"qvel"}
    with pytest.warns(UserWarning, match="only other of the datasets to join have task"):
        concatenate([some([3]), replace(other, extras={"task": np.zeros((3, 1))})])
    assert len(joined.extras["qvel"]) == 7


def test_rows_of_different_lengths_are_no_array():
    e = some([2])
    with pytest.raises(DataError, match="obs has rows of different lengths"):
        replace(e, obs=[[1, 2, 3], [1, 2], [1]])


@pytest.mark.parametrize(("offset", "step", "rounded"), [(1.7e9, 0.05, True), (1e6, 0.002, True), (1e6, 1.0, False),
                                                         (1.0, 1e-9, False), (1e6, 0.0, False)])
def test_numbers_that_float32_makes_the_same_are_named_with_what_to_do(tmp_path, offset, step, rounded, recwarn):
    """24 Unix times became one number without a word; noise around small numbers, and constants, are no loss."""
    e = some([23])
    obs = e.obs.astype(np.float64)
    obs[:, 1] = offset + step * np.arange(24)
    replace(e, obs=obs)
    np.savez(tmp_path / "own.npz", observations=obs, actions=np.zeros((24, 1)), terminals=np.arange(24) == 23)
    report = inspect(tmp_path / "own.npz")
    told = [str(each.message) for each in recwarn]
    assert len(told) == rounded and all("dataset: entry 1 of obs is from" in line for line in told)
    assert ("problems     1" in report and "entry 1 of obs is from" in report) is rounded


def test_a_filter_that_is_no_function_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="filter was given 'a'"):
        some([3]).filter("a")
