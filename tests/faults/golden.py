"""What the user reads after a bad input, all in one file: messages.txt, which `python -m tests.faults.golden --write`
writes and a test compares. Read it aloud after a change: each message says what was given, what was expected, what to
do. What the parsers of the options and other libraries say is not in it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))  # as pytest does
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", MINARI_DATASETS_PATH=tempfile.mkdtemp())

import torch
from bad_input import DATASETS, HARMS, SECTIONS, names
from fixtures import DATA, PRESENT

from gentraj import cli
from gentraj.training.checkpoint import FORMAT_VERSION

MESSAGES = Path(__file__).with_name("messages.txt")
RUNS = {"planner": "flow", "maze": "goals", "policy": "iql", "world": "world-model", "student": "reflow"}
ACCEPTED = "NO BAD INPUT: it was accepted"
VARYING = {re.escape(torch.__version__): "TORCH", r"has format \d+ and": "has format M and",
           rf"format {FORMAT_VERSION}\b": "format N", r"line \d+ column \d+ \(char \d+\)": "(WHERE)",
           r"process \d+": "process PID", r"from 1 to \d{5,}": "from 1 to MOST",
           r"\(Unable to .*\)\)": "(WHAT HDF5 SAYS)"}


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A working directory with a run of some kinds, a folder, a file, good data and bad data."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name).resolve()
        for run, kind in RUNS.items():
            shutil.copytree(PRESENT / kind, folder / run)
        shutil.copy(PRESENT / DATA, folder / "data.npz")
        shutil.copy(PRESENT / DATA, folder / DATA)
        (folder / "file").touch()
        (folder / "folder").mkdir()
        for data, (_, make) in DATASETS.items():
            make(folder / data)
        yield folder


def said(words: list[str]) -> str:
    """What the command writes to the terminal, without progress."""
    with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
        code = cli.main(words)
    lines = [line for line in errors.getvalue().splitlines() if line and "it/s" not in line and "00:00" not in line]
    return "\n".join(lines) if code else ACCEPTED


def raised(code: str, scope: Mapping[str, object]) -> str:
    """What a line of Python raises, which stands literally in bad_input.py."""
    try:
        eval(code, dict(scope))  # noqa: S307
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ACCEPTED


def entry(case: str | tuple[str, str], folder: Path, scope: Mapping[str, object]) -> str:
    """A command or a line of Python, and what the user reads then. A harm is done to the run `broken` before it."""
    harm, line = ("", case) if isinstance(case, str) else case
    shown = [f"# {harm}"] if harm else [f"# {about}" for name, (about, _) in DATASETS.items() if name in line]
    if harm:
        kind, change = HARMS[harm]
        shutil.copytree(PRESENT / kind, folder / "broken")
        change(folder / "broken")
    if line.startswith("gentraj "):
        found = [f"$ {line}", said(line.split()[1:])]
    else:
        found = [f">>> {line}", raised(line, scope)]
    shutil.rmtree(folder / "broken", ignore_errors=True)
    text = "\n".join([*shown, *found]).replace(f"{folder}/", "").replace(str(folder), ".")
    for pattern, name in VARYING.items():
        text = re.sub(pattern, name, text)
    return text


def messages() -> str:
    """The text of messages.txt."""
    parts = []
    with workplace() as folder, warnings.catch_warnings(action="ignore"):
        scope = names(folder)
        for title, cases in SECTIONS.items():
            parts += [f"== {title}", *(entry(case, folder, scope) for case in cases)]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    torch.set_num_threads(1)
    found = messages()
    if sys.argv[1:] == ["--write"]:
        MESSAGES.write_text(found)
        return 0
    print(found)
    return found != MESSAGES.read_text()


if __name__ == "__main__":
    sys.exit(main())
