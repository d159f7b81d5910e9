"""Diffusion-QL: a generative model of actions that is trained to imitate the data and to maximise Q(s, a).

Wang et al. 2023, "Diffusion Policies as an Expressive Policy Class for Offline Reinforcement Learning". The model
may be of any family, such as a GAN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.families import Model, ModelConfig
from gentraj.randomness import OneStream
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions

from .critic import Critic, CriticConfig
from .generators import DIFFUSION
from .policy import Policy, PolicyConfig, Scales


@dataclass(frozen=True)
class DiffusionQLConfig(PolicyConfig):
    """The settings of `DiffusionQL`. Raises ValueError for a setting outside its range."""

    model: ModelConfig = field(default_factory=lambda: replace(DIFFUSION, steps=2))
    """The generative model of actions."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    eta: float = 0.2
    """Weight of the Q loss relative to the model's own loss; values are divided by their mean absolute value."""
    candidates: int = 8
    """Actions that are sampled in each decision, of which one is taken by its value."""
    choice: Literal["best", "softmax"] = "best"
    """Which candidate is taken: the one with the highest value, or one at random with the probability softmax(value),
    in the units of the rewards."""
    temperature: float = 1.0
    """Scale of the noise that the candidates are sampled from, multiplied by the temperature of the sampling
    options."""
    gradient: Literal["step", "chain"] = "step"
    """Actions whose value a diffusion model maximises: those that it denoises in one step from a random noise level
    (Kang et al. 2023), or those that it samples, with the gradient through all steps (Wang et al. 2023)."""
    backup: int = 1
    """Next actions that are sampled for each target of the critic; the best one's value counts."""

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "candidates", "choice", "temperature")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, eta=(0, 1e6), candidates=(1, 1e4), temperature=(0, 10), backup=(1, 1e4))
        if self.gradient == "chain" and not isinstance(self.model, DiffusionConfig):
            raise ValueError("DiffusionQLConfig.gradient is 'chain', which is for a diffusion model alone; give 'step' "
                             "for other models, which sample in one step")


class DiffusionQL(Policy[Model]):
    """A generative model of actions, of any family, that imitates the data and maximises Q(s, a)."""

    def __init__(self, obs_dim: int, act_dim: int, config: DiffusionQLConfig, scales: Scales):
        super().__init__(obs_dim, act_dim, config, scales, config.critic.n_step)
        self.config, self.model = config, self.build_model(config.model)
        self.critic = Critic.of(self, config.critic)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"critic": self.critic.optimizer(), **self.model.optimizers()}

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        t = self.transition(batch, self.config.critic.discount)
        with OneStream(generator, self.config.backup):
            next_BNKA = self.actions(self.model.sample(self.condition(t.next_BS, finite=True), self.config.backup))
        next_return = self.critic.next_return(t.next_BS.repeat_interleave(self.config.backup, 0),
                                              next_BNKA.flatten(0, 1).flatten(1), self.config.backup)
        critic = self.critic.update(t, next_return, optimizers["critic"])
        guide, windows = partial(self.value_guide, generator=generator), self.windows(t)
        if self.config.gradient == "chain":
            return critic | cast(Diffusion, self.model).update(windows, optimizers, generator, guide=guide, chain=True)
        return critic | self.model.update(windows, optimizers, generator, guide=guide)

    def value_guide(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B,) eta Q(s, a) / mean |Q| of the model's windows, which equation 3 subtracts from its own loss."""
        return self.config.eta * self.critic.relative(self.states(x), self.actions(x).flatten(1), generator)

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        options = replace(options, temperature=options.temperature * self.config.temperature)
        act_BNKA = self.candidates(self.model, state_BS, self.config.candidates, seeds, options)
        return self.critic.best(state_BS, act_BNKA, seeds if self.config.choice == "softmax" else None)
