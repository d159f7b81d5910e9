"""FAULTS 18 and 19: an import that was killed, and packages of extras that are not installed."""

from __future__ import annotations

import os
import signal
import subprocess
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

ROOT = Path(__file__).parents[2]
ID = "mine/many-v0"


def many_episodes(number: int = 150) -> Episodes:
    one = tiny_episodes()
    return replace(one, obs=np.tile(one.obs, (number, 1)), act=np.tile(one.act, (number, 1)),
                   reward=np.tile(one.reward, number), terminated=np.tile(one.terminated, number),
                   truncated=np.tile(one.truncated, number), lengths=np.tile(one.lengths, number))


def test_18_an_import_that_was_killed_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By SIGKILL, while it writes."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    path, folder = save_npz(many_episodes(), tmp_path / "many.npz"), tmp_path / "minari" / "mine"
    process = Forked(gentraj, "data", "import", path, "--id", ID)
    while not list(folder.glob("tmp-*/data/main_data.hdf5")):  # the test's own time limit ends it
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.close()
    assert not (folder / "many-v0").exists() and list(folder.glob("tmp-*"))
    assert gentraj("data", "import", path, "--id", ID) == 0
    assert load_episodes(ID) == load_episodes(path)
    assert [each.name for each in folder.iterdir() if each.is_dir()] == ["many-v0"]


BLOCKED = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] == {package!r} else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Without, sys.meta_path)
import gentraj, agents, envs
from gentraj.cli import main
sys.exit(main({words!r}))
"""


@pytest.mark.parametrize(("package", "words", "message"), [
    ("onnx", ["export", "RUN", "--out", "a.onnx"], "ONNX needs the extra onnx: pip install 'gentraj[onnx]'"),
    ("openvino", ["sample", "RUN", "--out", "a.npz", "--accelerate", "openvino"],
     "OpenVINO is not installed; pip install 'gentraj[openvino]'"),
])
def test_19_without_a_package_of_an_extra_the_call_says_what_to_install(tmp_path: Path, package: str, words: list[str],
                                                                        message: str) -> None:
    """And gentraj, agents and envs can be imported. The other extras' messages are tested where they are used."""
    run = str(Path(__file__).with_name("format-3") / "flow")
    code = BLOCKED.format(package=package, words=[run if word == "RUN" else word for word in words])
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
                           env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert child.returncode in (1, 2), child.stderr
    last = child.stderr.splitlines()[-1]
    assert last.startswith("gentraj: error: ") and message in last and "Traceback" not in child.stderr
