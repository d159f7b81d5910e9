"""The training of every component with `update`. A run that is killed at any instant and resumed ends bit for bit
as one that was never interrupted."""

from __future__ import annotations

import ctypes
import json
import reprlib
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from ..config import ConfigError, Fraction, differences, settings, to_json
from ..data.episodes import Episodes, episodes_hash
from ..data.hindsight import windows_of
from ..data.windows import ContextConfig
from ..networks.discriminator import Discriminator
from ..networks.embedding import TrajectoryNetwork
from ..networks.mlp import EnsembleMLP
from ..randomness import fold, generator
from ..trajectory import Batch, TrajectorySpec
from .checkpoint import (
    LOCK,
    CheckpointError,
    CheckpointWarning,
    NothingSaved,
    has_checkpoints,
    load,
    name_of,
    run_lock,
    save,
)
from .log import Log, Row, Sums, require_loggers, start_loggers
from .optimization import NonFinite, StepNumbers
from .state import ComponentState, Source, module_tensors, restore_module
from .step import Trainable, TrainingStep

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(RuntimeError):
    """The training saved and stopped after a signal. `exit_code` is 128 + signal, as shells expect."""

    def __init__(self, received: int, step: int):
        super().__init__(f"stopped by {signal.Signals(received).name} at step {step}, which is saved; "
                         "go on with resume=True")
        self.exit_code = 128 + received


class Interrupts:
    """Turns Ctrl-C and SIGTERM into requests that a loop reads between two steps.

    While the `with` block runs, `received` is the first signal that arrived, or None. A further Ctrl-C stops at once.

    No signal is received outside the main thread, where Python allows no handlers. Signals that are ignored, as under
    nohup, stay ignored.
    """

    received: int | None = None

    def __enter__(self) -> Interrupts:
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self.before = {number: signal.signal(number, self._receive) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number


# `threads`, `compile` and `deterministic` are among them: they change rounding, no more.
MAY_CHANGE_ON_RESUME = ("steps", "save_every", "log_every", "keep", "threads", "compile", "deterministic", "log_to",
                         "eval_every", "eval_episodes", "min_episode_start_fraction")


class TrainingStopped(RuntimeError):
    """The training met a number that is not finite and stopped; earlier checkpoints are kept."""


@settings
class TrainingConfig:
    """Settings of the training loop. Batch sizes and learning rates are settings of the trained components."""

    steps: PositiveInt = 10_000
    """Number of training steps. A cosine decay of the learning rate ends at the last one."""
    warmup: NonNegativeInt = 200
    """Number of steps over which the learning rate rises linearly to its full value."""
    save_every: PositiveInt = 1_000
    """Number of steps between checkpoints. The start and the last step are always saved."""
    log_every: PositiveInt = 100
    """Number of steps between rows of metrics.jsonl. Each row holds means over the steps since the row before."""
    eval_every: NonNegativeInt = 0
    """Number of steps between evaluations of the agent in its environment, for a learning curve of its score; 0 turns
    them off. Evaluations do not change the training, and the last checkpoint is the result of the run."""
    eval_episodes: PositiveInt = 10
    """Number of episodes of each of these evaluations."""
    seed: NonNegativeInt = 0
    """Seed of the training: the same seed gives the same weights."""
    threads: NonNegativeInt = 0
    """Number of CPU threads. 0 uses the default of torch."""
    keep: PositiveInt = 3
    """Number of checkpoints to keep. Older ones are deleted."""
    bf16: bool = False
    """Compute in bfloat16 where that is safe. This is faster on GPUs and on CPUs with AMX."""
    compile: bool = False
    """Compile the networks by torch.compile, on a CUDA device as CUDA graphs. This takes minutes at the start and
    changes weights by rounding. Networks that cannot be compiled are computed as they are, and a line says why."""
    deterministic: bool = False
    """On a GPU, compute the same bits in each run, as a CPU does anyway. This is slower."""
    min_episode_start_fraction: Fraction = 0.0
    """The least fraction of the windows of real episodes that start in the first 32 steps. Data of long episodes have
    few such windows (3 % if an episode has 1,000 steps), and an agent that has learned too little of how to start
    falls. Windows are moved there, within their episodes, to make up this fraction. A fine-tuning draws all steps
    equally often."""
    log_to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Loggers that are given the rows of metrics.jsonl too; each is an optional package (`pip install
    'gentraj[wandb]'`). If one fails during the training, a warning says so and the training continues."""


@dataclass(frozen=True)
class TrainingData:
    """The episodes that a training draws its batches from, with the contexts that components are conditioned on."""

    episodes: Episodes
    contexts: ContextConfig = field(default_factory=ContextConfig)
    source: Callable[[TrajectorySpec], Source] | None = None
    """Makes the source of batches of a component; by default they are windows of the episodes."""
    held_out: Episodes | None = None
    """Episodes that nothing is trained on, for `Trainer.measure`."""

    def batches(self, spec: TrajectorySpec, min_episode_start_fraction: float) -> Source:
        """The source of batches in the layout `spec`."""
        if self.source is not None:
            return self.source(spec)
        return windows_of(self.episodes, spec, self.contexts, min_episode_start_fraction)


@dataclass(frozen=True)
class RunStore:
    """The folder that a training is saved in, and what is saved beside the components."""

    folder: Path
    meta: Mapping[str, object] = field(default_factory=dict)
    """The settings that determine components and episodes, as JSON values. A resumed training must be given the same,
    except for `may_change`, as in `check_same`."""
    may_change: Collection[str] = ()
    """The dotted keys of `meta` that may differ when a training is resumed."""
    frozen: Mapping[str, nn.Module] = field(default_factory=dict)
    """Modules that are saved with the components and not trained."""


@dataclass(frozen=True)
class TrainingResult:
    """The state of a run after a training: `step` steps are done and saved in the folder `checkpoint`.

    `metrics` is the last row of metrics.jsonl that this process wrote, and `seconds` is how long it took.
    """

    step: int
    checkpoint: Path
    metrics: Row
    seconds: float


@dataclass
class UnreadStep:
    """A step that is not logged so far: how many were done before it, the numbers of each component, and the learning
    rates."""

    done: int
    by_component: dict[str, StepNumbers] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)


class Trainer:
    """Trains components in place, one update of each a step, and saves checkpoints and metrics.

        Trainer({"model": model}, TrainingData(episodes), TrainingConfig(steps=1_000), RunStore(folder)).fit()

    Every component must be an `nn.Module` as well. `fit` goes through the stages below, each of which a subclass may
    override. Components are moved to `device`; None leaves them where they are. `on_row` is given each row of
    metrics.jsonl. Raises TypeError for a component that cannot be trained.
    """

    def __init__(self, components: Mapping[str, Trainable], data: TrainingData, settings: TrainingConfig,
                 store: RunStore, *, device: torch.device | None = None, on_row: Callable[[Row], None] | None = None,
                 progress: bool = True):
        require_loggers(settings.log_to)  # before anything is saved
        self.settings = settings
        self.store = store
        self.on_row = on_row
        self.progress = progress
        self.folder = Path(store.folder).absolute()  # the working directory may change meanwhile
        self.components = list[ComponentState]()
        for name, component in sorted(components.items()):
            if not (isinstance(component, nn.Module) and isinstance(component, Trainable)):
                raise TypeError(f"the component '{name}' is {type(component).__name__}; an nn.Module that is Trainable "
                                "is expected")
            batches = data.batches(component.spec, settings.min_episode_start_fraction)
            self.components.append(ComponentState(name, component, component, batches, device))
        self.on_cuda = any(each.device.type == "cuda" for each in self.components)
        self.meta = _same_on_resume(store.meta, components, settings, data.episodes)
        self.step = 0
        self.unread = deque[UnreadStep]()  # steps whose metrics are not logged so far
        self.saved_step = -1
        self.sums: Sums | None = None  # those of the step that `fit` ended at; None where it did not end
        self.checkpoint = self.folder

    def fit(self, resume: bool = False, until: int | None = None) -> TrainingResult:
        """Trains to the step `until`, by default the last one, and saves. Called again, it goes on from there, and the
        result is the same, bit for bit, as that of one call. With `resume`, goes on with the training in the folder.

        Raises `ConfigError` for settings that differ on resume and for fewer steps than are done, `CheckpointError`
        where the folder is in use or cannot be written, `NothingSaved` without anything to resume, `TrainingStopped`
        for a number that is not finite, and `Interrupted` after SIGINT or SIGTERM, when everything is saved.
        """
        began = time.monotonic()
        if resume and not has_checkpoints(self.folder):
            raise NothingSaved(f"{self.folder}: nothing saved yet; train first")
        self.until = self.settings.steps if until is None else min(until, self.settings.steps)
        sums = None if resume else self.sums
        goes_on = resume or sums is not None
        self.sums = None
        with ExitStack() as self.held, Interrupts() as self.interrupts, cpu_resources(self.settings.threads):
            if self.settings.deterministic and self.on_cuda:
                self.held.enter_context(deterministic_kernels())
            self.claim_folder(goes_on)
            if sums is None:
                sums = self.begin(resume)
            self.save(sums)  # nothing to do where the training goes on
            with self.open_log(sums) as log:
                while not self.is_finished():
                    try:
                        self.train_step(log)
                    except Exception:
                        self.record(log, later=1)  # the step before may be the cause, by a number that is not finite
                        raise
                    self.judge(log)
                    if self.step % self.settings.save_every == 0:
                        self.record(log)
                        self.save(log.sums)
                self.record(log)
                self.save(log.sums)
                sums = log.sums
            if self.interrupts.received is not None:
                raise Interrupted(self.interrupts.received, self.step)
        self.sums = sums
        return TrainingResult(self.step, self.checkpoint, log.last, time.monotonic() - began)

    def claim_folder(self, goes_on: bool) -> None:
        """Locks the folder until `fit` ends. Raises `CheckpointError` where a training would be overwritten."""
        self.held.enter_context(run_lock(self.folder))
        if not goes_on and has_checkpoints(self.folder):
            raise CheckpointError(f"{self.folder}: holds a training already; continue it by resume=True, or take "
                                  "another folder")

    def begin(self, resume: bool) -> Sums:
        """Restores the newest checkpoint on `resume`, and has the folder written.

        Returns the sums of metrics that were saved with the checkpoint.
        """
        self.unread.clear()  # what a `fit` that failed has left
        sums = self.restore() if resume else {}
        for each in self.components:
            each.schedule(self.step, self.settings.warmup, self.settings.steps)
            if self.settings.compile:
                compile_networks(each.module, each.device)
        self.write_folder(resume)
        return sums

    def write_folder(self, resume: bool) -> None:
        """Writes what belongs beside the checkpoints: nothing. It is called once the folder is locked and a resumed
        training is restored, before the first save; and again where the folder is gone."""

    def restore(self) -> Sums:
        """Restores the newest checkpoint and returns the sums of metrics that were saved with it."""
        saved = load(self.folder)
        old = dict(saved.meta)
        if "sums" not in old:
            raise CheckpointError(f"{saved.folder}: holds weights without the states of optimisers, and no training "
                                  "goes on from these; train a new run, or start from its weights by `gentraj finetune`"
                                  " or `gentraj distill`")
        sums: Sums = old.pop("sums")
        check_same(old, self.meta, str(self.folder), self.store.may_change)
        if saved.step > self.settings.steps:
            raise ConfigError(f"{self.folder}: training.steps is {self.settings.steps}, and {saved.step} steps are "
                              "done already; give at least as many")
        for each in self.components:
            each.restore(saved.components)
        for name, module in self.store.frozen.items():
            restore_module(module, saved.components.get(name, {}), name)
        self.step = self.saved_step = saved.step
        self.checkpoint = saved.folder
        return sums

    def open_log(self, sums: Sums) -> Log:
        """The log of this training, which goes on with the sums of metrics since the last row."""
        every, steps = self.settings.log_every, self.settings.steps
        whole = self.step - 1 if sums else self.step  # the row of this step, if there are sums, is not whole
        loggers = start_loggers(self.settings.log_to, self.folder, whole, self.meta)
        return Log(every, steps, self.step, sums, progress=self.progress, loggers=loggers, on_row=self.on_row)

    def is_finished(self) -> bool:
        """Whether the last step of this `fit` is done, or a signal asks to stop."""
        return self.step >= self.until or self.interrupts.received is not None

    def train_step(self, log: Log) -> None:
        """Updates every component by a batch of its own, and logs its metrics and learning rates; on a GPU those of the
        step before, so that the host prepares a step while the GPU computes another."""
        step = UnreadStep(self.step)
        self.unread.append(step)
        for each in self.components:
            step.rates |= each.learning_rates()
            self.train_component(each)
        self.step += 1
        self.record(log, later=int(self.on_cuda))

    def record(self, log: Log, later: int = 0) -> None:
        """Logs the steps that are not logged so far, except the last ones, which are left for `later`.

        Raises `TrainingStopped` for a number of theirs that is not finite.
        """
        while len(self.unread) > later:
            step = self.unread.popleft()
            metrics = dict[str, float]()
            for name, numbers in step.by_component.items():
                with self._stopping(f"component '{name}'", step.done):
                    metrics |= numbers.metrics()
            log.record(step.done + 1, metrics, step.rates)

    def train_component(self, trained: ComponentState) -> dict[str, Tensor]:
        """Updates a component by its batch of this step, and returns its metrics."""
        metrics = self.update(trained, self.next_batch(trained))
        for scheduler in trained.schedulers.values():
            scheduler.step()
        return metrics

    def next_batch(self, trained: ComponentState) -> Batch:
        """The batch of this step, which depends on the seed, the step and the component."""
        seed = fold(self.settings.seed, trained.key)
        return trained.source.batch(self.step, seed, trained.component.batch_size).to(trained.device)

    def update(self, trained: ComponentState, batch: Batch) -> dict[str, Tensor]:
        """Updates a component by a batch, and returns its metrics, which `record` logs.

        Raises `TrainingStopped` where the loss, a gradient or a metric is not finite; those of a GPU are looked at by
        `record`.
        """
        step = TrainingStep(batch, trained.optimizers, generator(self.settings.seed, self.step, trained.key),
                            unread=[])
        with (self._stopping(f"component '{trained.name}'"),
              torch.autocast(trained.device.type, torch.bfloat16, enabled=self.settings.bf16)):
            if self.settings.compile and trained.device.type == "cuda":
                torch.compiler.cudagraph_mark_step_begin()  # CUDA graphs may overwrite what they returned before
            updated = trained.component.update(step)
            metrics = {f"{trained.name}/{key}": torch.as_tensor(value) for key, value in updated.items()}
            numbers = StepNumbers(step.unread or (), metrics)
            self.unread[-1].by_component[trained.name] = numbers
            if numbers.arrived is None:
                numbers.metrics()
        return metrics

    def judge(self, log: Log) -> None:
        """Evaluates and measures if it is due; the time that this takes is not that of the training."""
        every, is_last = self.settings.eval_every, self.step == self.settings.steps
        due = every > 0 and (self.step % every == 0 or is_last)
        saves = self.step % self.settings.save_every == 0 or is_last
        for is_due, judged in ((due, self.evaluate), (due or saves, self.measure)):
            if is_due:
                self.record(log)
                with log.paused():
                    judged()

    def evaluate(self) -> None:
        """Evaluates what is trained: not at all. It is called every `eval_every` steps and after the last. It
        must not change the components."""

    def measure(self) -> None:
        """The same before each checkpoint too, whether or not there are evaluations."""

    def save(self, sums: Sums) -> None:
        """Saves a checkpoint with the sums of the metrics since the last row, unless this step is saved already.

        Raises `TrainingStopped` where a parameter is not finite.
        """
        if self.saved_step == self.step:
            return
        tensors = dict[str, dict[str, Tensor]]()
        with self._stopping("before saving"):
            for each in self.components:
                tensors |= each.tensors()
        tensors |= {name: module_tensors(module) for name, module in self.store.frozen.items()}
        self.write(tensors, sums)
        self.saved_step = self.step
        self.checkpoint = self.folder / name_of(self.step)

    def write(self, tensors: Mapping[str, Mapping[str, Tensor]], sums: Sums) -> None:
        """Writes these tensors as the checkpoint of this step. Where the folder is gone, warns and writes it anew."""
        if not (self.folder / LOCK).exists():
            warnings.warn(f"{self.folder} was moved or deleted during the training, and is written anew, without the "
                          f"checkpoints before step {self.step}; if it was moved, move those from this step on to "
                          "where the run is", CheckpointWarning, stacklevel=2)
            self.claim_folder(goes_on=True)
            self.write_folder(resume=True)
        save(self.folder, self.step, tensors, self.meta | {"sums": sums}, self.settings.keep)

    @contextmanager
    def _stopping(self, where: str, step: int | None = None) -> Iterator[None]:
        """Turns a number that is not finite into the end of the training, by default in this step."""
        try:
            yield
        except NonFinite as error:
            kept = f"{self.checkpoint} is kept" if self.saved_step >= 0 else "nothing was saved"
            if step is None:
                step = self.step
            raise TrainingStopped(f"step {step}, {where}: {error}; {kept}") from error


def check_same(old: Mapping[str, object], new: Mapping[str, object], where: str = "the run",
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


def _same_on_resume(meta: Mapping[str, object], components: Mapping[str, Trainable], settings: TrainingConfig,
                    episodes: Episodes) -> dict[str, Any]:
    """All settings that must be the same on resume, after a round trip through JSON."""
    described = {name: {"class": type(each).__name__, "spec": to_json(each.spec), "batch_size": each.batch_size}
                 for name, each in components.items()}
    all_settings = {**meta, "training": to_json(settings), "dataset_hash": episodes_hash(episodes),
                    "components": described}
    return json.loads(json.dumps(all_settings, allow_nan=False))


COMPILER = "inductor"  # needs a C++ compiler on a CPU, and Triton on a GPU
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 2**28  # of freed memory, during a training
UNMAPPED_BYTES = 2**25  # the largest block that is not mapped for itself; glibc takes no more


@contextmanager
def cpu_resources(threads: int) -> Iterator[None]:
    """Sets the number of CPU threads, and keeps freed memory, within the block; 0 threads are the default of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with freed_memory_kept():
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Lets CUDA take only kernels that give the same bits in each run, within the block."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Lets the process keep freed memory, up to 256 MiB, within the block, and returns it to the system at the end.

    The system would give it back page by page, which takes 3 to 10 % of the time of a training step on a CPU. glibc
    raises both thresholds by itself as a process frees larger blocks, until one of them is set; after the block they
    have the values up to which it does. This changes nothing where the C library is not glibc.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    libc.mallopt(M_MMAP_THRESHOLD, UNMAPPED_BYTES)
    try:
        yield
    finally:
        libc.mallopt(M_TRIM_THRESHOLD, 2 * UNMAPPED_BYTES)
        libc.malloc_trim(0)


def compile_networks(module: nn.Module, device: torch.device) -> None:
    """Compiles the networks in a module that are trained, one program for each shape of their inputs. On a CUDA device
    its kernels are launched together, as CUDA graphs, but for those of which PyTorch says that it cannot.

    Discriminators are left out: penalties differentiate their gradients, which compiled networks do not support. So are
    moving averages, which are called with batches of many sizes. A network that cannot be compiled when it is called
    is computed as it is from then on, and a warning says why.
    """
    mode = "reduce-overhead" if device.type == "cuda" else None
    for network in module.modules():
        is_compiled = isinstance(network, TrajectoryNetwork | EnsembleMLP) and not isinstance(network, Discriminator)
        if is_compiled and any(p.requires_grad for p in network.parameters()):
            network.compile(backend=COMPILER, mode=mode, dynamic=False)
            network._compiled_call_impl = or_as_it_is(network)


def or_as_it_is(network: nn.Module) -> Callable[..., Any]:
    """Calls the network as it was compiled, and where that fails, the network itself from then on."""
    compiled: Any = network._compiled_call_impl

    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever the compiler that is missing leads to
            failure = error
        network._compiled_call_impl = None
        result = network(*args, **kwargs)  # which raises what is no fault of the compiler
        lines = [line for line in str(failure).splitlines() if line.strip() and not line.endswith("raised:")]
        reason = (lines or [type(failure).__name__])[0].strip()
        warnings.warn(f"training.compile is set, and torch.compile does not work here: {reason}; networks are computed "
                      "as they are; install a compiler (g++ or clang for a CPU, Triton for a GPU)", stacklevel=2)
        return result

    return called
