"""`Gaussian`: a normal distribution of the unknown entries of a trajectory, trained on a mix of conditions.

    p(x | known, context) = N(mu, diag sigma^2), where one network maps the known entries and the context to mu, sigma.
"""

from __future__ import annotations

import math
from dataclasses import field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config import Fraction, settings
from ..networks import NETWORKS, NetworkConfig, ResidualMLPConfig
from ..normalize import Normalizer
from ..randomness import Seeds
from ..training.optimization import LearningConfig, MovingAverage, adamw
from ..training.step import TrainingStep
from ..trajectory import Batch, Condition, Guide, TrajectorySpec
from .conditional import DirectModel, Generate, Microbatch, SearchConfig
from .conditioning import ConditionMix, encode_context, encoded_width, interpolate
from .sampling import by_blocks, check_trajectories


@settings
class GaussianConfig(SearchConfig, LearningConfig):
    """Settings of a Gaussian model: its network, its likelihood, and how a guide chooses samples."""

    network: NetworkConfig = field(default_factory=ResidualMLPConfig)
    """The network that predicts mean and standard deviation."""
    spread: Literal["learned", "shared"] | PositiveFloat = "learned"
    """Standard deviation in normalised units: learned for each entry and condition; learned for each entry, and shared
    by all conditions; or one number for all of them. With a number the negative log-likelihood is a squared error over
    2 spread^2."""
    log_sigma: tuple[float, float] = (-5.0, 1.0)
    """Lower and upper bound on the logarithm of a learned standard deviation, in normalised units; soft bounds, unless
    it is shared."""
    ema: Fraction = 0.999
    """Decay of the exponential moving average of the weights, which is used for sampling."""
    squash: bool = False
    """Map means to (-1, 1) by tanh."""

    CONTEXT_DROPOUT: ClassVar[float] = 0.0
    BATCH_SIZE: ClassVar[int] = 256

    def __post_init__(self) -> None:
        low, high = self.log_sigma
        if not -50 <= low < high <= 50:
            raise ValueError(f"GaussianConfig.log_sigma is {self.log_sigma}; two numbers from -50 to 50, the smaller "
                             "one first, are expected")


class Gaussian(DirectModel):
    """A `TrajectoryModel` of one network call: known entries and context -> mean and standard deviation of the others.

    The unknown entries are independent given the condition. The methods take and return environment units; the network
    sees normalised ones. `context`, `conditioning`, `context_dropout` and `batch_size` are those of `Diffusion`. Raises
    ValueError for a normaliser of another width than a timestep's.
    """

    config: GaussianConfig
    NAME = "a Gaussian"

    def __init__(self, spec: TrajectorySpec, config: GaussianConfig, normalizer: Normalizer,
                 context: Normalizer | None = None, *, conditioning: ConditionMix | None = None,
                 context_dropout: float = GaussianConfig.CONTEXT_DROPOUT,
                 batch_size: int = GaussianConfig.BATCH_SIZE):
        super().__init__(spec, normalizer, context, conditioning, context_dropout, batch_size)
        self.config = config
        width = spec.dim
        if config.spread == "learned":
            width *= 2  # for log sigma beside the mean
        self.network = NETWORKS.made_of(config.network)(width, spec.horizon, encoded_width(context), config.network)
        if config.spread == "shared":
            self.network.register_parameter("log_sigma", nn.Parameter(torch.zeros(spec.horizon, spec.dim)))
        self.ema = MovingAverage(self.network, config.ema)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"network": adamw(self.network, self.config)}

    def update(self, step: TrainingStep, *, guide: Guide | None = None) -> dict[str, Tensor]:
        """One optimiser step on `loss`; returns metrics, scalars."""
        loss = self.loss(self.microbatch(step), step.batch, guide)
        return self.learn(step, loss, self.config.max_grad_norm)

    def loss(self, rows: Microbatch, batch: Batch, guide: Guide | None = None) -> Tensor:
        """The weighted negative log-likelihood of the unknown real entries, in nats per entry of the normalised
        trajectory: a scalar.

        The mean score of samples mu + sigma eps by a `guide` is subtracted; its gradient passes through them (Kingma &
        Welling 2014, section 2.4).
        """
        mean, log_sigma = self._moments(self.network, rows.x0 * rows.known, rows.known, rows.context)
        loss = rows.average(-log_density(rows.x0, mean, log_sigma))
        if guide is not None:
            loss = loss - self.own_score(guide, mean + log_sigma.exp() * rows.normal(), rows, batch)
        return loss

    def generates(self, rows: Condition) -> Generate:
        """mu + sigma z, so that without noise a sample is the most likely trajectory."""
        mean, sigma = self.predict(rows)

        def trajectories(z: Tensor, several: Condition) -> Tensor:
            number = several.batch // rows.batch
            return mean.repeat_interleave(number, 0) + sigma.repeat_interleave(number, 0) * z

        return trajectories

    def predict(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """Predicts mean and standard deviation of the trajectories, (R, H, D) each, in environment units.

        A known entry has its value as the mean and 0 as the standard deviation. Both are differentiable in the
        condition.
        """
        condition.check(self.spec)
        condition = condition.to(self.device)
        mean, log_sigma = self._predict(condition)
        return (torch.where(condition.mask_BHD, condition.values_BHD, self.normalizer.unnormalize(mean)),
                torch.where(condition.mask_BHD, 0, self.normalizer.unnormalize_spread(log_sigma.exp())))

    def log_prob(self, x_RHD: Tensor, condition: Condition | None = None, *, seeds: Seeds = 0,
                 exact: bool | None = None, probes: int = 1, steps: int | None = None) -> Tensor:
        """The log density (R,), in environment units, of the entries of x that `condition` leaves unknown, given the
        others.

        It is exact, takes one network call, and is differentiable in x and the condition. `seeds`, `exact`, `probes`
        and `steps` have no effect; they exist as in `Diffusion.log_prob`. Raises ValueError for shapes that do not fit
        and for numbers that are not finite.
        """
        if condition is None:
            condition = Condition.empty(self.spec, len(x_RHD))
        x_RHD, condition = x_RHD.to(self.normalizer.shift_D), condition.to(self.device)
        x0 = self.normalizer.normalize(check_trajectories(self.spec, x_RHD, condition))
        mean, log_sigma = self._predict(condition)
        log_p = log_density(x0, mean, log_sigma) - self.normalizer.scale_D.log()
        return (log_p * ~condition.mask_BHD).sum((1, 2))

    @torch.no_grad()
    def ood_score(self, x_RHD: Tensor, condition: Condition, seeds: Seeds) -> Tensor:
        """The ood score (R, H): the mean over a timestep's entries of ((x - mu) / sigma)^2, or of 0 at known entries.

        It is about 1 for data if nothing is known.
        """
        x_RHD, condition = x_RHD.to(self.normalizer.shift_D), condition.to(self.device)
        check_trajectories(self.spec, x_RHD, condition)
        mean, log_sigma = self._predict(condition)
        square = ((self.normalizer.normalize(x_RHD) - mean) / log_sigma.exp()) ** 2
        return torch.where(condition.mask_BHD, 0, square).mean(-1)

    def _predict(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """Mean and log sigma, (R, H, D) each, in normalised units, by the averaged weights."""
        def moments(rows: Condition) -> Tensor:
            self.network_calls += 1
            values = torch.where(rows.mask_BHD, self.normalizer.normalize(rows.values_BHD), 0)
            context = encode_context(rows.context_BC, self.context)
            return torch.stack(self._moments(self.ema.module, values, rows.mask_BHD, context), 1)

        mean, log_sigma = by_blocks(moments, condition).unbind(1)
        return mean, log_sigma

    def _moments(self, network: nn.Module, values: Tensor, known: Tensor,
                 context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log sigma, (R, H, D) each, in normalised units.

        The network predicts the difference of the mean from the interpolation, so that a world model learns how the
        state changes. A network's output has the shape of its input, which is padded with D zeros for log sigma.
        """
        interpolated, spread = interpolate(values, known), self.config.spread
        inputs = [interpolated, values, known]
        if spread == "learned":
            inputs = [F.pad(y, (0, self.spec.dim)) for y in inputs]
        out = network(*inputs, values.new_zeros(1), context).float()  # float32 under autocast too
        mean, raw = interpolated + out[..., : self.spec.dim], out[..., self.spec.dim :]
        if self.config.squash:
            mean = mean.tanh()
        if spread == "learned":
            return mean, soft_clamp(raw, *self.config.log_sigma)
        if spread == "shared":
            return mean, network.get_parameter("log_sigma").clamp(*self.config.log_sigma).expand_as(mean)
        return mean, torch.full_like(mean, math.log(spread))


def log_density(x: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """log N(x; mean, exp(log_sigma)^2) of each entry."""
    return -(((x - mean) * (-log_sigma).exp()) ** 2) / 2 - log_sigma - math.log(2 * math.pi) / 2


def soft_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """Clamps x to [low, high] smoothly, so that the gradient is nowhere 0 (Chua et al. 2018, appendix A.1).

    The result may exceed `high` by exp(low - high) at most.
    """
    x = high - F.softplus(high - x)
    return low + F.softplus(x - low)
