from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from some_episodes import any_episodes

from gentraj.data import DataError, Episodes, load_episodes, save_npz


@given(any_episodes)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_saved_is_loaded(tmp_path, e: Episodes):
    assert load_episodes(save_npz(e, tmp_path / "a.npz")) == e


def ogbench(path, **more):
    flat = {"observations": np.arange(24.0).reshape(8, 3), "actions": np.arange(16.0).reshape(8, 2),
            "qpos": np.ones((8, 4)), "terminals": np.isin(np.arange(8), [3, 7]).astype(np.float32)}
    np.savez(path, **flat | more)
    return path


def test_ogbench_trajectories_end_with_an_observation(tmp_path):
    e = load_episodes(ogbench(tmp_path / "antmaze-large-navigate-v0.npz"))
    assert e.lengths.tolist() == [3, 3]
    assert np.array_equal(e.obs, np.arange(24.0).reshape(8, 3))
    assert np.array_equal(e.act, np.delete(np.arange(16.0).reshape(8, 2), [3, 7], 0))
    assert np.flatnonzero(e.truncated).tolist() == [2, 5]
    assert not e.terminated.any()
    assert not e.reward.any()
    assert e.goal_dims == (0, 1)
    assert e.extras["qpos"].shape == (8, 4)


def test_ogbench_compact_data_mark_the_last_row_as_not_valid(tmp_path):
    # There `terminals` is true at the last transition as well as at the row after it.
    compact = {"valids": ~np.isin(np.arange(8), [3, 7]), "terminals": np.isin(np.arange(8), [2, 3, 6, 7])}
    plain = load_episodes(ogbench(tmp_path / "cube-v0.npz"))
    assert load_episodes(ogbench(tmp_path / "cube-compact-v0.npz", **compact)) == plain
    rewarded = load_episodes(ogbench(tmp_path / "cube-own-v0.npz", rewards=np.arange(8.0), **compact))
    assert rewarded.reward.tolist() == [0, 1, 2, 4, 5, 6] and not rewarded.terminated.any()


def test_ogbench_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="images are not supported"):
        load_episodes(ogbench(tmp_path / "visual-cube-v0.npz", observations=np.zeros((8, 4, 4, 3), np.uint8)))


@pytest.mark.parametrize("key", ["rewards", "next_observations"])
def test_an_npz_that_is_not_whole_in_d4rls_layout_is_not_taken_for_ogbenchs(tmp_path, key):
    """Which would take a pole's fall for a cut."""
    arrays = {"observations": np.zeros((3, 2)), "actions": np.zeros((3, 1)), "terminals": np.array([False, True, True])}
    path = tmp_path / "own.npz"
    np.savez(path, **arrays, **{key: np.zeros((3, 2) if key == "next_observations" else 3)})
    with pytest.raises(DataError, match=r"^own: (no 'timeouts', so the ends|not in D4RL's layout; it lacks rewards)"):
        load_episodes(path)


def test_arguments_the_wrong_way_round_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"given a str as the episodes; give save_npz\(episodes, path\)"):
        save_npz(str(tmp_path / "x.npz"), None)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
