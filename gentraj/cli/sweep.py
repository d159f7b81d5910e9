"""`gentraj sweep`: a preset with many settings, trained and scored, best first."""

from __future__ import annotations

import re
from dataclasses import field
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import NonNegativeInt, PositiveInt

from gentraj.envs.making import ProtocolName

from ..config import from_word, settings
from ..experiments.cards import Card, Score
from ..experiments.page import score_table, score_tables
from ..experiments.sweep import Choice, Range, Space, Values, base_card, sweep, trials_of, varied_card
from ..files import check_folder
from ..progress import print_saved
from .jobs import JobsOptions, pool_of
from .options import Device, parse

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})(:log)?")


@settings
class SweepOptions:
    """Train and score a preset with many combinations of settings, and write a table of them, best first.

    The same command continues an interrupted sweep and repeats no finished training. Combinations that differ only in
    how the agent acts share a training and a job.

    Examples: gentraj sweep iql --dataset hopper.hdf5 --over policy.beta=1,3,10 policy.expectile=0.7,0.9
              gentraj sweep iql --dataset hopper.hdf5 --over policy.beta=0.5..20:log --trials 40
              gentraj sweep pointmaze-umaze --over network=temporalunet,dit --seeds 0 1 2 --ray
              gentraj sweep pointmaze-umaze --over network=dit planner.replan=8,16 --one-at-a-time
    """

    preset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
    """The preset to start from; `gentraj train --help` lists the presets."""
    over: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="KEY=VALUES...")]
    """Settings, each with the values to try: several values, as in policy.beta=1,3,10, a range, as in
    policy.beta=0.5..20, of whole numbers if both ends are, or a range that is uniform in its logarithm, as in
    policy.beta=0.5..20:log. The settings are the keys that `gentraj train PRESET --print-config` prints; `family` and
    `network` are the options --model and --network of `gentraj train` and bring their own default settings."""
    trials: PositiveInt | None = None
    """Draw this number of settings at random, instead of trying all combinations. A larger number adds to those of a
    smaller one."""
    one_at_a_time: bool = False
    """Try the preset and, instead of all combinations, each value alone; the page also has how far each is above the
    preset, paired by seed and episode."""
    dataset: str = ""
    """The dataset, as in `gentraj train`; by default the preset's."""
    env_id: str | None = None
    """The environment, if the dataset does not name it: a Gymnasium id or a task name."""
    run_dir: Path = Path("runs/sweep")
    """Folder that the runs, the results and sweep.md are written to."""
    seeds: tuple[NonNegativeInt, ...] = (0,)
    """Seeds of the trainings of each combination; all are evaluated on the same episodes."""
    episodes: PositiveInt = 20
    """Number of episodes in which each training is evaluated."""
    steps: PositiveInt | None = None
    """Number of training steps; by default the preset's."""
    protocol: ProtocolName = "random-goal"
    """random-goal: a random goal in each episode; d4rl-single-goal: the fixed goal that D4RL has for each maze;
    ogbench: each of the five goals of an OGBench environment, with --episodes episodes each."""
    score: Score = "return_mean"
    """What the table is sorted by."""
    jobs: Annotated[JobsOptions, tyro.conf.arg(name="")] = field(default_factory=JobsOptions)
    device: Device = None

    def __post_init__(self) -> None:
        if self.one_at_a_time and self.trials is not None:
            raise ValueError("--one-at-a-time tries each value alone, and --trials draws all settings at random; leave "
                             "one of them out")


def main(argv: list[str]) -> None:
    args = parse(SweepOptions, argv, "gentraj sweep")
    check_folder(args.run_dir, "--run-dir")
    base, tried = plan(args)
    failures, results = sweep(base, tried, args.run_dir, pool_of(args.jobs, args.run_dir), args.device)
    for table in score_tables(results):
        print_saved(score_table(table))
    if failures:
        raise SystemExit(1)


def plan(args: SweepOptions) -> tuple[Card, list[Values]]:
    """The card of the preset, and what is tried. Raises ValueError for unknown keys and values, before any work."""
    base = base_card(args.preset, args.dataset, args.env_id, args.steps, seeds=args.seeds, episodes=args.episodes,
                     protocol=args.protocol, score=args.score)
    return base, trials_of(space_of(base, [text for texts in args.over for text in texts]), args.trials,
                           args.one_at_a_time)


def space_of(base: Card, texts: list[str]) -> Space:
    """What is tried of each key. Raises ValueError for unknown keys, and for values that the setting cannot have."""
    space: dict[str, Choice | Range] = {}
    for text in texts:
        setting = re.fullmatch("([^=]+)=(.+)", text)
        if setting is None:
            raise ValueError(f"--over is '{text}'; KEY=V1,V2 is expected, such as planner.candidates=1,16")
        key, given = setting.groups()
        if key in space:
            raise ValueError(f"--over gives {key} twice; give each setting once")
        bounds = RANGE.fullmatch(given)
        if bounds:
            kind = int if re.fullmatch(r"[+-]?\d+[+-]?\d+", bounds[1] + bounds[2]) else float
            space[key] = Range(kind(bounds[1]), kind(bounds[2]), bool(bounds[3]), kind is int)
        else:  # commas within brackets do not separate values
            space[key] = Choice(tuple(map(from_word, re.split(r",(?![^\[{]*[\]}])", given))))
        for value in space[key].ends:
            varied_card(base, {key: value})
    if not space:
        raise ValueError("--over names no setting; give KEY=V1,V2, such as policy.beta=1,3")
    return space
