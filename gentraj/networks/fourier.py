"""Fourier features (Tancik et al. 2020): they let a network see edges as fine as a wall."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def fourier(z: Tensor, frequencies: int) -> Tensor:
    """(..., D) in about [-1, 1] -> (..., D (1 + 2 F)): z, and sin and cos of pi 2^k z for k = 0 .. F - 1."""
    if frequencies == 0:
        return z
    angles = [math.pi * 2**k * z for k in range(frequencies)]
    return torch.cat([z, *(angle.sin() for angle in angles), *(angle.cos() for angle in angles)], dim=-1)


def width(dim: int, frequencies: int) -> int:
    """How many features `fourier` makes of `dim` entries."""
    return dim * (1 + 2 * frequencies)
