"""The `gentraj` command: it alone sees everything. Each command is a file beside this one."""

from __future__ import annotations

import difflib
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from .environments import is_script_run_again, read_environments, refuse_script

# Before torch: threads that spin for long starve a shared machine, threads that never spin are slow on a free one.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

USAGE = """usage: gentraj COMMAND [options]

Generative models of trajectories for control.

  gentraj demo                                 the whole way on PointMaze-UMaze: data, training, score, report
  gentraj data list|inspect|import|make        offline datasets
  gentraj train PRESET [--run-dir DIR]         train a planner, a policy or a world model; --resume DIR goes on
  gentraj finetune RUN --run-dir DIR           a policy goes on learning in its environment
  gentraj sample RUN --out FILE                trajectories of a planner's model, actions of a policy's
  gentraj augment DATASET --model RUN          the dataset, and what a world model imagines from there
  gentraj evaluate RUN                         the closed-loop score in the run's environment
  gentraj measure RUN [--dataset ID]           how good its trajectories are, beside data
  gentraj report RUN                           figures and one self-contained page
  gentraj compare PRESET... | --runs DIR...    families of models side by side: stability, quality, speed, control
  gentraj ablate PRESET --vary KEY=V1,V2...    the table of one-setting changes
  gentraj export RUN --out FILE.onnx           one decision as a program that needs no gentraj
  gentraj reproduce CARD...                    trains and scores what cards say, and writes the table of results

`gentraj COMMAND --help` shows the options and an example. Each takes --import MODULE too: a module of yours that
registers environments (of the working directory or installed); --env-id MODULE:Id does the same. Beside --env-id,
--env-kwargs KEY=VALUE... gives the environment arguments.
Exit codes: 0 done, 1 failed on the way, 2 bad input, 130 or 143 stopped by Ctrl-C or SIGTERM (a training is saved)."""

COMMANDS = ("demo", "data", "train", "finetune", "sample", "augment", "evaluate", "export", "measure", "report",
            "compare", "ablate", "reproduce")  # each is the module of its name, imported when it is asked for


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code that `--help` promises. GENTRAJ_TRACEBACK=1 lets errors through."""
    words = list(sys.argv[1:] if argv is None else argv)
    if is_script_run_again():
        return _fail(2, refuse_script())
    warnings.showwarning = lambda message, *_: print(f"gentraj: {message}", file=sys.stderr)
    try:
        code = _run(words) if os.environ.get("GENTRAJ_TRACEBACK") else _guarded(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _fail(130, "stopped by Ctrl-C")
    except BrokenPipeError:  # nobody reads any more: `gentraj ... | head`. Python would complain at its exit
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        return 0


def _guarded(words: list[str]) -> int:
    """Everything that can go wrong, as one line and a code; a bug as two lines and a file that holds its traceback."""
    try:
        return _run(words)
    except BrokenPipeError:
        raise
    except Exception as error:
        code = _code(error)
        return _bug(error, words) if code is None else _fail(code, str(error) or type(error).__name__)


def _code(error: Exception) -> int | None:
    """The exit code of what was foreseen; None for a bug."""
    from ..training.checkpoint import CheckpointError, NothingSaved, RunLocked  # here: they bring torch
    from ..training.loop import Interrupted, TrainingStopped

    if isinstance(error, Interrupted):
        return error.exit_code
    if isinstance(error, (NothingSaved, RunLocked, ValueError, FileNotFoundError, ImportError)):
        return 2
    return 1 if isinstance(error, (CheckpointError, TrainingStopped, OSError, RuntimeError, MemoryError)) else None


def _bug(error: Exception, words: list[str]) -> int:
    """Two lines: what and where, and which file holds the rest, to be sent with a report."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(f"{type(error).__name__}: {error}".split())
    _fail(1, f"{said} ({last.filename}:{last.lineno}); this is a bug, in gentraj or in code of yours that it called")
    about = f"gentraj {version('gentraj')}, Python {sys.version}\ncommand: gentraj {' '.join(words)}\n\n"
    try:
        handle, name = tempfile.mkstemp(prefix="gentraj-bug-", suffix=".log")
        os.close(handle)
        Path(name).write_text(about + "".join(traceback.format_exception(error)), encoding="utf-8")
        print(f"gentraj: the traceback is in {name}; send it along when you report this", file=sys.stderr)
    except OSError as full:
        print(f"gentraj: no log could be written ({full.strerror}); GENTRAJ_TRACEBACK=1 shows the traceback",
              file=sys.stderr)
    return 1


def _run(words: list[str]) -> int:
    words = read_environments(words)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if words else 2
    if words[0] == "--version":
        print(version("gentraj"))
        return 0
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(COMMANDS)}"
        return _fail(2, f"unknown command '{words[0]}'; {hint}")
    try:
        _command(words[0])(words[1:])
    except SystemExit as stop:  # tyro's, after --help (0) and after a message about the options (2)
        return _fail(1, stop.code) if isinstance(stop.code, str) else stop.code or 0
    return 0


def _fail(code: int, message: str) -> int:
    print(f"gentraj: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _command(name: str) -> Callable[[list[str]], None]:
    return import_module(f".{name}", __name__).main
