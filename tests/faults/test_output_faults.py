"""FAULTS 6, 16 and 40, the small ones: what is printed nowhere, ids that cannot be used, numbers that are not whole."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small import DATASET, WORDS, gentraj
from tiny import tiny_episodes

from gentraj.data import DataError, load_d4rl, load_npz, save_npz
from gentraj.data.minari_writer import check_new_id
from gentraj.envs.making import UnsafeEnvironment, environment_factory, recorded_factory
from gentraj.progress import say
from gentraj.training.checkpoint import load

ROOT = Path(__file__).parents[2]


def shell(script: str, *words: object, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", "-c", script, "-", sys.executable, "-m", "gentraj", *map(str, words)], text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=folder, capture_output=True, check=False)


@pytest.mark.parametrize(("redirection", "said"), [
    (">/dev/full", "stdout: cannot be written (No space left on device); the results are in files"),
    ("<&- >&- 2>&-", "")])
def test_06_a_whole_training_is_not_lost_with_its_output(tmp_path: Path, small_run: Path, redirection: str,
                                                         said: str) -> None:
    """The run is saved, the code says so, and nothing is printed into the files of the run."""
    words = "train", "pointmaze", "--dataset", DATASET, "--run-dir", "run", "--steps", "2", *WORDS
    done = shell(f'"$@" {redirection}', *words, folder=tmp_path)
    assert done.returncode == 0 and said in done.stderr and "Traceback" not in done.stderr
    assert load(tmp_path / "run").step == 2
    assert all(json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert (tmp_path / "run" / ".lock").read_text().strip().isdigit()


def test_06_a_result_that_could_not_be_printed_is_an_error(tmp_path: Path) -> None:
    save_npz(tiny_episodes(), tmp_path / "a.npz")
    done = shell('"$@" >/dev/full', "data", "inspect", "a.npz", folder=tmp_path)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr and len(done.stderr.splitlines()) == 1


def test_06_a_message_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "stderr", Full())
    say("a message")


@pytest.mark.parametrize("name", ["a/b-v0", "a/b/", "-v0", "a//b-v0", "../b-v0", "mine", "/a-v0", "mine/a"])
def test_40_an_id_that_minari_refuses_is_refused_before_the_work(name: str) -> None:
    with pytest.raises(DataError, match="is not a Minari id; an id such as"):
        check_new_id(name)


@pytest.mark.parametrize("words", ["data make pointmaze-umaze --id a/b-v0", "evaluate run --save-rollout a/b-v0",
                                   "augment DATA --model run --steps 1 --out a/b-v0"])
def test_40_a_namespace_of_one_letter_is_refused_before_the_work(tmp_path: Path, small_run: Path, words: str,
                                                                 capsys: pytest.CaptureFixture,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(small_run)  # the folder of a run may be reached by a link, unlike what is in it
    assert gentraj(*words.replace("DATA", DATASET).split()) == 2
    assert "'a/b-v0' is not a Minari id" in capsys.readouterr().err


@pytest.mark.parametrize("lengths", [[20.5, 104.5], [np.nan, 125], [np.inf, 1], [1e300, 1], [2**60, 1]])
def test_21_lengths_that_are_not_whole_are_refused(tmp_path: Path, lengths: list) -> None:
    with pytest.raises(DataError, match=r"lengths has .*; whole numbers below 2\^53 are expected"):
        replace(tiny_episodes(), lengths=np.array(lengths))
    (tmp_path / "a.hdf5").touch()
    with pytest.raises(DataError, match=r"lengths has .*; whole numbers below 2\^53 are expected"):
        load_d4rl(tmp_path / "a.hdf5", lengths)


def test_21_lengths_may_be_whole_floats_and_goals_name_whole_entries(tmp_path: Path) -> None:
    assert replace(tiny_episodes(), lengths=np.array([40.0, 25.0, 60.0])) == tiny_episodes()
    path = save_npz(tiny_episodes(), tmp_path / "a.npz")
    members = dict(np.load(path)) | {"goal_dims": np.array([0.5])}
    np.savez(path, **members)
    with pytest.raises(DataError, match=r"a: goal_dims has 0\.5; whole numbers"):
        load_npz(path)


def test_20_a_number_beyond_float32_is_not_called_infinite_without_a_word() -> None:
    act = tiny_episodes().act.astype(np.float64)
    act[3] = 1e300
    with pytest.raises(DataError, match=r"step 3: act is \[inf\] in float32, which holds no number beyond 3\.4e38"):
        replace(tiny_episodes(), act=act)


HOSTILE = ["os:system", "os.path:join-v0", "../../etc/passwd", "/etc/passwd", "a/../b-v0", "a b-v0", "\u202ea-v0",
           "", 3, None, ["a"], {"a": 1}, "a" * 10 + "\n", "$(touch canary)"]


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_16_ids_that_are_no_environments_are_refused_wherever_they_stand(name: object) -> None:
    for make in (environment_factory, recorded_factory):
        with pytest.raises(UnsafeEnvironment):
            make(json.dumps({"id": name}))


@pytest.mark.parametrize("text", ["{", '{"id": "Hopper-v5", "max_episode_steps": 1e999}', '{"kwargs": {}}', "{" * 9999])
def test_16_what_is_no_specification_is_refused_wherever_it_stands(text: str) -> None:
    for make in (environment_factory, recorded_factory):
        with pytest.raises(UnsafeEnvironment, match="not an environment specification"):
            make(text)


def test_16_an_environment_that_is_not_registered_here_is_only_unknown() -> None:
    assert recorded_factory('{"id": "mine/Own-v0"}') is None


@pytest.mark.parametrize("name", ["os:system", "../../x-v0"])
def test_16_training_refuses_a_hostile_id_as_evaluation_does(tmp_path: Path, name: str, capsys: pytest.CaptureFixture,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = replace(tiny_episodes(), env=json.dumps({"id": name}))
    save_npz(data, tmp_path / "a.npz")
    assert gentraj("train", "bc-gaussian", "--dataset", "a.npz", "--run-dir", "run", "--steps", 2) == 2
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith("gentraj: error: ") and name in line
    assert not (tmp_path / "run").exists()
