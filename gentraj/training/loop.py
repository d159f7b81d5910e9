"""One loop that trains anything with `update`: killed at any instant and resumed, it gives the same bits."""

from __future__ import annotations

import json
import math
import reprlib
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..config import ConfigError, differences, require, to_json
from ..data.context import ContextConfig
from ..data.episodes import Episodes, episodes_hash
from ..data.windows import Windows
from ..randomness import fold, generator
from ..trajectory import Batch, Trainable, TrajectorySpec
from .checkpoint import (
    CheckpointError,
    NothingSaved,
    RunLock,
    has_checkpoints,
    load,
    module_tensors,
    optimizer_tensors,
    restore_module,
    restore_optimizer,
    save,
)
from .log import Log, Row, Sums, tensorboard_writer
from .optimization import NonFinite

# `threads` among them: another number of threads may change the last bits, but is no other training.
MAY_CHANGE_ON_RESUME = ("steps", "save_every", "log_every", "keep", "threads", "tensorboard", "eval_every",
                         "eval_episodes")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingStopped(RuntimeError):
    """Training met a number that is not finite. What it had saved before is kept."""


class Interrupted(RuntimeError):
    """A training was stopped by a signal, after it had saved; `exit_code` is what a shell expects: 128 + signal."""

    def __init__(self, received: int, step: int):
        super().__init__(f"stopped by {signal.Signals(received).name} at step {step}, which is saved; "
                         "go on with --resume")
        self.exit_code = 128 + received


class Source(Protocol):
    """Where batches come from: `Windows`, or what gives the same for the same (step, seed, size) by other means."""

    def batch(self, step: int, seed: int, size: int) -> Batch: ...


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Batch sizes and learning rates belong to the components that are trained."""

    steps: int = 10_000
    """Steps in all; the cosine decay of the learning rate ends here."""
    warmup: int = 200
    """Steps over which the learning rate rises to its full value."""
    save_every: int = 1_000
    """Steps between two checkpoints; the first step and the last are always saved."""
    log_every: int = 100
    """Steps between two rows of metrics.jsonl, each the mean over the steps since the row before."""
    eval_every: int = 0
    """Steps between two evaluations of the agent in its environment, for a learning curve of its score; 0 makes none.
    The training is the same with and without, and the last checkpoint stays the one that counts."""
    eval_episodes: int = 10
    """Episodes of each of these evaluations."""
    seed: int = 0
    """The same seed gives the same training."""
    threads: int = 0
    """CPU threads; 0 leaves the choice to torch."""
    keep: int = 3
    """Checkpoints to keep, the newest."""
    bf16: bool = False
    """Compute in bfloat16 where that is safe; pays on GPUs and on CPUs with AMX."""
    tensorboard: bool = False
    """Also log for TensorBoard, an optional package."""

    def __post_init__(self) -> None:
        require(self, **dict.fromkeys(("steps", "save_every", "log_every", "keep", "eval_episodes"), (1, math.inf)),
                **dict.fromkeys(("warmup", "seed", "threads", "eval_every"), (0, math.inf)))


@dataclass(frozen=True)
class TrainingResult:
    """`step` steps are done and saved in `checkpoint`; `metrics` is the last row of metrics.jsonl of this process."""

    step: int
    checkpoint: Path
    metrics: Row
    seconds: float


def train(components: Mapping[str, Trainable], episodes: Episodes, config: TrainingConfig, run_dir: Path, *,
          meta: Mapping[str, Any], resume: bool = False, device: torch.device | None = None, progress: bool = True,
          contexts: ContextConfig | None = None, windows: Callable[[TrajectorySpec], Source] | None = None,
          on_log: Callable[[Row], None] | None = None, prepare: Callable[[], None] | None = None,
          evaluate: Callable[[int], None] | None = None) -> TrainingResult:
    """Trains every component (also an `nn.Module`) at each step, in place, and saves into `run_dir`.

    `contexts` are what every batch says beside its windows, for the components that look at it. `windows` gives each
    component its batches, by default those of `episodes`.

    `meta` holds the settings that made components and episodes (JSON values): it is saved with each checkpoint, and a
    resumed run must have the same. `device` is where the components are by default. `on_log` is given each row of
    metrics. `prepare` is called once, when the folder is this training's alone: before its first save, or when what was
    saved is found to fit. `evaluate` is called every `eval_every` steps, and at the last, with the number of steps
    done; it must leave the components as they are.

    Raises `ConfigError` for settings that differ on resume, `CheckpointError` when the folder is in use or cannot be
    written, `TrainingStopped` at a number that is not finite, `Interrupted` after SIGINT or SIGTERM, all saved.
    """
    if config.tensorboard:
        tensorboard_writer()  # before anything is saved
    folder, began = Path(run_dir).absolute(), time.monotonic()  # absolute: somebody may change directory meanwhile
    if resume and not has_checkpoints(folder):
        raise NothingSaved(f"{folder}: nothing saved yet; train first")
    with RunLock(folder), Interrupts() as interrupts, _threads(config.threads):
        if not resume and has_checkpoints(folder):
            raise CheckpointError(f"{folder}: holds a training already; use --resume to go on, or another folder")
        windows = windows or partial(Windows, episodes, contexts=contexts)
        run = _Run(folder, [_Component(n, p, windows, device) for n, p in sorted(components.items())], config,
                   _settings(meta, components, config, episodes))
        sums = run.restore() if resume else {}
        if prepare is not None:
            prepare()
        run.save(sums)  # nothing to do on resume
        with Log(folder, config.log_every, config.steps, start=run.step, sums=sums, progress=progress,
                 tensorboard=config.tensorboard, on_row=on_log) as log:
            while run.step < config.steps and interrupts.received is None:
                run.advance(log)
                if evaluate and config.eval_every and (run.step % config.eval_every == 0 or run.step == config.steps):
                    with log.paused():
                        evaluate(run.step)
                if run.step % config.save_every == 0:
                    run.save(log.sums)
            run.save(log.sums)
    if interrupts.received is not None:
        raise Interrupted(interrupts.received, run.step)
    return TrainingResult(run.step, run.saved, log.last, time.monotonic() - began)


def learning_rate_factor(step: int, warmup: int, steps: int) -> float:
    """Linear warm-up times cosine decay to 0, a pure function of the step (from 0 to steps - 1)."""
    return min(1.0, (step + 1) / max(1, warmup)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def check_same(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "the run") -> None:
    """Raises `ConfigError` listing each setting that differs, but for those of `training` that may change."""
    may_change = {f"training.{key}" for key in MAY_CHANGE_ON_RESUME}
    wrong = [f"{key} was {reprlib.repr(before)} and is {reprlib.repr(now)}"
             for key, before, now in differences(old, new) if ".".join(key.split(".")[-2:]) not in may_change]
    if wrong:
        raise ConfigError(f"{where}: cannot be resumed with other settings: {'; '.join(wrong)}")


class _Component:
    """A component in training: its windows, its optimisers with their full learning rates, its own random streams."""

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
        self.rates = {n: [group["lr"] for group in o.param_groups] for n, o in self.optimizers.items()}
        self.windows = windows(component.spec)
        # of the name: a component's numbers do not depend on the components beside it
        self.key = zlib.crc32(name.encode())

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds of it; raises `NonFinite` for a parameter that is not finite."""
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
                raise CheckpointError(f"the checkpoint has no '{key}': save_pretrained saved it to be used, and its "
                                      "training cannot go on; train a new run")
            restore_optimizer(optimizer, saved[key], key)


class _Run:
    """How far a run is, and what of it is on the disk."""

    def __init__(self, folder: Path, components: list[_Component], config: TrainingConfig, settings: dict[str, Any]):
        self.folder, self.components, self.config, self.settings = folder, components, config, settings
        self.step, self.saved_step, self.saved = 0, -1, folder

    def restore(self) -> Sums:
        """Goes back to the newest checkpoint; returns the sums that were saved with it."""
        checkpoint = load(self.folder)
        old = dict(checkpoint.meta)
        sums = old.pop("sums")
        check_same(old, self.settings, str(self.folder))
        for component in self.components:
            component.restore(checkpoint.components)
        self.step, self.saved_step, self.saved = checkpoint.step, checkpoint.step, checkpoint.folder
        return sums

    def save(self, sums: Sums) -> None:
        """Saves this step with the sums of the metrics since the last row, unless it is saved already."""
        if self.saved_step != self.step:
            with self._stopping("before saving"):
                tensors = {name: t for component in self.components for name, t in component.tensors().items()}
            self.saved = save(self.folder, self.step, tensors, self.settings | {"sums": sums}, self.config.keep)
            self.saved_step = self.step

    def advance(self, log: Log) -> None:
        """One step of every component: its learning rates are set, its batch is drawn, and it is updated."""
        config, metrics, rates = self.config, {}, {}
        factor = learning_rate_factor(self.step, config.warmup, config.steps)
        for p in self.components:
            for name, optimizer in p.optimizers.items():
                for group, rate in zip(optimizer.param_groups, p.rates[name], strict=True):
                    group["lr"] = rate * factor
                rates[f"{p.name}/lr" if len(p.optimizers) == 1 else f"{p.name}/lr-{name}"] = p.rates[name][0] * factor
            batch = p.windows.batch(self.step, fold(config.seed, p.key), p.component.batch_size).to(p.device)
            with (self._stopping(f"component '{p.name}'"),
                  torch.autocast(p.device.type, torch.bfloat16, enabled=config.bf16)):
                updated = p.component.update(batch, p.optimizers, generator(config.seed, self.step, p.key))
                for key, value in updated.items():
                    metrics[f"{p.name}/{key}"] = number = value.item()
                    if not math.isfinite(number):
                        raise NonFinite(f"the metric '{p.name}/{key}' is {number}")
        self.step += 1
        log.record(self.step, metrics, rates)

    @contextmanager
    def _stopping(self, where: str) -> Iterator[None]:
        try:
            yield
        except NonFinite as error:
            kept = f"{self.saved} is kept" if self.saved_step >= 0 else "nothing was saved"
            raise TrainingStopped(f"step {self.step}, {where}: {error}; {kept}") from error


def _settings(meta: Mapping[str, Any], components: Mapping[str, Trainable], config: TrainingConfig,
              episodes: Episodes) -> dict[str, Any]:
    """All that must be the same on resume, as JSON gives it back."""
    made = {name: {"class": type(p).__name__, "spec": to_json(p.spec), "batch_size": p.batch_size}
            for name, p in components.items()}
    settings = {**meta, "training": to_json(config), "dataset_hash": episodes_hash(episodes), "components": made}
    return json.loads(json.dumps(settings, allow_nan=False))


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Interrupts:
    """Ctrl-C and SIGTERM as requests that a loop sees between two steps.

    While the `with` block runs, `received` is the first signal that came. A Ctrl-C after it stops at once.

    Off the main thread, where Python allows no handlers, nothing is received. An ignored signal stays ignored (nohup).
    """

    received: int | None = None

    def __enter__(self) -> Interrupts:
        main = threading.current_thread() is threading.main_thread()
        heard = [number for number in SIGNALS if main and signal.getsignal(number) is not signal.SIG_IGN]
        self.before = {number: signal.signal(number, self._receive) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number
