"""The device that a command or a model computes on, and how tensors get there without a wait.

A GPU works through a queue of operations that the host fills. A copy from ordinary memory, and every number that the
host reads, waits until the queue is empty, so that the GPU then has nothing to do. `to_device` and `constant` do not
wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor, nn

ALIGNMENT = 16  # bytes; each of the tensors that are packed into one copy begins at a multiple of it


def pick_device(name: str | None) -> torch.device:
    """The device of this name; for None the accelerator if there is one, else the CPU.

    Raises ValueError for a device that cannot be used here.
    """
    if name is None:
        return _accelerator() or torch.get_default_device()
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # fails on `meta`, whose tensors hold no numbers
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device '{name}' cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def _accelerator() -> torch.device | None:
    if not torch.accelerator.is_available():
        return None
    return torch.accelerator.current_accelerator()


def require_device(name: str | None) -> None:
    """Raises ValueError for a device that no process of this machine can use, and uses none of its memory."""
    known = [torch.device("cpu"), _accelerator()]
    if name is not None and name.partition(":")[0] not in [device.type for device in known if device]:
        pick_device(name)  # which says why not


def device_of(model: object) -> torch.device:
    """The device of a model's tensors: its `device`, or that of its parameters, or the CPU if it has neither."""
    own = getattr(model, "device", None)
    if isinstance(own, torch.device):
        return own
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return next((parameter.device for parameter in parameters), torch.device("cpu"))


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """The tensor on another device. It goes to a GPU by way of page-locked memory, so that the host does not wait."""
    if device.type == "cuda" and x.is_cpu:
        return x.contiguous().pin_memory().to(device, non_blocking=True)  # a view may repeat elements
    return x.to(device)


def to_device_together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Several tensors on another device. To a GPU they go by one copy, for which the host does not wait."""
    if device.type != "cuda" or not all(x.is_cpu for x in tensors):
        return [x.to(device) for x in tensors]
    sizes = [-(-x.nbytes // ALIGNMENT) * ALIGNMENT for x in tensors]
    starts = list(accumulate(sizes, initial=0))
    packed = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=True)
    parts = [packed[start : start + x.nbytes] for start, x in zip(starts, tensors, strict=False)]
    for part, x in zip(parts, tensors, strict=True):
        part.view(x.dtype).view(x.shape).copy_(x)
    there = packed.to(device, non_blocking=True)
    return [there[start : start + x.nbytes].view(x.dtype).view(x.shape)
            for start, x in zip(starts, tensors, strict=False)]


def running_sum(x_RX: Tensor) -> Tensor:
    """(R, X) the sums of each row up to each entry; CUDA, whose `cumsum` of floats is not deterministic, makes X sums
    of X entries."""
    if not x_RX.is_cuda:
        return x_RX.cumsum(1)
    width = x_RX.shape[1]
    lower_XX = torch.ones(width, width, dtype=torch.bool, device=x_RX.device).tril()
    return torch.where(lower_XX, x_RX[:, None], 0).sum(-1)


def constant(numbers: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor of these numbers, which is made once for each device and type, and must not be changed.

    As an index it takes the place of a list, which is copied to the device in every call.
    """
    if torch.compiler.is_compiling():
        return torch.tensor(numbers, dtype=dtype, device=device)
    return _constant(numbers, device, dtype)


@lru_cache(1024)
def _constant(numbers: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # or else no gradient could pass through what it is multiplied by
        return torch.tensor(numbers, dtype=dtype, device=device)
