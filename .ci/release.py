"""Builds the sdist, the wheel from it, and tries the wheel in an empty environment. Nothing is downloaded.

    python .ci/release.py

The environment holds the wheel and links to the packages that gentraj's dependencies name, out of the packages of the
Python that runs this script: no extra, no tool, and no module of the source tree. Fails with what a command said.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("gentraj", "gentraj.agents", "gentraj.envs")
LINKS = {"gentraj/agents", "gentraj/envs"}  # to the folders beside gentraj, for those who run from a clone
SMALL = ("--model.network.width", "8", "--inverse.width", "16", "--arrival.width", "16", "--planner.steps", "1")
IMPORTS = f"import {', '.join(PACKAGES)}; print(*(m.__file__ for m in ({', '.join(PACKAGES)})), sep='\\n')"


def call(*command: object, cwd: Path, **environment: str) -> str:
    """Runs a command without the source tree, and returns its stdout. Ends the script if it fails."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, env=env | environment)
    if done.returncode:
        sys.exit(f"release: {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def check_wheel(wheel: Path) -> None:
    """Checks that the wheel holds the tracked files of the packages, where git can name them, and no others."""
    tracked = subprocess.run(["git", "ls-files", "gentraj", "agents", "envs"], cwd=ROOT, capture_output=True, text=True,
                             check=False).stdout.split()
    expected = {name if name.startswith("gentraj/") else f"gentraj/{name}" for name in tracked} - LINKS
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    if tracked and found != expected:
        sys.exit(f"release: wheel and `git ls-files` differ: {', '.join(sorted(found ^ expected)[:9])}")


def required(requirements: list[str], extras: frozenset[str] = frozenset()) -> Iterator[Distribution]:
    """The distributions that requirements name, those that these require, and so on; each once."""
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [(requirement, extras) for requirement in requirements]
    while todo:
        text, wanted = todo.pop()
        one = Requirement(text)
        if one.marker and not any(one.marker.evaluate({"extra": extra}) for extra in wanted or {""}):
            continue
        key = one.name.lower(), frozenset(one.extras)
        if key not in seen:
            seen.add(key)
            found = distribution(one.name)
            yield found
            todo += [(each, key[1]) for each in found.requires or []]


def install(wheel: Path, requirements: list[str], folder: Path) -> Path:
    """Makes an environment of the wheel and links to what it requires, and returns its folder of programs."""
    venv.create(folder, symlinks=True)
    programs = folder / "bin"
    call(sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet", "--no-deps", "--no-index",
         wheel, cwd=folder)
    packages, = folder.glob("lib/python*/site-packages")
    for each in required(requirements):
        for name in {path.parts[0] for path in each.files or []} - {"..", "__pycache__"}:
            target = packages / name
            if not target.is_symlink() and not target.exists() and not name.endswith(".pth"):
                target.symlink_to(Path(str(each.locate_file(name))).resolve())
    return programs


def try_wheel(programs: Path, version: str, work: Path) -> None:
    """Uses the installed wheel as somebody does who has only read the README."""
    home = {"HOME": str(work), "MINARI_DATASETS_PATH": str(work / "minari"), "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1", "MUJOCO_GL": os.environ.get("MUJOCO_GL", "disabled")}
    gentraj = programs / "gentraj"
    said = call(gentraj, "--version", cwd=work, **home).strip()
    if said != version:
        sys.exit(f"release: `gentraj --version` says {said}, and pyproject.toml {version}")
    places = call(programs / "python", "-c", IMPORTS, cwd=work, **home).split()
    if not all(Path(place).is_relative_to(programs.parent) for place in places):
        sys.exit(f"release: imported from outside the environment: {', '.join(places)}")
    call(gentraj, "evaluate", "zoo:pointmaze-umaze", "--episodes", "2", cwd=work, **home)
    call(gentraj, "data", "make", "pointmaze-umaze", "--steps", "2000", cwd=work, **home)
    call(gentraj, "train", "pointmaze-umaze", "--steps", "4", "--run-dir", "run", *SMALL, cwd=work, **home)
    call(gentraj, "evaluate", "run", "--episodes", "2", cwd=work, **home)
    scores = json.loads((work / "run" / "evaluation.json").read_text())
    if scores["episodes"] != 2:
        sys.exit(f"release: evaluation.json has {scores['episodes']} episodes instead of 2")


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with tempfile.TemporaryDirectory(prefix="gentraj-release-") as name:
        folder = Path(name)
        (folder / "work").mkdir()
        call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ROOT, cwd=folder)
        wheel, = (folder / "dist").glob("*.whl")
        check_wheel(wheel)
        try_wheel(install(wheel, project["dependencies"], folder / "env"), project["version"], folder / "work")
    print(f"release: {wheel.name} trains and evaluates with its requirements alone")


if __name__ == "__main__":
    main()
