"""What `gentraj data list | inspect | import` do."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from .episodes import DataError
from .minari_io import local_ids
from .minari_writer import save_minari
from .sources import load_episodes

PATIENCE = 300.0  # seconds for a file to be read; 10^6 steps take a few
CHILD = """
import sys
from gentraj.data import DataError
from gentraj.data.inspect import report
try:
    said, problems = report(sys.argv[1])
except (DataError, ImportError) as error:
    sys.exit(str(error))
print(said)
sys.exit(3 if problems else 0)
"""


def list_datasets() -> list[dict[str, Any]]:
    """One row per dataset of Minari's local folder: id, episodes, steps, megabytes, description."""
    return [{"id": key, "episodes": row.get("total_episodes"), "steps": row.get("total_steps"),
             "megabytes": row.get("dataset_size"), "description": row.get("description", "")}
            for key, row in local_ids().items()]


def import_file(file: str | Path, dataset_id: str, *, env: str | None = None, overwrite: bool = False) -> str:
    """Writes a file's episodes as a Minari dataset and returns its id. Raises `DataError`, with nothing written.

    `env` is the environment that they are of (`Episodes.env`) where the file does not say it.
    """
    file = Path(file)
    episodes = load_episodes(file)
    episodes = replace(episodes, env=env or episodes.env)
    save_minari(episodes, dataset_id, description=f"imported from {file.name}", overwrite=overwrite)
    return dataset_id


def inspect_source(source: str) -> tuple[str, bool]:
    """A report and whether it names a problem, from a child process: a damaged HDF5 file can crash or hang the C code
    that reads it."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    try:
        child = subprocess.run([sys.executable, "-c", CHILD, source], capture_output=True, text=True,  # noqa: S603
                               timeout=PATIENCE, env=os.environ | {"PYTHONPATH": path})
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{source}: not read within {PATIENCE:.0f} s; the file is damaged or very large") from error
    if child.returncode not in (0, 3):
        crash = f"{source}: reading it crashed (exit {child.returncode}); the file is damaged"
        lines = child.stderr.strip().splitlines()
        raise DataError(lines[-1] if child.returncode == 1 and lines else crash)
    return child.stdout.rstrip(), child.returncode == 3
