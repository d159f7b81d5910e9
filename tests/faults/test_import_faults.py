"""An import that was killed, and packages of extras that are not installed."""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forked import Forked
from small import gentraj
from tiny import tiny_episodes

from gentraj.data import Episodes, load_episodes, save_npz

ID = "mine/many-v0"


def many_episodes(number: int = 150) -> Episodes:
    one = tiny_episodes()
    return replace(one, obs=np.tile(one.obs, (number, 1)), act=np.tile(one.act, (number, 1)),
                   reward=np.tile(one.reward, number), terminated=np.tile(one.terminated, number),
                   truncated=np.tile(one.truncated, number), lengths=np.tile(one.lengths, number))


def test_an_import_that_was_killed_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By SIGKILL, while it writes."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    path, folder = save_npz(many_episodes(), tmp_path / "many.npz"), tmp_path / "minari" / "mine"
    process = Forked(gentraj, "data", "import", path, "--id", ID)
    while not list(folder.glob("unfinished-*/data/main_data.hdf5")):  # the test's own time limit ends it
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.close()
    assert not (folder / "many-v0").exists() and list(folder.glob("unfinished-*"))
    assert gentraj("data", "import", path, "--id", ID) == 0
    assert load_episodes(ID) == load_episodes(path)
    assert [each.name for each in folder.iterdir() if each.is_dir()] == ["many-v0"]


def test_without_a_package_of_an_extra_the_call_says_what_to_install(
        small_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """The other extras' messages are tested where they are used."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert gentraj("sample", small_run, "--out", "a.npz", "--accelerate", "openvino") in (1, 2)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("gentraj: error: ") and "pip install 'gentraj[openvino]'" in last
