"""Helpers that several commands share: numbers given as text, and checks of output paths."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import torch
import tyro

RunFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


def parse_numbers(text: str, option: str) -> torch.Tensor:
    """Converts "1.5,0,-2" to a tensor of three numbers. Raises ValueError, which names the option, for other text."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{option} is '{text}'; numbers separated by commas are expected, such as 0.5,-1")
    return torch.tensor(numbers)


def check_output(path: Path, option: str) -> None:
    """Raises ValueError if no file can be written to `path`; called before the work that produces the file."""
    if path.is_dir():
        raise ValueError(f"{option} is {path}, which is a folder; give a file")
    check_folder(path.absolute().parent, option)


def check_folder(path: Path, option: str) -> None:
    """Raises ValueError if `path` cannot be a folder because a file is in the way, or if it is not writable."""
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise ValueError(f"{option}: {existing} is a file, so there can be no folder {path}; give another place")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{option}: {existing} is not writable; give another place")
