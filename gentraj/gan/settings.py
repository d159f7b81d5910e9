"""`GANConfig`: what a conditional GAN is, how it is trained and how it samples unless told otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from ..config import require, require_choice
from ..networks import NetworkConfig, TemporalUNetConfig
from ..networks.discriminator import DiscriminatorConfig
from ..training.optimization import LEARNING
from .objectives import OBJECTIVES
from .regularisers import REGULARISERS

if TYPE_CHECKING:
    ObjectiveName = str
else:  # what the dict holds
    ObjectiveName = Literal[tuple(OBJECTIVES)]


@dataclass(frozen=True)
class SideConfig:
    """How one of the two players learns: two time scales are two learning rates (Heusel et al. 2017)."""

    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.0, 0.99)
    """Of Adam. No momentum: the game turns, and what was uphill a while ago is not now."""
    max_grad_norm: float = 10.0

    def __post_init__(self) -> None:
        require(self, **LEARNING)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"SideConfig.betas are {self.betas}; two numbers from 0 to less than 1 are expected")


@dataclass(frozen=True)
class GANConfig:
    network: NetworkConfig = field(default_factory=TemporalUNetConfig)
    """The generator."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    objective: ObjectiveName = "relativistic"
    """What the two play for."""
    penalties: dict[str, float] | None = None
    """Regularisers of the discriminator and their weights; None is what the objective is known with."""
    energy_score: float = 10.0
    """Weight of the energy score in the generator's loss, which holds it to the data under each condition."""
    discriminator_steps: int = 1
    """Steps of the discriminator, each on a batch of its own, before one of the generator, which draws two samples
    under half of the conditions of the last."""
    generator_learning: SideConfig = field(default_factory=SideConfig)
    discriminator_learning: SideConfig = field(default_factory=SideConfig)
    discriminator_noise: float = 0.0
    """Most noise on what the discriminator sees, in normalised units (Diffusion-GAN: Wang et al. 2023); 0 is none."""
    ema: float = 0.99
    """Decay of the generator's averaged weights, which are the ones that sample."""
    best_of: int = 16
    """Candidates of which the one that a guide likes best is taken."""
    refine: int = 0
    """Steps uphill on the guide's score, in the noise that the best candidate is made of."""
    refine_rate: float = 0.1
    """Length of such a step, as a share of the noise's own length."""

    def __post_init__(self) -> None:
        require_choice(self, objective=OBJECTIVES)
        require(self, ema=(0, 1), energy_score=(0, 1e6),
                discriminator_steps=(1, 1000), discriminator_noise=(0, math.inf), best_of=(1, 1e6), refine=(0, 1e6),
                refine_rate=(0, 10))
        for name, weight in (self.penalties or {}).items():
            if name not in REGULARISERS or not 0 <= weight < math.inf:
                raise ValueError(f"GANConfig.penalties has '{name}' with weight {weight}; weights of at least 0 for "
                                 f"some of {', '.join(REGULARISERS)} are expected")

    def unused(self) -> dict[str, str]:
        return {} if self.refine else {"refine_rate": "refine is 0"}

    @property
    def weights(self) -> dict[str, float]:
        """The regularisers in use."""
        return dict(OBJECTIVES[self.objective].penalties) if self.penalties is None else self.penalties

    def with_network(self, network: NetworkConfig) -> GANConfig:
        return replace(self, network=network)
