"""`ConditionalModel`: what generative models share that are trained on a mix of conditions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..normalize import Normalizer
from ..trajectory import Batch, Guide, TrajectorySpec
from .conditioning import ConditionMix, encode_context
from .microbatch import Microbatch
from .plugin import mean_score


class ConditionalModel(nn.Module):
    """Base class of generative models that are trained on windows with random known entries.

    `normalizer` normalises windows and `context` contexts. `conditioning` says which entries are known in a training
    step, where a fraction `context_dropout` of the windows is without its context. Raises ValueError for a normaliser
    of another width than a timestep's.
    """

    def __init__(self, spec: TrajectorySpec, normalizer: Normalizer, context: Normalizer | None,
                 conditioning: ConditionMix | None, context_dropout: float, batch_size: int):
        super().__init__()
        self.spec, self.batch_size = spec, batch_size
        self.conditioning, self.context_dropout = conditioning or ConditionMix(), context_dropout
        self.normalizer, self.context = normalizer.require(spec.dim), context
        self.network_calls = 0

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return self.normalizer.shift_D.device

    def microbatch(self, batch: Batch, generator: torch.Generator) -> Microbatch:
        """The normalised windows of a training step, with random known entries and encoded contexts."""
        known = self.conditioning.sample(self.spec, batch.mask_BHD, generator)
        return Microbatch(self.normalizer.normalize_windows(batch), batch.mask_BHD, known,
                          self.training_context(batch, generator), batch.weights(), generator)

    def training_context(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """The contexts of a batch, encoded as (B, C + 1), of which a fraction `context_dropout` is left out."""
        kept_B = torch.rand(len(batch.x_BHD), generator=generator) >= self.context_dropout
        return encode_context(batch.context_BC, self.context, kept_B)

    def own_score(self, guide: Guide, x: Tensor, rows: Microbatch, batch: Batch) -> Tensor:
        """The guide's mean score, a scalar, of normalised trajectories x (B, H, D) that the model made.

        The guide sees them in environment units, with the data in place of known entries and padding.
        """
        own = torch.where(rows.free, self.normalizer.unnormalize(x), batch.x_BHD)
        return mean_score(guide, own, rows.weight)
