"""`gentraj ablate`."""

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
from ..experiments.engine import known
from ..experiments.processes import cpus
from ..families import FAMILIES, family
from ..progress import say
from ..runs.kinds import AnyRunConfig
from ..runs.presets import PRESETS, suited
from .common import check_folder
from .options import parse
from .train import NETWORK_NAMES, with_components

PARTS = {"family": FAMILIES, "network": NETWORK_NAMES}


@dataclass(frozen=True)
class Ablate:
    """The table of one-setting changes: a preset as it is, and the same with one setting changed, for each value given.

    All have the same data, seeds and episodes, and what differs only in how it plans shares a training. Called again it
    goes on where it stopped. The differences' intervals are paired: of the same seed and episode.

    Examples: gentraj ablate veteran+ --dataset hopper.hdf5 --env-id Hopper-v5 --vary planner.candidates=1,32;
    gentraj ablate pointmaze --dataset D4RL/pointmaze/medium-v2 --vary network=dit --vary planner.replan=8,16
    """

    preset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
    vary: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="KEY=V1,V2")]
    """A setting by its dotted key and its other values; may be given several times. `family` and `network` are those of
    `gentraj train`, and come with their own usual settings."""
    dataset: str = ""
    """As `gentraj train` takes it; the preset's own by default."""
    env_id: str | None = None
    """The environment, where the data do not say."""
    run_dir: Path = Path("runs/ablation")
    """Folder of the trainings, of ablation.md and ablation.json."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the trainings. All of them are evaluated on the same episodes."""
    episodes: int = 20
    steps: int | None = None
    """Training steps; those of the preset by default."""
    protocol: ProtocolName = "random-goal"
    score: Literal["return_mean", "score_d4rl", "score_minari"] = "return_mean"
    jobs: int | None = None
    """Trainings side by side, with one thread each; by default as many as there are CPUs."""
    device: str | None = None


def main(argv: list[str]) -> None:
    args = parse(Ablate, argv, "gentraj ablate")
    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs is {args.jobs}; give at least 1")
    check_folder(args.run_dir, "--run-dir")
    made = changes(args)
    made[0].card.config(made[0].card.data[0], seed=0, where="--dataset")  # whose file should be there
    failures, text = ablate(made, args.run_dir, args.jobs or cpus(), args.device)
    print(text)
    say(f"table in {args.run_dir / 'ablation.md'}")
    if failures:
        raise SystemExit(1)


def changes(args: Ablate) -> list[Change]:
    """The base and each change of it. Raises ValueError for keys and values that there are not."""
    known([args.preset], PRESETS, "preset")
    preset = suited(args.preset, args.dataset)
    if not (dataset := args.dataset or PRESETS[preset].dataset):
        raise ValueError(f"preset '{preset}' needs --dataset ID_OR_FILE; `gentraj data list` shows those here")
    settings = {} if args.steps is None else {"training.steps": args.steps}
    data = CardData(DATA, dataset, args.env_id, None, None)
    base = Card("An ablation.", "Ablation", BASE, preset, settings, (data,), args.seeds, args.episodes, args.protocol,
                args.score)
    config = with_settings(PRESETS[preset], settings, preset)
    made = [Change(base)]
    for key, value in (pair for text in args.vary for pair in varied(text)):
        more = changed(preset, key, value)
        varied_config = with_settings(config, more, f"--vary {key}")
        varied_config.refuse(key)
        if varied_config == config:
            say(f"{key} {show(value)} is what {preset} has; left out")
        else:
            made.append(Change(replace(base, settings=settings | more), key, at(config, key), value))
    return made


def varied(text: str) -> Iterator[tuple[str, Any]]:
    """ "KEY=V1,V2" -> (key, value) of each. Raises ValueError for other text."""
    key, equals, values = text.partition("=")
    if not (key and equals and values):
        raise ValueError(f"--vary is '{text}'; KEY=V1,V2 is expected, such as planner.candidates=1,16")
    for word in re.split(r",(?![^\[{]*[\]}])", values):  # not at commas within brackets
        try:
            yield key, WORDS[word] if word in WORDS else json.loads(word)
        except json.JSONDecodeError:
            yield key, word


def changed(preset: str, key: str, value: Any) -> dict[str, Any]:
    """The settings of a card that make that change. Raises ValueError for a key there is not, with the nearest."""
    config, before = PRESETS[preset], to_json(PRESETS[preset])
    if key in PARTS:
        known([show(value)], PARTS[key], key)
        other = with_components(config, **{"family": None, "network": None, key: value})
        groups = to_json(other)
        return {name: groups[name] for name, group in before.items() if groups[name] != group}
    keys = list(dotted(before))
    if key not in keys:
        near = difflib.get_close_matches(key, keys, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"gentraj train {preset} --help lists them"
        raise ValueError(f"--vary: {preset} has no setting '{key}'; {hint}")
    return {key: value}


def dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every key, of groups too."""
    for name, value in settings.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{name}.")


def at(config: AnyRunConfig, key: str) -> Any:
    """The value of a setting as JSON; of a part its name."""
    if key == "family":
        return None if config.generator is None else family(config.generator)
    if key == "network":
        return None if config.generator is None else kind_of(config.generator.network)
    return reduce(dict.__getitem__, key.split("."), to_json(config))
