"""An import that was killed, and packages of extras that are not installed."""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

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


class Without:
    """A finder of modules that does not find those of a package."""

    def __init__(self, finder: Any, package: str):
        self.finder, self.package = finder, package

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return None if name.partition(".")[0] == self.package else self.finder.find_spec(name, path, target)


def without(package: str, *words: str) -> int:
    """The command where a package is not installed."""
    assert {"gentraj", "gentraj.agents", "gentraj.envs"} <= sys.modules.keys() and package not in sys.modules
    sys.meta_path[:] = [Without(finder, package) for finder in sys.meta_path]
    return gentraj(*words)


@pytest.mark.parametrize(("package", "words", "message"), [
    ("onnx", ["export", "RUN", "--out", "a.onnx"], "ONNX needs the extra onnx: pip install 'gentraj[onnx]'"),
    ("openvino", ["sample", "RUN", "--out", "a.npz", "--accelerate", "openvino"],
     "OpenVINO is not installed; pip install 'gentraj[openvino]'"),
])
def test_without_a_package_of_an_extra_the_call_says_what_to_install(package: str, words: list[str], message: str,
                                                                        small_run: Path) -> None:
    """And gentraj, agents and envs are imported without it. The other extras' messages are tested where they are
    used."""
    with Forked(without, package, *(str(small_run) if word == "RUN" else word for word in words)) as process:
        _, said = process.communicate()
        assert process.returncode in (1, 2), said
    last = said.splitlines()[-1]
    assert last.startswith("gentraj: error: ") and message in last and "Traceback" not in said
