"""What several commands need: numbers given as text, and places to write to."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import torch
import tyro

RunFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


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
