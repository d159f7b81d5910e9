"""Do the tests notice when the mathematics changes? Mutants of the core, each run against the tests of its module.

    python -m benchmarks.mutation                  # all modules, by hand before a release: some hours
    python -m benchmarks.mutation samplers paths --number 10

cosmic-ray (extra `mutation`) makes the mutants in a copy of the working tree: another operator, number or comparison, a
loop or decorator less. Mutants that no test notices are printed. The exit code is 1 if there are any.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

ROOT = Path(__file__).parents[1]
COPIED = ("gentraj", "agents", "envs", "benchmarks", "tests", "pyproject.toml")
TARGETS = {
    "gentraj/trajectory.py": ("tests/test_trajectory.py",),
    "gentraj/normalize.py": ("tests/test_normalize.py",),
    "gentraj/models/conditioning.py": ("tests/models",),
    "gentraj/diffusion/samplers.py": ("tests/diffusion",),
    "gentraj/diffusion/paths.py": ("tests/diffusion/test_paths.py",),
    "gentraj/diffusion/guidance.py": ("tests/diffusion",),
    "gentraj/diffusion/likelihood.py": ("tests/diffusion/test_likelihood.py",),
    "gentraj/training/checkpoint.py": ("tests/training/test_checkpoint.py", "tests/faults/test_checkpoint_faults.py"),
    "gentraj/data/windows.py": ("tests/data",),
    "agents/policies/critic.py": ("tests/agents/policies",),
    "agents/policies/policy.py": ("tests/agents/policies",),
}
"""Modules, and the tests that ought to notice when they change."""


@dataclass(frozen=True)
class Args:
    modules: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Names of modules without .py, such as samplers; by default all."""
    number: int = 37
    """Mutants of each module, drawn at random."""
    seed: int = 0
    seconds: float = 300.0
    """The longest that the tests of a mutant may take. One that takes longer counts as noticed."""


def survivors(module: str, tests: tuple[str, ...], args: Args, tree: Path) -> list[str]:
    """Runs mutants of a module in the copied tree, prints their outcomes, and returns the changes nobody noticed."""
    from cosmic_ray.work_db import use_db
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    settings: dict[str, Any] = {"module-path": module, "timeout": args.seconds, "excluded-modules": [],
                                "test-command": " ".join(command)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    sections = ["[cosmic-ray]", *lines, "[cosmic-ray.distributor]", 'name = "local"']
    (tree / "mutation.toml").write_text("\n".join(sections))
    session = tree / "session.sqlite"
    session.unlink(missing_ok=True)
    cosmic_ray("baseline", "mutation.toml", tree=tree)
    cosmic_ray("init", "mutation.toml", session.name, tree=tree)
    with use_db(session) as database:
        items = sorted(database.pending_work_items, key=lambda item: str(item.mutations))
        left_out = random.Random(args.seed).sample(items, max(0, len(items) - args.number))
        for item in left_out:
            database.set_result(item.job_id, WorkResult(WorkerOutcome.SKIPPED))
    cosmic_ray("exec", "mutation.toml", session.name, tree=tree)
    with use_db(session) as database:
        results = [result for _, result in database.completed_work_items if result.test_outcome is not None]
    outcomes = Counter(str(result.test_outcome.value) for result in results)
    print(f"{module}: {len(results)} mutants, {dict(outcomes)}", flush=True)
    return [result.diff or "" for result in results if result.test_outcome.value == "survived"]


def cosmic_ray(*words: str, tree: Path) -> None:
    """Runs a command of cosmic-ray in the tree; raises CalledProcessError if it fails."""
    subprocess.run([sys.executable, "-m", "cosmic_ray.cli", *words], cwd=tree, check=True)


def main(args: Args) -> int:
    names = args.modules or [Path(module).stem for module in TARGETS]
    chosen = {module: tests for module, tests in TARGETS.items() if Path(module).stem in names}
    if len(chosen) < len(args.modules):
        known = ", ".join(Path(module).stem for module in TARGETS)
        raise SystemExit(f"{', '.join(args.modules)} are not all known; known: {known}")
    found = []
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        tree = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / name)
        for module, tests in chosen.items():
            found += survivors(module, tests, args, tree)
    print("\n".join(found))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args, description=__doc__)))
