"""`MIP`: two regressions by one network D, of which the second refines the first. It models no distribution.

    training:  E ||D(0, 0) - x||^2 / t^2 + E ||D(t x + (1 - t) z, t) - x||^2 / (1 - t)^2,   z ~ N(0, I),  t = 0.9
    sample:    x_0 = D(0, 0),  x_1 = D(t x_0, t)

This is the "minimal iterative policy" of Pan et al. 2025, "Much Ado About Noising" (arXiv 2512.01809): it has the noise
in training and the supervised steps of a flow, without its distribution. D also sees the known entries and the context.
The weights are those of the authors' code (`mip_loss` in mip/losses.py): the second error counts 81 times, and is about
as much smaller, as its input shows x up to little noise. Here the weights add up to 2.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config import Fraction, settings
from ..device import to_device
from ..networks import NETWORKS, NetworkConfig, ResidualMLPConfig
from ..normalize import Normalizer
from ..randomness import Seeds, as_noise
from ..training.optimization import LearningConfig, MovingAverage, adamw
from ..training.step import TrainingStep
from ..trajectory import Batch, Condition, Guide, TrajectorySpec
from .conditional import DirectModel, Generate, Microbatch, SearchConfig
from .conditioning import ConditionMix, around_interpolation, encode_context, encoded_width
from .sampling import by_blocks, check_trajectories

Known = tuple[Tensor, Tensor, Tensor | None]  # values and mask (R, H, D) of the known entries, and the encoded context


@settings
class MIPConfig(SearchConfig, LearningConfig):
    """Settings of a MIP: its network, its second step, and how a guide chooses samples."""

    network: NetworkConfig = field(default_factory=ResidualMLPConfig)
    """The network that predicts trajectories in both steps."""
    time: Annotated[float, Interval(gt=0, lt=1)] = 0.9
    """The time t of the second step, whose input in training is t x + (1 - t) z."""
    ema: Fraction = 0.999
    """Decay of the exponential moving average of the weights, which is used for sampling."""

    CONTEXT_DROPOUT: ClassVar[float] = 0.0
    BATCH_SIZE: ClassVar[int] = 256


class MIP(DirectModel):
    """A `TrajectoryModel` of two network calls: known entries and context -> a trajectory, which is then refined.

    At temperature 0 it is the published policy, whose samples have no noise. At temperature 1 the second step reads a
    noised copy of the first one's trajectory, as in training, so that a guide or a critic has candidates to choose
    from; they spread less than the data. `context`, `conditioning`, `context_dropout` and `batch_size` are those of
    `Diffusion`. Raises ValueError for a normaliser of another width than a timestep's.
    """

    config: MIPConfig
    NAME = "a MIP"
    CALLS = "two calls"

    def __init__(self, spec: TrajectorySpec, config: MIPConfig, normalizer: Normalizer,
                 context: Normalizer | None = None, *, conditioning: ConditionMix | None = None,
                 context_dropout: float = MIPConfig.CONTEXT_DROPOUT, batch_size: int = MIPConfig.BATCH_SIZE):
        super().__init__(spec, normalizer, context, conditioning, context_dropout, batch_size)
        self.config = config
        shape = spec.dim, spec.horizon, encoded_width(context)
        self.network = NETWORKS.made_of(config.network)(*shape, config.network)
        self.ema = MovingAverage(self.network, config.ema)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"network": adamw(self.network, self.config)}

    def update(self, step: TrainingStep, *, guide: Guide | None = None) -> dict[str, Tensor]:
        """One optimiser step on `loss`; returns metrics, scalars."""
        loss = self.loss(self.microbatch(step), step.batch, guide)
        return self.learn(step, loss, self.config.max_grad_norm)

    def loss(self, rows: Microbatch, batch: Batch, guide: Guide | None = None) -> Tensor:
        """The weighted squared errors of both steps at the unknown real entries, in normalised units: a scalar.

        The mean score of samples at temperature 1 by a `guide` is subtracted; its gradient passes through both steps.
        """
        known = rows.x0, rows.known, rows.context
        guess = self._guess(self.network, known)
        refined = self._refine(self.network, rows.x0, rows.normal() * rows.real, known)
        weight = (self.config.time / (1 - self.config.time)) ** 2
        loss = 2 * rows.average((guess - rows.x0) ** 2 + weight * (refined - rows.x0) ** 2) / (1 + weight)
        if guide is not None:
            loss = loss - self.own_score(guide, self._refine(self.network, guess, rows.normal(), known), rows, batch)
        return loss

    def generates(self, rows: Condition) -> Generate:
        return self._trajectories

    def _trajectories(self, z_RHD: Tensor, rows: Condition) -> Tensor:
        """Trajectories (R, H, D) in environment units, differentiable in the noise z."""
        def trajectories(z: Tensor, condition: Condition) -> Tensor:
            self.network_calls += 2
            network, known = self.ema.module, self._known(condition)
            return self.normalizer.unnormalize(self._refine(network, self._guess(network, known), z, known))

        return by_blocks(trajectories, z_RHD, rows)

    @torch.no_grad()
    def ood_score(self, x_RHD: Tensor, condition: Condition, seeds: Seeds) -> Tensor:
        """The ood score (R, H): the mean squared error of the second step, which is given x noised as in training.

        It is in normalised units, and 0 at known entries.
        """
        x_RHD, condition = x_RHD.to(self.device), condition.to(self.device)
        x_RHD = check_trajectories(self.spec, x_RHD, condition)

        z = to_device(as_noise(seeds, len(x_RHD), "trajectories").normal(*x_RHD.shape[1:]), self.device)

        def errors(x_RHD: Tensor, condition: Condition, z: Tensor) -> Tensor:
            x, known = self.normalizer.normalize(x_RHD), self._known(condition)
            return ((self._refine(self.ema.module, x, z, known) - x) ** 2).where(~condition.mask_BHD, 0).mean(-1)

        return by_blocks(errors, x_RHD, condition, z)

    def _known(self, condition: Condition) -> Known:
        return (self.normalizer.normalize(condition.values_BHD), condition.mask_BHD,
                encode_context(condition.context_BC, self.context))

    def _guess(self, network: nn.Module, known: Known) -> Tensor:
        """The first step, D(0, 0)."""
        zeros = torch.zeros_like(known[0])
        return around_interpolation(network, zeros, zeros.new_zeros(1), *known)

    def _refine(self, network: nn.Module, x: Tensor, z: Tensor, known: Known) -> Tensor:
        """The second step, D(t x + (1 - t) z, t)."""
        t = self.config.time
        return around_interpolation(network, t * x + (1 - t) * z, x.new_full((1,), t), *known)
