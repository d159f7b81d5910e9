"""What several commands need: devices, numbers given as text, words for people."""

from __future__ import annotations

import sys

import torch


def say(text: str) -> None:
    """Progress for people goes to stderr; stdout is for results."""
    print(text, file=sys.stderr, flush=True)


def pick_device(name: str | None) -> torch.device:
    """A device by name; by default the accelerator where there is one, else the CPU. Raises ValueError."""
    if name is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.get_default_device()
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device '{name}' cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def parse_numbers(text: str, option: str) -> torch.Tensor:
    """ "1.5,0,-2" -> three numbers. Raises ValueError naming the option."""
    try:
        return torch.tensor([float(part) for part in text.split(",")])
    except ValueError:
        raise ValueError(f"{option} is '{text}'; numbers parted by commas are expected, such as 0.5,-1") from None
