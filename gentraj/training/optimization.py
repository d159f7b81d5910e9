"""One optimiser step, which is refused where the loss or a gradient is not finite, and moving averages of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Any, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..config import Fraction, settings
from ..device import to_device

Schedule = Literal["cosine", "constant"]


@settings
class LearningConfig:
    """Base class of the settings of what is trained by AdamW."""

    _: KW_ONLY
    learning_rate: Fraction = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: Fraction = 1e-4
    """Weight decay of AdamW."""
    max_grad_norm: PositiveFloat = 1.0
    """Norm to which larger gradients are clipped."""
    schedule: Schedule = "cosine"
    """Learning rate after the warm-up: a cosine decay to 0 at the end of the training, or constant."""


class NonFinite(RuntimeError):
    """A loss, a gradient norm, a metric or a parameter is NaN or infinite."""


class ScheduledAdamW(AdamW):
    """Fused AdamW, which is 2.75 times as fast on a CPU, with what its learning rate does after the warm-up."""

    def __init__(self, network: nn.Module, config: LearningConfig, betas: tuple[float, float]):
        super().__init__(network.parameters(), config.learning_rate, betas, weight_decay=config.weight_decay,
                         fused=True)
        self.schedule: Schedule = config.schedule


def adamw(network: nn.Module, config: LearningConfig, betas: tuple[float, float] = (0.9, 0.999)) -> Optimizer:
    """AdamW of a network, in the fused implementation, with the schedule of the settings."""
    return ScheduledAdamW(network, config, betas)


def learning_rate_factor(step: int, warmup: int, steps: int, schedule: Schedule = "cosine") -> float:
    """The factor of the learning rate at `step` (0 to `steps` - 1): a linear warm-up times a cosine decay to 0, or
    times 1 if the `schedule` is "constant"."""
    decay = 1.0
    if schedule == "cosine":
        decay = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / max(1, warmup)) * decay


def scheduler_of(optimizer: Optimizer, step: int, warmup: int, steps: int) -> LambdaLR:
    """Sets the learning rates of an optimiser for `step`; each step of the scheduler sets those of the next one."""
    schedule: Schedule = optimizer.schedule if isinstance(optimizer, ScheduledAdamW) else "cosine"
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    scheduler = LambdaLR(optimizer, lambda at: learning_rate_factor(at, warmup, steps, schedule), step - 1)
    # Without gradients this changes nothing. torch warns of a scheduler whose optimiser has taken no step so far, as
    # that of an actor which learns in every second step.
    optimizer.zero_grad()
    optimizer.step()
    return scheduler


def apply_gradients(loss: Tensor, optimizer: Optimizer, max_norm: float,
                    unread: list[tuple[str, Tensor]] | None = None) -> Tensor:
    """Backpropagates the scalar `loss`, clips the gradient norm to `max_norm`, and steps the optimiser.

    Returns the norm before clipping. Raises `NonFinite`, without a step, where the loss or the norm is not finite. If
    they are on an accelerator and a list `unread` is given, they are added to it instead, for `StepNumbers` to check: a
    fused optimiser takes no step either where they are not finite, and nothing waits for the accelerator.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = None
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if unread is not None and waits_to_read(norm) and optimizer.defaults.get("fused"):
        unread += [("the loss", loss.detach()), ("the gradient norm", norm)]
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
        fused: Any = optimizer  # its kernel reads `found_inf`, and where that is 1 it changes nothing
        fused.found_inf = 1 - (torch.isfinite(loss) & torch.isfinite(norm)).float()
        fused.step()
        del fused.found_inf
    else:
        require_finite("the loss", loss.item())
        size = require_finite("the gradient norm", norm.item())
        if max_norm / (size + 1e-6) < 1.001:  # torch's factor, by which it multiplies gradients even where it is 1
            torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
        optimizer.step()
    return norm


def waits_to_read(tensor: Tensor) -> bool:
    """Whether Python has to wait for a device to read the tensor; the CPU has computed it already."""
    return not tensor.is_cpu


class StepNumbers:
    """The numbers of an update that have to be finite, on their way to the CPU by one transfer: those that were left to
    be `checked`, and its metrics.

    A GPU hands them over when it gets there, for which only `metrics` waits.
    """

    def __init__(self, checked: Sequence[tuple[str, Tensor]], metrics: Mapping[str, Tensor]):
        self.keys = list(metrics)
        self.names = [*(name for name, _ in checked), *(f"the metric '{key}'" for key in metrics)]
        self.found: dict[str, float] | None = None  # by the first call of `metrics`
        scalars = [*(x for _, x in checked), *metrics.values()]
        device = next((x.device for x in scalars if waits_to_read(x)), torch.device("cpu"))
        there = [to_device(x.to(torch.float32).view(1), device) for x in scalars]
        self.numbers = torch.cat([torch.empty(0, dtype=torch.float32, device=device), *there])
        self.arrived: torch.Event | None = None
        if device.type == "cuda":
            there = self.numbers
            self.numbers = torch.empty_like(there, device="cpu", pin_memory=True).copy_(there, non_blocking=True)
            self.arrived = torch.Event(device)
            self.arrived.record()

    def metrics(self) -> dict[str, float]:
        """The metrics by name. Raises `NonFinite`, naming the first number of all that is not finite."""
        if self.found is None:
            if self.arrived is not None:
                self.arrived.synchronize()
            numbers = list(map(require_finite, self.names, self.numbers.tolist()))
            self.found = dict(zip(self.keys, numbers[len(numbers) - len(self.keys) :], strict=True))
        return self.found


def require_finite(name: str, number: float) -> float:
    """Returns the number of this name. Raises `NonFinite` where it is not finite."""
    if not math.isfinite(number):
        raise NonFinite(f"{name} is {number}")
    return number


class Updates(nn.Module):
    """A number of updates, which is saved with the weights, so that a resumed training goes on with the right one.

    It stays on the CPU, where reading it waits for no device.
    """

    number: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("number", torch.zeros((), dtype=torch.long))

    @property
    def done(self) -> int:
        """The number so far."""
        return int(self.number)

    def next(self) -> int:
        """Counts an update, and returns its number, from 1 on."""
        self.number += 1
        return self.done

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Updates:
        return self


class MovingAverage(AveragedModel):
    """The exponential moving average of a network's weights, called as the network is.

    The first update copies the weights; buffers are always copied. All weights are updated by one call, and an update
    does not wait for the device: the number of updates stays on the CPU.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.pairs: list[tuple[list[Tensor], list[Tensor]]] = []
        super().__init__(network)
        self.averaged = (network,)  # in a tuple, as it is no part of its average
        self.average = get_ema_multi_avg_fn(decay)
        self.requires_grad_(False)
        self.register_load_state_dict_post_hook(MovingAverage._forget)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Moves the average by the fraction 1 - decay of the way to the weights of `model`, always the same network."""
        if not self.pairs:  # the tensors are listed once, as that takes longer than to average a small network
            self.pairs = [([*self.module.parameters()], [*model.parameters()]),
                          ([*self.module.buffers()], [*model.buffers()])]
            if self.n_averaged == 0:
                self.module.load_state_dict(model.state_dict())
        weights, buffers = self.pairs
        self.average(*weights, self.n_averaged)
        for mine, other in zip(*buffers, strict=True):
            mine.copy_(other)
        self.n_averaged += 1

    def hand_back(self) -> None:
        """Gives the network the averaged weights, with which an agent acts."""
        if self.n_averaged > 0:
            self.averaged[0].load_state_dict(self.module.state_dict())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MovingAverage:
        self._forget()  # as buffers are moved to new tensors
        super()._apply(fn, recurse)
        self.n_averaged = self.n_averaged.cpu()
        return self

    def _forget(self, *_: object) -> None:
        self.pairs = []
