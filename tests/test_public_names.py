"""The packages offer what users need by short names, and import it when it is first used."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("package", ["gentraj", "gentraj.agents", "gentraj.envs"])
def test_every_listed_name_is_what_its_home_calls_so(package: str) -> None:
    stub = ast.parse((ROOT / package.replace(".", "/") / "__init__.pyi").read_text())
    listed = {alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    public = importlib.import_module(package)
    assert sorted(listed) == sorted(public.__all__)
    for name, home in listed.items():
        if name != "SB3Vector":  # needs a package that is optional
            assert getattr(public, name) is getattr(importlib.import_module(f"{package}.{home}"), name)


@pytest.mark.parametrize(("code", "absent"), [
    ("from gentraj.cli import main; main(['--version']), main(['--help'])", "torch numpy tyro gymnasium matplotlib"),
    ("import gentraj.agents, gentraj.envs, gymnasium; gymnasium.spec('gentraj/WorldModel-v0')", "torch"),
    ("import gentraj.data", "minari h5py gymnasium matplotlib"),
    ("import gentraj.runs.judge.evaluation, gentraj.cli.train", "sympy scipy.stats")])
def test_what_takes_long_to_import_is_imported_only_where_it_is_used(code: str, absent: str) -> None:
    """So that the help and a script that makes environments start fast."""
    code = f"import sys; {code}; sys.exit([each for each in {absent.split()} if each in sys.modules] or 0)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_packages_called_agents_and_envs_do_not_meet_ours(tmp_path: Path) -> None:
    """One lies in the working directory, one where packages are installed."""
    folders = {"here": tmp_path / "work", "installed": tmp_path / "site-packages"}
    for where, folder in folders.items():
        for name in ("agents", "envs"):
            (folder / name).mkdir(parents=True)
            (folder / name / "__init__.py").write_text(f"place = {where!r}")
    code = ("import agents, envs; from gentraj.agents import Policy; from gentraj.envs import rollout; "
            "assert (agents.place, envs.place) == ('here', 'here')")
    run = subprocess.run([sys.executable, "-c", code], cwd=folders["here"], capture_output=True, text=True,
                         env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folders['installed']}"})
    assert run.returncode == 0, run.stderr
