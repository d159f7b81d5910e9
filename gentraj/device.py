"""The device that a command or a model computes on."""

from __future__ import annotations

import torch
from torch import nn


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
