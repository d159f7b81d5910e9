"""The `gentraj` command. A subcommand is a function of a module of this package and a line of `COMMANDS`."""

from __future__ import annotations

import difflib
import os
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from io import TextIOWrapper
from pkgutil import resolve_name
from typing import TextIO

# Set before torch is imported: threads that spin for long starve a shared machine, threads that never spin are slow.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

USAGE = """usage: gentraj COMMAND [options]

Generative models of trajectories for control.

To begin:
  gentraj studio                               drag the goal of a trained planner in a browser
  gentraj zoo                                  list the trained runs that come along: zoo:NAME is such a RUN
  gentraj demo                                 record data, train, evaluate and report on PointMaze-UMaze, in minutes

Datasets:
  gentraj data list|inspect|import|export|make list, inspect, import, export or record offline datasets
  gentraj augment DATASET --model RUN          add rollouts of a world model to a dataset

Training (a RUN is the folder that a training writes):
  gentraj train PRESET [--run-dir DIR]         train a planner, a policy or a world model; --resume DIR continues
  gentraj finetune RUN --run-dir DIR           make a policy or a planner better by what it plays in its environment
  gentraj steer RUN --run-dir DIR              train an actor over the noise of a frozen policy or planner
  gentraj distill RUN --method M --run-dir DIR train a student that decides much faster than the run

Using a run:
  gentraj evaluate RUN                         score the run in closed loop in its environment
  gentraj judge RUN                            compare the predictions of a world model with held-out data
  gentraj choose RUN                           rank the checkpoints of a run without a simulator, and take the best
  gentraj studio RUN...                        see plans in a browser while you drag start and goal
  gentraj report RUN                           draw figures and write one self-contained HTML page
  gentraj sample RUN --out FILE                sample trajectories of a planner's model or actions of a policy's
  gentraj measure RUN [--dataset ID]           measure how close sampled trajectories are to data
  gentraj export RUN --out FILE.onnx           write one decision as a program that runs without gentraj
  gentraj hub push RUN OWNER/NAME              push a run to the Hugging Face hub; `hub pull OWNER/NAME DIR` fetches it

Experiments with many runs:
  gentraj compare RUN...                       compare runs: returns, quality of samples, speed, likelihood
  gentraj sweep PRESET --over KEY=V1,V2...     try many combinations of settings and write a table, best first
  gentraj reproduce CARD...                    train and score what result cards describe, and write a table

`gentraj COMMAND --help` shows the options and examples; `gentraj train --help` lists the presets. Every command also
takes --import MODULE, a module of yours that registers environments (installed, or in the working directory), and
--env-id MODULE:Id does the same. --env-kwargs KEY=VALUE... passes arguments to the environment of --env-id.
Exit codes: 0 done, 1 failed on the way, 2 bad input, 130 or 143 stopped by Ctrl-C or SIGTERM (a training is saved)."""

COMMANDS = {
    "demo": "demo:Demo", "zoo": "zoo:Zoo", "data list": "data:List", "data inspect": "data:Inspect",
    "data import": "data:Import", "data export": "data:Export", "data make": "data:Make", "train": "train:Train",
    "finetune": "finetune:Finetune", "distill": "distill:Distill", "steer": "steer:Steer", "sample": "using:Sample",
    "augment": "using:Augment", "evaluate": "evaluate:Evaluate", "judge": "judge:Judge", "choose": "choose:Choose",
    "hub push": "using:Push", "hub pull": "using:Pull", "export": "using:Export", "measure": "using:Measure",
    "studio": "studio:Studio", "report": "using:Report", "compare": "experiments:Compare", "sweep": "experiments:Sweep",
    "reproduce": "experiments:Reproduce",
}
"""The class of each command, MODULE:CLASS of this package; its module is imported when the command runs."""


SAME = ("arrival", "by", "context", "cut_gaps", "dataset", "goal", "held_out", "history", "horizon", "joint",
        "method", "network", "num", "out", "overwrite", "past_actions", "resume", "rounds", "start", "step", "stride",
        "terminated", "video")
OPTIONS = {name: f"--{name.replace('_', '-')}" for name in SAME} | {
    "env": "--env-id", "folders": "--data", "max_episode_steps": "--env-kwargs max_episode_steps=", "path": "--out",
    "training.eval_every": "--eval-every", "training.steps": "--steps"}
"""The options of the arguments of Python that messages name as `env=`. Settings have their dotted keys."""
ARGUMENT = re.compile(rf"(?<![-\w./(])({'|'.join(map(re.escape, OPTIONS))}|[a-z_]+(?:\.[a-z_]+)+)=([^\s;,)]*)")

FACTORY = re.compile(r"environment_factory\('[^']*', (\w+=\w+)\)")


def in_options(message: str) -> str:
    """A message in the words of the command line: `env=` is --env-id, `joint=True` is --joint and `model.width=8` is
    --model.width 8."""
    def option(found: re.Match[str]) -> str:
        name, value = found.groups()
        known = OPTIONS.get(name, f"--{name.replace('_', '-')}")
        if value == "True" or known.endswith("="):
            return known + value.removeprefix("True")
        return f"{known} {value}".rstrip()

    message = message.replace("as by env=MODULE:ID", "by --import MODULE or --env-id MODULE:ID")
    return ARGUMENT.sub(option, FACTORY.sub(r"\1", message))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code, which `gentraj --help` explains.

    Expected errors become one line on stderr, unless the environment variable GENTRAJ_TRACEBACK is set: then they are
    raised, as a bug always is.
    """
    warnings.showwarning = lambda message, *_: _tell(f"gentraj: {in_options(str(message))}")
    if isinstance(sys.stdout, TextIOWrapper):
        with suppress(OSError):  # a file whose number is that of a pipe by now has no position
            sys.stdout.reconfigure(errors="backslashreplace")  # for letters of a path that its encoding lacks
    code = _run(list(sys.argv[1:] if argv is None else argv))
    try:
        sys.stdout.flush()
    except OSError as error:
        _discard(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            return code or _fail(1, f"stdout: cannot be written: {error.strerror}")
    return code


def _run(words: list[str]) -> int:
    """Runs the command and returns its exit code."""
    try:
        _call(words)
    except SystemExit as stop:
        return _fail(1, stop.code) if isinstance(stop.code, str) else stop.code or 0
    except KeyboardInterrupt:
        return _fail(130, "stopped by Ctrl-C")
    except BrokenPipeError:  # the reader has left, as in `gentraj ... | head`
        _discard(sys.stdout, sys.stderr)
    except Exception as error:
        code = _code(error)
        if code is None or os.environ.get("GENTRAJ_TRACEBACK"):
            raise
        where = "; GENTRAJ_TRACEBACK=1 shows where" if type(error) is RuntimeError else ""  # perhaps one of torch
        return _fail(code, f"{str(error) or type(error).__name__}{where}")
    return 0


def _discard(*streams: TextIO) -> None:
    """Sends what is still to be printed nowhere: Python would complain of it when it exits."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(null, stream.fileno())
    os.close(null)


def _tell(line: str) -> None:
    with suppress(OSError):  # a full disk
        print(line, file=sys.stderr)


def _code(error: Exception) -> int | None:
    """The exit code of an expected error; None for a bug."""
    from ..training.checkpoint import CheckpointError, NothingSaved, RunLocked  # imported here as they import torch
    from ..training.loop import Interrupted, TrainingStopped

    if isinstance(error, Interrupted):
        return error.exit_code
    if isinstance(error, (NothingSaved, RunLocked, ValueError, FileNotFoundError, ImportError)):
        return 2
    return 1 if isinstance(error, (CheckpointError, TrainingStopped, OSError, RuntimeError, MemoryError)) else None


def _call(words: list[str]) -> None:
    """Does what the first words name. Raises SystemExit where they ask for help or the version, which are printed, and
    where there is no such command."""
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0 if words else 2)
    if words[0] == "--version":
        print(version("gentraj"))
        raise SystemExit
    family = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    length = 2 if family else 1
    name = " ".join(words[:length])
    asks = family and words[1:2] in (["-h"], ["--help"])
    if name not in COMMANDS and not asks:
        near = difflib.get_close_matches(name, family or COMMANDS, n=1) if len(words) >= length else []
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(family or COMMANDS)}"
        raise SystemExit(_fail(2, f"unknown command '{name}'; {hint}"))
    from .options import call, first_sentence  # imported here as it imports torch

    if name in COMMANDS:
        call(resolve_name(f"{__name__}.{COMMANDS[name]}"), words[length:], f"gentraj {name}")
        return
    print("usage: gentraj COMMAND [options], where COMMAND is one of\n")
    for each in family:
        print(f"  {each:12} {first_sentence(resolve_name(f'{__name__}.{COMMANDS[each]}').__doc__)}")


def _fail(code: int, message: str) -> int:
    _tell(f"gentraj: error: {in_options(' '.join(message.split()))}")
    return code
