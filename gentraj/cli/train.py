"""`gentraj train`: a planner, a policy or a world model, into a run folder."""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from inspect import cleandoc
from io import StringIO
from itertools import pairwise
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal, cast

import tyro

from gentraj.envs.making import try_making

from ..config import check_known, differences, from_json, read_json, to_json, with_settings
from ..device import pick_device
from ..families import FAMILIES
from ..files import check_folder
from ..networks import NETWORKS
from ..progress import print_saved, say
from ..runs.folder import Ready, Run, read_config, ready
from ..runs.folder import train as train_run
from ..runs.kinds import AnyRunConfig
from ..runs.model_card import parameters_trained
from ..runs.presets import PRESETS, check_goals, data_settings, listing, suited
from ..runs.settings import RunSettings
from ..training.checkpoint import has_checkpoints
from ..training.parallel import Processes, launched, launched_in_bf16
from .common import Device
from .environments import imports_again
from .options import options_named, parse, with_short, without_effect

NETWORK_NAMES = {name: config for name, (config, _) in NETWORKS.items()}
SHORT = ("steps", "seed", "eval_every", "eval_episodes")  # settings of the training with a short option
if TYPE_CHECKING:
    FamilyName = NetworkName = str
else:  # the keys of the tables
    FamilyName, NetworkName = (Literal[tuple(names)] for names in (FAMILIES, NETWORK_NAMES))


@dataclass(frozen=True)
class Train:
    """Train a planner, a policy or a world model, and write it to a run folder.

    A preset chooses what is trained and sets all options; `gentraj train PRESET --help` lists the options of a preset,
    and `gentraj train --help` lists the presets.

    Examples: gentraj train pointmaze-umaze --steps 3000 --run-dir runs/umaze
              gentraj train --resume runs/umaze
              gentraj train pointmaze --dataset D4RL/pointmaze/medium-v2 --family gan
              gentraj train pointmaze-umaze --family flow --network dit --model.prediction velocity --dry-run
              gentraj train iql --dataset hopper.hdf5 --env-id Hopper-v5 --policy.expectile 0.8 --run-dir runs/iql
              accelerate launch -m gentraj train pointmaze-umaze --run-dir runs/umaze (on several devices)
    """

    config: Annotated[AnyRunConfig, tyro.conf.AvoidSubcommands, tyro.conf.arg(name="")]
    preset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")] = None
    """The preset, which decides what is trained and sets the defaults of all options."""
    settings_file: Annotated[Path | None, tyro.conf.arg(name="config", metavar="FILE")] = None
    """A file of settings as --print-config prints them, instead of a preset; options override the settings."""
    run_dir: Path | None = None
    """Folder that the run is written to; by default runs/PRESET."""
    resume: Path | None = None
    """Continue the training in this folder, with the settings that it was started with. A larger --steps trains a
    finished run for longer."""
    family: FamilyName | None = None
    """The family of generative models; its settings are the options --model.*, for a policy --policy.model.*, and for a
    world model --world.model.*"""
    network: NetworkName | None = None
    """The network of the generative model; its settings are the options --model.network.*, for a policy
    --policy.model.network.*, and for a world model --world.model.network.*"""
    steps: int | None = None
    """Number of training steps; short for --training.steps."""
    seed: int | None = None
    """Seed of the training; short for --training.seed."""
    eval_every: int | None = None
    """Training steps between two evaluations in the environment, for a learning curve; short for
    --training.eval-every."""
    eval_episodes: int | None = None
    """Number of episodes in each of these evaluations; short for --training.eval-episodes."""
    device: Device = None
    print_config: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print all settings as JSON and do not train."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Read the data, build all components, take one decision, print what would be trained, and write nothing."""


def main(argv: list[str]) -> None:
    guess = first_guess(argv)
    description = f"{cleandoc(str(Train.__doc__))}\n\n{listing()}" if guess is None else None
    first = with_components(guess or PRESETS["pointmaze"], option(argv, "--family"), option(argv, "--network"))
    if {"-h", "--help"} & set(argv):
        hidden = without_effect(_given([word for word in argv if word not in ("-h", "--help")], first), first)
        parse(Train, argv, "gentraj train", description=description, default=Train(first), hidden=hidden)
    args = parse(Train, argv, "gentraj train", description=description, default=Train(first))
    if (defaults := _defaults(args)) != first:  # parsed again, now that it is known whose settings are the defaults
        args = parse(Train, argv, "gentraj train", default=Train(defaults))
    with options_named(args, argv), launched(args.device) as processes:
        _train(args, defaults, processes, argv)


def _given(argv: list[str], defaults: AnyRunConfig) -> AnyRunConfig:
    """The settings with the options that are given beside --help, or the defaults if these are not valid."""
    try:
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            return parse(Train, argv, "gentraj train", default=Train(defaults)).config
    except (SystemExit, ValueError):
        return defaults


def _train(args: Train, defaults: AnyRunConfig, processes: Processes, argv: list[str]) -> None:
    for key, *_ in () if args.resume else differences(to_json(defaults), to_json(args.config)):
        args.config.refuse(key)
    training = with_short(args, SHORT, args.config.training, argv)
    config = replace(args.config, training=replace(training, bf16=training.bf16 or launched_in_bf16()))
    if config.training.eval_episodes != defaults.training.eval_episodes and not config.training.eval_every:
        raise ValueError(f"--eval-episodes is {config.training.eval_episodes}, and nothing is evaluated without "
                         "--eval-every; give it too, or leave --eval-episodes out")
    if args.print_config:
        processes.on_main(lambda: print(json.dumps(to_json(config), indent=2)))
        return
    name = args.preset or (args.settings_file.stem if args.settings_file else "")
    if not config.dataset:
        raise ValueError(f"preset '{name}' needs --dataset ID_OR_FILE; `gentraj data list` shows those here")
    if (note := check_goals(name, config)) and processes.is_main:
        say(note)
    if processes.is_main and args.preset and (variant := suited(args.preset, config.dataset)) != args.preset:
        say(f"the data have goals: {args.preset} plans for them, as the preset {variant}")
    if args.dry_run:
        processes.on_main(lambda: print(dry_run(ready(config, args.resume, record=False))))
        return
    folder = args.run_dir or Path("runs") / name
    folder = args.resume or fresh_folder(folder, f"--resume {quote(str(folder))}")
    run = train_run(config, folder, resume=args.resume is not None, processes=processes,
                    device=processes.device or pick_device(args.device))
    if processes.is_main:
        say(f"trained {run.step} steps; the run is in {folder}")
        print_saved(next_command(run, folder))


def next_command(run: Run, folder: Path) -> str:
    """The command that evaluates a trained run, with the options that it will need."""
    named = quote(str(folder))
    command = f"next: gentraj evaluate {named}{imports_again()}"
    if run.data.env is None:
        return (f"{command} --as world-model" if run.config.NAME == "world model" else
                f"{command} --env-id ID; or, without an environment: gentraj export {named} --low LOW --high HIGH "
                "--out FILE.onnx")
    try:
        try_making(run.data.env)
    except Exception as error:  # an environment may raise anything
        return (f"{command}, which will need --import MODULE, where MODULE registers the environment of the data, or "
                f"--env-id ID: {str(error).partition(';')[0]}")
    return command


def dry_run(prepared: Ready) -> str:
    """What would be trained, as text with a table of the components."""
    rows = [(name, type(component).__name__, f"{parameters_trained(component):,}", str(component.spec.horizon),
             str(component.batch_size)) for name, component in prepared.components.items()]
    head = ("component", "class", "parameters", "horizon", "batch size")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in (head, *rows)]
    config, data = prepared.config, prepared.episodes
    return "\n".join([f"{config.summary}, of {config.dataset}: {len(data)} episodes of {data.num_steps:,} steps, "
                      f"{len(prepared.windows):,} windows", *lines,
                      f"{config.training.steps:,} steps of each component, seed {config.training.seed}; one decision "
                      "was taken, and nothing is written"])


def first_guess(argv: list[str]) -> AnyRunConfig | None:
    """The settings whose options may be given, guessed before the words are parsed; None if no word names them.

    Raises ValueError for a first word that is no preset, and what `read_config` raises.
    """
    dataset = option(argv, "--dataset") or ""
    if argv and not argv[0].startswith("-"):
        return preset(argv[0], dataset)
    if resumed := option(argv, "--resume"):
        return read_config(Path(resumed))[0]
    if file := option(argv, "--config"):
        return read_settings(Path(file))
    candidates = [(before.startswith("--") and "=" not in before, word) for before, word in pairwise(["", *argv])
             if word in PRESETS]  # a word behind an option may be its value, such as --run-dir iql
    return preset(min(candidates)[1], dataset) if candidates else None


def preset(name: str, dataset: str) -> AnyRunConfig:
    """The preset, in its variant for the data. Raises ValueError for an unknown name, and suggests a similar one."""
    check_known([name], PRESETS, "preset")
    name = suited(name, dataset)
    return with_settings(PRESETS[name], data_settings(name, dataset), f"preset {name}")


def _defaults(args: Train) -> AnyRunConfig:
    """The settings of the preset, the file or the resumed run. Raises ValueError unless exactly one of them is
    given."""
    given = {f"the preset {args.preset}": args.preset, f"--config {args.settings_file}": args.settings_file,
             f"--resume {args.resume}": args.resume}
    if len(named := [name for name, value in given.items() if value is not None]) > 1:
        raise ValueError(f"{' and '.join(named)} were given; each names all settings, so give one of them")
    if not named:
        raise ValueError(f"give a preset ({', '.join(PRESETS)}), --config FILE or --resume DIR; see gentraj train "
                         "--help")
    if args.resume is not None:
        if args.run_dir is not None:
            raise ValueError("--resume names the run's folder already; leave --run-dir out")
        if args.family is not None or args.network is not None:
            raise ValueError("--resume continues with the model of the run; leave --family and --network out")
        return read_config(args.resume)[0]
    if args.settings_file is not None:
        return with_components(read_settings(args.settings_file), args.family, args.network)
    return with_components(preset(str(args.preset), args.config.dataset), args.family, args.network)


def read_settings(file: Path) -> AnyRunConfig:
    """The settings in a file that --print-config printed. Raises `ConfigError` for any other file."""
    return cast(AnyRunConfig, from_json(RunSettings, read_json(file, follow=True), str(file)))


def option(argv: list[str], name: str) -> str | None:
    """The value of an option, read before the options are parsed; None if it is not given."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith(f"{name}=") else [word])]
    return next((word for before, word in pairwise(words) if before == name), None)


def with_components(config: AnyRunConfig, family: str | None, network: str | None) -> AnyRunConfig:
    """The settings with another family of models or another network; the parser refuses unknown names.

    Raises ValueError for a family or a network that the settings cannot have.
    """
    if family in FAMILIES:
        if family not in config.GENERATORS:
            raise ValueError(f"--family is {family}, which this preset cannot have; give one of "
                             f"{', '.join(config.GENERATORS)}")
        config = config.with_generator(config.GENERATORS[family])
    if network in NETWORK_NAMES:
        if (model := config.generator) is None:
            raise ValueError(f"--network is {network}, but {config.summary} has no generative model; leave it out")
        if not isinstance(model.network, NETWORK_NAMES[network]):
            config = config.with_generator(model.with_network(NETWORK_NAMES[network]()))
    return config


def fresh_folder(folder: Path, resume: str) -> Path:
    """Checks a folder for a new run and returns it. Raises ValueError if it already holds a training.

    `resume` is the option that continues the training, for the message.
    """
    if has_checkpoints(folder):
        raise ValueError(f"{folder} holds a training already; continue it with {resume}, or give another --run-dir")
    check_folder(folder, "--run-dir")
    return folder
