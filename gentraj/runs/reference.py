"""The windows of training data that a run keeps: to calibrate trust on and to compare samples with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.torch

from ..data import Windows
from ..training.checkpoint import CheckpointError
from ..trajectory import Batch

REFERENCE = "reference.safetensors"
REFERENCE_WINDOWS = 512


def reference_bytes(windows: Windows, seed: int) -> bytes:
    """The content of reference.safetensors: windows of the data with their masks and contexts, if they have any."""
    batch = windows.batch(0, seed, REFERENCE_WINDOWS)
    context = {} if batch.context_BC is None else {"context": batch.context_BC}
    return safetensors.torch.save({"x": batch.x_BHD, "mask": batch.mask_BHD} | context)


def read_reference(path: Path, sha256: str) -> Batch:
    """The windows that a run keeps. Raises `CheckpointError` if the file is not the one that was saved."""
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise CheckpointError(f"{path}: is not what was saved; `gentraj train --resume` writes it anew")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); `gentraj train --resume` writes it "
                              "anew") from error
    tensors = safetensors.torch.load(data)
    return Batch(tensors["x"], tensors["mask"], tensors.get("context"))
