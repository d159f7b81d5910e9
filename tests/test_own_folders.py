"""A project may have its own `agents/` or `envs/`: gentraj works beside it, and it stays what it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOUND = "from importlib.util import find_spec; assert find_spec('{0}.{1}').origin.startswith({2!r})"
OURS = {"agents": "policies", "envs": "tasks"}


def python(folder: Path, *lines: str) -> subprocess.CompletedProcess:
    """A script of the project in `folder`."""
    (folder / "script.py").write_text("\n".join(lines))
    return subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True,
                          check=False, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize("first", ["gentraj", "theirs"])
@pytest.mark.parametrize("is_package", [True, False])
@pytest.mark.parametrize("name", OURS)
def test_a_folder_of_that_name_hides_nothing_and_is_not_hidden(tmp_path: Path, name: str, is_package: bool, first: str):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.py").write_text("x = 3")
    if is_package:
        (tmp_path / name / "__init__.py").write_text("from .mine import x")
    order = ["import gentraj", f"from {name}.mine import x"]
    own = [f"import {name}; assert {name}.x == 3"] if is_package else []
    done = python(tmp_path, *(order if first == "gentraj" else order[::-1]), *own,
                  FOUND.format(name, OURS[name], str(ROOT)))
    assert (done.returncode, done.stderr) == (0, "")


def test_training_is_there_beside_own_agents_and_envs(tmp_path: Path):
    for name in OURS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("own = True")
    done = python(tmp_path, "import gentraj; gentraj.train; gentraj.PRESETS", "import agents, envs",
                  "assert agents.own and envs.own", "from agents.policies.policy import Policy",
                  "import envs.worlds, gymnasium; gymnasium.spec('gentraj/WorldModel-v0')")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_module_of_that_name_hides_nothing(tmp_path: Path):
    (tmp_path / "agents.py").write_text("own = True")
    done = python(tmp_path, "import gentraj, agents; assert agents.own", FOUND.format("agents", "mpc", str(ROOT)))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_module_that_both_have_is_a_warning_of_one_line(tmp_path: Path):
    (tmp_path / "agents").mkdir()
    for file in ("__init__", "mpc"):
        (tmp_path / "agents" / f"{file}.py").touch()
    done = python(tmp_path, "import gentraj, agents", FOUND.format("agents", "mpc", str(ROOT)))
    assert done.returncode == 0
    assert f"UserWarning: {tmp_path}/agents hides gentraj's folder of the same name, and both have mpc" in done.stderr
    done = python(tmp_path, "import agents.mpc, gentraj")
    last = done.stderr.splitlines()[-1]
    assert last == f"ImportError: {tmp_path}/agents/mpc.py hides gentraj's own module agents.mpc; rename yours"
