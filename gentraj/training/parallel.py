"""Training by several processes at once, which a launcher such as `accelerate launch` or `torchrun` starts together.

Each process computes its own rows of every batch: with P processes, rank r has the rows r, r + P, r + 2P and so on.
Gradients are averaged before they are clipped, so all processes take the same optimiser steps. Random numbers are those
of the whole batch, of which each process keeps its rows. A training by several processes is therefore the training by
one, up to rounding, and no checkpoint depends on the number of processes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.overrides import TorchFunctionMode

from ..config import ConfigError
from ..progress import one_line

T = TypeVar("T")
Draw = Callable[..., Tensor]  # a function of torch
WAIT_FOR_MAIN = timedelta(hours=1)  # while the main process evaluates or saves, the others wait; then they end


class ProcessLost(RuntimeError):
    """Another process of the training failed or was killed, so this one ends too. Earlier checkpoints are kept."""


@dataclass(frozen=True)
class Processes:
    """The `world_size` processes of one training, of which this one is number `rank`; by default it is alone."""

    rank: int = 0
    world_size: int = 1
    device: torch.device | None = None
    """The device of this process; None leaves the choice to the training."""

    @property
    def is_main(self) -> bool:
        """Whether this is the main process: it alone writes files, logs and evaluates."""
        return self.rank == 0

    @property
    def rows(self) -> slice:
        """The rows of this process in a batch."""
        return slice(self.rank, None, self.world_size)

    def drawing(self) -> AbstractContextManager[object]:
        """Lets every generator in the block draw the numbers of whole batches, of which this process takes its rows."""
        if self.world_size == 1:
            return nullcontext()
        return OwnRows(self.rows)

    def share(self, number: int) -> int:
        """How many of the first `number` rows of a batch this process has, at least 1."""
        return max(1, number // self.world_size)

    def mean(self, x: Tensor) -> Tensor:
        """The mean of a tensor over the processes, without gradient. All must call this, with equal shapes.

        A loss that is divided by a statistic of its batch, such as the number of real entries, divides by this mean, so
        that the mean of the losses is the loss of the whole batch.
        """
        if self.world_size == 1:
            return x
        total = x.detach().to(self.device, torch.float32, copy=True)
        self._add_up(total)
        return total.div_(self.world_size).to(x.device)

    def maximum(self, x: Tensor) -> Tensor:
        """The element-wise maximum of a tensor over the processes, without gradient."""
        if self.world_size == 1:
            return x
        most = x.detach().to(self.device, copy=True)
        with self._together():
            distributed.all_reduce(most, distributed.ReduceOp.MAX)
        return most.to(x.device)

    def on(self, device: torch.device | None) -> Processes:
        """These processes, of which this one computes on `device` if that is given."""
        if device is None:
            return self
        return replace(self, device=device)

    def largest(self, number: int) -> int:
        """The largest of the integers that the processes give."""
        if self.world_size == 1:
            return number
        return int(self.maximum(torch.tensor(number)))

    def average_gradients(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Replaces the gradients by their means over the processes, and returns the mean loss."""
        if self.world_size == 1:
            return loss
        gradients = [p.grad for p in parameters if p.grad is not None]
        total = torch.cat([loss.detach().reshape(1), *(gradient.flatten() for gradient in gradients)])
        self._add_up(total)
        for gradient, part in zip(gradients, total[1:].split([g.numel() for g in gradients]), strict=True):
            torch.div(part.view(gradient.shape), self.world_size, out=gradient)
        return total[0] / self.world_size

    def copy_main(self, modules: Sequence[nn.Module]) -> None:
        """Copies the weights and buffers of the main process to all others."""
        if self.world_size > 1:
            with self._together():
                for tensor in (t for module in modules for t in module.state_dict().values() if t.is_floating_point()):
                    distributed.broadcast(tensor, 0)

    def on_main(self, work: Callable[[], T]) -> T | None:
        """Calls `work` in the main process, while the others wait, and returns its result there and None elsewhere.

        Raises `ProcessLost` in the others where it fails.
        """
        if self.world_size == 1:
            return work()
        result, failure = None, None
        if self.is_main:
            try:
                result = work()
            except Exception as error:
                failure = error
        failed = self.largest(int(failure is not None))
        if failure is not None:
            raise failure
        if failed:
            raise ProcessLost(f"process {self.rank} of {self.world_size} ends, as the main process failed; its message "
                              "says why")
        return result

    def _add_up(self, x: Tensor) -> None:
        """Replaces a tensor by its sum over the processes."""
        with self._together():
            distributed.all_reduce(x)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Turns the failure of a collective operation into one line."""
        try:
            yield
        except RuntimeError as error:
            raise ProcessLost(f"process {self.rank} of {self.world_size} ends, as another process of this training "
                              "failed or was killed; its checkpoints are kept, go on with --resume") from error


SINGLE = Processes()


class OwnRows(TorchFunctionMode):
    """Draws random numbers for whole batches from every generator in its block, and returns those of some rows.

    The first dimension of what is drawn counts rows. Numbers without dimensions are the same in all processes. Raises
    `ConfigError` for draws that cannot be divided, such as permutations.
    """

    SIZED = (torch.rand, torch.randn, torch.randint)
    ROW_BY_ROW = (torch.bernoulli, torch.poisson, Tensor.normal_, Tensor.uniform_, Tensor.exponential_,
                  Tensor.bernoulli_, Tensor.random_)

    def __init__(self, rows: slice):
        super().__init__()
        self.rows = rows

    def __torch_function__(self, func: Draw, types: object, args: tuple[Any, ...] = (),
                           kwargs: dict[str, object] | None = None) -> object:
        kwargs = kwargs or {}
        if not isinstance(kwargs.get("generator"), torch.Generator):
            return func(*args, **kwargs)
        if func in self.SIZED:
            return self._sized(func, args, kwargs)
        if func in self.ROW_BY_ROW:
            return self._row_by_row(func, args, kwargs)
        raise ConfigError(f"{func.__name__} draws numbers that several processes cannot divide; train in one")

    def _sized(self, func: Draw, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """A draw of a size, which is given by name, as the last argument, or as all of them."""
        if "size" in kwargs:
            before, size = args, kwargs["size"]
        elif isinstance(args[-1], int):
            before, size = (), args
        else:
            *before, size = args
        if not size:
            return func(*args, **kwargs)
        size = (size[0] * self.rows.step, *size[1:])
        return func(*before, **kwargs | {"size": size})[self.rows]

    def _row_by_row(self, func: Draw, args: tuple[Any, ...], kwargs: dict[str, object]) -> Tensor:
        """A draw whose rows depend on those of a tensor, which may be the tensor that is filled."""
        first, *more = args
        drawn = func(first.repeat_interleave(self.rows.step, 0), *more, **kwargs)[self.rows]
        return first.copy_(drawn) if func.__name__.endswith("_") else drawn


@contextmanager
def launched(device: str | None = None) -> Iterator[Processes]:
    """Joins the processes that a launcher started together with this one, until the block ends; else it is alone.

    Each process computes on a device of its own, or on the CPU where `device` is "cpu". Warnings are shown by the main
    process only. Raises `ConfigError` where accelerate is missing, for another `device`, and for processes that cannot
    be connected.
    """
    number = os.environ.get("WORLD_SIZE", "")
    if "RANK" not in os.environ or number in ("", "1"):
        yield SINGLE
        return
    if device not in (None, "cpu"):
        raise ConfigError(f"--device is {device}, but each of the {number} processes takes a device of its own; leave "
                          "--device out, or give cpu")
    with warnings.catch_warnings():
        processes = _join(int(number), device)
        if not processes.is_main:
            warnings.simplefilter("ignore")
        yield processes
    distributed.destroy_process_group()  # not after an error: the others may be gone


def launched_in_bf16() -> bool:
    """Whether `accelerate launch` was given bf16. Raises `ConfigError` for another mixed precision."""
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", "bf16"):
        raise ConfigError(f"accelerate launch was given the mixed precision {precision}, which needs a scaling of the "
                          "loss that gentraj lacks; give --mixed_precision bf16, or no")
    return precision == "bf16"


def _join(number: int, device: str | None) -> Processes:
    try:
        from accelerate import PartialState

        with warnings.catch_warnings(action="ignore"):
            state = PartialState(cpu=device == "cpu" or not torch.accelerator.is_available(), timeout=WAIT_FOR_MAIN)
    except ImportError as error:
        raise ConfigError(f"{number} processes were launched, which needs a package that is missing: "
                          "pip install 'gentraj[scale]'") from error
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"the {number} processes that were launched cannot work together: {one_line(error)}",
                          ) from error
    if state.num_processes != number:
        raise ConfigError(f"{number} processes were launched, which accelerate cannot connect on this machine's "
                          "accelerator; give --device cpu")
    own = state.device
    if own is None or own.type == "cpu":
        own = torch.device("cpu")  # and not cpu:0, which equals no other
    return Processes(state.process_index, number, own)
