"""`gentraj steer`: an actor over the noise of a trained run, which makes it act better and leaves its weights alone."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from ..device import pick_device
from ..progress import print_saved, say
from ..runs.kinds.loading import load
from ..runs.kinds.policy_run import PolicyRunConfig
from ..runs.learn.steering import steer, steered_settings
from .options import HELP, Device, RunPath, is_run, load_trained, parse, print_help, split, with_options
from .train import fresh_folder, next_command

OF_RUN = {"roadmap", "context", "history", "past_actions"}  # settings that are those of the run
KEYS = {key.name for key in fields(PolicyRunConfig)} - OF_RUN
SHORT = {name: f"training.{name}" for name in ("steps", "seed", "eval_every", "eval_episodes")}


@dataclass(frozen=True)
class Steer:
    """Steer a trained policy, or a planner for returns, to a higher return: train an actor over the noise that it
    samples from.

    Its weights are frozen and stored in the new run, a policy that every other command takes; gentraj finetune improves
    it further in the environment. Every setting is an option, such as --dataset ID (by default the data of the run),
    --policy.bound 1.5 or --steps 5000 (short for --training.steps); `gentraj steer RUN --help` lists them.

    Examples: gentraj steer runs/bc-flow --run-dir runs/steered
              gentraj steer runs/bc-flow --dataset hopper-medium.hdf5 --steps 5000 --seed 1 --run-dir runs/steered
              gentraj steer runs/bc-flow --run-dir runs/steered --resume
    """

    run: RunPath
    """The folder of a policy or a planner, as `gentraj train` or `gentraj distill` writes it."""
    run_dir: Annotated[Path, tyro.conf.arg(aliases=("--out",))]
    """Folder that the steered run is written to."""
    resume: bool = False
    """Continue an interrupted steering in --run-dir; the result is the same, bit for bit, as without the
    interruption."""
    device: Device = None


def main(argv: list[str]) -> None:
    words, given = split(argv, KEYS, is_run, SHORT)
    if HELP & set(words):
        _help(words, given)
    args = parse(Steer, words, "gentraj steer", settings=[*KEYS, *SHORT])
    run = load_trained(args.run, args.device)
    config = with_options(steered_settings(run, " ".join(given.get("dataset", ()))), given)
    if not args.resume:
        fresh_folder(args.run_dir, "--resume")
    steered = steer(run, config, args.run_dir, resume=args.resume, device=pick_device(args.device))
    say(f"trained {steered.step} steps; the steered run is in {args.run_dir}")
    print_saved(next_command(steered, args.run_dir))


def _help(words: list[str], given: dict[str, list[str]]) -> None:
    """Prints the options, and the settings by which the run that is named would be steered."""
    runs = [word for word in words if is_run(word)]
    settings = with_options(steered_settings(load(runs[0])), given) if runs else None
    print_help(Steer, "gentraj steer", settings)
