"""`gentraj ablate`: a preset and its variants with one setting changed."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from envs.making import ProtocolName

from ..config import kind_of, to_json, with_settings
from ..experiments.ablate import BASE, DATA, WORDS, Change, ablate, show
from ..experiments.cards import Card, CardData
from ..experiments.engine import check_known
from ..experiments.processes import cpus
from ..families import FAMILIES, family
from ..files import check_folder
from ..progress import print_saved, say
from ..runs.kinds import AnyRunConfig
from ..runs.presets import PRESETS, suited
from .options import parse
from .train import NETWORK_NAMES, with_components

COMPONENTS = {"family": FAMILIES, "network": NETWORK_NAMES}


@dataclass(frozen=True)
class Ablate:
    """Train and score a preset and its variants that differ in one setting, and write a table of the scores.

    All variants share the data, the seeds and the episodes; variants that differ only in how they plan also share a
    training. The intervals of the differences are paired by seed and episode. The same command continues an interrupted
    ablation.

    Examples: gentraj ablate veteran+ --dataset hopper.hdf5 --env-id Hopper-v5 --vary planner.candidates=1,32
              gentraj ablate pointmaze --dataset D4RL/pointmaze/medium-v2 --vary network=dit --vary planner.replan=8,16
    """

    preset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
    """The preset to vary; `gentraj train --help` lists the presets."""
    vary: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="KEY=V1,V2")]
    """A setting and the values to try, such as planner.candidates=1,32; may be given several times. The settings are
    the keys that `gentraj train PRESET --print-config` prints; `family` and `network` are the options of `gentraj
    train` and bring their own default settings."""
    dataset: str = ""
    """The dataset, as in `gentraj train`; by default the preset's."""
    env_id: str | None = None
    """The environment, if the dataset does not name it: a Gymnasium id or a task name."""
    run_dir: Path = Path("runs/ablation")
    """Folder that the runs, ablation.md and ablation.json are written to."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the trainings of each variant; all are evaluated on the same episodes."""
    episodes: int = 20
    """Number of episodes in which each training is evaluated."""
    steps: int | None = None
    """Number of training steps; by default the preset's."""
    protocol: ProtocolName = "random-goal"
    """random-goal: a random goal in each episode; d4rl-single-goal: the fixed goal that D4RL has for each maze."""
    score: Literal["return_mean", "score_d4rl", "score_minari"] = "return_mean"
    """The score to compare: the mean return, or the return normalised as by D4RL or as by Minari."""
    jobs: int | None = None
    """Number of runs in parallel, with one thread each; by default the number of CPUs."""
    device: str | None = None
    """A PyTorch device such as cuda or mps; by default the accelerator if there is one, else the CPU."""


def main(argv: list[str]) -> None:
    args = parse(Ablate, argv, "gentraj ablate")
    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs is {args.jobs}; give at least 1")
    check_folder(args.run_dir, "--run-dir")
    variants = changes(args)
    variants[0].card.config(variants[0].card.data[0], seed=0, where="--dataset")  # raises if the file is missing
    failures, text = ablate(variants, args.run_dir, args.jobs or cpus(), args.device)
    print_saved(text)
    say(f"table in {args.run_dir / 'ablation.md'}")
    if failures:
        raise SystemExit(1)


def changes(args: Ablate) -> list[Change]:
    """The base and one change for each value of --vary. Raises ValueError for unknown keys and values."""
    check_known([args.preset], PRESETS, "preset")
    preset = suited(args.preset, args.dataset)
    if not (dataset := args.dataset or PRESETS[preset].dataset):
        raise ValueError(f"preset '{preset}' needs --dataset ID_OR_FILE; `gentraj data list` shows those here")
    settings = {} if args.steps is None else {"training.steps": args.steps}
    data = CardData(DATA, dataset, args.env_id, None, None)
    base = Card("An ablation.", "Ablation", BASE, preset, settings, (data,), args.seeds, args.episodes, args.protocol,
                args.score)
    config = with_settings(PRESETS[preset], settings, preset)
    result = [Change(base)]
    for key, value in (pair for text in args.vary for pair in varied(text)):
        overrides = changed(preset, key, value)
        varied_config = with_settings(config, overrides, f"--vary {key}")
        varied_config.refuse(key)
        if varied_config == config:
            say(f"{key} is {show(value)} in {preset} already; left out")
        else:
            result.append(Change(replace(base, settings=settings | overrides), key, at(config, key), value))
    return result


def varied(text: str) -> Iterator[tuple[str, Any]]:
    """Yields (key, value) for each value of "KEY=V1,V2". Raises ValueError for other text."""
    key, equals, values = text.partition("=")
    if not (key and equals and values):
        raise ValueError(f"--vary is '{text}'; KEY=V1,V2 is expected, such as planner.candidates=1,16")
    for word in re.split(r",(?![^\[{]*[\]}])", values):  # commas within brackets do not separate values
        try:
            yield key, WORDS[word] if word in WORDS else json.loads(word)
        except json.JSONDecodeError:
            yield key, word


def changed(preset: str, key: str, value: Any) -> dict[str, Any]:
    """The settings of a card that make the change. Raises ValueError for an unknown key, and suggests similar ones."""
    config, groups = PRESETS[preset], to_json(PRESETS[preset])
    if key in COMPONENTS:
        check_known([show(value)], COMPONENTS[key], key)
        other = with_components(config, **{"family": None, "network": None, key: value})
        other_groups = to_json(other)
        return {name: other_groups[name] for name, group in groups.items() if other_groups[name] != group}
    keys = list(dotted(groups))
    if key not in keys:
        near = difflib.get_close_matches(key, keys, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"gentraj train {preset} --help lists them"
        raise ValueError(f"--vary: {preset} has no setting '{key}'; {hint}")
    return {key: value}


def dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields the dotted key of every setting and of every group of settings."""
    for name, value in settings.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{name}.")


def at(config: AnyRunConfig, key: str) -> Any:
    """The value of a setting as JSON; the name of the family or network for `family` and `network`."""
    if key == "family":
        return None if config.generator is None else family(config.generator)
    if key == "network":
        return None if config.generator is None else kind_of(config.generator.network)
    return reduce(dict.__getitem__, key.split("."), to_json(config))
