"""FQE, fitted Q evaluation: what policies are worth, from data that others recorded.

    L_Q(theta) = E[(sum_i<h gamma^i r_t+i + gamma^h Q'(s_t+h, pi(s_t+h)) - Q(s_t, a_t:t+h))^2]
    value      = E[Q'(s_0, pi(s_0))] over the starts of the data's episodes

Q' is the target network, and pi(s) are the h actions that a policy carries out before it decides again, so that a
policy of chunks is worth what it does, as in Q-chunking (`qc`). With h = 1 this is algorithm 3 of Le et al. 2019,
"Batch Policy Learning under Constraints" (arXiv 1903.08738). Each policy has a member of one ensemble. All members
start from the same weights and learn from the same batches, so that only what the policies do makes their values
differ.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, NamedTuple

import numpy as np
import torch
from annotated_types import Interval
from pydantic import PositiveInt
from torch import Tensor

from gentraj.agents.policies.critic import MAX_DISCOUNT, Critic, CriticConfig

from ...config import settings
from ...device import to_device
from ...progress import bar
from ...randomness import fold, seeded
from ...training.optimization import adamw, apply_gradients

# Values reach their fixed point after about 1 / (tau (1 - discount)) updates.
TAU = 0.05
UNBOUNDED = 1e9  # norm of gradients, which are not clipped: a norm over the ensemble would tie its members together


@settings
class FQEConfig:
    """Settings of fitted Q evaluation. Raises ValueError for a setting outside its range."""

    updates: PositiveInt = 5_000
    """Updates of the values by which fitted Q evaluation ranks policies."""
    discount: Annotated[float, Interval(ge=0, le=MAX_DISCOUNT)] = 0.99
    """Discount of these values per environment step."""
    transitions: PositiveInt = 50_000
    """The largest number of the data's transitions that they are learned from. Each checkpoint decides in each."""
    batch_size: PositiveInt = 256
    """Transitions in the batch of an update."""


class Experience(NamedTuple):
    """M transitions of h steps and E starts, all normalised, with what each of P policies does there.

    The X = h * A numbers of a decision are the h actions that a policy carries out before it decides again.
    """

    state_MS: Tensor
    act_MX: Tensor
    reward_M: Tensor
    """Discounted sums of the rewards of the h steps."""
    discount_M: Tensor
    """Discount of the value of the next state; 0 where the episode terminated."""
    next_MS: Tensor
    next_PMX: Tensor
    """The policies' decisions in the next states."""
    start_ES: Tensor
    start_PEX: Tensor
    """The policies' decisions at the starts."""


def fitted_q_evaluation(data: Experience, config: FQEConfig, start: float = 0.0, seed: int = 0) -> np.ndarray:
    """(P,) the discounted returns of P policies from the starts. All values are about `start` before the training."""
    own, widths = CriticConfig(members=len(data.next_PMX), tau=TAU), (data.state_MS.shape[1], data.act_MX.shape[1])
    with seeded(fold(seed)):
        first = Critic(*widths, replace(own, members=1), start)
        critic = Critic(*widths, own, start)
    with torch.no_grad():
        for weight, of_first in zip(critic.parameters(), first.parameters(), strict=True):
            weight.copy_(of_first.expand_as(weight))
    critic = critic.to(data.state_MS.device)
    optimizer, rng = adamw(critic.q, own), np.random.default_rng(seed)
    with bar(config.updates, "fitted Q evaluation", "updates") as done:
        for _ in range(config.updates):
            m = torch.from_numpy(rng.integers(len(data.state_MS), size=config.batch_size))
            m = to_device(m, data.state_MS.device)
            next_PB = values(critic, data.next_MS[m], data.next_PMX[:, m])
            target_PB = data.reward_M[m] + data.discount_M[m] * next_PB
            q_PB = critic(data.state_MS[m], data.act_MX[m])
            loss = (((q_PB - target_PB) / critic.q.unit) ** 2).mean(1).sum()
            apply_gradients(loss, optimizer, UNBOUNDED)
            critic.target.update_parameters(critic.q)
            done.update()
    return values(critic, data.start_ES, data.start_PEX).mean(1).cpu().numpy()


@torch.no_grad()
def values(critic: Critic, state_BS: Tensor, act_PBX: Tensor) -> Tensor:
    """(P, B) Q'(s, a) of each policy's own action."""
    return critic.target(torch.cat([state_BS.expand(len(act_PBX), -1, -1), act_PBX], -1))
