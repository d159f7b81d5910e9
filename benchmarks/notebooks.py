"""Executes the tutorials in docs/tutorials.

    python -m benchmarks.notebooks                        # as they are, and stores their outputs in them
    python -m benchmarks.notebooks --only world_model
    python -m benchmarks.notebooks --check --jobs 2       # with small sizes, and stores nothing: `make notebooks`

The cell of a notebook that is tagged "parameters" sets its sizes, and "quick" in the notebook's metadata has small ones
for the check. Each notebook runs in a folder of its own, which is deleted, or in the one that --folder names. The exit
code is 1 if a cell raises or something warns.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
COLOURS = 96  # of a stored figure
TIMEOUT = 600  # seconds for a cell with small sizes, on a machine that does other work


@dataclass(frozen=True)
class Args:
    only: tuple[str, ...] = ()
    """Names of notebooks, without .ipynb; by default all of them."""
    check: bool = False
    """Execute with small sizes, and store nothing."""
    jobs: int = 1
    """Number of notebooks at a time, each on one thread."""
    folder: Path | None = None
    """Folder to run all of them in, whose runs are kept and found again."""


def main(args: Args) -> int:
    paths = [path for path in TUTORIALS if path.stem in args.only or not args.only]
    if unknown := set(args.only) - {path.stem for path in paths}:
        raise SystemExit(f"no tutorial is called {', '.join(sorted(unknown))}; there are "
                         f"{', '.join(path.stem for path in TUTORIALS)}")
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        problems = [problem for found in pool.map(lambda path: executed(path, args), paths) for problem in found]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def executed(path: Path, args: Args) -> list[str]:
    """Executes a notebook, stores its outputs unless it is only checked, and returns what went wrong."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    notebook, began = nbformat.read(path, as_version=4), time.monotonic()
    if args.check:
        shrink(notebook)
    with nullcontext(str(args.folder.absolute())) if args.folder else TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=TIMEOUT if args.check else None, kernel_name="python3",
                                coalesce_streams=True, record_timing=False, resources={"metadata": {"path": folder}})
        try:
            client.execute(env=environment(Path(folder)))
        except (CellExecutionError, CellTimeoutError) as error:
            return [f"{path.name}: {error}"]
    print(f"{path.name}: {time.monotonic() - began:.0f} s", flush=True)
    if problems := warnings_of(notebook):
        return [f"{path.name}: {problem}" for problem in problems]
    if not args.check:
        store(notebook, path)
    return []


def environment(folder: Path) -> dict[str, str]:
    """The environment of a kernel: this checkout, one thread, and datasets of its own."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
                         "MINARI_DATASETS_PATH": str(folder / "minari")}


def shrink(notebook: Any) -> None:
    """Sets the sizes in the cell tagged "parameters" to those of the notebook's "quick"."""
    [cell] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in notebook.metadata["quick"].items())


def warnings_of(notebook: Any) -> list[str]:
    """The outputs on stderr that speak of a warning."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [out["text"] for out in outputs if out.get("name") == "stderr" and "Warning" in out["text"]]


def store(notebook: Any, path: Path) -> None:
    """Writes the notebook with its figures compressed, and without what differs between machines."""
    import nbformat

    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = compressed(output["data"]["image/png"])
    path.write_text(nbformat.writes(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def compressed(png: str) -> str:
    """The picture, in base64, with few colours."""
    from PIL import Image

    made = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(made, "PNG", optimize=True)
    return base64.b64encode(made.getvalue()).decode()


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args, description=__doc__)))
