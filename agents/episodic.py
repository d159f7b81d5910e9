"""The memory that agents share: for each episode that is under way, its seed and the number of decisions so far."""

from __future__ import annotations

import torch
from torch import Tensor

from gentraj.models.sampling import finite
from gentraj.networks.embedding import MIN_ROWS
from gentraj.randomness import fold
from gentraj.ranges import DataRanges
from gentraj.trajectory import Agent

from .memory import ObservationBuffer


class EpisodicAgent(Agent):
    """Base class of agents that remember something of each environment.

    A subclass may remember more: `_allocate` makes room for all, `_forget` resets it. The subclass calls `_begin` in
    its constructor, and counts its decisions in `decision_B`.
    """

    seed_B: Tensor
    decision_B: Tensor
    observations: ObservationBuffer
    """The last observations and actions; that of an agent that sees the present alone is empty."""
    multiple = 1
    """Its networks are called with a multiple of so many rows, which are filled up where there are fewer."""

    def _reset(self, seeds_B: list[int], mask_B: Tensor) -> None:
        if len(mask_B) != len(self.seed_B):  # all of them begin anew
            self._begin(len(mask_B))
            mask_B = torch.ones_like(mask_B)
        self.decision_B[mask_B] = 0
        self._forget(mask_B)
        self.seed_B[mask_B] = torch.tensor(seeds_B)[mask_B]

    def pad_batches(self, padded: bool = True) -> None:
        self.multiple = MIN_ROWS if padded else 1

    def took(self, act_BA: Tensor) -> None:
        self.observations.correct(act_BA)

    def _begin(self, batch: int) -> None:
        with torch.inference_mode(False):  # tensors of that mode cannot be changed outside of it, as by `reset`
            self.seed_B = torch.zeros(batch, dtype=torch.long)
            self.decision_B = torch.zeros(batch, dtype=torch.long)
            self._allocate(batch)

    def _seeds(self, which_B: Tensor) -> list[int]:
        """Seeds for the next decision of each of these environments."""
        return [fold(*keys) for keys in torch.stack([self.seed_B, self.decision_B], 1)[which_B].tolist()]

    def _allocate(self, batch: int) -> None:
        raise NotImplementedError

    def _forget(self, mask_B: Tensor) -> None:
        self.observations.steps_B[mask_B] = 0


def observed(obs_BO: Tensor, width: int | None = None, known: DataRanges | None = None) -> Tensor:
    """(B, O) the observations that an agent was given, in float32; MuJoCo's are in float64. They stay where they are.

    Warns, once an agent, of those far from the `known` ranges of its data; those on an accelerator are not compared, as
    that would wait for it. Raises ValueError for another shape, whose `width` O is checked if it is given, and for NaN
    and infinity.
    """
    return _rows(obs_BO, "observation", "O", width, known)


def aimed_at(goal_BG: Tensor | None, width: int | None = None, known: DataRanges | None = None) -> Tensor | None:
    """The goals (B, G) that an agent was given, if there are any, checked as `observed` checks observations."""
    if goal_BG is None:
        return None
    return _rows(goal_BG, "goal", "G", width, known and known.goal)


def _rows(x: Tensor, what: str, axis: str, width: int | None, known: DataRanges | None) -> Tensor:
    x = torch.as_tensor(x, dtype=torch.float32)
    if x.ndim != 2 or width not in (None, x.shape[1]):
        raise ValueError(f"{what}s of shape {tuple(x.shape)} were given to an agent; (B, {width or axis}) is expected, "
                         "a row for each environment, with the entries that it was trained on")
    if known is None or not x.is_cpu:
        return finite(x, f"the {what}s that were given to an agent are", "; give finite numbers")
    if not known.hold(x):
        known.tell(finite(x, f"the {what}s that were given to an agent are", "; give finite numbers"), what)
    return x


def finite_actions(act_BXA: Tensor, agent: str) -> Tensor:
    """Returns the actions of an agent. Raises ValueError for those that are not finite."""
    return finite(act_BXA, f"an action of {agent} is", "; the observation may be too far from the data, or a weight is "
                  "not finite; give observations like the data's, or load another checkpoint")
