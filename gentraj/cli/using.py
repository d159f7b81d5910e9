"""The commands that use a run: `gentraj sample`, `measure`, `report`, `export`, `hub` and `augment`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from gymnasium.spaces import Box
from pydantic import AllowInfNan, PositiveInt

from ..acceleration import BackendName, accelerate
from ..config import JsonObject, settings, write_json
from ..files import check_output
from ..plots.page import markdown_table
from ..progress import busy, counted, print_saved, say
from ..runs.kinds.folder import RunFolder
from ..runs.kinds.loading import load
from ..runs.kinds.planner_run import PlannerRun
from ..runs.kinds.run import Run
from ..runs.learn.augmentation import AugmentConfig, augment
from ..runs.show.hub import from_pretrained
from ..runs.show.report import make_report
from ..runs.show.sampling import Given
from .options import GROUP, CheckpointStep, Command, Device, RunPath, SamplerOptions, load_trained


@settings
class Sample(Command):
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
    step: CheckpointStep = None
    num: PositiveInt = 16
    """Number of trajectories, or of chunks of actions, to sample."""
    given: Annotated[Given, GROUP] = field(default_factory=Given)
    steps: int | None = None
    """Number of sampling steps; by default the model's own."""
    sampling: Annotated[SamplerOptions, GROUP] = field(default_factory=SamplerOptions)
    temperature: float = 1.0
    """Scale of the noise; a value below 1 makes the samples more likely and less varied."""
    seed: int = 0
    """Seed; the same seed gives the same samples."""
    accelerate: BackendName = "eager"
    """What runs the networks. compile: torch.compile, which takes a minute or more at first; openvino and
    openvino-bf16: OpenVINO (extra openvino), the latter in bfloat16."""
    device: Device = None

    def __call__(self) -> None:
        if self.out.suffix != ".npz":
            raise ValueError(f"--out is {self.out}; a file that ends in .npz is expected")
        check_output(self.out, "--out")
        run = accelerate(load_trained(self.run, self.device, self.step), self.accelerate)
        with busy(f"sampling {self.num}"):
            options = self.sampling.options(self.steps, self.temperature)
            samples = run.sample(num=self.num, **vars(self.given), seed=self.seed, options=options)
        samples.save(self.out)
        if isinstance(run, PlannerRun):
            say(f"{self.num} trajectories of {samples.obs_NHO.shape[1]} timesteps, {samples.stride} environment steps "
                "apart")
        else:
            say(f"{counted(self.num, 'chunks')} of {counted(samples.act_NHA.shape[1], 'actions')}")
        print_saved(self.out)


@settings
class Measure(Command):
    """Measure how close the trajectories of a planner's model are to data. The number nearest to the column `data` is
    best.

    Windows of the data are split in two halves, and everything is compared with the first half. The column `data` is
    the second half, so a perfect model would score the same. The other columns are trajectories sampled from the model,
    as many as the windows of the second half and under their conditions.

    row_error: the simulator is set to a timestep of a plan and takes the plan's actions; the error is its distance from
    the plan at the next timestep, in the entries of the observation that a goal has, if there are any.

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

    def __call__(self) -> None:
        run = load_trained(self.run, self.device)
        path = self.out or run.folder / RunFolder.MEASURES
        check_output(path, "--out")
        measured = run.measure(dataset=self.dataset, num=self.num, steps=self.steps, seed=self.seed)
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


@settings
class Report(Command):
    """Draw figures of a run and write them, with its scores and settings, as one self-contained HTML page.
    Several runs are compared by `gentraj compare`.

    The figures show the loss, an episode as a GIF and the executed paths; for a planner also samples and plans, and
    for a world model its errors on held-out data.

    Examples: gentraj report runs/demo
              gentraj report runs/demo --seed 3 --out pages/demo.html
    """

    run: RunPath
    """The folder of a run, as `gentraj train` writes it."""
    step: CheckpointStep = None
    out: Path | None = None
    """The HTML file to write; by default RUN/report.html. The figures are written to a folder `figures` next to it."""
    seed: int = 0
    """Seed of the episodes and samples in the figures."""
    device: Device = None

    def __call__(self) -> None:
        print_saved(make_report(load_trained(self.run, self.device, self.step), self.out, self.seed))


Limit = Annotated[float, AllowInfNan(True)]


@settings
class Export(Command):
    """Write one decision of a trained planner or policy as a program that runs without gentraj.

    The inputs of the program are the observation, the goal (if the run is conditioned on one) and standard normal noise
    (if it decides by some); the output is the actions until the next decision. A planner decides by its settings in
    RUN/config.json, under `planner`, which may be edited if the line with `sha256`, the hash of the file, is removed.

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
    low: tuple[Limit, ...] | None = None
    """Lowest values of the actions of a robot without an environment: one number, or one for each entry."""
    high: tuple[Limit, ...] | None = None
    """Highest values of these actions."""
    sampling: Annotated[SamplerOptions, GROUP] = field(default_factory=SamplerOptions)

    def __call__(self) -> None:
        run = load(self.run, device=torch.device("cpu"))
        print_saved(run.export(self.out, self.batch, env=self.env_id, action_space=action_space(self, run),
                               options=self.sampling.options()))


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


Repository = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]


@settings
class Push(Command):
    """Push a run to a repository: weights, settings, scores and figures, with a model card, without the optimisers.

    The repository is made if it does not exist. Whatever an earlier push left there is replaced.

    Example: gentraj hub push runs/demo me/umaze-planner
    """

    run: RunPath
    """The folder of a run."""
    name: Repository
    """The repository."""
    step: int | None = None
    """The checkpoint to push; by default the one that `gentraj choose --use` took, or else the newest."""
    private: bool = False
    """Make a new repository private."""

    def __call__(self) -> None:
        run = load(self.run, step=self.step)
        with busy(f"pushing to {self.name}"):
            print_saved(run.push_to_hub(self.name, private=self.private or None))


@settings
class Pull(Command):
    """Pull a run from a repository into a folder, which every command takes as a RUN.

    Example: gentraj hub pull me/umaze-planner runs/pulled
    """

    name: Repository
    """The repository."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The folder to write; it must not exist yet."""
    revision: str | None = None
    """A branch, a tag or a commit of the repository."""

    def __call__(self) -> None:
        with busy(f"pulling {self.name}"):
            run = from_pretrained(self.name, revision=self.revision)
        print_saved(run.save_pretrained(self.out))


@settings
class Augment(AugmentConfig, Command):
    """Extend a dataset with synthetic steps of a world model, and save the result as a new Minari dataset.

    The model is rolled out from states of the data, in short branches that end where it is too uncertain. The actions
    are those of the data with noise, or of --policy, or of trajectories sampled by the planner --trajectories.

    When a policy is trained on the new dataset, its critic learns from all steps but the policy itself only from the
    real ones. With --trajectories both learn from all steps, as the actions are like the data's.

    Examples: gentraj augment gentraj/mujoco/hopper-medium-v0 --model runs/world --steps 100000 --out mine/hopper-v0
              gentraj augment hopper.hdf5 --model runs/world --policy runs/td3bc --steps 100000 --out mine/hopper-v1
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """The dataset to extend, named as in `gentraj train --dataset`; '+' joins several."""

    def __call__(self) -> None:
        print_saved(augment(self))
