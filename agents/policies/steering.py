"""Steering: a small actor over the noise of a frozen generator, which acts better without a change of its weights.

    L_Q(theta) = E[(r + gamma Q'(s', G(s', w')) - Q(s, a))^2],   w' ~ pi(. | s')      the critic of actions
    L_W(psi)   = E[(Q_W(s, w) - Q'(s, G(s, w)))^2],              w = squash(z)        its values of noise
    L_pi(phi)  = KL(pi(. | s) || N(0, I)) - eta E[Q_W(s, w)] / D,   w ~ pi(. | s)     the actor

G(s, w) is the chunk of actions that the frozen generator makes from the noise w, in as many steps as it takes; no
gradient passes through it. The actor's noise is squash(u), u = mu(s) + sigma(s) z, z ~ N(0, I), and squash(u) = b
tanh(u / b) keeps it in a box of +-b. Before the training mu = 0 and sigma = 1, so that it acts as the generator does
from the noise squash(z): with b = 2, of deviation 0.83, and never beyond 2. This is DSRL with noise aliasing
(Wagenmaker et al. 2025, "Steering Your Diffusion Policy with Latent Space Reinforcement Learning", arXiv 2506.15799).
Ours are the divergence in the place of an entropy, and the unit D of the values: their standard deviation over the
noise in a state. The density of the best u is then that of N(0, I) times exp(eta Q_W / D), whatever the rewards are and
however little of the value the noise decides.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import field, replace
from typing import Annotated

import torch
from annotated_types import Ge
from einops import rearrange, repeat
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import Fraction, settings
from gentraj.device import to_device
from gentraj.diffusion.latent import gaussian_kl
from gentraj.models.sampling import by_blocks
from gentraj.networks.mlp import mlp
from gentraj.randomness import GivenNoise, Seeds, as_noise
from gentraj.training.optimization import LearningConfig, MovingAverage, adamw
from gentraj.training.step import TrainingStep
from gentraj.trajectory import DEFAULT_OPTIONS, SamplingOptions

from .actor_critic import ActorCritic, ActorCriticConfig
from .bc import BCConfig
from .critic import ensemble
from .policy import POLICIES, ActionModel, Policy, PolicyConfig, Transition
from .scales import StateActionScales

LOG_SIGMA_BOUNDS = (-5.0, 0.7)  # of the actor's noise before it is squashed; the generator's own has a logarithm of 0


@settings
class SteeringActorConfig(LearningConfig):
    """Settings of the network from states to noise."""

    width: PositiveInt = 256
    """Units of each hidden layer."""
    depth: PositiveInt = 2
    """Number of hidden layers."""
    ema: Fraction = 0.995
    """Decay of the exponential moving average of the weights, with which the policy acts."""
    learning_rate: Fraction = 5e-4
    """Peak learning rate of AdamW."""
    weight_decay: Fraction = 0.0


@settings
class SteeredConfig(ActorCriticConfig):
    """The settings of `Steered`. Raises ValueError for a setting outside its range."""

    frozen: PolicyConfig = field(default_factory=BCConfig)
    """The settings of the policy that is steered, whose weights are frozen. Those by which it acts, such as its
    temperature, may differ from what it was trained with."""
    actor: SteeringActorConfig = field(default_factory=SteeringActorConfig)
    """The actor, which makes the noise."""
    bound: PositiveFloat = 2.0
    """The noise lies in a box of plus and minus this number, where the frozen policy's own is standard normal. A larger
    box reaches rarer actions; in a small one, the untrained actor's noise is less than the frozen policy's: 0.83 of it
    in a box of 2."""
    noises: Annotated[int, Ge(2)] = 2
    """Samples of noise for each state of a batch, from which the values of noise are learned."""
    eta: NonNegativeFloat = 3.0
    """Weight of the value that the actor maximises, relative to its divergence from the frozen policy's noise; 0 leaves
    the noise where it is. Where the value is linear in the noise, a wide box lets it move by eta standard deviations;
    in a box of 2, an eta of 3 moves it by 1.6 deviations and one of 6 by 1.9."""
    relative: bool = True
    """Divide the values in the actor's loss by their standard deviation over the noise in a state."""
    temperature: NonNegativeFloat = 0.0
    """Scale of the random part of the actor's noise, multiplied by the temperature of the sampling options. At 0 the
    same state always gives the same action; before training that is the frozen policy's at a temperature of 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunk > self.frozen.chunk:
            raise ValueError(f"SteeredConfig.chunk is {self.chunk}, and that of the frozen policy is "
                             f"{self.frozen.chunk}; give at most that")
        if self.frozen.candidates > 1:
            raise ValueError("SteeredConfig.frozen.candidates is above 1, and an actor over the noise takes the place "
                             "of that choice; set it to 1")
        if self.observations != self.frozen.observations:
            raise ValueError(f"SteeredConfig.observations is '{self.observations}', and the frozen policy sees them as "
                             f"'{self.frozen.observations}'; leave it out")

    @property
    def summary(self) -> str:
        return f"steered {self.frozen.summary}"


class Steered(ActorCritic[SteeredConfig]):
    """An actor over the noise of a frozen policy, of whose chunks it acts by the first `chunk` actions."""

    def __init__(self, config: SteeredConfig, scales: StateActionScales):
        super().__init__(config, scales)
        self.frozen: Policy = POLICIES.made_of(config.frozen)(config.frozen, deepcopy(scales)).requires_grad_(False)
        noise_dim = self.frozen.noise_dim
        hidden = [config.actor.width] * config.actor.depth
        self.network = mlp([self.state_dim, *hidden, 2 * noise_dim])
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)
        self.average = MovingAverage(self.network, config.actor.ema)
        self.noise_value = ensemble(config.critic, self.state_dim + noise_dim, config.critic.members,
                                    scales.initial_value(config.critic.discount))

    def freeze(self, policy: Policy) -> None:
        """Takes over the weights and the units of the policy that is steered. Rewards keep their own unit, which is
        that of the data that the critic learns from."""
        self.frozen.load_state_dict(policy.state_dict())
        reward = deepcopy(self.scales.reward)
        self.scales.load_state_dict(policy.scales.state_dict())
        self.scales.reward = reward

    @property
    def action_model(self) -> ActionModel | None:
        """The generative model of the frozen policy."""
        return self.frozen.action_model

    @property
    def network_calls(self) -> int | None:
        return self.frozen.network_calls

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        return f"{self.frozen.sampling(options)}, from the noise of an actor"

    def optimizers(self) -> dict[str, Optimizer]:
        return {"critic": self.critic.optimizer(), "noise_value": adamw(self.noise_value, self.config.critic),
                "actor": adamw(self.network, self.config.actor)}

    @torch.no_grad()
    def generate(self, state_RS: Tensor, w_RZ: Tensor, options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        """(R, K, A) G(s, w), the first actions of the chunks that the frozen policy samples from the noise w."""
        def generated(state_RS: Tensor, w_RZ: Tensor) -> Tensor:
            return self.frozen.sample_actions(state_RS, GivenNoise(w_RZ), options)

        return by_blocks(generated, state_RS, w_RZ)[:, : self.chunk].float()

    def squash(self, u_RZ: Tensor) -> Tensor:
        """(R, Z) noise in the box."""
        return self.config.bound * (u_RZ / self.config.bound).tanh()

    def moments(self, network: nn.Module, state_RS: Tensor) -> tuple[Tensor, Tensor]:
        """mu and log sigma, (R, Z) each."""
        mu_RZ, log_sigma_RZ = network(state_RS).float().chunk(2, -1)
        return mu_RZ, log_sigma_RZ.clamp(*LOG_SIGMA_BOUNDS)

    def noise(self, state_RS: Tensor, z_RZ: Tensor) -> Tensor:
        """(R, Z) the noise of the averaged actor, from standard normal numbers or from less of them."""
        mu_RZ, log_sigma_RZ = self.moments(self.average, state_RS)
        return self.squash(mu_RZ + log_sigma_RZ.exp() * z_RZ)

    def normal(self, state_RS: Tensor, generator: torch.Generator) -> Tensor:
        """(R, Z) standard normal numbers."""
        return to_device(torch.randn(len(state_RS), self.frozen.noise_dim, generator=generator), state_RS.device)

    def next_actions(self, state_BS: Tensor, number: int, generator: torch.Generator) -> Tensor:
        state_RS = repeat(state_BS, "b s -> (b n) s", n=number)
        w_RZ = self.noise(state_RS, self.normal(state_RS, generator))
        return rearrange(self.generate(state_RS, w_RZ), "(b n) k a -> b n k a", n=number)

    def distillation(self, t: Transition, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """L_W, in units of the values, and D, both scalars."""
        number = self.config.noises
        state_RS = repeat(t.state_BS, "b s -> (b n) s", n=number)
        w_RZ = self.squash(self.normal(state_RS, generator))
        value_R = self.critic.target_value(state_RS, self.generate(state_RS, w_RZ).flatten(1))
        error_ER = self.noise_value(torch.cat([state_RS, w_RZ], -1)) - value_R
        variance = rearrange(value_R, "(b n) -> b n", n=number).var(1).mean()
        return ((error_ER / self.noise_value.unit) ** 2).mean(), variance.sqrt()

    def update_actor(self, t: Transition, step: TrainingStep) -> dict[str, Tensor]:
        """One optimiser step of the values of noise on L_W, and one of the actor on L_pi. Returns metrics."""
        distilled, deviation = self.distillation(t, step.generator)
        step.descend(distilled, "noise_value", self.config.critic.max_grad_norm)
        mu_BZ, log_sigma_BZ = self.moments(self.network, t.state_BS)
        w_BZ = self.squash(mu_BZ + log_sigma_BZ.exp() * self.normal(t.state_BS, step.generator))
        self.noise_value.requires_grad_(False)
        value_B = self.noise_value(torch.cat([t.state_BS, w_BZ], -1)).mean(0)
        self.noise_value.requires_grad_(True)
        size = deviation.clamp(min=1e-6) if self.config.relative else 1.0
        divergence_B = gaussian_kl(mu_BZ, 2 * log_sigma_BZ).sum(1)
        loss = ((divergence_B - self.config.eta * value_B / size) * t.weight_B).mean()
        norm = step.descend(loss, "actor", self.config.actor.max_grad_norm)
        step.follow(self.average, self.network)
        return {"distillation": distilled.detach(), "deviation": deviation, "noise": w_BZ.detach().abs().mean(),
                "divergence": divergence_B.detach().mean(), "actor_grad_norm": norm.detach()}

    def generated(self, state_BS: Tensor, seeds: Seeds, options: SamplingOptions) -> Tensor:
        """(B, K, A) chunks of actions that are made from the noise of the actor."""
        return self.sample(state_BS, 1, seeds, options)[:, 0]

    def sample(self, state_BS: Tensor, number: int, seeds: Seeds, options: SamplingOptions) -> Tensor:
        state_RS = repeat(state_BS, "b s -> (b n) s", n=number)
        z_RZ = state_RS.new_zeros(len(state_RS), self.frozen.noise_dim)
        if options.temperature:
            noise = as_noise(seeds, len(state_BS), "states")
            if number > 1:
                noise = noise.several(number)
            z_RZ = to_device(noise.scaled(options.temperature, self.frozen.noise_dim), state_RS.device)
        w_RZ = self.noise(state_RS, z_RZ)
        act_RKA = self.generate(state_RS, w_RZ, replace(options, temperature=1.0))
        return rearrange(act_RKA, "(b n) k a -> b n k a", n=number)


POLICIES["steered"] = SteeredConfig, Steered
