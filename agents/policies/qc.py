"""QC: Q-learning over chunks of actions, of which the best of several that imitate the data is carried out.

    L_Q(theta) = E[(sum_i<h gamma^i r_t+i + gamma^h Q'(s_t+h, a*) - Q(s_t, a_t:t+h))^2]                          (6)
    a*         = argmax Q(s_t+h, a) over `backup` chunks a ~ pi(. | s_t+h)                                       (7)
    L_pi(phi)  = L_d(phi), the model's own loss of the data's chunks of h actions

Q' is the target network. As h actions are decided at once, values travel h steps in each backup, without the error of
n-step returns of single actions, and exploration is as coherent as the data. Li et al. 2025, "Reinforcement Learning
with Action Chunking" (arXiv 2507.07969), whose model is a flow. QC-FQL is FQL over chunks, in fql.py.
"""

from __future__ import annotations

from dataclasses import field

from einops import rearrange
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from gentraj.config import settings
from gentraj.families import FLOW, ModelConfig

from .actor_critic import CHUNK, CHUNK_CRITIC, ActorCriticConfig, ModelActor
from .critic import CriticConfig, pairs
from .policy import POLICIES, PRESETS


@settings
class QCConfig(ActorCriticConfig):
    """The settings of `QC`. Raises ValueError for a setting outside its range."""

    model: ModelConfig = field(default_factory=lambda: FLOW)
    """The generative model of chunks of actions."""
    critic: CriticConfig = field(default_factory=lambda: CHUNK_CRITIC)
    eta: NonNegativeFloat = 0.0
    """Weight of the value that the model maximises besides imitating the data; the paper's is 0."""
    chunk: PositiveInt = CHUNK
    execute: PositiveInt = CHUNK
    backup: PositiveInt = 4
    candidates: PositiveInt = 32


class QC(ModelActor[QCConfig]):
    """The best of several chunks of a generative model that imitates the data, by a critic over chunks."""

    def best_next(self, state_BS: Tensor, act_BNKA: Tensor) -> Tensor:
        """(B, 1, K, A) the chunk of equation 7, by the critic itself; its target network gives the value."""
        value_R = self.critic.pooled(self.critic(*pairs(state_BS, act_BNKA)))
        value_BN = rearrange(value_R, "(b n) -> b n", n=act_BNKA.shape[1])
        return act_BNKA.take_along_dim(value_BN.argmax(1)[:, None, None, None], 1)


POLICIES["qc"] = QCConfig, QC
PRESETS["qc"] = ("Q-learning over chunks of actions: the best of several chunks of a flow that clones the data",
                 QCConfig())
