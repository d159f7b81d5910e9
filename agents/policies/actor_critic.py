"""One recipe for policies whose actor maximises a critic: the critic's backup, a value gradient, and a pull.

    L_Q(theta) = E[(r + gamma Q'(s', a') - Q(s, a))^2],   a' = pi'(s', z) + clipped noise, the best of `backup`
    L_pi(phi)  = pull(phi) - eta E[Q(s, pi(s, z))] / E|Q(s, pi(s, z))|

Q' and pi' are moving averages of the weights. The *pull* keeps the actor at the actions of the data. The policies of
this recipe differ in it, and each file has one: TD3+BC; Diffusion-QL, also with a GAN; FQL and GFP; DROL.
"""

from __future__ import annotations

from dataclasses import field, replace
from functools import partial
from typing import ClassVar, Literal, TypeVar

import torch
from einops import rearrange, repeat
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import Fraction, settings
from gentraj.device import to_device
from gentraj.diffusion import DiffusionConfig
from gentraj.families import ACTION_NETWORK
from gentraj.networks import NetworkConfig
from gentraj.randomness import OneStream, Seeds, as_noise
from gentraj.training.optimization import LearningConfig, MovingAverage, Updates, adamw
from gentraj.training.step import TrainingStep
from gentraj.trajectory import DEFAULT_OPTIONS, SamplingOptions, refuse_options

from .critic import Critic, CriticConfig
from .policy import Policy, PolicyConfig, Transition, join
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

    A subclass says what the actor is: `next_actions`, `update_actor` and `sample`. Most derive from `ModelActor` or
    `NoiseActor`.
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
        t = self.transition(step.batch, self.config.critic.discount, step.processes)
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


@settings
class NoiseActorConfig(LearningConfig):
    """Settings of a network from noise to actions."""

    network: NetworkConfig = field(default_factory=lambda: ACTION_NETWORK)
    """The network from noise to actions."""
    ema: Fraction = 0.995
    """Decay of the exponential moving average of the weights, with which the policy acts."""
    weight_decay: Fraction = 0.0


class NoiseActor(ActorCritic[A]):
    """An actor that is a network g(s, z) from noise z to a chunk of actions.

    A subclass makes the network in its constructor and hands it to `act_by`. It implements `loss`, or an `update_actor`
    of its own.
    """

    state_mask: Tensor

    def act_by(self, network: nn.Module, learning: NoiseActorConfig | DiffusionConfig) -> None:
        """Makes the network the actor, which learns as these settings say."""
        self.network = network
        self.average = MovingAverage(network, learning.ema)
        self.learning = learning
        self.register_buffer("state_mask", torch.arange(self.window_spec.dim) < self.state_dim, persistent=False)

    def optimizers(self) -> dict[str, Optimizer]:
        return super().optimizers() | {"actor": adamw(self.network, self.learning)}

    @property
    def network_calls(self) -> None:
        """A decision is one call of the actor."""
        return

    @property
    def noise_dim(self) -> int:
        """How many standard normal numbers a chunk of actions is made from."""
        return self.chunk * self.spec.act_dim

    def latent(self, normal_RZ: Tensor) -> Tensor:
        """(R, K, A) the actor's noise, made from standard normal numbers (R, `noise_dim`)."""
        return normal_RZ.unflatten(1, (self.chunk, -1))

    def noise(self, state_BS: Tensor, generator: torch.Generator, number: int = 1) -> Tensor:
        """(B * number, K, A) noise for the actions of each state, one state after the other."""
        normal_BX = torch.randn(len(state_BS), number * self.noise_dim, generator=generator)
        return self.latent(rearrange(to_device(normal_BX, state_BS.device), "b (n z) -> (b n) z", n=number))

    def act(self, network: nn.Module, state_RS: Tensor, z_RKA: Tensor) -> Tensor:
        """(R, K * A) chunks of actions that the network makes from noise in one call."""
        x = join(state_RS, z_RKA)
        known = self.state_mask.expand_as(x)
        return network(x, x * known, known, z_RKA.new_ones(1))[..., self.state_dim :].flatten(1)

    def averaged(self, state_BS: Tensor, z_RKA: Tensor) -> Tensor:
        """(B, N, K, A) actions of the averaged actor from the noise (B * N, K, A)."""
        number = len(z_RKA) // len(state_BS)
        if number > 1:
            state_BS = repeat(state_BS, "b s -> (b n) s", n=number)
        return self.act(self.average, state_BS, z_RKA).clamp(-1, 1).view(-1, number, *z_RKA.shape[1:])

    def next_actions(self, state_BS: Tensor, number: int, generator: torch.Generator) -> Tensor:
        return self.averaged(state_BS, self.noise(state_BS, generator, number))

    def sample(self, state_BS: Tensor, number: int, seeds: Seeds, options: SamplingOptions) -> Tensor:
        refuse_options(options, "this policy acts by one call of its actor, which has no sampler, grid or eta")
        noise = as_noise(seeds, len(state_BS), "states")
        if number > 1:
            noise = noise.several(number)
        z_RKA = self.latent(to_device(noise.normal(self.noise_dim), state_BS.device))
        return self.averaged(state_BS, options.temperature * z_RKA)

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        return "one call of the actor"

    def loss(self, t: Transition, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The pull, a scalar, and the actor's actions (B, K * A), whose value is to rise."""
        raise NotImplementedError

    def update_actor(self, t: Transition, step: TrainingStep) -> dict[str, Tensor]:
        return self.learn(*self.loss(t, step.generator), t, step)

    def learn(self, pull: Tensor, chunk_BX: Tensor, t: Transition, step: TrainingStep) -> dict[str, Tensor]:
        """One optimiser step of the actor on L_pi. Returns metrics."""
        value_B = self.value(t.state_BS, chunk_BX.clamp(-1, 1), step)
        loss = pull - (value_B * t.weight_B).mean()
        norm = step.descend(loss, "actor", self.learning.max_grad_norm)
        step.follow(self.average, self.network)
        return {"pull": pull.detach(), "actor_grad_norm": norm.detach()}
