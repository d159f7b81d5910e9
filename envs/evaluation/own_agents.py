"""Agents of one's own: an `Agent` of any object that acts, or of a function."""

from __future__ import annotations

import inspect
import reprlib
from typing import Any

import torch
from torch import Tensor

from gentraj.trajectory import Agent, as_array


class OwnAgent(Agent):
    """An `Agent` of an object with `act(obs_BO, goal_BG)`, or of a function with these arguments.

    It is given arrays, and goals only where there are some, and returns the actions (B, A), or (B,) where A is 1, as an
    array or a tensor. If the object has a `reset(seed, mask_B)`, it is called with a list of seeds (B,) and an array
    (B,) that is true where episodes begin. Raises TypeError for what does not act, and for another `reset`.
    """

    def __init__(self, own: Any):
        if isinstance(own, type):
            raise TypeError(f"the agent is the class {own.__name__}; give an object of it, as {own.__name__}()")
        self.own_act = getattr(own, "act", own)
        self.own_reset = getattr(own, "reset", None)
        if not callable(self.own_act):
            raise TypeError(f"the agent is {own!r}; give that of a run, an object with act(obs, goal), or a function "
                            "of observations")
        if self.own_reset is not None:
            try:
                inspect.signature(self.own_reset).bind(seed=[], mask_B=[])
            except TypeError as error:
                raise TypeError(f"{type(own).__name__}.reset cannot be called as reset(seed=..., mask_B=...): {error}; "
                                "give it these arguments, or leave it out") from error

    def _reset(self, seeds_B: list[int], mask_B: Tensor) -> None:
        if self.own_reset is not None:
            self.own_reset(seed=seeds_B, mask_B=mask_B.numpy())

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        given = [as_array(x) for x in (obs_BO, goal_BG) if x is not None]
        act = as_array(self.own_act(*given))
        if act.dtype.kind not in "fiub":
            raise TypeError(f"the agent's actions are {reprlib.repr(act.tolist())}; an array or a tensor of numbers "
                            "(B, A) is expected")
        return torch.from_numpy(act)


def as_agent(given: Any) -> Agent:
    """An `Agent` as it is, and anything else that acts as an `OwnAgent`."""
    if isinstance(given, Agent):
        return given
    return OwnAgent(given)
