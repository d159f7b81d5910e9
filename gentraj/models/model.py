"""`TrajectoryModel`: what planners and policies need of a generative model of trajectories."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor
from torch.optim import Optimizer

from ..randomness import Seeds
from ..training.step import TrainingStep
from ..trajectory import DEFAULT_OPTIONS, Condition, Guide, Observer, SamplingOptions, TrajectorySpec


class TrajectoryModel(Protocol):
    """A generative model of trajectories, such as a diffusion model, a GAN, a latent model or a distilled student.

    A planner or a policy needs only these four members, so all models are interchangeable. The protocols
    `SupportsLogProb`, `SupportsScore` and `SupportsOODScore` describe what some models can do in addition. A model may
    count the calls of its network so far, `network_calls`, as a measure of the cost of a decision, and may have been
    trained for one number of sampling steps alone, `only_steps`. A model that is no `nn.Module` and whose tensors are
    not on the CPU also has a `device`.
    `gentraj.testing.check_model` checks a model of your own.
    """

    @property
    def spec(self) -> TrajectorySpec:
        """The layout of its trajectories."""
        ...

    def optimizers(self) -> dict[str, Optimizer]:
        """The optimisers of its parts, as `Trainable.optimizers` returns them."""
        ...

    def update(self, step: TrainingStep, *, guide: Guide | None = None) -> dict[str, Tensor]:
        """Takes one training step as `Trainable.update` does, with the batch's weights.

        With a differentiable `guide`, which scores trajectories (B, H, D) in environment units, the model also learns
        to raise the mean score of its own samples for the batch's conditions.
        """
        ...

    def sample(self, condition: Condition, num_samples: int = 1, *, guide: Any = None,
               seed: Seeds | None = None, options: SamplingOptions = DEFAULT_OPTIONS,
               observe: Observer | None = None) -> Tensor:
        """Samples `num_samples` trajectories for each condition: (B, N, H, D) in environment units, in which the known
        entries have exactly their values.

        `guide` is a function of trajectories, a `Guide`, or anything else that shapes this model's samples. It is
        called with at least 16 trajectories at a time, some of which may be padding. `seed` is one for all, one for
        each of the B * N samples, or their noise; without one, samples differ from call to call. `observe` is called
        with the unfinished samples after each sampling step. Raises ValueError for options that this model does not
        have.
        """
        ...
