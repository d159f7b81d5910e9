"""One optimiser step, which is refused where the loss or a gradient is not finite."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from ..config import require

BATCH = {"batch_size": (1, 1e9)}  # range, for `gentraj.config.require`, of components that draw batches of their own


@dataclass(frozen=True, kw_only=True)
class LearningConfig:
    """Base class of the settings of what is trained by AdamW."""

    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 1e-4
    """Weight decay of AdamW."""
    max_grad_norm: float = 1.0
    """Norm to which larger gradients are clipped."""

    def __post_init__(self) -> None:
        require(self, learning_rate=(0, 1), weight_decay=(0, 1), max_grad_norm=(1e-9, math.inf))


class NonFinite(RuntimeError):
    """A loss, a gradient norm, a metric or a parameter is NaN or infinite."""


def adamw(network: nn.Module, config: LearningConfig,
          betas: tuple[float, float] = (0.9, 0.999)) -> dict[str, Optimizer]:
    """Makes the optimisers of a component with one network: {"network": AdamW}.

    The fused implementation is used, which is 2.75 times as fast on a CPU.
    """
    optimizer = AdamW(network.parameters(), config.learning_rate, betas, weight_decay=config.weight_decay, fused=True)
    return {"network": optimizer}


def apply_gradients(loss: Tensor, optimizer: Optimizer, max_norm: float) -> Tensor:
    """Backpropagates the scalar `loss`, clips the gradient norm to `max_norm`, and steps the optimiser.

    Returns the norm before clipping. Raises `NonFinite`, without a step, where the loss or the norm is not finite.
    """
    if not torch.isfinite(loss):
        raise NonFinite(f"the loss is {loss.item()}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    if not torch.isfinite(norm):
        raise NonFinite(f"the gradient norm is {norm.item()}")
    optimizer.step()
    return norm
