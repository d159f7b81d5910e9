"""`denoise(x, t) -> x0`, the one primitive: what a network predicts turned into x0, and what wraps it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]  # (x_RHD, t of shape (R,) or (1,)) -> x0_RHD


class Prediction(NamedTuple):
    """A parameterisation: x0 from (x, prediction, alpha, sigma), and the target from (x0, eps, alpha, sigma)."""

    x0: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


PREDICTIONS = {
    # Ho et al. 2020, equation 15
    "eps": Prediction(lambda x, eps, alpha, sigma: (x - sigma * eps) / alpha, lambda x0, eps, alpha, sigma: eps),
    "x0": Prediction(lambda x, x0, alpha, sigma: x0, lambda x0, eps, alpha, sigma: x0),
    # Salimans & Ho 2022, section 4: v = alpha eps - sigma x0
    "v": Prediction(lambda x, v, alpha, sigma: alpha * x - sigma * v,
                    lambda x0, eps, alpha, sigma: alpha * eps - sigma * x0),
}


def hold(denoise: Denoise, values: Tensor, mask: Tensor) -> Denoise:
    """The known entries stay known: the network sees them clean, and they come back as they are."""

    def held(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(mask, values, denoise(torch.where(mask, values, x), t))

    return held


def clip(denoise: Denoise, limit: float) -> Denoise:
    """x0 within [-limit, limit], in normalised units (Ho et al. 2020 clip to the data's range)."""
    return lambda x, t: denoise(x, t).clamp(-limit, limit)
