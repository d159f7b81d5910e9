"""An import that was killed."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from forked import Forked
from small import gentraj
from tiny import tiny_episodes

from gentraj.data import concatenate, load_episodes, save_npz

ID = "mine/many-v0"


def test_an_import_that_was_killed_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By SIGKILL, while it writes."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    path, folder = save_npz(concatenate([tiny_episodes()] * 150), tmp_path / "many.npz"), tmp_path / "minari" / "mine"
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
