"""Action sequences tried in a world model: the simulator of model-predictive control."""

from __future__ import annotations

import torch
from torch import Tensor

from gentraj.worlds.model import WorldModel


class Imagination:
    """`imagination(obs_BO, act_BNTA, goal_BG)` -> (B, N): the rewards that are expected until the episode ends.

    The mean is imagined, without noise.
    """

    def __init__(self, world: WorldModel):
        self.world = world

    @torch.no_grad()
    def __call__(self, obs_BO: Tensor, act_BNTA: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        num = act_BNTA.shape[1]
        goal_RG = None if goal_BG is None or not self.world.facts.goal_dim else goal_BG.repeat_interleave(num, 0)
        made = self.world.imagine(obs_BO.repeat_interleave(num, 0), act_BNTA.flatten(0, 1), goal_RG,
                                  seeds=[0] * (len(obs_BO) * num), temperature=0.0)
        alive_RT = (1 - made.end_BT).cumprod(1)
        before_RT = torch.cat([torch.ones_like(alive_RT[:, :1]), alive_RT[:, :-1]], 1)
        return (made.reward_BT * before_RT).sum(1).view(act_BNTA.shape[:2]).to(obs_BO.device)
