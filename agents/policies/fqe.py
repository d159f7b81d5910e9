"""FQE, fitted Q evaluation: what policies are worth, from data that others recorded.

    L_Q(theta) = E[(r + gamma Q'(s', pi(s')) - Q(s, a))^2]
    value      = E[Q'(s_0, pi(s_0))] over the starts of the data's episodes

Q' is the target network, (s, a, r, s') are one-step transitions of the data. Le et al. 2019, "Batch Policy Learning
under Constraints" (arXiv 1903.08738), algorithm 3. Each policy has a member of one ensemble. All members start from the
same weights and learn from the same batches, so that only what the policies do makes their values differ.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, NamedTuple

import numpy as np
import torch
from annotated_types import Interval
from pydantic import PositiveInt
from torch import Tensor

from gentraj.config import settings
from gentraj.progress import bar
from gentraj.randomness import fold, seeded
from gentraj.training.optimization import adamw, apply_gradients

from .critic import MAX_DISCOUNT, Critic, CriticConfig

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
    """M one-step transitions and E starts, all normalised, with what each of P policies does there."""

    state_MS: Tensor
    act_MA: Tensor
    reward_M: Tensor
    discount_M: Tensor
    """Discount of the value of the next state; 0 where the episode terminated."""
    next_MS: Tensor
    next_PMA: Tensor
    """The policies' actions in the next states."""
    start_ES: Tensor
    start_PEA: Tensor
    """The policies' actions at the starts."""


def fitted_q_evaluation(data: Experience, config: FQEConfig, start: float = 0.0, seed: int = 0) -> np.ndarray:
    """(P,) the discounted returns of P policies from the starts. All values are about `start` before the training."""
    own, widths = CriticConfig(members=len(data.next_PMA), tau=TAU), (data.state_MS.shape[1], data.act_MA.shape[1])
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
            next_PB = values(critic, data.next_MS[m], data.next_PMA[:, m])
            target_PB = data.reward_M[m] + data.discount_M[m] * next_PB
            q_PB = critic(data.state_MS[m], data.act_MA[m])
            loss = (((q_PB - target_PB) / critic.q.unit) ** 2).mean(1).sum()
            apply_gradients(loss, optimizer, UNBOUNDED)
            critic.target.update_parameters(critic.q)
            done.update()
    return values(critic, data.start_ES, data.start_PEA).mean(1).cpu().numpy()


@torch.no_grad()
def values(critic: Critic, state_BS: Tensor, act_PBA: Tensor) -> Tensor:
    """(P, B) Q'(s, a) of each policy's own action."""
    return critic.target(torch.cat([state_BS.expand(len(act_PBA), -1, -1), act_PBA], -1))
