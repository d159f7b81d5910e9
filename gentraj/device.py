"""The device that a command or a model computes on."""

from __future__ import annotations

import torch


def pick_device(name: str | None) -> torch.device:
    """A device by name; by default the accelerator where there is one, else the CPU. Raises ValueError."""
    if name is None:
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.get_default_device()
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` makes tensors without numbers
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device '{name}' cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def device_of(model: object) -> torch.device:
    """The device of a model's tensors: its `device`, and the CPU for one that does not say."""
    return getattr(model, "device", torch.device("cpu"))
