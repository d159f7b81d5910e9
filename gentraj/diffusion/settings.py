"""`DiffusionConfig`: what a diffusion model is, how it is trained and how it samples unless told otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch

from ..config import require, require_choice
from ..networks import NetworkConfig, TemporalUNetConfig
from ..training.optimization import LEARNING
from .denoiser import NEEDS_SIGNAL, PREDICTIONS
from .grids import GRIDS
from .losses import DENSITIES, WEIGHTS
from .paths import PATHS
from .samplers import SAMPLERS

CHOICES = {"path": PATHS, "prediction": PREDICTIONS, "weight": WEIGHTS, "density": DENSITIES, "sampler": SAMPLERS,
           "grid": GRIDS}

if TYPE_CHECKING:
    PathName = PredictionName = WeightName = DensityName = SamplerName = GridName = str
else:  # the choices of the settings are what the dicts hold, so that a newcomer is one line there
    PathName, PredictionName, WeightName, DensityName, SamplerName, GridName = (
        Literal[tuple(names)] for names in CHOICES.values())


@dataclass(frozen=True)
class DiffusionConfig:
    """What the model is. On which conditions, in which units and on how many windows it is trained, its owner decides.
    """

    network: NetworkConfig = field(default_factory=TemporalUNetConfig)
    path: PathName = "vp-cosine"
    """How signal fades and noise grows."""
    levels: int | None = 20
    """Noise levels in training; None is continuous time."""
    prediction: PredictionName = "x0"
    """What the network predicts."""
    weight: WeightName = "uniform"
    """Weight of each noise level in the loss."""
    density: DensityName = "uniform"
    """How often each noise level is trained."""
    sigma_data: float = 1.0
    """Standard deviation of normalised data, as EDM's preconditioning takes it to be."""
    clip: float | None = 1.1
    """Bound on x0 in normalised units while sampling, of each thing that the model is asked: guidance away from one
    answer to another goes beyond it."""
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones that sample."""
    sampler: SamplerName = "ddim"
    steps: int = 5
    """Sampling steps."""
    grid: GridName = "uniform"
    """Where the sampling steps stop."""
    eta: float | None = None
    """Noise added while sampling, from 0 (deterministic) to 1; None is what the sampler is known for."""

    def with_network(self, network: NetworkConfig) -> DiffusionConfig:
        return replace(self, network=network)

    def unused(self) -> dict[str, str]:
        found = {"eta": "unipc adds no noise"} if self.sampler == "unipc" else {}
        if "edm" not in (self.prediction, self.weight):
            found["sigma_data"] = "neither prediction nor weight is edm"
        return found

    def __post_init__(self) -> None:
        require_choice(self, **CHOICES)
        require(self, steps=(1, 1e6), ema=(0, 1), sigma_data=(1e-6, 1e6), **LEARNING)
        for name, bounds in (("clip", (0, math.inf)), ("levels", (1, 1e6)), ("eta", (0, 1))):
            if getattr(self, name) is not None:
                require(self, **{name: bounds})
        if self.levels is not None:
            require(self, steps=(1, self.levels))
        if self.sampler == "unipc" and self.eta:
            raise ValueError(f"DiffusionConfig.eta is {self.eta}; unipc adds no noise, give 0")
        if self.prediction in NEEDS_SIGNAL and PATHS[self.path](self.levels).alpha(torch.ones(1)) == 0:
            able = ", ".join(name for name in PREDICTIONS if name not in NEEDS_SIGNAL)
            raise ValueError(f"DiffusionConfig.prediction is {self.prediction}, which says nothing of x0 at the start "
                             f"of the path {self.path}, where there is no signal; take one of {able}")


@dataclass(frozen=True)
class FlowConfig(DiffusionConfig):
    """Diffusion whose path is straight and whose noise levels are continuous, sampled by Euler's method: a rectified
    flow (Liu et al. 2023)."""

    path: PathName = "flow"
    """How signal fades and noise grows."""
    levels: int | None = None
    """Noise levels in training; None is continuous time."""
    sampler: SamplerName = "euler"
