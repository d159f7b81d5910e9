"""Where a training's rows of metrics go beside metrics.jsonl: TensorBoard, and Weights & Biases.

Each is a class with `log` and `close` and a line of `LOGGERS`. Whatever one raises becomes a warning of `Log`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from ..config import ConfigError

PROJECT = "gentraj"  # unless the logger's own environment variable names another


class Logger(Protocol):
    """Takes the rows of a training in `folder`, of which `start` steps were done before, and its `settings`."""

    def __init__(self, folder: Path, start: int, settings: Mapping[str, object]): ...

    def log(self, step: int, row: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the folder `tensorboard` of the run."""

    def __init__(self, folder: Path, start: int, settings: Mapping[str, object]):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def log(self, step: int, row: Mapping[str, float]) -> None:
        for key, value in row.items():
            self.writer.add_scalar(key, value, step)

    def close(self) -> None:
        self.writer.close()


class WandB:
    """A run of Weights & Biases, whose files are in the folder `wandb` of the run; a resumed training continues it.

    The project is $WANDB_PROJECT or "gentraj", and WANDB_MODE=offline sends nothing.
    """

    def __init__(self, folder: Path, start: int, settings: Mapping[str, object]):
        import wandb

        # folders such as offline-run-20250131_120000-id
        known = sorted(path.name.split("-")[-2:] for path in (folder / "wandb").glob("*run-*"))
        before = known[-1][-1] if start and known else None
        self.run = wandb.init(project=os.environ.get("WANDB_PROJECT", PROJECT), name=folder.name, dir=str(folder),
                              id=before, resume="allow" if before else None, reinit="create_new", config=dict(settings))

    def log(self, step: int, row: Mapping[str, float]) -> None:
        self.run.log(dict(row), step=step)

    def close(self) -> None:
        self.run.finish()


LOGGERS: dict[str, type[Logger]] = {"tensorboard": TensorBoard, "wandb": WandB}


def require_loggers(names: Iterable[str]) -> None:
    """Raises `ConfigError` for the first of these loggers whose package is not installed."""
    for name in names:
        if find_spec(name) is None:  # packages and extras have the loggers' names
            raise ConfigError(f"the logger {name} needs a package that is missing: pip install 'gentraj[{name}]'")
