"""Diffusion-QL: a diffusion model of actions that is trained to imitate the data and to maximise Q(s, a).

    L_Q(theta) = E[(r + gamma Q'(s', a') - Q(s, a))^2],   a' ~ pi(. | s'), the best of `backup` samples      (2)
    L_pi(phi)  = L_d(phi) - eta E[Q(s, a)] / E|Q(s, a)|,  a ~ pi(. | s), L_d the denoising loss              (3)

Q' is the target network. Wang et al. 2023, "Diffusion Policies as an Expressive Policy Class for Offline Reinforcement
Learning" (arXiv 2208.06193). With the gradient through one denoising step in place of the chain: Kang et al. 2023,
"Efficient Diffusion Policies for Offline Reinforcement Learning" (arXiv 2305.20081).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import settings
from gentraj.diffusion import DiffusionConfig
from gentraj.families import DIFFUSION
from gentraj.randomness import OneStream
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions

from .critic import Critic, CriticConfig
from .policy import POLICIES, PRESETS, Policy, PolicyConfig
from .scales import StateActionScales
from .transition import Transition


@settings
class DiffusionQLConfig(PolicyConfig):
    """The settings of `DiffusionQL`. Raises ValueError for a setting outside its range."""

    model: DiffusionConfig = field(default_factory=lambda: replace(DIFFUSION, steps=2))
    """The diffusion model of actions, or a flow."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    eta: NonNegativeFloat = 0.2
    """Weight of the Q loss relative to the model's own loss; values are divided by their mean absolute value."""
    candidates: PositiveInt = 8
    """Actions that are sampled in each decision, of which one is taken by its value."""
    choice: Literal["best", "softmax"] = "best"
    """Which candidate is taken: the one with the highest value, or one at random with the probability softmax(value),
    in the units of the rewards."""
    temperature: NonNegativeFloat = 1.0
    """Scale of the noise that the candidates are sampled from, multiplied by the temperature of the sampling
    options."""
    gradient: Literal["step", "chain"] = "step"
    """Actions whose value the model maximises: those that it denoises in one step from a random noise level (Kang et
    al. 2023), or those that it samples, with the gradient through all steps (Wang et al. 2023)."""
    backup: PositiveInt = 1
    """Next actions that are sampled for each target of the critic; the best one's value counts."""

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "candidates", "choice", "temperature")


class DiffusionQL(Policy[DiffusionQLConfig]):
    """A diffusion model of actions that imitates the data and maximises Q(s, a)."""

    def __init__(self, config: DiffusionQLConfig, scales: StateActionScales):
        super().__init__(config, scales, config.critic.n_step)
        self.model = self.build_model(config.model)
        self.critic = Critic.of(self, config.critic)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"critic": self.critic.optimizer(), **self.model.optimizers()}

    def critic_loss(self, t: Transition, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Equation 2, and metrics."""
        number = self.config.backup
        with OneStream(generator, number), torch.no_grad():
            x_BNKD = self.model.model.sample(self.model.condition(t.next_BS, finite=True), number)
        next_RX = self.model.actions(x_BNKD).flatten(0, 1).flatten(1)
        next_return_BM = self.critic.next_return(t.next_BS.repeat_interleave(number, 0), next_RX, number)
        return self.critic.loss(t, t.reward_B[:, None] + t.discount_B[:, None] * next_return_BM)

    def value_guide(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B,) eta Q(s, a) / E|Q(s, a)| of the model's windows, whose mean equation 3 subtracts from the own loss."""
        states_BS, chunk_BX = self.model.states(x), self.model.actions(x).flatten(1)
        return self.config.eta * self.critic.relative(states_BS, chunk_BX, generator)

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        t = self.transition(batch, self.config.critic.discount)
        critic_loss, critic = self.critic_loss(t, generator)
        self.critic.step(critic_loss, optimizers["critic"])
        guide = partial(self.value_guide, generator=generator)
        actor = self.model.update(t, optimizers, generator, guide=guide, chain=self.config.gradient == "chain")
        return critic | actor

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        options = replace(options, temperature=options.temperature * self.config.temperature)
        act_BNKA = self.model.candidates(state_BS, self.config.candidates, seeds, options)
        return self.critic.best(state_BS, act_BNKA, seeds if self.config.choice == "softmax" else None)


POLICIES["diffusion-ql"] = DiffusionQLConfig, DiffusionQL
PRESETS["diffusion-ql"] = ("a diffusion policy that maximises its value while it clones the data",
                           DiffusionQLConfig())
