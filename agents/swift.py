"""Swift, gentraj's own: IQL that acts as IDQL does, by the best of the chunks of actions that its generator draws.

The generator copies the better chunks more (IQL, Kostrikov et al. 2022, equation 7), by weights that have a bound, and
of what it draws the best is taken (IDQL, Hansen-Estruch et al. 2023, algorithm 2). Of a chunk the first action alone is
carried out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.models import ModelConfig

from .critic import bounded_weights
from .generators import DIFFUSION
from .iql import IQL, IQLConfig
from .policy import Transition, part_of


@dataclass(frozen=True)
class SwiftConfig(IQLConfig):
    model: ModelConfig = field(default_factory=lambda: DIFFUSION)
    """The generator of actions."""
    beta: float = 2.0
    """How much more a better chunk is copied: its weight is sigmoid(beta * advantage), advantages having size 1."""
    chunk: int = 4
    """Actions that are decided together."""
    candidates: int = 32
    """Chunks that are drawn, of which the one with the highest value is taken."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, candidates=(1, 1e4))


class Swift(IQL):
    config: SwiftConfig

    def _learn_policy(self, t: Transition, advantage_B: Tensor, optimizers: dict[str, Optimizer],
                      generator: torch.Generator) -> dict[str, Tensor]:
        """Equation 7 with weights that have a bound: exponential ones leave little of data of several policies."""
        windows = self.windows(t, bounded_weights(advantage_B, self.config.beta))
        return self.model.update(windows, part_of("model", optimizers), generator)

    def decide(self, state_BS: Tensor, seeds: Sequence[int]) -> Tensor:
        return self.critic.best(state_BS, self.candidates(self.model, state_BS, self.config.candidates, seeds))
