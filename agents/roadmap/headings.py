"""What agents remember of what they have begun to move."""

from __future__ import annotations

import torch
from torch import Tensor

from .far_goals import FarGoals, Waypoints


class Headings:
    """The places that agents in B environments head for where positions rest most of the time: the same place until
    they are there or rest again, as what an agent has begun to move is between all places."""

    def __init__(self, far: FarGoals, batch: int):
        self.far = far
        far.expect(batch)
        self.scale_G = torch.from_numpy(far.roadmap.scale_G)
        self.last_4BG = torch.full((4, batch, len(far.goal_dims)), torch.nan)
        """Positions last, and when places to head for were chosen, goals, and these places."""
        self.left_B = torch.full((batch,), torch.inf)  # environment steps, when the place was chosen

    def forget(self, mask_B: Tensor) -> None:
        """Begins new episodes in these environments."""
        self.last_4BG[:, mask_B] = torch.nan

    def ahead(self, which_B: Tensor, present_NO: Tensor, later_NO: Tensor, goal_NG: Tensor) -> tuple[Tensor, Waypoints]:
        """The observation in which a plan begins that is made now, where it is due, and the place that it leads to."""
        return later_NO, self.aim(which_B, present_NO, goal_NG)  # the same place until it is there

    def aim(self, which_B: Tensor, obs_NO: Tensor, goal_NG: Tensor) -> Waypoints:
        """The places to go to now in these N environments. A way is only searched anew where an agent is there, rests
        elsewhere than before, or has another goal."""
        speed, given_NG = self.far.roadmap.speed, goal_NG.cpu()
        position_NG = obs_NO[:, self.far.goal_dims].cpu()
        was_NG, from_NG, before_NG, place_NG = self.last_4BG[:, which_B]
        left_N = self.left_B[which_B]

        def apart(other_NG: Tensor) -> Tensor:
            return ((position_NG - other_NG) * self.scale_G).norm(dim=1)

        rests_elsewhere_N = (apart(was_NG) <= self.far.roadmap.still) & (apart(from_NG) > speed)
        turns_N = rests_elsewhere_N | (apart(place_NG) <= speed) | (given_NG != before_NG).any(1)  # NaN after `forget`
        if turns_N.any():
            turns = turns_N.to(obs_NO.device)
            aims = self.far.aim(obs_NO[turns], goal_NG[turns])
            from_NG[turns_N], place_NG[turns_N] = position_NG[turns_N], aims.place_BG.to(place_NG)
            left_N[turns_N] = aims.left_B.to(left_N)
        self.last_4BG[:, which_B] = torch.stack([position_NG, from_NG, given_NG, place_NG])
        self.left_B[which_B] = left_N
        return Waypoints(place_NG.to(goal_NG), left_N.to(goal_NG))
