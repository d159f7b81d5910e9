"""The training loop of every component with `update`. A run that is killed at any instant and resumed ends bit for bit
as one that was never interrupted."""

from __future__ import annotations

import json
import math
import reprlib
import signal
import threading
import time
import zlib
from collections import ChainMap
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ..config import ConfigError, differences, from_json, later, require, to_json
from ..data.context import ContextConfig
from ..data.episodes import Episodes, episodes_hash
from ..data.windows import WHOLE, Windows
from ..randomness import fold, generator
from ..trajectory import Batch, Trainable, TrajectorySpec
from .checkpoint import CheckpointError, NothingSaved, RunLock, has_checkpoints, load, name_of, save
from .compilation import compiled
from .log import Log, Row, SavedSums, Sums
from .loggers import require_loggers
from .memory import freed_memory_kept
from .optimization import NonFinite, checked_later, read_finite
from .parallel import ALONE, Processes, Share
from .recording import Update
from .state import module_tensors, optimizer_tensors, restore_module, restore_optimizer

# `threads`, `compile` and `accumulate` are among them: they change rounding and means over parts of a batch, no more.
# `tensorboard` is what earlier releases saved in the place of `log_to`.
MAY_CHANGE_ON_RESUME = ("steps", "save_every", "log_every", "keep", "threads", "compile", "log_to", "eval_every",
                         "eval_episodes", "accumulate", "early", "tensorboard")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingStopped(RuntimeError):
    """The training met a number that is not finite and stopped; earlier checkpoints are kept."""


class Interrupted(RuntimeError):
    """The training saved and stopped after a signal. `exit_code` is 128 + signal, as shells expect."""

    def __init__(self, received: int, step: int):
        super().__init__(f"stopped by {signal.Signals(received).name} at step {step}, which is saved; "
                         "go on with --resume")
        self.exit_code = 128 + received


class Source(Protocol):
    """A source of batches, such as `Windows`: the same (step, seed, size) must give the same batch, of which only the
    `rows` are returned."""

    def batch(self, step: int, seed: int, size: int, rows: slice = WHOLE) -> Batch: ...


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the training loop. Batch sizes and learning rates are settings of the trained components.

    Raises ValueError for a setting outside its range.
    """

    steps: int = 10_000
    """Number of training steps. A cosine decay of the learning rate ends at the last one."""
    warmup: int = 200
    """Number of steps over which the learning rate rises linearly to its full value."""
    save_every: int = 1_000
    """Number of steps between checkpoints. The start and the last step are always saved."""
    log_every: int = 100
    """Number of steps between rows of metrics.jsonl. Each row holds means over the steps since the row before."""
    eval_every: int = 0
    """Number of steps between evaluations of the agent in its environment, for a learning curve of its score; 0 turns
    them off. Evaluations do not change the training, and the last checkpoint is the result of the run."""
    eval_episodes: int = 10
    """Number of episodes of each of these evaluations."""
    seed: int = 0
    """Seed of the training: the same seed gives the same weights."""
    threads: int = 0
    """Number of CPU threads. 0 uses the default of torch."""
    keep: int = 3
    """Number of checkpoints to keep. Older ones are deleted."""
    bf16: bool = False
    """Compute in bfloat16 where that is safe. This is faster on GPUs and on CPUs with AMX."""
    compile: bool = False
    """Compile each update by torch.compile as a whole or, where that is impossible, its networks. This takes minutes at
    the start and changes weights by rounding."""
    accumulate: int = 1
    """Number of parts in which each batch is computed, one after the other, to save memory. An optimiser step uses the
    mean gradient of the parts."""
    early: float = later(0.0)
    """The least fraction of the windows of real episodes that start in the first 32 steps. Data of long episodes have
    few such windows (3 % if an episode has 1,000 steps), and an agent that has learned too little of how to start
    falls. Windows are moved there, within their episodes, to make up this fraction. A fine-tuning draws all steps
    equally often."""
    log_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Loggers that are given the rows of metrics.jsonl too; each is an optional package (`pip install
    'gentraj[wandb]'`). If one fails during the training, a warning says so and the training continues."""

    @classmethod
    def from_former(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Before there was `log_to`, `tensorboard` was true or false, and batches were not accumulated."""
        if type(settings.get("tensorboard")) is not bool or "log_to" in settings:
            return settings
        kept = {key: value for key, value in settings.items() if key != "tensorboard"}
        return kept | {"log_to": ["tensorboard"] if settings["tensorboard"] else [], "accumulate": 1}

    def __post_init__(self) -> None:
        require(self, **dict.fromkeys(("steps", "save_every", "log_every", "keep", "eval_episodes", "accumulate"),
                                      (1, math.inf)),
                **dict.fromkeys(("warmup", "seed", "eval_every"), (0, math.inf)), threads=(0, 1e4), early=(0, 1))


@dataclass(frozen=True)
class TrainingResult:
    """The state of a run after `train`: `step` steps are done and saved in the folder `checkpoint`.

    `metrics` is the last row of metrics.jsonl that this process wrote, and `seconds` is how long it took.
    """

    step: int
    checkpoint: Path
    metrics: Row
    seconds: float


def train(components: Mapping[str, Trainable], episodes: Episodes, config: TrainingConfig, run_dir: Path, *,
          meta: Mapping[str, Any], resume: bool = False, device: torch.device | None = None, progress: bool = True,
          contexts: ContextConfig | None = None, windows: Callable[[TrajectorySpec], Source] | None = None,
          on_log: Callable[[Row], None] | None = None, prepare: Callable[[], None] | None = None,
          evaluate: Callable[[int], None] | None = None, carried: Mapping[str, nn.Module] | None = None,
          may_change: Collection[str] = (), processes: Processes = ALONE) -> TrainingResult:
    """Trains all `components` in place, one update of each a step, and saves checkpoints and metrics in `run_dir`.

    Every component must be an `nn.Module` as well. Its batches come from `windows(component.spec)`, by default from the
    windows of `episodes`, with the `contexts` that components are conditioned on. `meta` holds the settings that
    determine components and episodes, as JSON values; a resumed run must be given the same, except for `may_change`, as
    in `check_same`. `device` defaults to the device of each component. `on_log` is called with each row of metrics,
    `prepare` once, after the folder is locked and a resumed run is restored, and before the first save, and `evaluate`
    with the number of steps done every `eval_every` steps and after the last; it must not change the components.
    `carried` modules are saved with them and not trained. Several `processes` divide each batch; all of them read the
    folder, and the main process alone calls the functions and writes.

    Raises `ConfigError` for settings that differ on resume, for fewer steps than are done, for batches that cannot be
    divided and where nothing can be compiled, `CheckpointError` where the folder is in use or cannot be written,
    `NothingSaved` without anything to resume, `TrainingStopped` for a number that is not finite, `Interrupted` after
    SIGINT or SIGTERM, when everything is saved, and `ProcessLost` where another process of the training has ended.
    """
    require_loggers(config.log_to)  # before anything is saved
    folder, began = Path(run_dir).absolute(), time.monotonic()  # absolute: the working directory may change meanwhile
    if resume and not has_checkpoints(folder):
        raise NothingSaved(f"{folder}: nothing saved yet; train first")
    with ExitStack() as held, Interrupts() as interrupts, _resources(config.threads):
        processes.on_main(lambda: _claim(folder, held, resume))
        windows, device = (windows or partial(Windows, episodes, contexts=contexts, early=config.early),
                           device or processes.device)
        run = _Run(folder, [_Component(n, p, windows, device) for n, p in sorted(components.items())], config,
                   _settings(meta, components, config, episodes), carried or {}, may_change, processes)
        sums = run.begin(resume)
        if prepare is not None:
            processes.on_main(prepare)
        with run.compiled() if config.compile else nullcontext():
            run.save(sums)  # nothing to do on resume
            with Log(folder, config.log_every, config.steps, start=run.step, sums=sums, progress=progress,
                     log_to=config.log_to, settings=run.settings, on_row=on_log, written=processes.main) as log:
                while run.step < config.steps and not interrupts.anywhere(processes):
                    run.advance(log)
                    if evaluate and run.is_due(config.eval_every):
                        with log.paused():
                            processes.on_main(partial(evaluate, run.step))
                    if run.step % config.save_every == 0:
                        run.save(log.sums)
                run.save(log.sums)
        if received := interrupts.anywhere(processes):
            raise Interrupted(received, run.step)
    return TrainingResult(run.step, run.saved, log.last, time.monotonic() - began)


def _claim(folder: Path, held: ExitStack, resume: bool) -> None:
    """Locks the folder until the stack closes. Raises `CheckpointError` where a new training would overwrite one."""
    held.enter_context(RunLock(folder))
    if not resume and has_checkpoints(folder):
        raise CheckpointError(f"{folder}: holds a training already; use --resume to continue it, or another folder")


def learning_rate_factor(step: int, warmup: int, steps: int, schedule: str = "cosine") -> float:
    """The factor of the learning rate at `step` (0 to `steps` - 1): a linear warm-up times a cosine decay to 0, or
    times 1 if the `schedule` is "constant"."""
    decay = 1.0 if schedule == "constant" else 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / max(1, warmup)) * decay


def check_same(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "the run",
               may_change: Collection[str] = ()) -> None:
    """Raises `ConfigError` listing the settings that differ, except those with the dotted keys `may_change`, and those
    of `training` that may change on resume."""
    of_training = {f"training.{key}" for key in MAY_CHANGE_ON_RESUME}
    wrong = [f"{key} was {reprlib.repr(before)} and is {reprlib.repr(now)}"
             for key, before, now in differences(old, new)
             if key not in may_change and ".".join(key.split(".")[-2:]) not in of_training]
    if wrong:
        raise ConfigError(f"{where}: these settings are not those of the training so far: {'; '.join(wrong)}; take "
                          "them back, or train in another folder")


class _Component:
    """A component in training, with its windows, its optimisers, their full learning rates and its random key."""

    def __init__(self, name: str, component: Trainable, windows: Callable[[TrajectorySpec], Source],
                 device: torch.device | None):
        if not (isinstance(component, nn.Module) and isinstance(component, Trainable)):
            raise TypeError(f"the component '{name}' is {type(component).__name__}; an nn.Module that is Trainable is "
                            "expected")
        self.name, self.component = name, component
        self.module: nn.Module = component
        self.device = device or next(self.module.parameters()).device
        self.module.to(self.device).train()
        self.optimizers = component.optimizers()
        self.update: Update = component.update
        self.rates = {n: [group["lr"] for group in o.param_groups] for n, o in self.optimizers.items()}
        self.windows = windows(component.spec)
        # a key of the name alone, so that a component's random numbers do not depend on the other components
        self.key = zlib.crc32(name.encode())

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors that a checkpoint holds of this component. Raises `NonFinite` where a parameter is not finite."""
        for name, parameter in self.module.named_parameters():
            if not torch.isfinite(parameter).all():
                raise NonFinite(f"the parameter '{name}' is not finite")
        states = {f"{self.name}.{n}.optimizer": optimizer_tensors(o) for n, o in self.optimizers.items()}
        return {self.name: module_tensors(self.module)} | states

    def restore(self, saved: Mapping[str, Mapping[str, Tensor]]) -> None:
        restore_module(self.module, saved.get(self.name, {}), self.name)
        for name, optimizer in self.optimizers.items():
            key = f"{self.name}.{name}.optimizer"
            if key not in saved:
                raise CheckpointError(f"the checkpoint has no '{key}': it was exported by save_pretrained, and its "
                                      "training cannot be resumed; train a new run")
            restore_optimizer(optimizer, saved[key], key)


class _Run:
    """The state of a run: the steps that are done, and those that are saved."""

    def __init__(self, folder: Path, components: list[_Component], config: TrainingConfig, settings: dict[str, Any],
                 carried: Mapping[str, nn.Module], may_change: Collection[str], processes: Processes):
        self.folder, self.components, self.config, self.settings = folder, components, config, settings
        self.carried, self.may_change, self.processes = carried, may_change, processes
        self.step, self.saved_step, self.saved = 0, -1, folder
        self._check_shares()

    def _check_shares(self) -> None:
        """Raises `ConfigError` unless the batches can be divided among the processes and into parts."""
        number, parts = self.processes.number, self.config.accumulate
        if number * parts > 1 and self.config.compile:
            raise ConfigError("training.compile is set, which compiles whole updates of one process; leave it out with "
                              "several processes and with training.accumulate")
        for p in self.components:
            if p.component.batch_size % (number * parts):
                raise ConfigError(f"the component '{p.name}' has batches of {p.component.batch_size} windows, which "
                                  f"{number} processes with {parts} parts each cannot divide evenly; give a multiple "
                                  f"of {number * parts}")
            if parts > 1 and len(p.optimizers) > 1:
                raise ConfigError(f"training.accumulate is {parts}, but the component '{p.name}' has the optimisers "
                                  f"{', '.join(p.optimizers)}, each of whose steps needs a whole batch; leave it out")

    def begin(self, resume: bool) -> Sums:
        """Starts or resumes the run with the same weights in all processes, and returns the sums of `restore`."""
        sums = self.restore() if resume else {}
        steps = self.processes.largest(self.step), -self.processes.largest(-self.step)
        if steps != (self.step, self.step):
            raise CheckpointError(f"{self.folder}: the processes read checkpoints of different steps, from {steps[1]} "
                                  f"to {steps[0]}; all of them need the same folder")
        self.processes.copy_main([*(p.module for p in self.components), *self.carried.values()])
        return sums

    def restore(self) -> Sums:
        """Restores the newest checkpoint and returns the sums of metrics that were saved with it."""
        checkpoint = load(self.folder)
        old = dict(checkpoint.meta)
        try:
            sums = from_json(SavedSums, {"sums": old.pop("sums", None)}, str(checkpoint.folder / "meta.json")).sums
        except ConfigError as error:
            raise CheckpointError(str(error)) from error
        check_same(old, self.settings, str(self.folder), self.may_change)
        if checkpoint.step > self.config.steps:
            raise ConfigError(f"{self.folder}: training.steps is {self.config.steps}, and {checkpoint.step} steps are "
                              "done already; give at least as many")
        for component in self.components:
            component.restore(checkpoint.components)
        for name, module in self.carried.items():
            restore_module(module, checkpoint.components.get(name, {}), name)
        self.step, self.saved_step, self.saved = checkpoint.step, checkpoint.step, checkpoint.folder
        return {name: list(sum_and_count) for name, sum_and_count in sums.items()}

    def save(self, sums: Sums) -> None:
        """Saves a checkpoint with the sums of the metrics since the last row, unless this step is saved already."""
        if self.saved_step != self.step:
            with self._stopping("before saving"):
                tensors = {name: t for component in self.components for name, t in component.tensors().items()}
            tensors |= {name: module_tensors(module) for name, module in self.carried.items()}
            self.processes.on_main(lambda: save(self.folder, self.step, tensors, self.settings | {"sums": sums},
                                                self.config.keep))
            self.saved_step, self.saved = self.step, self.folder / name_of(self.step)

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Compiles the updates of all components, for use within the block."""
        plain = {p.name: (p.update, p.module) for p in self.components}
        with compiled(plain, self.components[0].device) as updates:
            for p in self.components:
                p.update = updates[p.name]
            yield

    def is_due(self, every: int) -> bool:
        """Whether what is done every so many steps, and after the last, is due; with 0 it never is."""
        return every > 0 and (self.step % every == 0 or self.step == self.config.steps)

    def advance(self, log: Log) -> None:
        """Does one step: sets the learning rates of every component, samples its batch and updates it."""
        config, rates, metrics = self.config, {}, dict[str, float]()
        for p in self.components:
            for name, optimizer in p.optimizers.items():
                factor = learning_rate_factor(self.step, config.warmup, config.steps,
                                              optimizer.defaults.get("schedule", "cosine"))
                for group, rate in zip(optimizer.param_groups, p.rates[name], strict=True):
                    group["lr"] = rate * factor
                rates[f"{p.name}/lr" if len(p.optimizers) == 1 else f"{p.name}/lr-{name}"] = p.rates[name][0] * factor
            parts = [self._update(p, Share(self.processes, i, config.accumulate)) for i in range(config.accumulate)]
            metrics |= {key: fmean(part[key] for part in parts if key in part) for key in ChainMap(*parts)}
        self.step += 1
        log.record(self.step, metrics, rates)

    def _update(self, p: _Component, share: Share) -> dict[str, float]:
        """Updates a component by a share of its batch, and returns the means of its metrics over the processes."""
        which = self.step, fold(self.config.seed, p.key), p.component.batch_size
        batch = p.windows.batch(*which) if share.shards == 1 else p.windows.batch(*which, share.rows)
        with (self._stopping(f"component '{p.name}'"), share.computed(),
              torch.autocast(p.device.type, torch.bfloat16, enabled=self.config.bf16)):
            with checked_later() as checked:
                updated = p.update(batch.to(p.device), p.optimizers, generator(self.config.seed, self.step, p.key))
            keys = [f"{p.name}/{key}" for key in updated]
            named = [(f"the metric '{key}'", torch.as_tensor(value))  # a number of Python is a metric, too
                     for key, value in zip(keys, updated.values(), strict=True)]
            numbers = read_finite([*checked, *named], self.processes)
        return dict(zip(keys, numbers[len(checked) :], strict=True))

    @contextmanager
    def _stopping(self, where: str) -> Iterator[None]:
        try:
            yield
        except NonFinite as error:
            kept = f"{self.saved} is kept" if self.saved_step >= 0 else "nothing was saved"
            raise TrainingStopped(f"step {self.step}, {where}: {error}; {kept}") from error


def _settings(meta: Mapping[str, Any], components: Mapping[str, Trainable], config: TrainingConfig,
              episodes: Episodes) -> dict[str, Any]:
    """All settings that must be the same on resume, after a round trip through JSON."""
    described = {name: {"class": type(p).__name__, "spec": to_json(p.spec), "batch_size": p.batch_size}
                 for name, p in components.items()}
    settings = {**meta, "training": to_json(config), "dataset_hash": episodes_hash(episodes), "components": described}
    return json.loads(json.dumps(settings, allow_nan=False))


@contextmanager
def _resources(threads: int) -> Iterator[None]:
    """Sets the number of CPU threads, and keeps freed memory, within the block; 0 threads are the default of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with freed_memory_kept():
            yield
    finally:
        torch.set_num_threads(before)


class Interrupts:
    """Turns Ctrl-C and SIGTERM into requests that a loop reads between two steps.

    While the `with` block runs, `received` is the first signal that arrived, or None. A further Ctrl-C stops at once.

    No signal is received outside the main thread, where Python allows no handlers. Signals that are ignored, as under
    nohup, stay ignored.
    """

    received: int | None = None

    def __enter__(self) -> Interrupts:
        main = threading.current_thread() is threading.main_thread()
        handled = [number for number in SIGNALS if main and signal.getsignal(number) is not signal.SIG_IGN]
        self.before = {number: signal.signal(number, self._receive) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def anywhere(self, processes: Processes) -> int:
        """A signal that this or another process received, or 0; all processes must call this, and get the same."""
        return processes.largest(self.received or 0)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number
