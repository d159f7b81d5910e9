"""`load`: a run, from its folder or from the zoo."""

from __future__ import annotations

from pathlib import Path

import torch

from ...device import require_device
from .folder import RunFolder
from .run import Run
from .zoo import run_folder


def load(folder: Path | str, *, step: int | None = None, device: torch.device | str | None = None) -> Run:
    """Loads the run in a folder, or `zoo:NAME`, at `step`, by default at the checkpoint that `gentraj choose --use`
    took, or else at its newest valid one. The dataset is not needed.

    Raises `NothingSaved` without a checkpoint, `ConfigError` if config.json is not that of the checkpoint, and
    ValueError for a device that cannot be used here and for a name that the zoo does not have.
    """
    if device is not None:
        require_device(str(device))
        device = torch.device(device)
    return RunFolder(run_folder(folder)).load(step, device)
