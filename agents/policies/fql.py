"""FQL: a flow imitates the data, and the actor is pulled to the flow's action from the same noise.

    L_flow(phi) = E||v(s, x_t, t) - (z - a)||^2,   x_t = (1 - t) a + t z
    pull        = alpha E||mu(s, z) - a_flow(s, z)||^2                                  (equation 8)

where a_flow(s, z) is where the ODE of the flow leads from the noise z. Park et al. 2025, "Flow Q-Learning" (arXiv
2502.02538). QC-FQL is FQL over chunks of actions: Li et al. 2025, "Reinforcement Learning with Action Chunking" (arXiv
2507.07969).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import field
from typing import ClassVar

import torch
from einops import rearrange, repeat
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import settings
from gentraj.device import to_device
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.families import FLOW
from gentraj.randomness import Seeds, as_noise
from gentraj.training.optimization import MovingAverage, adamw
from gentraj.training.step import TrainingStep
from gentraj.trajectory import DEFAULT_OPTIONS, SamplingOptions, refuse_options

from .actor_critic import CHUNK, CHUNK_CRITIC, ActorCritic, ActorCriticConfig
from .policy import POLICIES, PRESETS, Transition, join
from .scales import StateActionScales


@settings
class FQLConfig(ActorCriticConfig):
    """The settings of `FQL`. Raises ValueError for a setting outside its range."""

    model: DiffusionConfig = field(default_factory=lambda: FLOW)
    """The flow, a model of actions. The actor has the same network, learning rate and decay of the average."""
    alpha: NonNegativeFloat = 10.0
    """Weight of the squared error to the flow's action from the same noise, relative to the value."""
    max_grad_norm: PositiveFloat = 10.0
    """Norm to which larger gradients of the actor are clipped."""
    REMOVED: ClassVar[dict[str, object]] = {"guidance": ...}


class FQL(ActorCritic[FQLConfig]):
    """An actor that distils a flow of the data's actions into one step, a network mu(s, z) of the noise z."""

    def __init__(self, config: FQLConfig, scales: StateActionScales):
        super().__init__(config, scales)
        self.network = deepcopy(self.flow.network)
        self.average = MovingAverage(self.network, config.model.ema)

    @property
    def flow(self) -> Diffusion:
        """The flow."""
        assert isinstance(self.model.model, Diffusion)  # noqa: S101  by the type of its settings
        return self.model.model

    def optimizers(self) -> dict[str, Optimizer]:
        return super().optimizers() | {"actor": adamw(self.network, self.config.model)}

    @property
    def network_calls(self) -> None:
        """A decision is one call of the actor."""
        return

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        return "one call of the actor"

    def noise(self, state_BS: Tensor, generator: torch.Generator, number: int = 1) -> Tensor:
        """(B * number, K, A) noise for the actions of each state, one state after the other."""
        normal_BX = torch.randn(len(state_BS), number * self.noise_dim, generator=generator)
        return rearrange(to_device(normal_BX, state_BS.device), "b (n k a) -> (b n) k a", n=number, k=self.chunk)

    def act(self, network: nn.Module, state_RS: Tensor, z_RKA: Tensor) -> Tensor:
        """(R, K * A) chunks of actions that the network makes from noise in one call."""
        x = join(state_RS, z_RKA)
        known = self.model.state_mask.expand_as(x)
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
        z_RKA = to_device(noise.normal(self.noise_dim), state_BS.device).unflatten(1, (self.chunk, -1))
        return self.averaged(state_BS, options.temperature * z_RKA)

    def update_actor(self, t: Transition, step: TrainingStep) -> dict[str, Tensor]:
        """One optimiser step of the flow, and one of the actor. Returns metrics."""
        flow = self.model.update(t, step)
        z_BKA = self.noise(t.state_BS, step.generator)
        pull, chunk_BX = self.distillation(t, z_BKA)
        value_B = self.value(t.state_BS, chunk_BX.clamp(-1, 1), step)
        loss = pull - (value_B * t.weight_B).mean()
        norm = step.descend(loss, "actor", self.config.max_grad_norm)
        step.follow(self.average, self.network)
        return flow | {"pull": pull.detach(), "actor_grad_norm": norm.detach()}

    def distillation(self, t: Transition, z_BKA: Tensor) -> tuple[Tensor, Tensor]:
        """The pull, a scalar, and the actor's actions (B, K * A)."""
        start_BKD = join(torch.zeros_like(t.state_BS), z_BKA)
        flow_BKD = self.flow.transport(start_BKD, self.model.condition(t.state_BS))
        chunk_BX = self.act(self.network, t.state_BS, z_BKA)
        square_BX = (chunk_BX - self.model.actions(flow_BKD).flatten(1)) ** 2
        return self.config.alpha * (square_BX * t.weight_B[:, None]).mean(), chunk_BX


POLICIES["fql"] = FQLConfig, FQL
PRESETS["fql"] = ("flow Q-learning: a flow clones the data, and a one-step actor distils it and maximises the value",
                  FQLConfig())
PRESETS["qc-fql"] = ("FQL over chunks of actions, with the critic of qc",
                     FQLConfig(chunk=CHUNK, execute=CHUNK, critic=CHUNK_CRITIC))
