"""`gentraj distill`: a student that decides as a trained run does, many times faster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ..config import differences, require_effect, to_json
from ..device import pick_device
from ..progress import print_saved, say
from ..runs.distillation import METHODS, AnyDistillConfig, distill
from ..runs.folder import load
from .common import Device, RunFolder
from .options import options_named, parse, with_short, without_effect
from .train import fresh_folder, next_command, option

if TYPE_CHECKING:
    MethodName = str
else:  # the keys of the table
    MethodName = Literal[tuple(METHODS)]
SHORT = ("steps", "seed")  # settings of the training with a short option


@dataclass(frozen=True)
class Distill:
    """Train a student of a run, its teacher: a run that decides much faster, and that every other command takes.

    `gentraj distill --method METHOD --help` lists the options of a method.

    Examples: gentraj distill runs/umaze --method decision --run-dir runs/umaze-student
              gentraj distill runs/umaze --method decision --run-dir runs/umaze-student --resume
              gentraj distill runs/bc --method decision --episodes 100 --steps 10000 --run-dir runs/bc-student
              gentraj distill runs/umaze --method reflow --student.steps 1 --run-dir runs/umaze-reflow
    """

    run: RunFolder
    """The folder of the teacher, as `gentraj train` writes it."""
    run_dir: Path
    """Folder that the student is written to."""
    config: Annotated[AnyDistillConfig, tyro.conf.AvoidSubcommands, tyro.conf.arg(name="")]
    method: MethodName
    """What the student is and how it learns."""
    resume: bool = False
    """Continue an interrupted distillation in --run-dir; the result is the same, bit for bit, as without the
    interruption. With --method decision, --rounds may be larger than before."""
    steps: int | None = None
    """Number of training steps; short for --training.steps."""
    seed: int | None = None
    """Seed of the training and of the episodes; short for --training.seed."""
    env_id: str | None = None
    """The environment, a Gymnasium id or a task name; by default the teacher's own."""
    device: Device = None


def main(argv: list[str]) -> None:
    name = option(argv, "--method")
    method = METHODS.get(str(name), next(iter(METHODS.values())))
    default = Distill(tyro.MISSING, tyro.MISSING, method.config, str(name) if name in METHODS else tyro.MISSING)
    about = "\n".join(f"  {key:12} {each.about}" for key, each in METHODS.items())
    args = parse(Distill, argv, "gentraj distill", default=default,
                 description=f"{cleandoc(str(Distill.__doc__))}\n\nmethods:\n{about}",
                 hidden=without_effect(method.config, method.config) if {"-h", "--help"} & set(argv) else None)
    with options_named(args, argv):
        _distill(args, method.config, argv)


def _distill(args: Distill, defaults: AnyDistillConfig, argv: list[str]) -> None:
    for key, *_ in differences(to_json(defaults), to_json(args.config)):
        require_effect(args.config, key)
    config = replace(args.config, training=with_short(args, SHORT, args.config.training, argv))
    folder, device = args.run_dir, pick_device(args.device)
    if not args.resume:
        fresh_folder(folder, "--resume")
    student = distill(load(args.run, device=device), config, folder, env_id=args.env_id, resume=args.resume,
                      device=device)
    say(f"trained {student.step} steps; the student is in {folder}")
    print_saved(next_command(student, folder))
