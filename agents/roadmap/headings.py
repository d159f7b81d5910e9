"""What agents remember of what they have begun to move."""

from __future__ import annotations

import torch
from torch import Tensor

from gentraj.data.rests import SLOW

from .far_goals import FarGoals, Waypoints


class Headings:
    """The places that agents in B environments head for where positions rest most of the time: the same place until
    they are there or rest again, as what an agent has begun to move is between all places."""

    def __init__(self, far: FarGoals, batch: int):
        self.far = far
        far.expect(batch)
        self.scale_G = torch.from_numpy(far.roadmap.graph.scale_G)
        self.last_3BG = torch.full((3, batch, len(far.goal_dims)), torch.nan)  # positions, goals and places to head for

    def forget(self, mask_B: Tensor) -> None:
        """Begins new episodes in these environments."""
        self.last_3BG[:, mask_B] = torch.nan

    def ahead(self, which_B: Tensor, present_NO: Tensor, later_NO: Tensor, goal_NG: Tensor) -> tuple[Tensor, Waypoints]:
        """The observation in which a plan begins that is made now, where it is due, and the place that it leads to."""
        return later_NO, self.aim(which_B, present_NO, goal_NG)  # the same place until it is there

    def aim(self, which_B: Tensor, obs_NO: Tensor, goal_NG: Tensor) -> Waypoints:
        """The places to go to now in these N environments."""
        aims = self.far.aim(obs_NO, goal_NG)
        speed = self.far.roadmap.graph.speed
        position_NG, place_NG = obs_NO[:, self.far.goal_dims].cpu(), aims.place_BG.cpu()
        was_NG, before_NG = self.last_3BG[:2, which_B]
        kept_NG = self.last_3BG[2, which_B]
        moves_N = ((position_NG - was_NG) * self.scale_G).norm(dim=1) > SLOW * speed  # false for NaN, after `forget`
        is_there_N = ((position_NG - kept_NG) * self.scale_G).norm(dim=1) <= speed
        keeps_N = moves_N & ~is_there_N & (goal_NG.cpu() == before_NG).all(1)
        place_NG = torch.where(keeps_N[:, None], kept_NG, place_NG)
        self.last_3BG[:, which_B] = torch.stack([position_NG, goal_NG.cpu(), place_NG])
        return Waypoints(place_NG.to(aims.place_BG), aims.left_B)
