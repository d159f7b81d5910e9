"""`gentraj distill`: a student that decides as a trained run does, many times faster."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from ..config import OneOf
from ..device import pick_device
from ..progress import print_saved, say
from ..runs.learn.distillation import METHODS, distill
from .options import HELP, Device, RunPath, is_run, load_trained, parse, print_settings, split, with_options
from .train import fresh_folder, next_command

MethodName = Annotated[str, OneOf(METHODS)]
KEYS = {key.name for method in METHODS.values() for key in fields(method.config)}
SHORT = {name: f"training.{name}" for name in ("steps", "seed")}


@dataclass(frozen=True)
class Distill:
    """Train a student of a run, its teacher: a run that decides much faster, and that every other command takes.

    Every setting of the method is an option, such as --student.steps 1 or --steps 5000 (short for --training.steps);
    `gentraj distill --method METHOD --help` lists them.

    Examples: gentraj distill runs/umaze --method decision --run-dir runs/umaze-student
              gentraj distill runs/umaze --method decision --run-dir runs/umaze-student --resume
              gentraj distill runs/bc --method decision --run-dir runs/bc-student --episodes 100 --steps 10000
              gentraj distill runs/umaze --method reflow --run-dir runs/umaze-reflow --student.steps 1
    """

    run: RunPath
    """The folder of the teacher, as `gentraj train` writes it."""
    run_dir: Path
    """Folder that the student is written to."""
    method: MethodName
    """What the student is and how it learns."""
    resume: bool = False
    """Continue an interrupted distillation in --run-dir; the result is the same, bit for bit, as without the
    interruption."""
    env_id: str | None = None
    """The environment, a Gymnasium id or a task name; by default the teacher's own."""
    device: Device = None


def main(argv: list[str]) -> None:
    words, given = split(argv, KEYS, is_run, SHORT)
    if HELP & set(words):
        _help(words, given)
    args = parse(Distill, words, "gentraj distill", settings=[*KEYS, *SHORT])
    config = with_options(METHODS[args.method].config, given)
    folder = args.run_dir
    if not args.resume:
        fresh_folder(folder, "--resume")
    student = distill(load_trained(args.run, args.device), config, folder, env_id=args.env_id, resume=args.resume,
                      device=pick_device(args.device))
    say(f"trained {student.step} steps; the student is in {folder}")
    print_saved(next_command(student, folder))


def _help(words: list[str], given: dict[str, list[str]]) -> None:
    """Prints the options, and the settings of the method that is named or else what all methods are."""
    named = [word.removeprefix("--method=") for word in words if word.removeprefix("--method=") in METHODS]
    config = with_options(METHODS[named[0]].config, given) if named else None
    try:
        parse(Distill, ["--help"], "gentraj distill")
    finally:
        if config is not None:
            print_settings(config)
        else:
            print("methods:", *(f"  {key:12} {each.about}" for key, each in METHODS.items()), sep="\n")
