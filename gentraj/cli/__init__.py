"""The `gentraj` command: it alone sees everything. Each command is a file, imported when one is chosen."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve a shared machine

USAGE = """usage: gentraj COMMAND [options]

Generative models of trajectories for control.

  gentraj demo                                 the whole way on PointMaze-UMaze: data, training, score, report
  gentraj data list|inspect|import|make        offline datasets
  gentraj train PRESET [--run-dir DIR]         train the models of a planner; --resume DIR goes on
  gentraj sample RUN --out FILE                trajectories from a trained run
  gentraj evaluate RUN                         the closed-loop score in the run's environment
  gentraj report RUN                           figures and one self-contained page

`gentraj COMMAND --help` shows the options and an example.
Exit codes: 0 done, 1 failed on the way, 2 bad input, 130 and 143 stopped by Ctrl-C and SIGTERM (all saved)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code that `--help` promises."""
    argv = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = lambda message, *_: print(f"gentraj: {message}", file=sys.stderr)
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] == "--version":
        print(version("gentraj"))
        return 0
    return _guarded(argv)


def _guarded(argv: list[str]) -> int:
    """Everything that can go wrong as one line and a code. GENTRAJ_TRACEBACK=1 shows where it went wrong."""
    from ..checkpoint import CheckpointError, NothingSaved
    from ..interrupts import Interrupted
    from ..runlock import RunLocked
    from ..training import TrainingStopped

    commands = _commands()
    if argv[0] not in commands:
        near = difflib.get_close_matches(argv[0], commands, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(commands)}"
        return _fail(2, f"unknown command '{argv[0]}'; {hint}")
    if os.environ.get("GENTRAJ_TRACEBACK"):
        commands[argv[0]](argv[1:])
        return 0
    try:
        commands[argv[0]](argv[1:])
        sys.stdout.flush()
        return 0
    except Interrupted as error:
        return _fail(error.exit_code, str(error))
    except KeyboardInterrupt:
        return _fail(130, "stopped by Ctrl-C")
    except BrokenPipeError:  # nobody reads any more: `gentraj ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (NothingSaved, RunLocked, ValueError, FileNotFoundError, ImportError) as error:
        return _fail(2, str(error))
    except (CheckpointError, TrainingStopped, OSError, RuntimeError) as error:
        return _fail(1, str(error))


def _fail(code: int, message: str) -> int:
    print(f"gentraj: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _commands() -> dict[str, Callable[[list[str]], None]]:
    from . import data, demo, evaluate, report, sample, train

    return {"demo": demo.main, "data": data.main, "train": train.main, "sample": sample.main,
            "evaluate": evaluate.main, "report": report.main}
