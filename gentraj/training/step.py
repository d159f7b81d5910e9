"""The training step, all that an `update` may use and the way in which it changes weights; and `Trainable`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..trajectory import Batch, TrajectorySpec
from .optimization import MovingAverage, apply_gradients


@dataclass(frozen=True)
class TrainingStep:
    """One step of a training, which the `update` of a component is given.

    An update reads nothing but this step and the component's own state, so that the same step of the same component
    gives the same weights. For batches of one shape it is one program on an accelerator, as no number is read within
    it; two things are the host's: random numbers, which are drawn on the CPU, and learning rates. There are several
    programs where an update has a turn, as of an actor with a `delay` or a discriminator that takes part in some.
    """

    batch: Batch
    """The windows to learn from."""
    optimizers: Mapping[str, Optimizer]
    """The optimisers of the component, by the names that its `optimizers` gives them."""
    generator: torch.Generator
    """The source of all random numbers."""
    unread: list[tuple[str, Tensor]] | None = field(default=None, repr=False)
    """Where the losses and gradient norms of an accelerator are noted, for the training loop to check later, so that
    no optimiser step waits for it. None checks them at once, as on a CPU."""

    def descend(self, loss: Tensor, optimizer: str, max_norm: float) -> Tensor:
        """Takes one step of the optimiser of this name on the scalar `loss`, whose gradient norm is clipped to
        `max_norm`.

        Returns the norm before clipping. Raises `NonFinite`, before the step, for a loss or a norm that is not finite.
        """
        return apply_gradients(loss, self.optimizers[optimizer], max_norm, self.unread)

    def follow(self, average: MovingAverage, network: nn.Module) -> None:
        """Moves the moving average towards the weights of the network."""
        average.update_parameters(network)

    def on(self, batch: Batch, optimizers: Mapping[str, Optimizer] | None = None) -> Self:
        """The same step on another batch, for a part of the component, whose optimisers may have names of its own."""
        if optimizers is None:
            optimizers = self.optimizers
        return replace(self, batch=batch, optimizers=optimizers)


class Trial(TrainingStep):
    """A step that measures what a component loses on a batch, such as held-out data, and changes no weight.

    Counters and running statistics of the component still move, so it should be a copy.
    """

    def descend(self, loss: Tensor, optimizer: str, max_norm: float) -> Tensor:
        """Returns 0 in the place of the gradient norm; nothing is learned."""
        return loss.detach().new_zeros(())

    def follow(self, average: MovingAverage, network: nn.Module) -> None:
        """Leaves the average as it is."""


@runtime_checkable
class Trainable(Protocol):
    """Anything that the training loop can train: a generative model, a critic, inverse dynamics, a policy."""

    spec: TrajectorySpec  # the layout of the windows to train on
    batch_size: int
    """The number of windows in a batch."""

    def optimizers(self) -> dict[str, Optimizer]:
        """The optimisers of its parts, by the names by which `update` uses them."""
        ...

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        """Takes one training step and returns its metrics, scalars without gradient, by name.

        It reads nothing but the step and its own state. Raises `NonFinite`, before an optimiser step, for a loss or a
        gradient that is not finite.
        """
        ...
