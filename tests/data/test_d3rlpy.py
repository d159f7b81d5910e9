"""d3rlpy's files: those of the real library are read to the bit, and ours have their layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from d3rlpy_tiny import arrays
from some_episodes import some

from gentraj.data import DataError, Episodes, load_episodes, save_d3rlpy

TINY = Path(__file__).with_name("d3rlpy-tiny.h5")
REPEATED = pytest.mark.filterwarnings("ignore:.*d3rlpy keeps no last observation of an episode:UserWarning")
LOST = pytest.mark.filterwarnings("ignore:.*its layout has no place for:UserWarning")


def as_d3rlpy_keeps_it(e: Episodes) -> Episodes:
    """The same, but each observation after a terminal step is the one before, and every other end a truncation."""
    last, rows = np.cumsum(e.lengths) - 1, np.cumsum(e.lengths + 1) - 1
    obs, done, truncated = e.obs.copy(), e.terminated[last], np.zeros_like(e.truncated)
    obs[rows[done]] = obs[rows[done] - 1]
    truncated[last] = ~done
    return Episodes(obs, e.act, e.reward, e.terminated, truncated, e.lengths)


def test_a_file_of_the_real_library_is_read_to_the_bit() -> None:
    """Rows 0-4 end for good, rows 5-6 by a timeout (one step), rows 7-9 for good."""
    with pytest.warns(UserWarning, match="in 2 episodes the one before it is repeated"):
        e = load_episodes(TINY)
    made, steps = arrays(), [*range(6), *range(7, 10)]
    assert e.lengths.tolist() == [5, 1, 3]
    assert np.array_equal(e.obs, made["observations"][[0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 9]])
    assert np.array_equal(e.act, made["actions"][steps]) and np.array_equal(e.reward, made["rewards"][steps, 0])
    assert np.flatnonzero(e.terminated).tolist() == [4, 8] and np.flatnonzero(e.truncated).tolist() == [5]


@LOST
@REPEATED
def test_what_is_written_is_read_and_written_again_as_the_same(tmp_path: Path) -> None:
    """Everything but the observations that d3rlpy does not keep, the extras and the goals."""
    for seed in range(4):
        e = some([3, 1, 5], seed=seed)
        read = load_episodes(save_d3rlpy(e, tmp_path / "a.h5"))
        assert read == as_d3rlpy_keeps_it(e)
        save_d3rlpy(read, tmp_path / "b.h5")
        with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
            assert {*a} == {*b} and all(np.array_equal(a[key][()], b[key][()]) for key in a)


@LOST
def test_a_file_has_the_layout_of_the_real_library(tmp_path: Path) -> None:
    """The same names, types and shapes as in d3rlpy's own file."""
    rows = np.r_[0:5, 5:7, 7:10]
    made = {key: value[rows] for key, value in arrays().items()}
    ends = np.array([4, 9])
    e = Episodes(np.insert(made["observations"], [5, 10], 0, 0), np.delete(made["actions"], 6, 0),
                 np.delete(made["rewards"][:, 0], 6), np.isin(np.arange(9), ends - [0, 1]), np.arange(9) == 5,
                 np.array([5, 1, 3]))
    with h5py.File(save_d3rlpy(e, tmp_path / "a.h5")) as ours, h5py.File(TINY) as real:
        assert {*ours} == {*real} and ours["version"][()] == real["version"][()]
        for key in real:
            assert (ours[key].dtype, ours[key].shape) == (real[key].dtype, real[key].shape), key
            last = -1 if key in ("actions_1", "rewards_1") else None  # the row that is only an observation
            cut = slice(None, last) if real[key].shape and real[key].dtype.kind == "f" else ()
            assert np.array_equal(ours[key][cut], real[key][cut]), key


def test_what_the_layout_has_no_place_for_is_counted(tmp_path: Path) -> None:
    e = replace(some([3, 1, 5], goals="within"), terminated=np.isin(np.arange(9), [2, 8]), env='{"id": "Own-v0"}')
    with pytest.warns(UserWarning, match=r"a\.h5: .* the goal of 12 observations, env, goal_dims, obs_keys, the last "
                                         "observation of 2 episodes that terminated"):
        save_d3rlpy(e, tmp_path / "a.h5")


@LOST
@pytest.mark.parametrize(("key", "value", "message"), [
    ("actions_1", np.zeros((5, 1), int), "episode 1: .* int64 actions .* discrete actions and images"),
    ("rewards_1", None, "has d3rlpy's layout, but not observations, .* for episode 1")])
def test_what_is_no_vector_is_one_line(tmp_path: Path, key: str, value: object, message: str) -> None:
    path = save_d3rlpy(some([3, 4]), tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file[key]
        if value is not None:
            file[key] = value
    with pytest.raises(DataError, match=message):
        load_episodes(path)
