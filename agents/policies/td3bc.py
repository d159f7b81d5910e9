"""TD3+BC: a deterministic actor that is trained to maximise Q(s, a) and to imitate the data.

Fujimoto & Gu 2021, "A Minimalist Approach to Offline Reinforcement Learning".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.models.gaussian import Gaussian, GaussianConfig
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions

from .critic import Critic, CriticConfig
from .generators import DETERMINISTIC
from .policy import Policy, PolicyConfig, Scales, Transition


@dataclass(frozen=True)
class TD3BCConfig(PolicyConfig):
    """The settings of `TD3BC`. Raises ValueError for a setting outside its range."""

    model: GaussianConfig = field(default_factory=lambda: DETERMINISTIC)
    """The actor, a normal distribution of fixed spread; it acts by its mean."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    alpha: float = 2.5
    """Weight of the Q loss relative to the squared error to the data's actions; values are divided by their mean
    absolute value."""
    smoothing: float = 0.2
    """Standard deviation of the noise on the next actions in the critic's targets, in units of half the range of an
    action. The noise is clipped at 2.5 standard deviations."""
    delay: int = 1
    """Number of updates of the critic for each of the actor, with which all target networks are updated."""

    def __post_init__(self) -> None:
        if isinstance(self.model.spread, str):
            raise ValueError(f"TD3BCConfig.model.spread is '{self.model.spread}'; a number is expected, as the actor's "
                             "spread is fixed")
        super().__post_init__()
        require(self, alpha=(0, 1e6), smoothing=(0, 10), delay=(1, 1e6))


class TD3BC(Policy[Gaussian]):
    """A deterministic actor that maximises Q(s, a) and stays close, in squared error, to the actions of the data."""

    updates: Tensor

    def __init__(self, obs_dim: int, act_dim: int, config: TD3BCConfig, scales: Scales):
        super().__init__(obs_dim, act_dim, config, scales, config.critic.n_step)
        self.config, self.model = config, self.build_model(config.model)
        self.critic = Critic.of(self, config.critic)
        if config.delay > 1:  # a buffer, so that a resumed training goes on with the right update
            self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def optimizers(self) -> dict[str, Optimizer]:
        return {"critic": self.critic.optimizer(), **self.model.optimizers()}

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        t = self.transition(batch, self.config.critic.discount)
        next_return = self.critic.next_return(t.next_BS, self.smoothed_next(t, generator).flatten(1))
        follows = self.actor_follows()
        critic = self.critic.update(t, next_return, optimizers["critic"], follow=follows)
        if not follows:
            return critic
        guide = partial(self.value_guide, generator=generator)
        actor = self.model.update(self.windows(t), optimizers, generator, guide=guide)
        return critic | actor

    def actor_follows(self) -> bool:
        """Counts an update, and says whether the actor is a part of it (Fujimoto et al. 2018, section 5.2)."""
        if self.config.delay == 1:
            return True
        self.updates += 1
        return int(self.updates) % self.config.delay == 0

    @torch.no_grad()
    def smoothed_next(self, t: Transition, generator: torch.Generator) -> Tensor:
        """(B, K, A) the actor's next actions with clipped noise (Fujimoto et al. 2018, section 5.3)."""
        act_BKA = self.actions(self.model.predict(self.condition(t.next_BS, finite=True))[0])
        noise = torch.randn(act_BKA.shape, generator=generator).clamp(-2.5, 2.5).to(act_BKA.device)
        return (act_BKA + self.config.smoothing * noise).clamp(-1, 1)

    def value_guide(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B,) alpha Q(s, a) / mean |Q| of the actor's windows (equations 3 and 5).

        It is divided by 2 spread^2, as is the squared error in the actor's loss.
        """
        weight = self.config.alpha / (2 * float(self.config.model.spread) ** 2)
        return weight * self.critic.relative(self.states(x), self.actions(x).flatten(1), generator)

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        options = replace(options, temperature=0.0)
        return self.actions(self.model.sample(self.condition(state_BS), seed=seeds, options=options)[:, 0])
