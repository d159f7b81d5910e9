"""`RunFolder`: the folder of a run, which is written there and read from it."""

from __future__ import annotations

import platform
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from gentraj.agents.policies.policy import POLICIES

from ...config import ConfigError, JsonObject, Registry, from_json, read_json, settings, to_json, write_json
from ...data import Episodes, save_npz
from ...files import write_file
from ...training import checkpoint, log
from ...training.checkpoint import CheckpointError, CheckpointWarning, NothingSaved
from ...training.log import read_metrics, read_rows
from ...training.loop import check_same
from ...trajectory import Batch
from .planner_run import PlannerRun, PlannerRunConfig
from .plans import PlannerPolicy, PlannerPolicyConfig
from .policy_run import PolicyRun, PolicyRunConfig
from .run import DataFacts, Run, RunConfig, restore
from .world_run import WorldModelRun, WorldModelRunConfig

POLICIES["plans"] = PlannerPolicyConfig, PlannerPolicy  # the policy that is a planner's run
RUNS: Registry[RunConfig, Run] = Registry({
    "planner": (PlannerRunConfig, PlannerRun),
    "policy": (PolicyRunConfig, PolicyRun),
    "world-model": (WorldModelRunConfig, WorldModelRun),
})
"""The kinds of runs: the class of the settings, and the class of the run."""

SCORED = ("return_mean", "success_rate", "score_d4rl", "score_minari")
KEPT = ("episodes", *SCORED, "return_ci95", "returns", "successes")
OF_DATA = "data."  # begins the names of the tensors that a run keeps beside its windows
LAST_EVALUATIONS = 3  # their mean is stated beside the score of the last checkpoint


def run_class(config: RunConfig) -> type[Run]:
    """The class of the runs of these settings."""
    return RUNS[RUNS.kind(config)][1]


@settings
class RunFile:
    """The content of config.json."""

    run: RunConfig
    data: DataFacts


class RunFolder:
    """The folder of a run, which alone knows the names of its files.

        config.json            the settings, and what the run remembers of its data
        reference.safetensors  windows of the data, beside which samples are judged, and a planner's roadmap
        step-00001234/         a checkpoint, see `gentraj.training.checkpoint`
        metrics.jsonl          what the components logged, see `gentraj.training.log`
        scores.jsonl           the learning curve: evaluations during the training
        held-out.jsonl         what the run lost on held-out episodes, see `gentraj.runs.judge.held_out`
        data.npz               the data, if they were given to `gentraj.train` and not by their name
        choice.json            the checkpoint that `gentraj choose --use` took
        provenance.json        the commands that started and resumed the training
        evaluation.json, world.json, measures.json, report.html, figures/, README.md
                               what the commands write about the run, and its model card

    A run loads from the first three; the others are for a reader, and may be missing.
    """

    CONFIG = "config.json"
    REFERENCE = "reference.safetensors"
    METRICS = log.FILE
    CURVE = "scores.jsonl"
    HELD_OUT = "held-out.jsonl"
    DATA = "data.npz"
    CHOICE = "choice.json"
    PROVENANCE = "provenance.json"
    EVALUATION = "evaluation.json"
    WORLD = "world.json"
    MEASURES = "measures.json"
    REPORT = "report.html"
    FIGURES = "figures"
    CARD = "README.md"

    def __init__(self, path: Path | str, given: Episodes | None = None):
        """`given` are data that are saved with the run."""
        self.path = Path(path)
        self.given = given

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def write(self, run: Run) -> None:
        """Writes what a run needs beside its checkpoints: its settings, and the windows that it keeps.

        Raises ValueError for a new run in a folder with the config.json of something else.
        """
        path = self / self.CONFIG
        if path.exists() and not checkpoint.has_checkpoints(self.path):
            try:
                self.read()
            except ConfigError as error:
                raise ValueError(f"{error}: it is not that of a run, and would be overwritten; train in another "
                                 "folder") from error
        kept = run.reference
        tensors = {"x": kept.x_BHD, "mask": kept.mask_BHD}
        tensors |= {name: x for name, x in (("context", kept.context_BC), ("past", kept.past_BPD)) if x is not None}
        tensors |= {f"{OF_DATA}{name}": tensor for name, tensor in run.kept.items()}
        content = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
        write_file(self / self.REFERENCE, content)
        write_json(path, to_json(RunFile(run.config, run.data)))

    def read(self) -> RunFile:
        """The settings and the facts of the data. Raises `NothingSaved` or `ConfigError`."""
        path = self / self.CONFIG
        if not path.exists():
            raise NothingSaved(f"{self.path}: no run there ({self.CONFIG} is missing); `gentraj train` makes one")
        return from_json(RunFile, read_json(path), str(path))

    def load(self, step: int | None = None, device: torch.device | None = None) -> Run:
        """The run at `step`, by default at the one that was chosen, or else at its newest valid one."""
        if step is None:
            step = self.chosen()
        file, saved = self.read(), checkpoint.load(self.path, step)
        run = run_class(file.run).build(file.run, file.data)
        check_same(saved.meta, saved.meta | fingerprint(run), str(self / self.CONFIG), may_change(run.config))
        run.folder = self.path
        run.step = saved.step
        run.dataset_hash = saved.meta["dataset_hash"]
        self._load_reference(run, file.data.context_dim)
        restore(run, saved.components)
        return run.ready(device)

    def _load_reference(self, run: Run, context_dim: int) -> None:
        """Gives the run what it keeps of the data. Raises `CheckpointError` for a file that holds something else."""
        path, spec = self / self.REFERENCE, run.main.spec
        shape = spec.horizon, spec.dim
        try:
            tensors = safetensors.torch.load(path.read_bytes())
            of_data = [name for name in tensors if name.startswith(OF_DATA)]
            run.kept = {name.removeprefix(OF_DATA): tensors.pop(name) for name in of_data}
            shapes = {name: tuple(tensor.shape[1:]) for name, tensor in tensors.items()}
            expected = {"x": shape, "mask": shape} | ({"context": (context_dim,)} if context_dim else {})
            expected |= {"past": (spec.past, spec.dim)} if spec.past else {}
            if shapes != expected:
                raise ValueError(f"holds windows of the shapes {shapes}; {expected} are expected")
        except (OSError, SafetensorError, ValueError) as error:
            raise CheckpointError(f"{path}: {error}; `gentraj train --resume` writes it anew") from error
        run.reference = Batch(tensors["x"], tensors["mask"], tensors.get("context"), past_BPD=tensors.get("past"))

    def start(self, run: Run, device: torch.device | None, resume: bool) -> None:
        """Writes the run and its data before its first step, and how its training was started.

        The start is added to provenance.json, which begins anew where `resume` is false. The command is written without
        the folder of its program, as a path of this machine is of no use elsewhere.
        """
        if self.given is not None and not (resume and (self / self.DATA).exists()):
            save_npz(self.given, self / self.DATA)
        self.write(run)
        program, *words = sys.argv
        name = Path(program).name.replace("__main__.py", "gentraj")  # of `python -m gentraj`
        command = shlex.join([name, *words]).encode(errors="backslashreplace").decode()  # a path need not be in UTF-8
        shown = str(device or "cpu")
        if device is not None and device.type == "cuda":
            shown = f"{device} ({torch.cuda.get_device_name(device)})"
        start = {"command": command, "version": version("gentraj"), "torch": torch.__version__,
                 "python": platform.python_version(), "device": shown}
        before = self.starts() if resume else []
        if checkpoint.saved_step(self.path) < run.config.training.steps:  # there will be newer checkpoints
            (self / self.CHOICE).unlink(missing_ok=True)
        write_json(self / self.PROVENANCE, {"starts": [*before, start]})

    def starts(self) -> list[JsonObject]:
        """The entries of provenance.json, oldest first; an empty list if the file is missing."""
        path = self / self.PROVENANCE
        return read_json(path).get("starts", []) if path.exists() else []

    def held_out(self) -> list[JsonObject]:
        """The lines of held-out.jsonl in the order of their steps; an empty list if nothing was held out."""
        return read_rows(self / self.HELD_OUT)

    def choose(self, step: int) -> None:
        """Makes a checkpoint the one that the run is loaded at."""
        write_json(self / self.CHOICE, {"step": step})

    def chosen(self) -> int | None:
        """The checkpoint that was chosen; None if there is none, or if it has been deleted since."""
        path = self / self.CHOICE
        if not path.exists():
            return None
        step = read_json(path).get("step")
        if step not in checkpoint.saved_steps(self.path):
            warnings.warn(f"{path}: there is no checkpoint of step {step}, and the newest is taken", CheckpointWarning,
                          stacklevel=3)
            return None
        return step

    def curve(self) -> list[JsonObject]:
        """The lines of the learning curve in the order of their steps; an empty list if nothing was evaluated."""
        return read_rows(self / self.CURVE)

    def metrics(self) -> list[JsonObject]:
        """The rows of metrics.jsonl."""
        return read_metrics(self.path)


def check_trained(run: Run) -> None:
    """Raises ValueError for a run at step 0, whose weights are random, unless this checkpoint was chosen."""
    if run.step == 0 and RunFolder(run.folder).chosen() is None:
        raise ValueError(f"{run.folder} is at step 0 of {run.config.training.steps:,}, and its weights are random; "
                         f"`gentraj train --resume {shlex.quote(str(run.folder))}` goes on, and where a command has "
                         "the option, step=0 takes it as it is")


def last_evaluations(curve: Sequence[Mapping[str, Any]], step: int | None = None) -> JsonObject | None:
    """The mean of each score over the last three evaluations of a learning curve, with their "steps".

    Evaluations after `step` are not counted. None where there are fewer than three.
    """
    rows = [row for row in curve if step is None or row["step"] <= step][-LAST_EVALUATIONS:]
    if len(rows) < LAST_EVALUATIONS:
        return None
    means = {key: sum(row[key] for row in rows) / len(rows) for key in SCORED if all(key in row for row in rows)}
    return {"steps": [row["step"] for row in rows], **means}


def acts_only(config: RunConfig) -> set[str]:
    """The dotted keys of the settings by which an agent acts and that its training does not depend on."""
    own = run_class(config).ACTS_BY
    acting = config.policy.ACTING if isinstance(config, PolicyRunConfig) else None
    return {own} if acting is None else {f"{own}.{key}" for key in acting}


def may_change(config: RunConfig) -> set[str]:
    """The dotted keys of settings in a fingerprint that may change when a training is resumed."""
    return {f"run.{key}" for key in acts_only(config)}


def fingerprint(run: Run) -> JsonObject:
    """The settings and facts that checkpoints depend on: neither how the agent acts, nor where the data lie, nor what
    their entries are called and range over."""
    unless = {"run": {"dataset", *acts_only(run.config)},
              "data": {"returns", "constant_actions", "obs_names", "act_names", "obs_low", "obs_high"}}
    groups = {"run": to_json(run.config), "data": to_json(run.data)}
    return {name: {key: value for key, value in group.items() if key not in unless[name]}
            for name, group in groups.items()}
