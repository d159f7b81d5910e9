"""What several commands need: devices, numbers given as text, words for people."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Annotated

import torch
import tyro

RunFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


def say(text: str) -> None:
    """Progress for people goes to stderr; stdout is for results."""
    print(text, file=sys.stderr, flush=True)


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


def cpus() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_numbers(text: str, option: str) -> torch.Tensor:
    """ "1.5,0,-2" -> three numbers. Raises ValueError naming the option."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{option} is '{text}'; numbers parted by commas are expected, such as 0.5,-1")
    return torch.tensor(numbers)


def check_output(path: Path, option: str) -> None:
    """Raises ValueError where no file can be written, before the work that fills it."""
    if path.is_dir():
        raise ValueError(f"{option} is {path}, which is a folder; give a file")
    check_folder(path.absolute().parent, option)


def check_folder(path: Path, option: str) -> None:
    """Raises ValueError where a file is in the way of a folder, or nothing may be written."""
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not there.is_dir():
        raise ValueError(f"{option}: {there} is a file, so there can be no folder {path}; give another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{option}: nothing may be written into {there}; give another place")
