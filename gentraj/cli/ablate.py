"""`gentraj ablate`: a preset and its variants with one setting changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from gentraj.envs.making import ProtocolName

from ..config import to_word
from ..experiments.ablate import Change, ablate
from ..experiments.cards import Score
from ..files import check_folder
from ..progress import print_saved, say
from .jobs import JobsOptions
from .options import Device, parse
from .varying import at, base_card, split, values, varied_card


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
    """random-goal: a random goal in each episode; d4rl-single-goal: the fixed goal that D4RL has for each maze;
    ogbench: each of the five goals of an OGBench environment, with --episodes episodes each."""
    score: Score = "return_mean"
    """The score to compare: the mean return, the return normalised as by D4RL or as by Minari, or the success
    rate."""
    jobs: Annotated[JobsOptions, tyro.conf.arg(name="")] = field(default_factory=JobsOptions)
    device: Device = None


def main(argv: list[str]) -> None:
    args = parse(Ablate, argv, "gentraj ablate")
    check_folder(args.run_dir, "--run-dir")
    variants = changes(args)
    variants[0].card.config(variants[0].card.data[0], seed=0, where="--dataset")  # raises if the file is missing
    failures, text = ablate(variants, args.run_dir, args.jobs.pool(args.run_dir), args.device)
    print_saved(text)
    say(f"table in {args.run_dir / 'ablation.md'}")
    if failures:
        raise SystemExit(1)


def changes(args: Ablate) -> list[Change]:
    """The base and one change for each value of --vary. Raises ValueError for unknown keys and values."""
    base = base_card(args.preset, args.dataset, args.env_id, args.steps, seeds=args.seeds, episodes=args.episodes,
                     protocol=args.protocol, score=args.score)
    config = base.without_data(base.preset)
    result = [Change(base)]
    for key, text in (split(text, "--vary") for text in args.vary):
        for value in values(text):
            card = varied_card(base, {key: value}, "--vary")
            if card.without_data(base.preset) == config:
                say(f"{key} is {to_word(value)} in {base.preset} already; left out")
            else:
                result.append(Change(card, key, at(config, key), value))
    return result
