"""The `gentraj` command: it alone sees everything. Each command is a file beside this one."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version

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

`gentraj COMMAND --help` shows the options and an example.
Exit codes: 0 done, 1 failed on the way, 2 bad input, 130 or 143 stopped by Ctrl-C or SIGTERM (a training is saved)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code that `--help` promises. GENTRAJ_TRACEBACK=1 lets errors through."""
    words = list(sys.argv[1:] if argv is None else argv)
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
    """Everything that can go wrong, as one line and a code."""
    from ..training.checkpoint import CheckpointError, NothingSaved, RunLocked
    from ..training.loop import Interrupted, TrainingStopped

    try:
        return _run(words)
    except Interrupted as error:
        return _fail(error.exit_code, str(error))
    except BrokenPipeError:
        raise
    except (NothingSaved, RunLocked, ValueError, FileNotFoundError, ImportError) as error:
        return _fail(2, str(error))
    except (CheckpointError, TrainingStopped, OSError, RuntimeError) as error:
        return _fail(1, str(error))


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if words else 2
    if words[0] == "--version":
        print(version("gentraj"))
        return 0
    commands = _commands()
    if words[0] not in commands:
        near = difflib.get_close_matches(words[0], commands, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(commands)}"
        return _fail(2, f"unknown command '{words[0]}'; {hint}")
    try:
        commands[words[0]](words[1:])
    except SystemExit as stop:  # tyro's, after --help (0) and after a message about the options (2)
        return stop.code if isinstance(stop.code, int) else 0
    return 0


def _fail(code: int, message: str) -> int:
    print(f"gentraj: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _commands() -> dict[str, Callable[[list[str]], None]]:
    from . import (
        ablate,
        augment,
        compare,
        data,
        demo,
        evaluate,
        export,
        finetune,
        measure,
        report,
        reproduce,
        sample,
        train,
    )

    return {"demo": demo.main, "data": data.main, "train": train.main, "finetune": finetune.main, "sample": sample.main,
            "augment": augment.main, "evaluate": evaluate.main, "export": export.main, "measure": measure.main,
            "report": report.main, "compare": compare.main, "ablate": ablate.main, "reproduce": reproduce.main}
