"""The commands that use a run: `gentraj sample`, `measure`, `report`, `export`, `hub`, `augment` and `finetune`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Annotated

import numpy as np
import torch
import tyro
from gymnasium.spaces import Box
from pydantic import PositiveInt

from ..acceleration import BackendName, accelerate
from ..config import JsonObject, settings, write_json
from ..device import pick_device
from ..files import check_output, write_file
from ..plots.page import markdown_table
from ..progress import busy, counted, print_saved, say
from ..runs.judge.measures import measure_run
from ..runs.kinds.folder import RunFolder
from ..runs.kinds.loading import load
from ..runs.kinds.planner_run import PlannerRun
from ..runs.kinds.run import Run
from ..runs.learn.augmentation import AugmentConfig, augment
from ..runs.learn.finetuning import FinetuneConfig, finetune, returns
from ..runs.show.export import export_run, signature, to_onnx, to_pt2
from ..runs.show.hub import from_pretrained, push_to_hub, save_pretrained
from ..runs.show.report import make_report
from ..runs.show.sampling import Given, sample_run
from .environments import imports_again
from .options import Device, RunPath, SamplerOptions, Step, load_trained, parse, parse_call
from .train import fresh_folder


@settings
class Sample:
    """Sample trajectories from a planner's model, or chunks of actions from a policy's, and write them to a file.

    All numbers are in environment units. For a policy, --start is the observation to act in and --goal is the goal that
    the policy is conditioned on, if it has one; the samples are chunks of K actions.

    Examples: gentraj sample runs/demo --num 64 --start 1 1 --goal -1 -1 --out plans.npz
              gentraj sample runs/demo --num 64 --steps 10 --temperature 0.5 --seed 1 --out plans.npz
    """

    run: RunPath
    """The folder of a run, as `gentraj train` writes it."""
    out: Path
    """The .npz file to write. It holds the arrays obs (N, H, O), act (N, H, A) and stride, where N is --num, H the
    horizon, O the width of an observation and A that of an action; for a policy obs (N, 1, O) and act (N, K, A). Of
    whole ways to a goal (see --arrival), H is the length of the longest, shorter ones repeat their last timestep, and
    ratio (N, H) is the trust ratio along the way, NaN after the arrival; up to 1 a plan is trusted."""
    step: Step = None
    num: PositiveInt = 16
    """Number of trajectories, or of chunks of actions, to sample."""
    given: Annotated[Given, tyro.conf.arg(name="")] = field(default_factory=Given)
    steps: int | None = None
    """Number of sampling steps; by default the model's own."""
    sampling: Annotated[SamplerOptions, tyro.conf.arg(name="")] = field(default_factory=SamplerOptions)
    temperature: float = 1.0
    """Scale of the noise; a value below 1 makes the samples more likely and less varied."""
    seed: int = 0
    """Seed; the same seed gives the same samples."""
    accelerate: BackendName = "eager"
    """What runs the networks. compile: torch.compile, which takes a minute or more at first; openvino and
    openvino-bf16: OpenVINO (extra openvino), the latter in bfloat16."""
    device: Device = None


def sample_main(argv: list[str]) -> None:
    args = parse(Sample, argv, "gentraj sample")
    if args.out.suffix != ".npz":
        raise ValueError(f"--out is {args.out}; a file that ends in .npz is expected")
    check_output(args.out, "--out")
    run = accelerate(load_trained(args.run, args.device, args.step), args.accelerate)
    with busy(f"sampling {args.num}"):
        options = args.sampling.options(args.steps, args.temperature)
        samples = sample_run(run, args.num, args.given, seed=args.seed, options=options)
    samples.save(args.out)
    if isinstance(run, PlannerRun):
        say(f"{args.num} trajectories of {samples.obs_NHO.shape[1]} timesteps, {samples.stride} environment steps "
            "apart")
    else:
        say(f"{counted(args.num, 'chunks')} of {counted(samples.act_NHA.shape[1], 'actions')}")
    print_saved(args.out)


@dataclass(frozen=True)
class Measure:
    """Measure how close the trajectories of a planner's model are to data. The number nearest to the column `data` is
    best.

    Windows of the data are split in two halves, and everything is compared with the first half. The column `data` is
    the second half, so a perfect model would score the same. The other columns are trajectories sampled from the model,
    as many as the windows of the second half and under their conditions.

    row_error: the simulator is set to a timestep of a plan and takes the plan's actions; the error is its distance from
    the plan at the next timestep. replay_error: the same, but the simulator takes all actions from the first timestep
    on. Both errors and smoothness use the entries of the observation that a goal has, if there are any.

    Examples: gentraj measure runs/demo --num 256
              gentraj measure runs/demo --dataset mine/held-out-v0 --out held-out.json
    """

    run: RunPath
    """The folder of a run, as `gentraj train` writes it."""
    dataset: str | None = None
    """Take the windows from this dataset, such as held-out episodes; by default from the training data kept in the
    run."""
    num: int = 512
    """Number of trajectories in each column; it is lowered if there are fewer than twice as many windows."""
    steps: int | None = None
    """Number of sampling steps; by default the model's own."""
    seed: int = 0
    """Seed of the selection of windows and of the samples."""
    out: Path | None = None
    """The JSON file to write; by default RUN/measures.json."""
    device: Device = None


def measure_main(argv: list[str]) -> None:
    args = parse(Measure, argv, "gentraj measure")
    run = load_trained(args.run, args.device)
    path = args.out or run.folder / RunFolder.MEASURES
    check_output(path, "--out")
    measured = measure_run(run, dataset=args.dataset, num=args.num, steps=args.steps, seed=args.seed)
    write_json(path, measured)
    say(f"measures in {path}")
    print_saved(measures_table(measured))


def measures_table(measured: JsonObject) -> str:
    """The measures as a table in Markdown with a column for the data and one for each condition."""
    columns = measured["measures"]
    rows = [(name, *(column[name] for column in columns.values()), unit) for name, unit in measured["units"].items()]
    return "\n".join([f"{measured['num']} trajectories a column, {measured['dataset']}, step {measured['step']}",
                      markdown_table(("", *columns, "unit"), rows),
                      *(f"no {name}: {why}" for name, why in measured["left_out"].items())])


@dataclass(frozen=True)
class Report:
    """Draw figures of a run and write them, with its scores and settings, as one self-contained HTML page; of several
    runs, their films, scores and losses side by side.

    The figures show the loss, an episode as a GIF and the executed paths; for a planner also samples and plans, and
    for a world model its errors on held-out data.

    Examples: gentraj report runs/demo
              gentraj report runs/demo --seed 3 --out pages/demo.html
              gentraj report runs/iql runs/swift --out both.html
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """The folders of one run or several, as `gentraj train` writes them."""
    step: Step = None
    out: Path | None = None
    """The HTML file to write; by default RUN/report.html, or report.html of several runs. The figures are written to a
    folder `figures` next to it."""
    seed: int = 0
    """Seed of the episodes and samples in the figures."""
    device: Device = None


def report_main(argv: list[str]) -> None:
    args = parse(Report, argv, "gentraj report")
    runs = [load_trained(run, args.device, args.step) for run in args.runs]
    print_saved(make_report(*runs, out=args.out, seed=args.seed))


WRITERS = {".onnx": to_onnx, ".pt2": to_pt2}


@dataclass(frozen=True)
class Export:
    """Write one decision of a trained planner or policy as a program that runs without gentraj.

    The inputs of the program are the observation, the goal (if the run is conditioned on one) and standard normal
    noise; the output is the actions until the next decision. A planner decides by its settings in RUN/config.json,
    under `planner`, which may be edited if the line with `sha256`, the hash of the file, is removed.

    Examples: gentraj export runs/fql --out fql.onnx
              gentraj export runs/demo --batch 8 --out demo.pt2
              gentraj export runs/robot --low -1 --high 1 --out robot.onnx
    """

    run: RunPath
    """The folder of a run, as `gentraj train` writes it."""
    out: Path
    """The file to write: .onnx for ONNX Runtime, or .pt2 for torch.export.load."""
    batch: int = 1
    """Number of observations per call; the program accepts exactly this many."""
    env_id: str | None = None
    """The environment whose action space bounds the actions, if --low and --high do not; by default the run's own."""
    low: tuple[float, ...] | None = None
    """Lowest values of the actions of a robot without an environment: one number, or one for each entry."""
    high: tuple[float, ...] | None = None
    """Highest values of these actions."""
    sampling: Annotated[SamplerOptions, tyro.conf.arg(name="")] = field(default_factory=SamplerOptions)


def export_main(argv: list[str]) -> None:
    args = parse(Export, argv, "gentraj export")
    if args.out.suffix not in WRITERS:
        raise ValueError(f"--out is {args.out}; a file that ends in {' or '.join(WRITERS)} is expected")
    check_output(args.out, "--out")
    run = load(args.run, device=torch.device("cpu"))
    space = action_space(args, run)
    with busy(f"exporting to {args.out}"):
        program = export_run(run, args.batch, args.env_id, args.sampling.options(), space)
        write_file(args.out, WRITERS[args.out.suffix](program))
    say(signature(program))
    if run.roadmap is not None:
        say("the program acts towards goals within reach; for farther ones, give it the places ahead, which "
            "gentraj.runs.ahead_of(run)(obs, goal) finds on the run's roadmap")
    print_saved(args.out)


def action_space(args: Export, run: Run) -> Box | None:
    """The box from --low to --high, or None for the action space of an environment. Raises ValueError for a bad box."""
    if args.low is None and args.high is None:
        if (args.env_id or run.data.env) is None:
            raise ValueError(f"{run.folder}: its data do not say which environment they come from; give --env-id, or "
                             "the limits of the actions, such as --low -1 --high 1")
        return None
    width = run.data.act_dim
    low, high = np.array(args.low or (), np.float32), np.array(args.high or (), np.float32)
    if not ({len(low), len(high)} <= {1, width} and (low < high).all()):
        raise ValueError(f"--low is {args.low} and --high {args.high}; one number for each of the {width} entries of "
                         "an action is expected, or one for all, each low below its high")
    return Box(np.broadcast_to(low, width), np.broadcast_to(high, width))


Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
Repository = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]


def push(run: RunPath, name: Repository, step: int | None = None, private: bool = False) -> None:
    """Push a run to a repository: weights, settings, scores and figures, with a model card, without the optimisers.

    The repository is made if it does not exist. Whatever an earlier push left there is replaced.

    Example: gentraj hub push runs/demo me/umaze-planner

    Args:
        run: The folder of a run.
        name: The repository.
        step: The checkpoint to push; by default the one that `gentraj choose --use` took, or else the newest.
        private: Make a new repository private.
    """
    loaded = load(run, step=step)
    with busy(f"pushing to {name}"):
        print_saved(push_to_hub(loaded, name, private=private or None))


def pull(name: Repository, out: Folder, revision: str | None = None) -> None:
    """Pull a run from a repository into a folder, which every command takes as a RUN.

    Example: gentraj hub pull me/umaze-planner runs/pulled

    Args:
        name: The repository.
        out: The folder to write; it must not exist yet.
        revision: A branch, a tag or a commit of the repository.
    """
    with busy(f"pulling {name}"):
        pulled = from_pretrained(name, revision=revision)
    print_saved(save_pretrained(pulled, out))


def hub_main(argv: list[str]) -> None:
    parse_call({"push": push, "pull": pull}, argv, "gentraj hub",
               "Push runs to the Hugging Face hub and pull them from it.")()


@settings
class Augment(AugmentConfig):
    """Extend a dataset with synthetic steps of a world model, and save the result as a new Minari dataset.

    The model is rolled out from states of the data, in short branches that end where it is too uncertain. The actions
    are those of the data with noise, or of --policy, or of trajectories sampled by the planner --trajectories.

    When a policy is trained on the new dataset, its critic learns from all steps but the policy itself only from the
    real ones. With --trajectories but without --policy both learn from all steps, as the actions are like the data's.

    Examples: gentraj augment gentraj/mujoco/hopper-medium-v0 --model runs/world --steps 100000 --out mine/hopper-v0
              gentraj augment hopper.hdf5 --model runs/world --policy runs/td3bc --steps 100000 --out mine/hopper-v1
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """The dataset to extend, named as in `gentraj train --dataset`; '+' joins several."""


def augment_main(argv: list[str]) -> None:
    print_saved(augment(parse(Augment, argv, "gentraj augment")))


@dataclass(frozen=True)
class Finetune:
    """Continue to train a policy in its environment, and write the result as a new run. The policy must have a critic.

    Half of every batch comes from the policy's dataset and half from the episodes that it runs in the environment. A
    policy that samples chunks of actions explores by its samples, each carried out as far as its `execute` says; other
    policies add noise to their actions. The checkpoint whose episodes had the highest mean return is the result, which
    may be the start.

    Examples: gentraj finetune runs/fql --steps 20000 --run-dir runs/fql-tuned
              gentraj finetune runs/fql --steps 20000 --run-dir runs/fql-tuned --resume
    """

    run: RunPath
    """The run folder of a policy whose dataset is still available."""
    run_dir: Path
    """Folder that the fine-tuned run is written to."""
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")] = field(default_factory=FinetuneConfig)
    resume: bool = False
    """Continue an interrupted fine-tuning in --run-dir; the result is the same, bit for bit, as without the
    interruption."""
    env_id: str | None = None
    """The environment, a Gymnasium id or a task name; by default the run's own. Give it again to `gentraj evaluate`."""
    device: Device = None


def finetune_main(argv: list[str]) -> None:
    args = parse(Finetune, argv, "gentraj finetune")
    folder = args.run_dir if args.resume else fresh_folder(args.run_dir, "--resume")
    tuned = finetune(load(args.run, device=pick_device(args.device)), args.config, folder, env_id=args.env_id,
                     resume=args.resume)
    gained, shown = returns(folder), args.config.episodes
    say(f"{counted(len(gained), 'episodes')} played; mean return {gained[:shown].mean():.4g} before and "
        f"{gained[-shown:].mean():.4g} after {tuned.config.training.steps} updates; the run in {folder} is that of "
        f"update {tuned.step}, whose episodes were the best")
    named = f" --env-id {quote(args.env_id)}" if args.env_id else ""
    print_saved(f"next: gentraj evaluate {quote(str(folder))}{imports_again()}{named}")
