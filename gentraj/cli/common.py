"""What several commands share: the argument RUN, and numbers given as text."""

from __future__ import annotations

import math
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
