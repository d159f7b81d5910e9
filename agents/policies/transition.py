"""n-step transitions (s, a, r, s'), from which policies and their critics learn."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gentraj.training.parallel import mean_over_processes


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

    def weights(self) -> Tensor:
        """The weights (B,), or (1,) with a 1 for all transitions."""
        if self.weight_B is None:
            return self.reward_B.new_ones(1)
        return self.weight_B

    def average(self, x_EB: Tensor) -> Tensor:
        """Mean over the transitions whose chunk is whole or reached a termination; a truncated chunk is no action."""
        return (x_EB * self.whole_B).sum(-1).mean() / mean_over_processes(self.whole_B.sum()).clamp(min=1)

    def real_entries(self) -> Tensor:
        """(B, K * A) true for the entries of the chunk that were taken before the episode ended."""
        return self.real_BK.repeat_interleave(self.chunk_BX.shape[1] // self.real_BK.shape[1], 1)


def mean_one(weight_B: Tensor) -> Tensor:
    """Divides weights by their mean; weights that are all 0 stay 0."""
    return weight_B / mean_over_processes(weight_B.mean()).clamp(min=1e-6)
