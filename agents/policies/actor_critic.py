"""One recipe for policies whose actor maximises a critic: the critic's backup, a value gradient, and a pull.

    L_Q(theta) = E[(r + gamma Q'(s', a') - Q(s, a))^2],   a' = pi'(s', z) + clipped noise, the best of `backup`
    L_pi(phi)  = pull(phi) - eta E[Q(s, pi(s, z))] / E|Q(s, pi(s, z))|

Q' and pi' are moving averages of the weights. The *pull* keeps the actor at the actions of the data. The policies of
this recipe differ in it, and each file has one: TD3+BC; Diffusion-QL, also with a GAN; FQL.
"""

from __future__ import annotations

from dataclasses import field, replace
from functools import partial
from typing import ClassVar, Literal, TypeVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import settings
from gentraj.device import to_device
from gentraj.randomness import OneStream, Seeds
from gentraj.training.optimization import Updates
from gentraj.training.step import TrainingStep
from gentraj.trajectory import DEFAULT_OPTIONS, SamplingOptions

from .critic import Critic, CriticConfig
from .policy import Policy, PolicyConfig, Transition
from .scales import StateActionScales

CHUNK = 5  # actions, the length of all chunks in Q-chunking (Li et al. 2025)
CHUNK_CRITIC = CriticConfig(n_step=1, target="mean")  # a transition is at least as long as a chunk
MAX_SMOOTHING = 2.5  # standard deviations at which the noise on the next actions is clipped (Fujimoto et al. 2018)


@settings
class ActorCriticConfig(PolicyConfig):
    """The settings of `ActorCritic`. Raises ValueError for a setting outside its range."""

    critic: CriticConfig = field(default_factory=CriticConfig)
    eta: NonNegativeFloat = 1.0
    """Weight of the value that the actor maximises, relative to the pull; 0 follows the pull alone."""
    relative: bool = True
    """Divide the values in the actor's loss by their mean absolute value. Without it, the right weights depend on the
    size of the rewards."""
    smoothing: NonNegativeFloat = 0.0
    """Standard deviation of the noise on the next actions in the critic's targets, in units of half the range of an
    action. The noise is clipped at 2.5 standard deviations."""
    delay: PositiveInt = 1
    """Number of updates of the critic for each of the actor, with which all target networks are updated."""
    backup: PositiveInt = 1
    """Next actions that are sampled for each target of the critic; the one with the highest value counts."""
    candidates: PositiveInt = 1
    """Actions that are sampled in each decision, of which one is taken by its value."""
    choice: Literal["best", "softmax"] = "best"
    """Which candidate is taken: the one with the highest value, or one at random with the probability softmax(value),
    in the units of the rewards."""
    temperature: NonNegativeFloat = 1.0
    """Scale of the noise that an action is made from, multiplied by the temperature of the sampling options. At 0 the
    same state always gives the same action."""

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "candidates", "choice", "temperature")


A = TypeVar("A", bound=ActorCriticConfig)


class ActorCritic(Policy[A]):
    """An actor that maximises Q(s, a), and a pull towards the data.

    A subclass says what the actor is: `next_actions`, `update_actor` and `sample`. Most derive from `ModelActor`.
    """

    def __init__(self, config: A, scales: StateActionScales):
        super().__init__(config, scales, config.critic.n_step)
        if config.model is not None:
            self.model = self.build_model(config.model)
        self.critic = Critic.of(self, config.critic)
        if config.delay > 1:
            self.updates = Updates()

    def optimizers(self) -> dict[str, Optimizer]:
        return super().optimizers() | {"critic": self.critic.optimizer()}

    def critic_loss(self, t: Transition, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """L_Q, and metrics."""
        with torch.no_grad():
            act_BNKA = self.best_next(t.next_BS, self.next_actions(t.next_BS, self.config.backup, generator))
            if self.config.smoothing:
                noise = torch.randn(act_BNKA.shape, generator=generator).clamp(-MAX_SMOOTHING, MAX_SMOOTHING)
                act_BNKA = (act_BNKA + self.config.smoothing * to_device(noise, act_BNKA.device)).clamp(-1, 1)
        return self.critic.loss(t, t.reward_B + t.discount_B * self.critic.next_return(t.next_BS, act_BNKA))

    def best_next(self, state_BS: Tensor, act_BNKA: Tensor) -> Tensor:
        """(B, 1, K, A) the next action whose value counts: the one with the highest value of the whole critic."""
        return self.critic.best(state_BS, act_BNKA)[:, None]

    def value(self, state_BS: Tensor, chunk_BX: Tensor, step: TrainingStep) -> Tensor:
        """(B,) eta Q(s, a) / E|Q(s, a)|, which the actor maximises."""
        return self.config.eta * self.critic.relative(state_BS, chunk_BX, step, divided=self.config.relative)

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        t = self.transition(step.batch, self.config.critic.discount)
        critic_loss, critic = self.critic_loss(t, step.generator)
        step.descend(critic_loss, "critic", self.config.critic.max_grad_norm)
        acts = True
        if self.config.delay > 1:  # Fujimoto et al. 2018, section 5.2
            acts = self.updates.next() % self.config.delay == 0
        if not acts:
            return critic
        step.follow(self.critic.target, self.critic.q)
        return critic | self.update_actor(t.for_actor(), step)

    def sample_actions(self, state_BS: Tensor, seeds: Seeds,
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        options = replace(options, temperature=options.temperature * self.config.temperature)
        act_BNKA = self.sample(state_BS, self.config.candidates, seeds, options)
        return self.critic.best(state_BS, act_BNKA, seeds if self.config.choice == "softmax" else None)

    def next_actions(self, state_BS: Tensor, number: int, generator: torch.Generator) -> Tensor:
        """(B, N, K, A) actions of the averaged actor, for the critic's targets."""
        raise NotImplementedError

    def update_actor(self, t: Transition, step: TrainingStep) -> dict[str, Tensor]:
        """One optimiser step of the actor on L_pi, and of what it learns from. Returns metrics."""
        raise NotImplementedError

    def sample(self, state_BS: Tensor, number: int, seeds: Seeds, options: SamplingOptions) -> Tensor:
        """(B, N, K, A) actions in [-1, 1] of the averaged actor, `number` for each state."""
        raise NotImplementedError


class ModelActor(ActorCritic[A]):
    """An actor that is a generative model, which its own loss pulls to the data's actions.

    The gradient of the value passes through the samples of the model's `update`.
    """

    def next_actions(self, state_BS: Tensor, number: int, generator: torch.Generator) -> Tensor:
        noise = OneStream(len(state_BS) * number, generator, repeats=number)
        x_BNKD = self.model.model.sample(self.model.condition(state_BS), number, seed=noise)
        return self.model.actions(x_BNKD)

    def window_value(self, x_BKD: Tensor, step: TrainingStep) -> Tensor:
        """(B,) the value of the model's windows, which guides its update."""
        return self.value(x_BKD[:, 0, : self.state_dim], self.model.actions(x_BKD).flatten(1), step)

    def update_actor(self, t: Transition, step: TrainingStep) -> dict[str, Tensor]:
        guide = None
        if self.config.eta:
            guide = partial(self.window_value, step=step)
        return self.model.update(t, step, guide=guide)

    def sample(self, state_BS: Tensor, number: int, seeds: Seeds, options: SamplingOptions) -> Tensor:
        return self.model.sample(state_BS, seeds, options, number)
