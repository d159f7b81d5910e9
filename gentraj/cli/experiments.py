"""The commands of experiments with many runs: `gentraj compare`, `sweep` and `reproduce`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from annotated_types import Ge
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from gentraj.envs.making import ProtocolName

from ..config import from_word, settings
from ..device import pick_device
from ..experiments import compare
from ..experiments.cards import Card, CardResult, Score, read_card, read_results
from ..experiments.page import score_table, score_tables, write_page
from ..experiments.reproduce import Cards, place, reproduce, verdicts
from ..experiments.sweep import Values, base_card, sweep, trials_of, varied_card
from ..files import check_folder, check_output
from ..progress import print_saved, say
from .options import GROUP, Command, Device, JobsOptions, pool_of


@settings
class Compare(Command):
    """Compare trained runs of one environment: their returns in the same episodes, the quality of their samples, their
    speed and likelihood.

    The runs may be of any kind, such as families of models that `gentraj sweep --over family=...` has trained, or a
    teacher and its students. Runs that differ only in their seed are shown together, with their mean and range. The
    frontier shows what their decisions cost and what they are worth.

    Examples: gentraj compare runs/demo runs/gan
              gentraj compare runs/families/family=*/run
              gentraj compare runs/umaze@20 runs/umaze@5 runs/umaze-student --out runs/students
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folders of the runs; the others are compared with the first one. RUN@STEPS is a run with another number of
    sampling steps."""
    env_id: str | None = None
    """The environment, a Gymnasium id or a task name; by default the one that the data come from."""
    episodes: NonNegativeInt = 50
    """Number of episodes in which each run is evaluated; 0 leaves the returns out."""
    num: Annotated[int, Ge(8)] = 512
    """Number of trajectories that are sampled to measure the quality of samples, as in `gentraj measure`."""
    out: Path = Path("runs/comparison")
    """Folder that comparison.json, comparison.md and its figures are written to."""
    device: Device = None

    def __call__(self) -> None:
        check_folder(self.out, "--out")
        found = compare.compare_runs(self.runs, self.env_id, self.episodes, self.num, pick_device(self.device))
        if found.table is not None:
            print_saved(str(found.table))
        print_saved(f"\n{compare.measured(found)}\n")
        print_saved(compare.write_page(found, self.out))


@settings
class Sweep(Command):
    """Train and score a preset with many combinations of settings, and write a table of them, best first.

    The same command continues an interrupted sweep and repeats no finished training. Combinations that differ only in
    how the agent acts share a training and a job.

    Examples: gentraj sweep iql --dataset hopper.npz --over policy.beta=1,3,10 policy.expectile=0.7,0.9
              gentraj sweep pointmaze-umaze --over network=temporalunet,dit --seeds 0 1 2 --ray
              gentraj sweep pointmaze-umaze --over family=diffusion,gan --minutes 6 --run-dir runs/families
              gentraj sweep pointmaze-umaze --over network=dit planner.replan=8,16 --one-at-a-time
    """

    preset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
    """The preset to start from; `gentraj train --help` lists the presets."""
    over: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUES...")]
    """Settings, each with the values to try, as in policy.beta=1,3,10. The settings are the keys that `gentraj train
    PRESET --print-config` prints; `family` and `network` are the options --model and --network of `gentraj train` and
    bring their own default settings."""
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
    minutes: PositiveFloat | None = None
    """Minutes of each training, in place of --steps: each setting makes as many steps as it makes in this time on this
    machine when nothing runs beside it, which a short training measures first."""
    protocol: ProtocolName = "random-goal"
    """random-goal: a random goal in each episode; d4rl-single-goal: the fixed goal that D4RL has for each maze;
    ogbench: each of the five goals of an OGBench environment, with --episodes episodes each."""
    score: Score = "return_mean"
    """What the table is sorted by."""
    jobs: Annotated[JobsOptions, GROUP] = field(default_factory=JobsOptions)
    device: Device = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.minutes is not None:
            raise ValueError("--steps and --minutes both say how long to train; give one of them")
        if self.minutes is not None and any(text.startswith("training.steps=") for text in self.over):
            raise ValueError("--minutes and --over training.steps both say how long to train; give one of them")

    def __call__(self) -> None:
        check_folder(self.run_dir, "--run-dir")
        base, tried = sweep_plan(self)
        failures, results = sweep(base, tried, self.run_dir, pool_of(self.jobs, self.run_dir), self.device,
                                  self.minutes)
        for table in score_tables(results):
            print_saved(score_table(table))
        if failures:
            raise SystemExit(1)


def sweep_plan(args: Sweep) -> tuple[Card, list[Values]]:
    """The card of the preset, and what is tried. Raises ValueError for unknown keys and values, before any work."""
    base = base_card(args.preset, args.dataset, args.env_id, args.steps, seeds=args.seeds, episodes=args.episodes,
                     protocol=args.protocol, score=args.score)
    return base, trials_of(space_of(base, args.over), args.one_at_a_time)


def space_of(base: Card, texts: Sequence[str]) -> dict[str, list[object]]:
    """The values that are tried of each key. Raises ValueError for unknown keys, and for values that the setting cannot
    have."""
    space: dict[str, list[object]] = {}
    for text in texts:
        setting = re.fullmatch("([^=]+)=(.+)", text)
        if setting is None:
            raise ValueError(f"--over is '{text}'; KEY=V1,V2 is expected, such as planner.candidates=1,16")
        key, given = setting.groups()
        if key in space:
            raise ValueError(f"--over gives {key} twice; give each setting once")
        # Commas within brackets do not separate values.
        space[key] = [from_word(word) for word in re.split(r",(?![^\[{]*[\]}])", given)]
        for value in space[key]:
            varied_card(base, {key: value})
    if not space:
        raise ValueError("--over names no setting; give KEY=V1,V2, such as policy.beta=1,3")
    return space


@settings
class Reproduce(Command):
    """Train and score what result cards describe, and compare the scores with those that the cards expect.

    A card is a JSON file with a preset, settings, datasets, seeds and expected scores. Every seed is trained on every
    dataset, and its last checkpoint is evaluated. The command first says how long that takes, from the minutes that the
    cards name. The same command continues an interrupted experiment and repeats no finished training. The
    exit code is 1 if a score is outside its tolerance or a run failed. Without a card, the command only writes the
    table of the existing results.

    Examples: gentraj reproduce benchmarks/cards/fql.json --data ~/data --jobs 2
              gentraj reproduce --results benchmarks/results --table docs/results.md
    """

    cards: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CARD")] = ()
    """Card files."""
    data: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """A folder that is searched for data files; may be given several times."""
    out: Path = Path("runs/reproduce")
    """Folder that the runs are written to, each with a log.txt."""
    results: Path | None = None
    """Folder for the results, one file CARD.json for each card; by default --out."""
    jobs: Annotated[JobsOptions, GROUP] = field(default_factory=JobsOptions)
    table: Path | None = None
    """Also write all results in the folder --results as a page with figures to this file, such as docs/results.md."""
    device: Device = None

    def __call__(self) -> None:
        check_cards(self)
        results = self.results or self.out
        cards = {path.stem: read_card(path) for path in self.cards}
        if self.table is not None:
            # Raises now, not after hours of training, if the cards do not fit in the table.
            score_tables(read_results(results) | {name: CardResult(card, {}) for name, card in cards.items()})
        good = True
        if cards:
            pool = pool_of(self.jobs, self.out)
            experiment = Cards.of(cards, self.data, partial(place, self.out))
            failures, card_results = reproduce(experiment, results, pool, self.device)
            lines = [pair for name, result in card_results.items() for pair in verdicts(name, result)]
            print("\n".join(line for line, _ in lines))
            good = not failures and all(inside for _, inside in lines)
        if self.table is not None:
            if not (existing := read_results(results)):
                raise ValueError(f"{results} holds no results; gentraj reproduce CARD... writes them")
            say(f"table in {write_page(existing, self.table)}")
        if not good:
            raise SystemExit(1)


def check_cards(args: Reproduce) -> None:
    """Raises ValueError for options that contradict each other, before any work."""
    if not args.cards and args.table is None:
        raise ValueError("give cards, or --table FILE to write the table of the existing results; see gentraj "
                         "reproduce --help")
    names = [path.stem for path in args.cards]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"several cards are called {', '.join(repeated)}; each needs a name of its own")
    results = args.results or args.out
    if own := [path for path in args.cards if path.exists() and path.resolve() == (results / path.name).resolve()]:
        raise ValueError(f"{own[0]} is where its results would be written; give another folder by --results")
    if args.table is not None:
        check_output(args.table, "--table")
    check_folder(args.out, "--out")
    check_folder(results, "--results")
