"""Adversarial losses of discriminator and generator, as functions of the critic's logits c of data and of samples.

Each side minimises its loss, which the caller averages; softplus(c) = -log(1 - sigmoid(c)). The data and the sample of
one row have the same condition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]  # logits of (real, fake), of one shape -> a loss of that shape


@dataclass(frozen=True)
class Objective:
    """The losses of both sides, with the regularisation of the paper."""

    discriminator: Loss
    generator: Loss
    penalties: Mapping[str, float] = field(default_factory=dict)
    """The regularisers of the objective's paper, and their weights."""
    weight_clip: float | None = None
    """The bound to which the discriminator's weights are clipped."""


def _log_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-[log D(x) + log(1 - D(G(z)))], D = sigmoid(c)."""
    return F.softplus(-real) + F.softplus(fake)


OBJECTIVES: dict[str, Objective] = {
    # Goodfellow et al. 2014, equation 1: min_G max_D E log D(x) + E log(1 - D(G(z)))
    "minimax": Objective(_log_loss, lambda real, fake: -F.softplus(fake)),
    # Goodfellow et al. 2014, section 3: max_G E log D(G(z))
    "non-saturating": Objective(_log_loss, lambda real, fake: F.softplus(-fake)),
    # Mao et al. 2017, equation 9: a = 0, b = c = 1
    "least-squares": Objective(lambda real, fake: ((real - 1) ** 2 + fake**2) / 2,
                               lambda real, fake: (fake - 1) ** 2 / 2),
    # Lim & Ye 2017; Miyato et al. 2018, equations 16 and 17
    "hinge": Objective(lambda real, fake: F.relu(1 - real) + F.relu(1 + fake), lambda real, fake: -fake),
    # Arjovsky et al. 2017, algorithm 1
    "wasserstein-clip": Objective(lambda real, fake: fake - real, lambda real, fake: -fake, weight_clip=0.01),
    # Gulrajani et al. 2017, equation 3
    "wasserstein-gp": Objective(lambda real, fake: fake - real, lambda real, fake: -fake,
                                penalties={"gradient-penalty": 10.0}),
    # Jolicoeur-Martineau 2019; with R1 and R2 it is R3GAN (Huang et al. 2024, equations 1 to 4)
    "relativistic": Objective(lambda real, fake: F.softplus(fake - real), lambda real, fake: F.softplus(real - fake),
                              penalties={"r1": 1.0, "r2": 1.0}),
}
