"""`gentraj train`: a planner, a policy or a world model, into a run folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated

import torch
import tyro

from ..config import OneOf, from_json, read_json, settings, to_json
from ..data.sources import is_path, resolve_paths
from ..device import pick_device
from ..families import FAMILIES
from ..files import check_folder
from ..networks import NETWORKS
from ..progress import print_saved, say
from ..runs.kinds.folder import RunFolder
from ..runs.kinds.presets import PRESETS, listing, preset, short_training, usual_steps, with_components
from ..runs.kinds.run import Run, RunConfig
from ..runs.kinds.world_run import WorldModelRun
from ..runs.learn.training import prepare, untrained_agent
from ..runs.learn.training import train as train_run
from ..runs.show.card import parameters_trained
from ..training.checkpoint import has_checkpoints
from .environments import imports_again
from .options import Device, Given, Training, named, print_settings, values_of

ModelName = Annotated[str, OneOf(FAMILIES)]
NetworkName = Annotated[str, OneOf(NETWORKS)]


@settings
class Train(Training):
    """Train a planner, a policy or a world model, and write it to a run folder.

    A preset chooses what is trained and has all settings; every setting is an option behind it, such as --dataset ID,
    --steps 3000 (short for --training.steps) or --policy.model.steps 10. `gentraj train PRESET --help` lists the
    settings of a preset, and `gentraj train --help` lists the presets.

    Examples: gentraj train pointmaze-umaze --steps 3000 --run-dir runs/umaze
              gentraj train --resume runs/umaze
              gentraj train pointmaze --dataset D4RL/pointmaze/medium-v2 --model gan
              gentraj train pointmaze-umaze --model flow --network dit --model.prediction velocity --dry-run
              gentraj train iql --dataset hopper.hdf5 --env-id Hopper-v5 --policy.expectile 0.8 --run-dir runs/iql
    """

    preset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")] = None
    """The preset, which decides what is trained and has the defaults of all settings."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
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

    def __call__(self) -> None:
        config = self._settings()
        if self.print_config:
            print(json.dumps(to_json(config, defaults=False), indent=2))
            return
        name = self.preset or (self.config.stem if self.config else "")
        if not config.dataset:
            raise ValueError(f"preset '{name}' needs --dataset ID_OR_FILE; `gentraj data list` shows those here")
        config = replace(config, dataset=resolve_paths(config.dataset, self.resume or Path()))
        device = pick_device(self.device)
        if self.dry_run:
            print(dry_run(config, device))
            return
        folder = self.run_dir or Path("runs") / name
        folder = self.resume or fresh_folder(folder, f"--resume {quote(str(folder))}")
        run = train_run(config, folder=folder, resume=self.resume is not None, device=device)
        if short := short_training(config):
            say(f"{short}; `gentraj train --resume {quote(str(folder))} --steps {usual_steps(config)}` goes on")
        say(f"trained {run.step} steps; the run is in {folder}")
        print_saved(next_command(run, folder))

    @classmethod
    def more_help(cls, given: Given) -> Callable[[], None]:
        """The settings of the preset, the file or the run that is named, or else all presets."""
        args = from_json(cls, values_of(cls, given), "")
        if args.preset is args.config is args.resume is None:
            return partial(print, listing())
        return partial(print_settings, args._settings())

    @staticmethod
    def is_argument(word: str) -> bool:
        """Whether a word behind a value of a setting is a preset."""
        return word in PRESETS

    def _settings(self) -> RunConfig:
        """The settings that all options together make. Raises ValueError for one that is unknown or refused."""
        return self.configured(with_components(self._defaults(), self.model, self.network), self.given)

    def _defaults(self) -> RunConfig:
        """The settings of the preset, the file or the resumed run. Raises ValueError unless exactly one of them is
        given."""
        sources = {"a preset": self.preset, "--config": self.config, "--resume": self.resume}
        chosen = [name for name, value in sources.items() if value is not None]
        if len(chosen) != 1:
            raise ValueError(f"{' and '.join(chosen) or 'nothing'} was given, and one of PRESET, --config FILE and "
                             "--resume DIR is expected, which each name all settings; `gentraj train --help` lists the "
                             "presets")
        if self.preset is not None and is_path(self.preset):
            raise ValueError(f"{self.preset} are data, and a preset is expected first, which says what learns from "
                             f"them; for example: gentraj train iql --dataset {quote(self.preset)}")
        if self.preset is not None:
            return preset(self.preset, " ".join(self.given.get("dataset", ())))
        if self.config is not None:
            return from_json(RunConfig, read_json(self.config), str(self.config))
        for option in ("run_dir", "model", "network"):
            if getattr(self, option) is not None:
                raise ValueError(f"--resume continues the run as it is; leave {named(option)} out")
        return RunFolder(Path(str(self.resume))).read().run


def next_command(run: Run, folder: Path) -> str:
    """The command that evaluates a trained run, with the options that it needs; where no environment is known, the one
    that shows the run."""
    command = f"next: gentraj evaluate {quote(str(folder))}{imports_again()}"
    if run.data.env is not None:
        return command
    if isinstance(run, WorldModelRun):
        return command.replace("evaluate", "judge", 1)
    return f"next: gentraj report {quote(str(folder))}; with a simulator, {command.removeprefix('next: ')} --env-id ID"


def dry_run(config: RunConfig, device: torch.device) -> str:
    """Takes one decision on this device, and says what would be trained, with a line for each component."""
    run, parts = prepare(config, record=False)
    obs_BO = run.ready(device).reference.x_BHD[:1, 0, : run.data.obs_dim]
    untrained_agent(run).act(obs_BO, run.example_goal(run.reference, obs_BO))
    training = run.config.training
    lines = [f"{name:10} {type(part).__name__:18} {parameters_trained(part):>11,} parameters, horizon "
             f"{part.spec.horizon}, batches of {part.batch_size}" for name, part in run.components.items()]
    return "\n".join([f"{run.summary}, of {run.config.dataset}: {len(parts.train)} episodes of "
                      f"{parts.train.num_steps:,} steps", *lines,
                      f"{training.steps:,} steps of each component on {device}, seed {training.seed}; one decision was "
                      "taken, and nothing is written"])


def fresh_folder(folder: Path, resume: str) -> Path:
    """Checks a folder for a new run and returns it. Raises ValueError if it already holds a training.

    `resume` is the option that continues the training, for the message.
    """
    if has_checkpoints(folder):
        raise ValueError(f"{folder} holds a training already; continue it with {resume}, or give another --run-dir")
    check_folder(folder, "--run-dir")
    return folder
