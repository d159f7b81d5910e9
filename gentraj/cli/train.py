"""`gentraj train`."""

from __future__ import annotations

import difflib
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from inspect import cleandoc
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import tyro

from envs.making import environment_factory

from ..config import differences, from_json, read_json, to_json
from ..device import pick_device
from ..families import FAMILIES
from ..networks import NETWORKS
from ..progress import say
from ..runs.folder import AnyRunConfig, Ready, Run, read_config, ready
from ..runs.folder import train as train_run
from ..runs.presets import PRESETS, check_goals, listing, suited
from ..runs.settings import RunSettings
from ..training.checkpoint import has_checkpoints
from .common import check_folder
from .environments import imports_again
from .options import options_named, parse, without_effect

NETWORK_NAMES = {name: config for name, (config, _) in NETWORKS.items()}
SHORT = ("steps", "seed", "eval_every", "eval_episodes")  # options of the training that have a short name
if TYPE_CHECKING:
    FamilyName = NetworkName = str
else:  # what the dicts hold
    FamilyName, NetworkName = (Literal[tuple(names)] for names in (FAMILIES, NETWORK_NAMES))


@dataclass(frozen=True)
class Train:
    """Train a planner, a policy or a world model, with all that it needs, into a run folder.

    Examples: gentraj train pointmaze-umaze --steps 3000 --run-dir runs/umaze;
    gentraj train pointmaze --dataset D4RL/pointmaze/medium-v2 --family gan; gentraj train --resume runs/umaze;
    gentraj train pointmaze-umaze --family flow --network dit --model.prediction velocity --dry-run;
    gentraj train iql --dataset hopper.hdf5 --env-id Hopper-v5 --policy.expectile 0.8 --run-dir runs/iql
    """

    config: Annotated[AnyRunConfig, tyro.conf.AvoidSubcommands, tyro.conf.arg(name="")]
    preset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")] = None
    """What to train; options below change its settings. Without one, --help lists them all."""
    settings_file: Annotated[Path | None, tyro.conf.arg(name="config", metavar="FILE")] = None
    """Settings that --print-config printed, in the place of a preset; other options win over them."""
    run_dir: Path | None = None
    """Folder of the run; runs/PRESET by default."""
    resume: Path | None = None
    """Go on with the training in this folder; its settings are those it was started with."""
    family: FamilyName | None = None
    """The generator; its settings are then --model.*, or --policy.model.* of a policy."""
    network: NetworkName | None = None
    """The network of the generator; its settings are then --model.network.*, or --policy.model.network.*"""
    steps: int | None = None
    """Training steps; short for --training.steps."""
    seed: int | None = None
    """Seed; short for --training.seed."""
    eval_every: int | None = None
    """Steps between two evaluations on the way, for a learning curve of the score; short for --training.eval-every."""
    eval_episodes: int | None = None
    """Episodes of each of these evaluations; short for --training.eval-episodes."""
    device: str | None = None
    """Such as cuda or mps; the accelerator where there is one by default."""
    print_config: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print all settings as JSON and train nothing."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Read the data, build all parts, decide once, say what would be trained, and write nothing."""


def main(argv: list[str]) -> None:
    guess, parts = first_guess(argv), (option(argv, "--family"), option(argv, "--network"))
    about = f"{cleandoc(str(Train.__doc__))}\n\n{listing()}" if guess is None else None  # else its docstring
    first = with_components(guess or PRESETS["pointmaze"], *parts)
    if {"-h", "--help"} & set(argv):
        hidden = without_effect(_asked([word for word in argv if word not in ("-h", "--help")], first), first)
        parse(Train, argv, "gentraj train", description=about, default=Train(first), hidden=hidden)
    which = parse(Train, argv, "gentraj train", description=about, default=Train(first))
    # Once more, now that it is known whose settings are the defaults: options may stand before the preset.
    usual = _defaults(which)
    args = parse(Train, argv, "gentraj train", default=Train(usual))
    with options_named(args, argv):
        _train(args, usual)


def _asked(argv: list[str], usual: AnyRunConfig) -> AnyRunConfig:
    """The settings as far as they are given beside --help."""
    try:
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            return parse(Train, argv, "gentraj train", default=Train(usual)).config
    except (SystemExit, ValueError):
        return usual


def _train(args: Train, usual: AnyRunConfig) -> None:
    for key, *_ in () if args.resume else differences(to_json(usual), to_json(args.config)):
        args.config.refuse(key)
    short = {key: value for key in SHORT if (value := getattr(args, key)) is not None}
    config = replace(args.config, training=replace(args.config.training, **short))
    if args.print_config:
        print(json.dumps(to_json(config), indent=2))
        return
    name = args.preset or (args.settings_file.stem if args.settings_file else "")
    if not config.dataset:
        raise ValueError(f"preset '{name}' needs --dataset ID_OR_FILE; `gentraj data list` shows those here")
    check_goals(name, config)
    if args.preset and (stands_for := suited(args.preset, config.dataset)) != args.preset:
        say(f"the data have goals: {args.preset} plans for them, as the preset {stands_for}")
    if args.dry_run:
        print(dry_run(ready(config, record=False, check=args.resume is None)))
        return
    folder = args.run_dir or Path("runs") / name
    folder = args.resume or fresh_folder(folder, f"--resume {folder}")
    run = train_run(config, folder, resume=args.resume is not None, device=pick_device(args.device))
    say(f"trained {run.step} steps; the run is in {folder}")
    print(next_command(run, folder))


def next_command(run: Run, folder: Path) -> str:
    """What to do with a trained run, with all that it will need."""
    command = f"next: gentraj evaluate {folder}{imports_again()}"
    if run.data.env is None:
        return f"{command} --env-id ID"
    try:
        environment_factory(run.data.env)().close()
    except Exception as error:  # an environment may raise anything
        return (f"{command}, which will need --import MODULE, that registers the environment of the data, or --env-id "
                f"ID: {str(error).partition(';')[0]}")
    return command


def dry_run(made: Ready) -> str:
    """What would be trained, in words and a table."""
    rows = [(name, type(component).__name__, f"{sum(p.numel() for p in component.parameters() if p.requires_grad):,}",
             str(component.spec.horizon), str(component.batch_size)) for name, component in made.components.items()]
    head = ("part", "class", "parameters", "horizon", "batch size")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in (head, *rows)]
    config, data = made.config, made.episodes
    return "\n".join([f"{config.kind}, of {config.dataset}: {len(data)} episodes of {data.num_steps:,} steps, "
                      f"{len(made.windows):,} windows", *lines,
                      f"{config.training.steps:,} steps of each part, seed {config.training.seed}; one decision was "
                      "taken, and nothing is written"])


def first_guess(argv: list[str]) -> AnyRunConfig | None:
    """Whose options may be given: those of a planner's run or a policy's, before the words are parsed.

    None where nothing tells. Raises ValueError for a first word that is no preset, and what `read_config` raises.
    """
    dataset = option(argv, "--dataset") or ""
    if argv and not argv[0].startswith("-"):
        return preset(argv[0], dataset)
    if resumed := option(argv, "--resume"):
        return read_config(Path(resumed))[0]
    if file := option(argv, "--config"):
        return read_settings(Path(file))
    named = [(before.startswith("--") and "=" not in before, word) for before, word in pairwise(["", *argv])
             if word in PRESETS]  # a word behind an option may be its value, such as --run-dir iql
    return preset(min(named)[1], dataset) if named else None


def preset(name: str, dataset: str) -> AnyRunConfig:
    """What is `suited` to the data. Raises ValueError for a name that is none, with the nearest."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        raise ValueError(f"unknown preset '{name}'; known: {', '.join(PRESETS)}"
                         + (f"; did you mean '{near[0]}'?" if near else ""))
    return PRESETS[suited(name, dataset)]


def _defaults(which: Train) -> AnyRunConfig:
    """The settings of the preset, or of the run that goes on. Raises ValueError unless it is one of them."""
    if [which.preset, which.resume, which.settings_file].count(None) != 2:
        raise ValueError(f"give a preset ({', '.join(PRESETS)}), --config FILE or --resume DIR, and one of them; see "
                         "gentraj train --help")
    if which.resume is not None:
        if which.run_dir is not None:
            raise ValueError("--resume names the run's folder already; leave --run-dir out")
        if which.family is not None or which.network is not None:
            raise ValueError("--resume goes on with the run's own generator; leave --family and --network out")
        return read_config(which.resume)[0]
    if which.settings_file is not None:
        return with_components(read_settings(which.settings_file), which.family, which.network)
    return with_components(preset(str(which.preset), which.config.dataset), which.family, which.network)


def read_settings(file: Path) -> AnyRunConfig:
    """What --print-config printed. Raises `ConfigError` for anything else."""
    return cast(AnyRunConfig, from_json(RunSettings, read_json(file), str(file)))


def option(argv: list[str], name: str) -> str | None:
    """The word after an option, before the options are parsed: it decides which others there are."""
    words = [component for word in argv for component in (word.split("=", 1) if word.startswith(f"{name}=")
                                                          else [word])]
    return next((word for before, word in pairwise(words) if before == name), None)


def with_components(config: AnyRunConfig, family: str | None, network: str | None) -> AnyRunConfig:
    """The settings with another generator or network of theirs; unknown names are left to the parser.

    Raises ValueError for a generator or a network that a policy cannot have.
    """
    if family in FAMILIES:
        if family not in config.GENERATORS:
            raise ValueError(f"--family is {family}, which is no generator of actions; such are "
                             f"{', '.join(config.GENERATORS)}")
        config = config.with_generator(config.GENERATORS[family])
    if network in NETWORK_NAMES:
        if (model := config.generator) is None:
            raise ValueError(f"--network is {network}, but {config.kind} has no generator; leave it out")
        if not isinstance(model.network, NETWORK_NAMES[network]):
            config = config.with_generator(model.with_network(NETWORK_NAMES[network]()))
    return config


def fresh_folder(folder: Path, resume: str) -> Path:
    """A folder for a new run, looked at before any data are read or recorded. Raises ValueError for a used one, which
    the option `resume` goes on with."""
    if has_checkpoints(folder):
        raise ValueError(f"{folder} holds a training already; go on with {resume}, or give another --run-dir")
    check_folder(folder, "--run-dir")
    return folder
