"""TD3+BC: the data's action itself pulls a deterministic actor.

    pull = E||pi(s) - a||^2,   L_pi = pull - lambda E[Q(s, pi(s))],   lambda = eta / E|Q(s, a)|      (equations 3 and 5)

Fujimoto & Gu 2021, "A Minimalist Approach to Offline Reinforcement Learning" (arXiv 2106.06860), whose alpha is `eta`
here. The smoothing of the next actions and the delay of the actor are those of TD3 (Fujimoto et al. 2018, arXiv
1802.09477, section 5).
"""

from __future__ import annotations

from dataclasses import field, replace

import torch
from torch import Tensor

from gentraj.config import settings
from gentraj.families import GAUSSIAN
from gentraj.models.gaussian import Gaussian, GaussianConfig
from gentraj.randomness import Seeds
from gentraj.training.step import TrainingStep
from gentraj.trajectory import SamplingOptions

from .actor_critic import ActorCriticConfig, ModelActor
from .policy import POLICIES, PRESETS

# A nearly deterministic actor: its loss is the squared error over 2 spread^2, and its gradients are as large.
DETERMINISTIC = replace(GAUSSIAN, spread=0.1, max_grad_norm=100.0)


@settings
class TD3BCConfig(ActorCriticConfig):
    """The settings of `TD3BC`. Raises ValueError for an actor whose spread is not a number."""

    model: GaussianConfig = field(default_factory=lambda: DETERMINISTIC)
    """The actor, a normal distribution of fixed spread; it acts by its mean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.model.spread, str):
            raise ValueError(f"TD3BCConfig.model.spread is '{self.model.spread}'; a number is expected, as the actor's "
                             "spread is fixed")


class TD3BC(ModelActor[TD3BCConfig]):
    """A deterministic actor that is pulled to the data's actions by their squared error.

    The error is the negative log-likelihood of a `Gaussian` of fixed spread, which divides it by 2 spread^2.
    """

    def value(self, state_BS: Tensor, chunk_BX: Tensor, step: TrainingStep) -> Tensor:
        """(B,) lambda Q(s, a), divided by 2 spread^2 as the pull is."""
        unit = 2 * float(self.config.model.spread) ** 2
        return self.config.eta / unit * self.critic.relative(state_BS, chunk_BX, step, divided=self.config.relative)

    def next_actions(self, state_BS: Tensor, number: int, generator: torch.Generator) -> Tensor:
        assert isinstance(self.model.model, Gaussian)  # noqa: S101  by the type of its settings
        mean_BKD, _ = self.model.model.predict(self.model.condition(state_BS))
        return self.model.actions(mean_BKD)[:, None].expand(-1, number, -1, -1)

    def sample(self, state_BS: Tensor, number: int, seeds: Seeds, options: SamplingOptions) -> Tensor:
        return self.model.sample(state_BS, seeds, replace(options, temperature=0.0)).expand(-1, number, -1, -1)


POLICIES["td3bc"] = TD3BCConfig, TD3BC
PRESETS["td3bc"] = ("TD3+BC: an actor that maximises its value and stays close to the data",
                    TD3BCConfig(eta=2.5, smoothing=0.2))
