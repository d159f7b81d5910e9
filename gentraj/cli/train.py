"""`gentraj train`: a planner, a policy or a world model, into a run folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from inspect import cleandoc
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import tyro

from gentraj.envs.making import try_making

from ..config import from_json, read_json, to_json
from ..device import pick_device
from ..families import FAMILIES
from ..files import check_folder
from ..networks import NETWORKS
from ..progress import print_saved, say
from ..runs.folder import RunFolder
from ..runs.model_card import parameters_trained
from ..runs.models import with_components
from ..runs.presets import PRESETS, check_goals, listing, preset, suited
from ..runs.run import Run, RunConfig
from ..runs.training import Reader, prepare
from ..runs.training import train as train_run
from ..runs.world import WorldModelRun
from ..training.checkpoint import has_checkpoints
from ..training.parallel import Processes, launched, launched_in_bf16
from .environments import imports_again
from .options import HELP, Device, parse, settings_help, split, with_options

SHORT = {name: f"training.{name}" for name in ("steps", "seed", "eval_every", "eval_episodes")}
if TYPE_CHECKING:
    ModelName = NetworkName = str
else:  # the keys of the tables
    ModelName, NetworkName = (Literal[tuple(names)] for names in (FAMILIES, NETWORKS))


@dataclass(frozen=True)
class Train:
    """Train a planner, a policy or a world model, and write it to a run folder.

    A preset chooses what is trained and has all settings; every setting is an option behind it, such as --dataset ID,
    --steps 3000 (short for --training.steps) or --policy.model.steps 10. `gentraj train PRESET --help` lists the
    settings of a preset, and `gentraj train --help` lists the presets.

    Examples: gentraj train pointmaze-umaze --steps 3000 --run-dir runs/umaze
              gentraj train --resume runs/umaze
              gentraj train pointmaze --dataset D4RL/pointmaze/medium-v2 --model gan
              gentraj train pointmaze-umaze --model flow --network dit --model.prediction velocity --dry-run
              gentraj train iql --dataset hopper.hdf5 --env-id Hopper-v5 --policy.expectile 0.8 --run-dir runs/iql
              accelerate launch -m gentraj train pointmaze-umaze --run-dir runs/umaze (on several devices)
    """

    preset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")] = None
    """The preset, which decides what is trained and has the defaults of all settings."""
    settings_file: Annotated[Path | None, tyro.conf.arg(name="config", metavar="FILE")] = None
    """A file of settings as --print-config prints them, instead of a preset; options override the settings."""
    run_dir: Path | None = None
    """Folder that the run is written to; by default runs/PRESET."""
    resume: Path | None = None
    """Continue the training in this folder, with the settings that it was started with. A larger --steps trains a
    finished run for longer."""
    model: ModelName | None = None
    """The generative model; its settings are the options --model.*, for a policy --policy.model.*, and for a world
    model --world.model.*"""
    network: NetworkName | None = None
    """The network of the generative model; its settings are the options --model.network.*, for a policy
    --policy.model.network.*, and for a world model --world.model.network.*"""
    device: Device = None
    print_config: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the settings that differ from their defaults as JSON, as a file for --config, and do not train."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Read the data, build all components, take one decision, print what would be trained, and write nothing."""


def main(argv: list[str]) -> None:
    words, given = split(argv, Train, PRESETS.__contains__, SHORT)
    if HELP & set(words):
        _help(words, given)
    args = parse(Train, words, "gentraj train")
    reader = Reader()
    config = with_options(with_components(_defaults(args, given, reader), args.model, args.network), given, Train)
    with launched(args.device) as processes:
        _train(args, config, reader, processes)


def _help(words: list[str], given: dict[str, list[str]]) -> None:
    """Prints the options, and the settings of the preset that is named or else all presets."""
    args = parse(Train, [word for word in words if word not in HELP], "gentraj train")
    named = args.preset or args.settings_file or args.resume
    config = None if named is None else with_components(_defaults(args, given, Reader()), args.model, args.network)
    try:
        parse(Train, ["--help"], "gentraj train", description=cleandoc(str(Train.__doc__)))
    finally:
        print(listing() if config is None else settings_help(config))


def _train(args: Train, config: RunConfig, reader: Reader, processes: Processes) -> None:
    training = config.training
    config = replace(config, training=replace(training, bf16=training.bf16 or launched_in_bf16()))
    if args.print_config:
        processes.on_main(lambda: print(json.dumps(to_json(config, defaults=False), indent=2)))
        return
    name = args.preset or (args.settings_file.stem if args.settings_file else "")
    if not config.dataset:
        raise ValueError(f"preset '{name}' needs --dataset ID_OR_FILE; `gentraj data list` shows those here")
    variant = suited(args.preset, config.dataset, reader.look) if args.preset else args.preset
    if processes.is_main and variant != args.preset:
        say(f"the data have goals: {args.preset} plans for them, as the preset {variant}")
    if args.preset:
        check_goals(args.preset, config, reader.look)
    device = processes.device or pick_device(args.device)
    if args.dry_run:
        processes.on_main(lambda: print(dry_run(config, args.resume, reader, device)))
        return
    folder = args.run_dir or Path("runs") / name
    folder = args.resume or fresh_folder(folder, f"--resume {quote(str(folder))}")
    run = train_run(config, folder, resume=args.resume is not None, processes=processes, reader=reader,
                    device=device)
    if processes.is_main:
        say(f"trained {run.step} steps; the run is in {folder}")
        print_saved(next_command(run, folder))


def next_command(run: Run, folder: Path) -> str:
    """The command that evaluates a trained run, with the options that it will need."""
    named = quote(str(folder))
    command = f"next: gentraj evaluate {named}{imports_again()}"
    if run.data.env is None:
        if isinstance(run, WorldModelRun):
            return f"{command} --as world-model"
        return (f"{command} --env-id ID; or, without an environment: gentraj export {named} --low LOW --high HIGH "
                "--out FILE.onnx")
    try:
        try_making(run.data.env)
    except Exception as error:  # an environment may raise anything
        return (f"{command}, which will need --import MODULE, where MODULE registers the environment of the data, or "
                f"--env-id ID: {str(error).partition(';')[0]}")
    return command


def dry_run(config: RunConfig, folder: Path | None, reader: Reader, device: torch.device) -> str:
    """What would be trained on this device, as text with a table of the components."""
    run, episodes, windows = prepare(config, folder, record=False, reader=reader, device=device)
    rows = [(name, type(component).__name__, f"{parameters_trained(component):,}", str(component.spec.horizon),
             str(component.batch_size)) for name, component in run.components.items()]
    head = ("component", "class", "parameters", "horizon", "batch size")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in (head, *rows)]
    training = run.config.training
    return "\n".join([f"{run.summary}, of {run.config.dataset}: {len(episodes)} episodes of {episodes.num_steps:,} "
                      f"steps, {windows:,} windows", *lines,
                      f"{training.steps:,} steps of each component on {device}, seed {training.seed}; one decision was "
                      "taken, and nothing is written"])


def _defaults(args: Train, given: dict[str, list[str]], reader: Reader) -> RunConfig:
    """The settings of the preset, the file or the resumed run. Raises ValueError unless exactly one of them is
    given."""
    named = {f"the preset {args.preset}": args.preset, f"--config {args.settings_file}": args.settings_file,
             f"--resume {args.resume}": args.resume}
    named = [name for name, value in named.items() if value is not None]
    if len(named) > 1:
        raise ValueError(f"{' and '.join(named)} were given; each names all settings, so give one of them")
    if args.resume is not None:
        if args.run_dir is not None:
            raise ValueError("--resume names the run's folder already; leave --run-dir out")
        if args.model is not None or args.network is not None:
            raise ValueError("--resume continues with the model of the run; leave --model and --network out")
        return RunFolder(args.resume).read().run
    if args.settings_file is not None:
        return read_settings(args.settings_file)
    if args.preset is not None:
        return preset(args.preset, " ".join(given.get("dataset", ())), reader.look)
    raise ValueError(f"give a preset ({', '.join(PRESETS)}), --config FILE or --resume DIR; see gentraj train --help")


def read_settings(file: Path) -> RunConfig:
    """The settings in a file that --print-config printed. Raises `ConfigError` for any other file."""
    return from_json(RunConfig, read_json(file), str(file))


def fresh_folder(folder: Path, resume: str) -> Path:
    """Checks a folder for a new run and returns it. Raises ValueError if it already holds a training.

    `resume` is the option that continues the training, for the message.
    """
    if has_checkpoints(folder):
        raise ValueError(f"{folder} holds a training already; continue it with {resume}, or give another --run-dir")
    check_folder(folder, "--run-dir")
    return folder
