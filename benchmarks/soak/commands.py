"""The command with random arguments: it does its work, or says in one line why not."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import cache, partial
from io import StringIO
from pathlib import Path
from random import Random

from gentraj.cli import main

from .attempt import apart
from .material import DATASET, Material, copy_of
from .readers import Read, Reader

SECONDS = 6.0, 20.0, 40.0  # after which Ctrl-C is pressed: what goes on until then is at work
COMMANDS = (
    "train veteran --dataset NPZ --dry-run", "train iql --dataset NPZ --dry-run --policy.batch-size 4",
    "train world-model --dataset HDF5 --dry-run", "train --resume PLANNER --dry-run", "train --resume POLICY --steps 7",
    "train bc-gan --dataset NPZ --steps 2 --run-dir NEW", "train pointmaze --family latent --print-config",
    "train --config PLANNER/config.json --print-config", "sample PLANNER --out NEW.npz --num 2 --steps 2",
    "evaluate POLICY --episodes 1 --no-baselines --out NEW.json", "evaluate PLANNER --episodes 1 --teacher POLICY",
    "evaluate PLANNER --episodes 1 --deadline-ms 5 --fallback POLICY --out NEW.json --no-baselines",
    "evaluate WORLD --as world-model --out NEW.json", "measure PLANNER --num 20 --out NEW.json",
    "data inspect NPZ", "data inspect HDF5", "data import HDF5 --id soak/new-v0", "finetune POLICY --run-dir NEW",
    "pareto PLANNER POLICY@2 --out NEW.json --episodes 0 --num 20 --decisions 2", "augment NPZ --model WORLD --steps 4",
    "distill PLANNER --method reflow --run-dir NEW --steps 1", "distill POLICY --method decision --run-dir NEW")
LONG = (  # they take many seconds if nothing is wrong with them
    "report POLICY --out NEW.html", "compare --runs PLANNER PLANNER --out NEW --episodes 1 --num 20", "data list",
    "compare veteran diffuser --dataset NPZ --out NEW --budget 1", "export POLICY --out NEW.pt2", "reproduce CARD",
    "ablate veteran --dataset NPZ --vary planner.steps=1,2 --out NEW --steps 1", "demo --run-dir NEW --steps 1")
# None is a place outside the working directory: what is written must stay in there.
WORDS = ["", "0", "1", "2", "3", "-1", "1.5", "nan", "inf", "1e3", "1e9", "1e999", "9" * 30, "9" * 5000, "None",
         "True", "null", "a", "é中", "\ud800", "--", "-", "NPZ", "HDF5",
         "PLANNER", "POLICY", "WORLD", "CARD", "NEW", "NPZ+NPZ", "NPZ+HDF5", "PLANNER@0", "PLANNER@2", "1,2",
         "1,nan", "0.1,0.2,0.3", "a=b", "planner.steps=1", "=", "Hopper-v5", "CartPole-v1", "Nothing-v0",
         "nothing:Env-v0", DATASET, "x/y-v0", "iql", "veteran", "gan", "gaussian", "latent", "ddpm", "heun",
         "karras", "reflow", "decision", "cpu", "cuda:7", "meta", "\n", "a\nb", "--help"]


class Commands(Reader):
    """The arguments of the command."""

    through, one_line = staticmethod(apart), False

    def change(self, random: Random) -> Read:
        words: list[str] = random.choice(LONG if random.random() < 0.15 else COMMANDS).split()
        for _ in range(random.choice((1, 2, 2, 3, 4))):
            at, how = random.randrange(1, len(words) + 1), random.randrange(8)
            if how < 3:
                words += [random.choice(options(words[0])), *random.choices(WORDS, k=random.choice((1, 1, 1, 2, 0)))]
            elif how < 5:
                words[at - 1 if at > 1 else -1] = random.choice(WORDS)
            elif how == 5:
                del words[at - 1 : at]
            elif how == 6:
                words.insert(at, random.choice(WORDS))
            else:
                words[at:at] = words[max(1, at - 2) : at]
            words = words or ["data"]
        return partial(self.command, [self.filled(word) for word in words])

    def once(self, random: Random) -> str:
        """As `Reader.once`, in a new copy of the files."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        copy_of(self.material, self.scratch)
        return super().once(random)

    @property
    def scratch(self) -> Path:
        return self.material.folder.with_name(f"{self.material.folder.name}-scratch")

    def filled(self, word: str) -> str:
        here = Material(self.scratch)
        places = {"NPZ": here.npz[0], "HDF5": here.hdf5, "PLANNER": here.run("planner"), "POLICY": here.run("policy"),
                  "WORLD": here.run("world-model"), "CARD": here.folder / "card.json", "NEW": here.folder / "new"}
        return re.sub("|".join(places), lambda match: str(places[match[0]]), word)

    def command(self, words: list[str]) -> str:
        """Runs the command in this process, which is a fork, in a copy of the files."""
        os.environ["GENTRAJ_TRACEBACK"] = "1"
        os.environ["MINARI_DATASETS_PATH"] = str(Material(self.scratch).datasets)
        os.chdir(self.scratch)
        out = StringIO()
        try:
            with interrupted(SECONDS), redirect_stdout(out), redirect_stderr(out):
                code = main(words)
        except Exception as error:
            if isinstance(error, MemoryError) or "allocate memory" in str(error):
                return "more memory than there is"
            error.args = (f"{error} ({' '.join(words)!r:.500})", *error.args[1:])
            raise
        assert code in (0, 1, 2, 130, 143), f"{words}: exit code {code}: {out.getvalue()[-500:]}"
        assert "Traceback" not in out.getvalue(), f"{words}: {out.getvalue()[-1000:]}"
        return str(code)


@contextmanager
def interrupted(seconds: tuple[float, ...]) -> Iterator[None]:
    """Presses Ctrl-C in the block after so many seconds, also in a soak in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    timers = [threading.Timer(after, partial(os.kill, os.getpid(), signal.SIGINT)) for after in seconds]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


@cache
def options(command: str) -> list[str]:
    """The options that `--help` of a command lists."""
    out = StringIO()
    presets = ["veteran"] if command in ("train", "ablate") else []
    with redirect_stdout(out), redirect_stderr(out), suppress(SystemExit, Exception):
        main([command, *presets, "--help"])
    return sorted(set(re.findall(r"--[a-z][a-z0-9.-]+", out.getvalue()))) or ["--seed"]
