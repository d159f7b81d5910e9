"""The files of robomimic: the same steps as they were written, and what is wrong in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gentraj.data import DataError, Episodes, load_episodes

WIDTHS = {"object": 3, "robot0_eef_pos": 2, "robot0_joint_pos": 4}


def robomimic(path: Path, lengths: dict[str, int], *, following: bool = True, images: bool = False) -> Path:
    """A file of demonstrations whose observations are the numbers of their steps."""
    with h5py.File(path, "w") as file:
        for demo, steps in lengths.items():
            group = file.create_group(f"data/{demo}")
            for part, first in {"obs": 0, "next_obs": 1}.items() if following else {"obs": 0}.items():
                for i, (key, width) in enumerate(WIDTHS.items()):
                    numbers = np.arange(first, steps + first, dtype=np.float64)[:, None] + 100 * i
                    group[f"{part}/{key}"] = numbers[..., None] if images else numbers.repeat(width, 1)
            group["actions"] = np.full((steps, 2), steps)
            group["rewards"] = np.arange(steps) == steps - 1
            group["dones"] = (np.arange(steps) == steps - 1) & (demo != "demo_2")
    return path


def test_a_file_of_robomimic_has_its_demonstrations_in_their_order(tmp_path: Path) -> None:
    """With the observations of states that its policies are trained on."""
    e = load_episodes(robomimic(tmp_path / "low_dim.hdf5", {"demo_10": 4, "demo_2": 3}))
    assert isinstance(e, Episodes)
    assert e.lengths.tolist() == [3, 4] and e.obs_keys == ("robot0_eef_pos", "object") and e.obs_dim == 5
    assert e[1].obs[:, 0].tolist() == [100, 101, 102, 103, 104] and e[1].obs[:, -1].tolist() == [0, 1, 2, 3, 4]
    assert e.reward.tolist() == [0, 0, 1, 0, 0, 0, 1] and e.act[:, 0].tolist() == [3] * 3 + [4] * 4
    assert e.terminated.tolist() == [False] * 6 + [True] and e.truncated.tolist() == [False] * 2 + [True] + [False] * 4


def test_a_demonstration_without_next_observations_keeps_its_success(tmp_path: Path) -> None:
    """The sparse reward and the flag stand in its last row; one that goes on, demo_2, loses that row."""
    path = robomimic(tmp_path / "low_dim.hdf5", {"demo_0": 4, "demo_2": 3}, following=False)
    with pytest.warns(UserWarning, match=r"1 traj.* \(1 of them a reward other than 0, .* and 1 traj"):
        e = load_episodes(path)
    assert e.lengths.tolist() == [4, 2] and e.obs[:, 0].tolist() == [100, 101, 102, 103, 103, 100, 101, 102]
    assert e.reward.tolist() == [0, 0, 0, 1, 0, 0] and e.act[:, 0].tolist() == [4] * 4 + [3] * 2
    assert e.terminated.tolist() == [False] * 3 + [True] + [False] * 2 and e.truncated.tolist() == [False] * 5 + [True]


def broken(file: Any, change: str) -> None:
    demo = file["data/demo_0"]
    del demo["actions"]
    if change == "short":
        demo["actions"] = np.zeros((2, 2))


@pytest.mark.parametrize(("change", "message"), [
    ("none", "demo_0: has no actions"), ("short", "demo_0: 3 observations, 2 actions")])
def test_what_is_no_demonstration_of_states_says_so_in_one_line(change: str, message: str, tmp_path: Path) -> None:
    path = robomimic(tmp_path / "low_dim.hdf5", {"demo_0": 3})
    with h5py.File(path, "a") as file:
        broken(file, change)
    with pytest.raises(DataError, match=message) as raised:
        load_episodes(path)
    assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match=r"is a vector \(object, robot0_eef_pos"):
        load_episodes(robomimic(tmp_path / "image.hdf5", {"demo_0": 3}, images=True))
