"""A mixture of models, which samples as one model does."""

from __future__ import annotations

import math
import zlib
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ..device import device_of
from ..randomness import generator, row_seeds
from ..trajectory import DEFAULT_OPTIONS, Condition, SamplingOptions, TrajectoryModel, calls_of

CHOICE = zlib.crc32(b"mixture")  # 1, 2, .. are what is drawn again


class Mixture:
    """Draws each row from one of `models`, chosen by the row's seed with probability proportional to its weight.

    That is exact, whatever the models are: paths, normalisers and kinds may differ. It samples and does not train. A
    guide tilts each model by itself, and the weights stay. Raises ValueError for models of different specs, and unless
    there is one weight each, none negative and not all 0.
    """

    def __init__(self, models: Sequence[TrajectoryModel], weights: Sequence[float]):
        if len(models) != len(weights) or not all(0 <= w < math.inf for w in weights) or not sum(weights) > 0:
            raise ValueError(f"a mixture of {len(models)} models has the weights {list(weights)}; give one each, at "
                             "least 0 and not all 0")
        for i, model in enumerate(models):
            if model.spec != models[0].spec:
                raise ValueError(f"model {i} of the mixture is of {model.spec}; {models[0].spec} is expected")
        self.models, self.weights, self.spec = list(models), list(weights), models[0].spec

    @property
    def device(self) -> torch.device:
        return device_of(self.models[0])

    @property
    def network_calls(self) -> int:
        return calls_of(self.models)

    def sample(self, condition: Condition, num_samples: int = 1, *, guide: Any = None,
               seed: int | Sequence[int] = 0, options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        """(B, N, H, D) in environment units, as `TrajectoryModel.sample`; `guide` is whatever all the models take."""
        rows = condition.repeat(num_samples)
        seeds = row_seeds(seed, rows.batch)
        chosen = [self._choice(s) for s in seeds]
        x_RHD = torch.empty_like(rows.values_BHD, device=self.device)
        for i, model in enumerate(self.models):
            if mine := [r for r, choice in enumerate(chosen) if choice == i]:
                x_RHD[mine] = model.sample(rows[torch.tensor(mine)], guide=guide, options=options,
                                           seed=[seeds[r] for r in mine])[:, 0].to(x_RHD)
        return x_RHD.unflatten(0, (condition.batch, num_samples))

    def _choice(self, seed: int) -> int:
        """The row's model; drawn from another stream than its noise, which has the seed itself."""
        u = float(torch.rand((), generator=generator(seed, CHOICE), dtype=torch.float64))
        return bisect(list(accumulate(self.weights))[:-1], u * sum(self.weights))
