"""The windows of training data that a run keeps: to calibrate trust on and to compare samples with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..data import Windows
from ..files import FileRefused, read_file
from ..progress import one_line
from ..training.checkpoint import CheckpointError
from ..trajectory import Batch, TrajectorySpec

REFERENCE = "reference.safetensors"
REFERENCE_WINDOWS = 512
HEADER = 1 << 12  # bytes; the names, types and shapes of three arrays take a few hundred


def reference_bytes(windows: Windows, seed: int) -> bytes:
    """The content of reference.safetensors: windows of the data with their masks and contexts, if they have any."""
    batch = windows.batch(0, seed, REFERENCE_WINDOWS)
    context = {} if batch.context_BC is None else {"context": batch.context_BC}
    return safetensors.torch.save({"x": batch.x_BHD, "mask": batch.mask_BHD} | context)


def read_reference(path: Path, sha256: str, spec: TrajectorySpec, context_dim: int) -> Batch:
    """The windows that a run keeps, with the layout `spec` and contexts of width `context_dim`.

    Raises `CheckpointError` if the file is not the one that was saved, and if it holds anything but finite windows
    that begin with data and end in padding.
    """
    most = HEADER + REFERENCE_WINDOWS * (5 * spec.horizon * spec.dim + 4 * context_dim)
    try:
        data = read_file(path, most)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError("is not what was saved")
        tensors = safetensors.torch.load(data)  # checks the lengths in the header against the data
        _check(tensors, spec, context_dim)
    except FileRefused as error:
        problem = error.strerror
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except (SafetensorError, KeyError, RuntimeError) as error:  # a dtype or a shape that torch does not have
        problem = f"is not a safetensors file ({one_line(error)})"
    except ValueError as error:
        problem = str(error)
    else:
        return Batch(tensors["x"], tensors["mask"], tensors.get("context"))
    raise CheckpointError(f"{path}: {problem}; `gentraj train --resume` writes it anew")


def _check(tensors: dict[str, Tensor], spec: TrajectorySpec, context_dim: int) -> None:
    """Raises ValueError unless these can be windows of data."""
    rows = (spec.horizon, spec.dim)
    expected = {"x": (torch.float32, rows), "mask": (torch.bool, rows)}
    expected |= {"context": (torch.float32, (context_dim,))} if context_dim else {}
    if tensors.keys() != expected.keys():
        raise ValueError(f"holds {', '.join(sorted(tensors)) or 'nothing'}; {', '.join(expected)} are expected")
    number = len(tensors["x"]) if tensors["x"].ndim else 0
    for name, (dtype, shape) in expected.items():
        tensor = tensors[name]
        if not number or tensor.dtype != dtype or tensor.shape != (number, *shape):
            raise ValueError(f"{name} is {tuple(tensor.shape)} {tensor.dtype}; {('windows', *shape)} {dtype} is "
                             "expected, with as many windows as x")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has numbers that are not finite")
    mask_BHD = tensors["mask"]
    parts = [part for part in spec.split(mask_BHD) if part.shape[-1]]
    whole = all((part == part[..., :1]).all() for part in parts)
    if not (whole and mask_BHD[:, 0].all() and (mask_BHD[:, 1:] <= mask_BHD[:, :-1]).all()):
        raise ValueError("mask is no mask of windows, which begin with data and end in padding")
