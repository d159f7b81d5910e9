"""What is printed nowhere, names and ids that cannot be used, numbers that are not whole."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forked import Forked
from small import DATASET, WORDS, gentraj
from tiny import tiny_episodes

from gentraj.data import DataError, save_npz
from gentraj.data.minari_io import check_new_id
from gentraj.envs.making import environment_factory, recorded_factory
from gentraj.training.checkpoint import load


def printed_nowhere(*words: object) -> tuple[int | None, str]:
    """The code and the errors of a command whose output is on a full disk."""
    with Forked(_on_a_full_disk, *words) as process:
        _, errors = process.communicate()
        return process.returncode, errors


def _on_a_full_disk(*words: object) -> int:
    os.dup2(os.open("/dev/full", os.O_WRONLY), sys.stdout.fileno())
    return gentraj(*words)


def test_a_whole_training_is_not_lost_with_its_output(tmp_path: Path, small_run: Path) -> None:
    """The run is saved, and the code says so."""
    words = "train", "pointmaze", "--dataset", DATASET, "--run-dir", tmp_path / "run", "--steps", "2", *WORDS
    code, errors = printed_nowhere(*words)
    assert code == 0 and "Traceback" not in errors
    assert "stdout: cannot be written (No space left on device); the results are in files" in errors
    assert load(tmp_path / "run").step == 2


def test_a_result_that_could_not_be_printed_is_an_error(tmp_path: Path) -> None:
    code, errors = printed_nowhere("data", "inspect", save_npz(tiny_episodes(), tmp_path / "a.npz"))
    assert code == 1 and "No space left on device" in errors and len(errors.splitlines()) == 1


@pytest.mark.parametrize("name", ["a/b-v0", "../b-v0", "mine"])
def test_an_id_that_minari_refuses_is_refused_before_the_work(name: str) -> None:
    with pytest.raises(DataError, match="is not a Minari id; an id such as"):
        check_new_id(name)


@pytest.mark.parametrize("lengths", [[20.5, 104.5], [np.nan, 125], [2**60, 1]])
def test_lengths_that_are_not_whole_are_refused(lengths: list) -> None:
    with pytest.raises(DataError, match=r"lengths has .*; whole numbers below 2\^53 are expected"):
        replace(tiny_episodes(), lengths=np.array(lengths))


@pytest.mark.parametrize("name", ["os:system", 3])
def test_ids_that_are_no_environments_are_refused(name: object) -> None:
    with pytest.raises(ValueError, match="unknown environment"):
        environment_factory(json.dumps({"id": name}))
    assert recorded_factory(json.dumps({"id": name})) is None


def test_data_in_a_path_that_is_not_in_utf8_are_refused_before_the_training(tmp_path: Path,
                                                                          capsys: pytest.CaptureFixture) -> None:
    """As on an old disk. All was trained, and the settings of the run could not be read."""
    data = save_npz(tiny_episodes(), tmp_path / os.fsdecode(b"gr\xf6sse") / "a.npz")
    assert gentraj("train", "bc-gaussian", "--dataset", data, "--run-dir", tmp_path / "run", "--steps", 1) == 2
    assert "is a path that is not in UTF-8" in capsys.readouterr().err and not (tmp_path / "run").exists()
