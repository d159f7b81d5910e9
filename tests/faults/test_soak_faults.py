"""The soak (benchmarks/soak.py) in small, and what it has found."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import soak
from gentraj.data import DataError, load_episodes


@pytest.fixture(scope="module")
def small(hopper_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset and a run of the soak."""
    folder = tmp_path_factory.mktemp("soak")
    shutil.copy(hopper_file, folder / "hopper.npz")
    soak.train("td3bc", None, folder, folder / "td3bc")
    return folder


def test_a_training_can_be_killed_at_random_and_resumed(small: Path) -> None:
    training = soak.kinds()["bc-gan"]
    training(small, small / "whole")
    assert soak.killed_and_resumed(training, small, small / "killed", [random.Random(0).uniform(0.2, 1)]) <= 1
    assert soak.fingerprint(small / "whole") == soak.fingerprint(small / "killed")


@pytest.mark.filterwarnings("default")
def test_damaged_files_are_read_or_refused_in_a_line(small: Path) -> None:
    rng, outcomes = random.Random(0), Counter[str]()
    for path, words in soak.damaged_files(small):
        outcomes[soak.read_damaged(path, words, rng)] += 1
    assert set(outcomes) == {"read", "refused"}


@pytest.mark.parametrize("name", ["x" * 5000 + ".npz", "x" * 300 + "/y.hdf5", "\0", "~nobody-here/y.npz"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(DataError):
        load_episodes(name)
