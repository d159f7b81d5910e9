"""DROL: of several actions of the actor in a state, the nearest to the data's action is pulled to it.

    pull = alpha E||g(s, z_j) - a||^2,   j = argmin_i ||g(s, z_i) - a||,   i = 1 ... candidates

and only that action's value rises. The noise z is uniform in a ball. Mu et al. 2026, "Preserve Support, Not
Correspondence: Dynamic Routing for Offline Reinforcement Learning". The losses are those of the authors' code
(agents/drol.py), as the paper was read in abstract only; docs/notebook/published.md says what differs.
"""

from __future__ import annotations

from dataclasses import field

import torch
from einops import rearrange, repeat
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from gentraj.config import settings
from gentraj.networks import NETWORKS

from .actor_critic import ActorCriticConfig, NoiseActor, NoiseActorConfig
from .policy import POLICIES, PRESETS, Transition
from .scales import StateActionScales


@settings
class DROLConfig(ActorCriticConfig):
    """The settings of `DROL`. Raises ValueError for a setting outside its range."""

    actor: NoiseActorConfig = field(default_factory=NoiseActorConfig)
    """The network that acts."""
    alpha: NonNegativeFloat = 1.0
    """Weight of the squared error of the nearest candidate to the data's action, relative to the value."""
    routed: PositiveInt = 16
    """Actions of the actor in each state of an update, of which only the nearest to the data's action learns. With 1,
    every action of the actor is pulled towards the data's."""


class DROL(NoiseActor[DROLConfig]):
    """An actor of whose candidates the nearest to the data's action learns."""

    def __init__(self, config: DROLConfig, scales: StateActionScales):
        super().__init__(config, scales)
        network = config.actor.network
        self.act_by(NETWORKS.made_of(network)(self.window_spec.dim, self.chunk, 0, network), config.actor)

    @property
    def noise_dim(self) -> int:
        return super().noise_dim + 2

    def latent(self, normal_RZ: Tensor) -> Tensor:
        """(R, K, A) uniform in the ball of radius sqrt(K * A): a point on a sphere without its last two coordinates."""
        size = super().noise_dim
        ball_RX = normal_RZ[:, :size] / normal_RZ.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return super().latent(size**0.5 * ball_RX)

    def loss(self, t: Transition, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        z_RKA = self.noise(t.state_BS, generator, self.config.routed)
        return self.pull(t, self.nearest(t, rearrange(z_RKA, "(b n) k a -> b n k a", n=self.config.routed)))

    def pull(self, t: Transition, z_BKA: Tensor) -> tuple[Tensor, Tensor]:
        """The pull, a scalar, of the actor's actions (B, K * A) from this noise, and these actions."""
        chunk_BX = self.act(self.network, t.state_BS, z_BKA)
        real_BX = t.real_entries()
        distance_B = ((chunk_BX - t.chunk_BX) ** 2 * real_BX).sum(1) / real_BX.sum(1)
        return self.config.alpha * (distance_B * t.weight_B).mean(), chunk_BX

    @torch.no_grad()
    def nearest(self, t: Transition, z_BNKA: Tensor) -> Tensor:
        """(B, K, A) the noise of N whose action is the nearest to the data's."""
        number = z_BNKA.shape[1]
        state_RS, z_RKA = repeat(t.state_BS, "b s -> (b n) s", n=number), rearrange(z_BNKA, "b n k a -> (b n) k a")
        chunk_BNX = rearrange(self.act(self.network, state_RS, z_RKA), "(b n) x -> b n x", n=number)
        square_BNX = (chunk_BNX.clamp(-1, 1) - t.chunk_BX[:, None]) ** 2 * t.real_entries()[:, None]
        return z_BNKA[torch.arange(len(z_BNKA), device=z_BNKA.device), square_BNX.sum(-1).argmin(1)]


POLICIES["drol"] = DROLConfig, DROL
PRESETS["drol"] = ("a one-step actor whose candidate nearest to the data's action learns from it and the value",
                   DROLConfig(alpha=10.0, temperature=0.0))
