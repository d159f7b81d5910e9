"""One recipe for the policies that act by one call of a network: a critic's backup, a value gradient and a pull.

    L_Q(theta) = E[(r + gamma Q'(s', a') - Q(s, a))^2],   a' = pi'(s', z) + clipped noise, the best of `backup`
    L_pi(phi)  = pull(phi) - eta E[Q(s, pi(s, z))] / E|Q(s, pi(s, z))|

Q' and pi' are moving averages of the weights. The *pull* keeps the actor at the actions of the data. It is a component
with settings of its own, which also says what the actor is; `PULLS` lists them. The policies of the papers are settings
of this recipe: TD3+BC, FQL, GFP, MeanFlowQL, DROL, and a GAN with a critic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field, replace
from typing import ClassVar, cast

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import Fraction, Registry, settings
from gentraj.families import ACTION_NETWORK, ModelConfig
from gentraj.networks import NetworkConfig
from gentraj.randomness import OneStream, RowNoise, unfold_each
from gentraj.training.optimization import LearningConfig, MovingAverage, apply_gradients
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions, TrajectorySpec, calls_of

from .action_model import ActionModel, ActionWindows
from .critic import Critic, CriticConfig
from .policy import POLICIES, Policy, PolicyConfig
from .scales import StateActionScales
from .transition import Transition

MAX_SMOOTHING = 2.5  # standard deviations at which the noise on the next actions is clipped (Fujimoto et al. 2018)


@settings
class PullConfig:
    """Base class of the settings of a pull."""

    model: ClassVar[ModelConfig | None] = None
    """The settings of the generative model of actions: a field of a pull that has one."""


PULLS: Registry[PullConfig, Pull] = Registry({})
"""The pulls by their kinds: the class of the settings, and the class of the pull. Each file of a pull adds its own."""


@settings
class OneStepConfig(PolicyConfig):
    """The settings of `OneStep`. Raises ValueError for a setting outside its range."""

    pull: PullConfig = field(default_factory=lambda: PULLS["flow"][0]())
    """What the actor is, and what pulls it towards the data."""
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
    """Actions that are sampled in each decision; the one with the highest value is taken."""
    temperature: NonNegativeFloat = 1.0
    """Scale of the noise that an action is made from, multiplied by the temperature of the sampling options. At 0 the
    same state always gives the same action."""

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "candidates", "temperature")

    @property
    def model(self) -> ModelConfig | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The settings of the generative model of actions; None without one."""
        return self.pull.model


class Pull(nn.Module):
    """Base class of an actor of one call and of what pulls it towards the data."""

    @property
    def action_model(self) -> ActionModel | None:
        """The generative model of the data's actions; None without one."""
        return None

    def optimizers(self) -> dict[str, Optimizer]:
        raise NotImplementedError

    def next_actions(self, state_BS: Tensor, number: int, generator: torch.Generator) -> Tensor:
        """(B, N, K, A) actions of the averaged actor, for the critic's targets."""
        raise NotImplementedError

    def update(self, t: Transition, policy: OneStep, optimizers: dict[str, Optimizer],
               generator: torch.Generator) -> dict[str, Tensor]:
        """One optimiser step of the actor on its pull minus `policy.value`, and of what it learns from. Returns
        metrics."""
        raise NotImplementedError

    def sample(self, state_BS: Tensor, number: int, seeds: Sequence[int], options: SamplingOptions) -> Tensor:
        """(B, N, K, A) actions in [-1, 1] of the averaged actor, `number` for each state."""
        raise NotImplementedError

    @property
    def network_calls(self) -> int:
        """Calls of the actor's network so far."""
        raise NotImplementedError


class OneStep(Policy[OneStepConfig]):
    """An actor of one call that maximises Q(s, a), and a pull towards the data."""

    updates: Tensor

    def __init__(self, config: OneStepConfig, scales: StateActionScales):
        super().__init__(config, scales, config.critic.n_step)
        build: Callable[..., Pull] = PULLS.made_of(config.pull)
        self.pull = build(self.window_spec, config.pull)
        self.critic = Critic.of(self, config.critic)
        if config.delay > 1:  # a buffer, so that a resumed training goes on with the right update
            self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def optimizers(self) -> dict[str, Optimizer]:
        return {"critic": self.critic.optimizer(), **self.pull.optimizers()}

    def critic_loss(self, t: Transition, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """L_Q, and metrics."""
        with torch.no_grad():
            act_BKA = self.best(t.next_BS, self.pull.next_actions(t.next_BS, self.config.backup, generator))
            if self.config.smoothing:
                noise = torch.randn(act_BKA.shape, generator=generator).clamp(-MAX_SMOOTHING, MAX_SMOOTHING)
                act_BKA = (act_BKA + self.config.smoothing * noise.to(act_BKA.device)).clamp(-1, 1)
        next_return_BM = self.critic.next_return(t.next_BS, act_BKA.flatten(1))
        return self.critic.loss(t, t.reward_B[:, None] + t.discount_B[:, None] * next_return_BM)

    def value(self, state_BS: Tensor, chunk_BX: Tensor, generator: torch.Generator | None = None,
              unit: float = 1.0) -> Tensor:
        """(B,) eta Q(s, a) / E|Q(s, a)|, which the actor maximises, in units of a pull that is divided by `unit`."""
        return self.config.eta / unit * self.critic.relative(state_BS, chunk_BX, generator,
                                                             divided=self.config.relative)

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        t = self.transition(batch, self.config.critic.discount)
        critic_loss, critic = self.critic_loss(t, generator)
        acts = self.actor_is_due()
        self.critic.step(critic_loss, optimizers["critic"], follow=acts)
        if not acts:
            return critic
        return critic | self.pull.update(t, self, optimizers, generator)

    def actor_is_due(self) -> bool:
        """Counts an update, and says whether the actor is a part of it (Fujimoto et al. 2018, section 5.2)."""
        if self.config.delay == 1:
            return True
        self.updates += 1
        return int(self.updates) % self.config.delay == 0

    def best(self, state_BS: Tensor, act_BNKA: Tensor) -> Tensor:
        """(B, K, A) each state's candidate with the highest value."""
        if act_BNKA.shape[1] == 1:
            return act_BNKA[:, 0]
        return self.critic.best(state_BS, act_BNKA)

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        if self.config.temperature != 1:
            options = replace(options, temperature=options.temperature * self.config.temperature)
        return self.best(state_BS, self.pull.sample(state_BS, self.config.candidates, seeds, options))

    @property
    def action_model(self) -> ActionModel | None:
        return self.pull.action_model

    @property
    def network_calls(self) -> int:
        return self.pull.network_calls

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        return "one call of the actor"


class ModelPull(Pull):
    """An actor that is a generative model, which its own loss pulls to the data's actions.

    The gradient of the value passes through the samples of the model's `update`. `unit` is what that loss divides the
    pull by.
    """

    unit = 1.0

    def __init__(self, spec: TrajectorySpec, config: PullConfig):
        super().__init__()
        self.model = ActionModel(spec, cast(ModelConfig, config.model))

    def optimizers(self) -> dict[str, Optimizer]:
        return self.model.optimizers()

    def next_actions(self, state_BS: Tensor, number: int, generator: torch.Generator) -> Tensor:
        with OneStream(generator, number):
            x_BNKD = self.model.model.sample(self.model.condition(state_BS, finite=True), number)
        return self.model.actions(x_BNKD)

    def update(self, t: Transition, policy: OneStep, optimizers: dict[str, Optimizer],
               generator: torch.Generator) -> dict[str, Tensor]:
        def value(x: Tensor) -> Tensor:
            """(B,) the value of the actor's windows."""
            return policy.value(self.model.states(x), self.model.actions(x).flatten(1), generator, self.unit)

        return self.model.update(t, optimizers, generator, guide=value)

    def sample(self, state_BS: Tensor, number: int, seeds: Sequence[int], options: SamplingOptions) -> Tensor:
        return self.model.candidates(state_BS, number, seeds, options)

    @property
    def action_model(self) -> ActionModel:
        return self.model

    @property
    def network_calls(self) -> int:
        return calls_of([self.model.model])


@settings
class NoiseActorConfig(LearningConfig):
    """Settings of the network from noise to actions of a pull without a generative model."""

    network: NetworkConfig = field(default_factory=lambda: ACTION_NETWORK)
    """The network from noise to actions."""
    ema: Fraction = 0.995
    """Decay of the exponential moving average of the weights, with which the policy acts."""
    weight_decay: Fraction = 0.0


class NoiseActor(Pull):
    """Base class of pulls whose actor is a network g(s, z) from noise z to a chunk of actions.

    A subclass implements `optimizers` and `loss`, or an `update` of its own.
    """

    def __init__(self, spec: TrajectorySpec, network: nn.Module, ema: float, max_grad_norm: float):
        super().__init__()
        self.spec = spec
        self.windows = ActionWindows(spec)
        self.network = network
        self.average = MovingAverage(network, ema)
        self.max_grad_norm = max_grad_norm
        self.calls = 0

    @property
    def noise_dim(self) -> int:
        """How many standard normal numbers a chunk of actions is made from."""
        return self.spec.horizon * self.spec.act_dim

    def latent(self, normal_RZ: Tensor) -> Tensor:
        """(R, K, A) the actor's noise, made from standard normal numbers (R, `noise_dim`)."""
        return normal_RZ.unflatten(1, (self.spec.horizon, -1))

    def noise(self, state_BS: Tensor, generator: torch.Generator, number: int = 1) -> Tensor:
        """(B * number, K, A) noise for the actions of each state, one state after the other."""
        normal_BX = torch.randn(len(state_BS), number * self.noise_dim, generator=generator)
        return self.latent(normal_BX.to(state_BS.device).reshape(-1, self.noise_dim))

    def act(self, network: nn.Module, state_RS: Tensor, z_RKA: Tensor, t_R: Tensor | None = None) -> Tensor:
        """(R, K * A) chunks of actions that the network makes from noise in one call, at the times `t_R`, 1 by
        default."""
        x = self.windows.join(state_RS, z_RKA)
        known = self.windows.state_mask.expand_as(x)
        if t_R is None:
            t_R = z_RKA.new_ones(1)
        return network(x, x * known, known, t_R)[..., self.spec.obs_dim :].flatten(1)

    def next_actions(self, state_BS: Tensor, number: int, generator: torch.Generator) -> Tensor:
        return self._average_actions(state_BS, self.noise(state_BS, generator, number))

    def sample(self, state_BS: Tensor, number: int, seeds: Sequence[int], options: SamplingOptions) -> Tensor:
        options.refuse("this policy acts by one call of its actor, which has no sampler, grid or eta")
        self.calls += 1
        if number > 1:
            seeds = unfold_each(number, seeds)
        z_RKA = self.latent(RowNoise(seeds, state_BS.device).normal(self.noise_dim))
        return self._average_actions(state_BS, options.temperature * z_RKA)

    def _average_actions(self, state_BS: Tensor, z_RKA: Tensor) -> Tensor:
        """(B, N, K, A) actions of the averaged actor from the noise (B * N, K, A)."""
        number = len(z_RKA) // len(state_BS)
        if number > 1:
            state_BS = state_BS.repeat_interleave(number, 0)
        return self.act(self.average, state_BS, z_RKA).clamp(-1, 1).view(-1, number, *z_RKA.shape[1:])

    @property
    def network_calls(self) -> int:
        return self.calls

    def loss(self, t: Transition, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The pull, a scalar, and the actor's actions (B, K * A), whose value is to rise."""
        raise NotImplementedError

    def update(self, t: Transition, policy: OneStep, optimizers: dict[str, Optimizer],
               generator: torch.Generator) -> dict[str, Tensor]:
        return self.step(*self.loss(t, generator), t, policy, optimizers, generator)

    def step(self, pull: Tensor, chunk_BX: Tensor, t: Transition, policy: OneStep, optimizers: dict[str, Optimizer],
             generator: torch.Generator) -> dict[str, Tensor]:
        """One optimiser step of the actor on L_pi. Returns metrics."""
        value_B = policy.value(t.state_BS, chunk_BX.clamp(-1, 1), generator)
        loss = pull - (value_B * t.weights()).mean()
        norm = apply_gradients(loss, optimizers["actor"], self.max_grad_norm)
        self.average.update_parameters(self.network)
        return {"pull": pull.detach(), "actor_grad_norm": norm.detach()}


def squared_distance(chunk_BX: Tensor, t: Transition) -> Tensor:
    """(B,) mean squared error to the data's actions, over the entries before the end of the episode."""
    real_BX = t.real_entries()
    return ((chunk_BX - t.chunk_BX) ** 2 * real_BX).sum(1) / real_BX.sum(1)


POLICIES["one-step"] = OneStepConfig, OneStep
