"""`gentraj sweep`: a preset with many settings, trained and scored, best first."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from gentraj.envs.making import ProtocolName

from ..config import to_word
from ..experiments.cards import Card
from ..experiments.comparison import Options
from ..experiments.sweep import SCORES, Choice, Objective, Range, SearchConfig, Space, Sweep
from ..files import check_folder
from ..progress import print_saved, say
from .jobs import JobsOptions
from .options import Device, parse
from .varying import COMPONENTS, at, base_card, split, values, varied_card

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})(:log)?")


@dataclass(frozen=True)
class SweepOptions:
    """Train and score a preset with many combinations of settings, and write a table of them, best first.

    The same command continues an interrupted sweep and repeats no finished training. Combinations that differ only in
    how the agent acts share a training and a job.

    Examples: gentraj sweep iql --dataset hopper.hdf5 --over policy.beta=1,3,10 policy.expectile=0.7,0.9
              gentraj sweep iql --dataset hopper.hdf5 --over policy.beta=0.5..20:log --search tpe --trials 40
              gentraj sweep pointmaze-umaze --over network=temporalunet,dit --seeds 0 1 2 --ray
              gentraj sweep pointmaze-umaze --over network=dit planner.replan=8,16 --one-at-a-time
    """

    preset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
    """The preset to start from; `gentraj train --help` lists the presets."""
    over: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="KEY=VALUES...")]
    """Settings, each with the values to try: several values, as in policy.beta=1,3,10, a range, as in
    policy.beta=0.5..20, or a range that is uniform in its logarithm, as in policy.beta=0.5..20:log. The settings are
    the keys that `gentraj train PRESET --print-config` prints; `family` and `network` are the options of `gentraj
    train` and bring their own default settings."""
    search: Annotated[SearchConfig, tyro.conf.arg(name="")] = field(default_factory=SearchConfig)
    dataset: str = ""
    """The dataset, as in `gentraj train`; by default the preset's."""
    env_id: str | None = None
    """The environment, if the dataset does not name it: a Gymnasium id or a task name."""
    run_dir: Path = Path("runs/sweep")
    """Folder that the runs, sweep.md and sweep.json are written to."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the trainings of each combination; all are evaluated on the same episodes."""
    episodes: int = 20
    """Number of episodes in which each training is evaluated."""
    num: int = 512
    """Number of trajectories that are sampled to measure the quality of samples, if that is the objective."""
    steps: int | None = None
    """Number of training steps; by default the preset's."""
    protocol: ProtocolName = "random-goal"
    """random-goal: a random goal in each episode; d4rl-single-goal: the fixed goal that D4RL has for each maze;
    ogbench: each of the five goals of an OGBench environment, with --episodes episodes each."""
    objective: str = "return_mean"
    """What the table is sorted by: return_mean, score_d4rl, score_minari or success_rate, or a number that `gentraj
    compare` measures of planners, such as quality.measures.start.two_sample_accuracy."""
    minimize: bool = False
    """Lower values of the objective are better, in the table and for the search."""
    jobs: Annotated[JobsOptions, tyro.conf.arg(name="")] = field(default_factory=JobsOptions)
    device: Device = None


def main(argv: list[str]) -> None:
    args = parse(SweepOptions, argv, "gentraj sweep")
    check_folder(args.run_dir, "--run-dir")
    sweep = sweep_of(args)
    failures, text = sweep.run(args.jobs.pool(args.run_dir))
    print_saved(text)
    say(f"table in {args.run_dir / 'sweep.md'}")
    if failures:
        raise SystemExit(1)


def sweep_of(args: SweepOptions) -> Sweep:
    """The sweep that the options describe. Raises ValueError for unknown keys and values, before any work."""
    objective = Objective(args.objective, args.minimize)
    kind = args.objective.partition(".")[0]
    for option, kinds, what in (("num", ("quality",), "measures samples"),
                                ("episodes", (*SCORES, "control"), "is a score"),
                                ("protocol", SCORES, "is a score of the evaluation")):
        if getattr(args, option) != getattr(SweepOptions, option) and kind not in kinds:
            raise ValueError(f"--{option} is for an objective that {what}, and --objective is {args.objective}; leave "
                             "it out")
    base = base_card(args.preset, args.dataset, args.env_id, args.steps, seeds=args.seeds, episodes=args.episodes,
                     protocol=args.protocol, score=objective.score)
    base.config(base.data[0], seed=0, where="--dataset")  # raises if the file is missing
    space = space_of(base, [text for texts in args.over for text in texts])
    return Sweep(base, partial(varied_card, base, option="--over"), space, args.search, objective,
                 Options(args.episodes, args.num, args.device), args.run_dir)


def space_of(base: Card, texts: list[str]) -> Space:
    """What is tried of each key. Raises ValueError for unknown keys, and for values that the setting cannot have."""
    space: dict[str, Choice | Range] = {}
    for key, text in (split(text, "--over") for text in texts):
        if key in space:
            raise ValueError(f"--over gives {key} twice; give each setting once")
        space[key] = _range(base, key, *bounds.groups()) if (bounds := RANGE.fullmatch(text)) else _choice(key, text)
        for value in space[key].ends:
            varied_card(base, {key: value}, "--over")
    if not space:
        raise ValueError("--over names no setting; give KEY=V1,V2, such as policy.beta=1,3")
    return space


def _choice(key: str, text: str) -> Choice:
    found = values(text)
    if twice := [value for i, value in enumerate(found) if value in found[:i]]:
        raise ValueError(f"--over {key} has {to_word(twice[0])} twice; give each value once")
    return Choice(tuple(found))


def _range(base: Card, key: str, low: str, high: str, log: str | None) -> Range:
    """A range of whole numbers if the setting is one, or has none yet and both ends are whole."""
    ends = float(low), float(high)
    whole = all(end.is_integer() for end in ends)
    if key not in COMPONENTS:
        varied_card(base, {key: int(ends[0]) if whole else ends[0]}, "--over")  # raises for an unknown key
        present = at(base.without_data(base.preset), key)
        whole = type(present) is int or (present is None and whole)
    if whole and not all(end.is_integer() for end in ends):
        raise ValueError(f"--over {key} is {low}..{high}; whole numbers are expected")
    return Range(int(ends[0]), int(ends[1]), bool(log), True) if whole else Range(*ends, bool(log))
