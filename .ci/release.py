"""Builds the sdist and the wheel, and tries the wheel in an empty environment. Nothing is downloaded.

    python .ci/release.py

The environment holds the wheel and links to the packages that gentraj's dependencies name, out of the packages of the
Python that runs this script: no extra, no tool, and no module of the source tree. The exit code is 1 if something
fails, and the last line says what.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
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


class ReleaseError(Exception):
    """Something that must be mended before a release."""


def call(*command: object, cwd: Path, **environment: str) -> str:
    """Runs a command without the source tree and without a network; returns its stdout. Raises ReleaseError."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, env=env | environment)
    if done.returncode:
        raise ReleaseError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def build(source: Path, out: Path, kind: str) -> Path:
    """Builds a "wheel" or an "sdist" of a source tree with the hatchling that is installed."""
    call(sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", out, source, cwd=out.parent)
    built, = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def tracked_files() -> set[str] | None:
    """The files that git tracks; None, with a line, where git cannot say or there are other files beside them."""
    try:
        if call("git", "status", "--porcelain", cwd=ROOT):
            raise ReleaseError("there are changes that are not committed")
        return set(call("git", "ls-files", cwd=ROOT).split("\n")) - {""}
    except (ReleaseError, OSError) as error:
        print(f"release: the files of sdist and wheel are not compared with git's: {str(error).splitlines()[0]}")
        return None


def check_sdist(sdist: Path, tracked: set[str] | None, folder: Path) -> Path:
    """Checks that the sdist holds every file that git tracks but the links, and returns where it was unpacked."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    tree, = folder.iterdir()
    found = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    if tracked is not None and (different := sorted(found - {"PKG-INFO"} ^ tracked - LINKS)):
        raise ReleaseError(f"sdist and `git ls-files` differ by {len(different)} files: {', '.join(different[:9])}")
    return tree


def in_wheel(name: str) -> str | None:
    """Where the wheel has a tracked file: agents and envs, to which gentraj has links, are packages in gentraj."""
    folder = name.split("/")[0]
    if folder in ("agents", "envs"):
        return f"gentraj/{name}"
    return name if folder == "gentraj" and name not in LINKS else None


def check_wheel(wheel: Path, again: Path, tracked: set[str] | None) -> None:
    """Checks that the wheel holds the packages' tracked files, and that the sdist builds it byte for byte."""
    if wheel.read_bytes() != again.read_bytes():
        raise ReleaseError(f"the sdist builds another {wheel.name} than the source tree")
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    of_packages = found if tracked is None else {in_wheel(name) for name in tracked} - {None}
    if different := sorted(map(str, found ^ of_packages)):
        raise ReleaseError(f"wheel and `git ls-files` differ by {len(different)} files: {', '.join(different[:9])}")


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
            yield (found := distribution(one.name))
            todo += [(each, key[1]) for each in found.requires or []]


def link_packages(distributions: Iterator[Distribution], folder: Path) -> None:
    """Links what these distributions installed, by the first folder or file of each path."""
    for each in distributions:
        for name in {path.parts[0] for path in each.files or [] if path.parts[0] not in ("..", "__pycache__")}:
            target = folder / name
            if not target.is_symlink() and not target.exists() and not name.endswith(".pth"):
                target.symlink_to(Path(str(each.locate_file(name))).resolve())


def install(wheel: Path, requirements: list[str], folder: Path) -> Path:
    """Makes an environment of the wheel and links to what it requires, and returns its folder of programs."""
    venv.create(folder, symlinks=True)
    programs = folder / "bin"
    call(sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet", "--no-deps", "--no-index",
         wheel, cwd=folder)
    packages, = folder.glob("lib/python*/site-packages")
    link_packages(required(requirements), packages)
    return programs


def try_wheel(programs: Path, version: str, work: Path) -> None:
    """Uses the installed wheel as somebody does who has only read the README."""
    home = {"HOME": str(work), "MINARI_DATASETS_PATH": str(work / "minari"), "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1", "MUJOCO_GL": os.environ.get("MUJOCO_GL", "disabled")}
    gentraj = programs / "gentraj"
    if (said := call(gentraj, "--version", cwd=work, **home).strip()) != version:
        raise ReleaseError(f"`gentraj --version` says {said}, and pyproject.toml {version}")
    if not (said := call(gentraj, "--help", cwd=work, **home)).startswith("usage: gentraj"):
        raise ReleaseError(f"`gentraj --help` begins with {said[:80]!r}")
    places = call(programs / "python", "-c", IMPORTS, cwd=work, **home).split()
    if outside := [place for place in places if not Path(place).is_relative_to(programs.parent)]:
        raise ReleaseError(f"imported from outside the environment: {', '.join(outside)}")
    call(gentraj, "data", "make", "pointmaze-umaze", "--steps", "2000", cwd=work, **home)
    call(gentraj, "train", "pointmaze-umaze", "--steps", "4", "--run-dir", "run", *SMALL, cwd=work, **home)
    call(gentraj, "evaluate", "run", "--episodes", "2", cwd=work, **home)
    scores = json.loads((work / "run" / "evaluation.json").read_text())
    if scores["episodes"] != 2:
        raise ReleaseError(f"evaluation.json has {scores['episodes']} episodes instead of 2")


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    try:
        tracked = tracked_files()
        with tempfile.TemporaryDirectory(prefix="gentraj-release-") as name:
            folder = Path(name)
            for each in ("dist", "again", "sdist", "work"):
                (folder / each).mkdir()
            tree = check_sdist(build(ROOT, folder / "dist", "sdist"), tracked, folder / "sdist")
            wheel = build(ROOT, folder / "dist", "wheel")
            check_wheel(wheel, build(tree, folder / "again", "wheel"), tracked)
            try_wheel(install(wheel, project["dependencies"], folder / "env"), project["version"], folder / "work")
    except ReleaseError as error:
        print(f"release: {error}")
        return 1
    print(f"release: {wheel.name} trains and evaluates with its requirements alone, and the sdist builds it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
