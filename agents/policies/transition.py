"""n-step transitions (s, a, r, s'), from which policies and their critics learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gentraj.training.parallel import mean_over_processes
from gentraj.trajectory import Batch

if TYPE_CHECKING:
    from .policy import Policy


@dataclass(frozen=True)
class Transition:
    """n-step transitions (s, a, r, s') of a batch of windows, normalised; a is a chunk of K actions.

    With an `n_step` above K, the state s' lies beyond the chunk, and the rewards of the data's actions in between count
    as if they followed from a.
    """

    state_BS: Tensor
    """The state: the observation, and the context if there is one."""
    chunk_BX: Tensor
    """The K actions, concatenated; 0 after the end of the episode."""
    real_BK: Tensor
    """True for the actions that were taken before the episode ended."""
    reward_B: Tensor
    """Discounted sum of the rewards up to the next state."""
    next_BS: Tensor
    """The next state."""
    discount_B: Tensor
    """Discount of the value of the next state; 0 where the episode terminated, but not where it was truncated."""
    whole_B: Tensor
    """True where the chunk is whole, or the episode terminated, so that the missing actions have no effect."""
    episode_B: Tensor
    """Index of the episode, as in `Batch`."""
    weight_B: Tensor | None = None
    """Weights of mean 1 in the loss of the policy, 0 for synthetic transitions of a world model, from which only
    critics learn. None gives all transitions the same weight."""

    @classmethod
    def from_batch(cls, batch: Batch, policy: Policy, discount: float) -> Transition:
        """The transitions that a policy sees in a batch of windows; `discount` is per environment step.

        Raises ValueError for a batch without rewards, terminations and episodes, and for windows of another layout than
        the policy's, in which the n-step returns would be others.
        """
        policy.spec.check_windows(batch.x_BHD.shape)
        if batch.reward_BH is None or batch.terminal_BH is None or batch.episode_B is None:
            raise ValueError("a policy learns from rewards and terminations, which this batch lacks; take a batch of "
                             "Windows")
        scales = policy.scales
        obs_BHO, act_BHA = policy.spec.split(batch.x_BHD)
        real_BH = batch.mask_BHD[..., 0]
        last_B = real_BH.sum(1) - 1  # the timestep of the next state, and the steps to it
        b = torch.arange(len(last_B), device=last_B.device)
        ended_B = batch.terminal_BH[b, last_B]
        power_H = discount ** torch.arange(real_BH.shape[1], device=last_B.device).to(batch.reward_BH)
        reward_BH = scales.reward.normalize(batch.reward_BH[:, :-1, None])[..., 0] * real_BH[:, 1:]  # none in padding
        reward_B = (reward_BH * power_H[:-1]).sum(1)
        real_BK = real_BH[:, 1 : policy.chunk + 1]
        act_BKA = scales.act.normalize(act_BHA[:, : policy.chunk]) * (real_BK[..., None] & scales.varies_A)
        weight_B = None
        if batch.synthetic_B is not None:
            weight_B = mean_one((~batch.synthetic_B).to(reward_B))
        return cls(
            state_BS=scales.state(obs_BHO[:, 0], batch.context_BC),
            chunk_BX=act_BKA.flatten(1),
            real_BK=real_BK,
            reward_B=reward_B,
            next_BS=scales.state(obs_BHO[b, last_B], batch.context_BC),
            discount_B=power_H[last_B] * ~ended_B,
            whole_B=real_BK.all(1) | ended_B,
            episode_B=batch.episode_B,
            weight_B=weight_B)

    def weights(self) -> Tensor:
        """The weights (B,), or (1,) with a 1 for all transitions."""
        return self.reward_B.new_ones(1) if self.weight_B is None else self.weight_B

    def average(self, x_EB: Tensor) -> Tensor:
        """Mean over the transitions whose chunk is whole or reached a termination; a truncated chunk is no action."""
        return (x_EB * self.whole_B).sum(-1).mean() / mean_over_processes(self.whole_B.sum()).clamp(min=1)

    def real_entries(self) -> Tensor:
        """(B, K * A) true for the entries of the chunk that were taken before the episode ended."""
        return self.real_BK.repeat_interleave(self.chunk_BX.shape[1] // self.real_BK.shape[1], 1)


def mean_one(weight_B: Tensor) -> Tensor:
    """Divides weights by their mean; weights that are all 0 stay 0."""
    return weight_B / mean_over_processes(weight_B.mean()).clamp(min=1e-6)
