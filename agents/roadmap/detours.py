"""What agents remember of their ways round what they got stuck at."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from torch import Tensor

from gentraj.constraints import Circle

from .far_goals import FarGoals, Waypoints

STUCK_DECISIONS = 3  # at least, after which an agent that is stuck is back within the distance of two places
PERIODS = 3  # times as many decisions ago, at most
BALLS = 5  # of passages that are closed in an episode, before they are forgotten


class Detours:
    """The ways of agents in B environments round what they got stuck at, each with its own.

    Where a robot is within the distance of two places from where it was some decisions ago, and its goal is farther
    than its aim, the passages through a ball between it and its aim are closed for the rest of the episode. Each ball
    is twice as wide as the last one, until they are forgotten, as the way may be closed by now.
    """

    def __init__(self, far: FarGoals, replan: int, batch: int):
        """`far` leads to the goals. There are `replan` environment steps between two decisions."""
        self.far, self.spacing = far, far.roadmap.spacing
        far.expect(batch)
        self.patience = max(STUCK_DECISIONS, math.ceil(STUCK_DECISIONS * far.config.ahead / replan))  # decisions
        self.recent_B: list[deque[list[float]]] = [deque(maxlen=PERIODS * self.patience) for _ in range(batch)]
        self.found: dict[int, list[FarGoals]] = {}

    def forget(self, mask_B: Tensor) -> None:
        """Begins new episodes in these environments."""
        for b in mask_B.nonzero()[:, 0].tolist():
            self.recent_B[b].clear()
            self.found.pop(b, None)

    def of(self, which_B: Tensor) -> dict[int, FarGoals]:
        """The detours among these environments, by their number among them."""
        chosen = which_B.nonzero()[:, 0].tolist()
        return {i: self.found[b][-1] for i, b in enumerate(chosen) if b in self.found}

    def ahead(self, which_B: Tensor, present_NO: Tensor, later_NO: Tensor, goal_NG: Tensor) -> tuple[Tensor, Waypoints]:
        """The observation in which a plan begins that is made now for one environment, in `present_NO`, and due in
        `later_NO`, and the place that it leads to. Where the agent is stuck, the steps until then lead nowhere, and
        the plan begins now."""
        before = self.of(which_B)
        self.aim(which_B, present_NO, goal_NG)
        ways = self.of(which_B)
        begin_NO = later_NO
        if ways != before:
            begin_NO = present_NO
        return begin_NO, self.far.aim(begin_NO, goal_NG, ways)

    def aim(self, which_B: Tensor, obs_NO: Tensor, goal_NG: Tensor) -> Waypoints:
        """The places to go to now in these N environments. Closes passages where they are stuck, so that they aim
        elsewhere from the next time on."""
        aims = self.far.aim(obs_NO, goal_NG, self.of(which_B))
        positions = obs_NO.cpu().numpy()[:, self.far.goal_dims].tolist()
        for i, b in enumerate(which_B.nonzero()[:, 0].tolist()):
            recent = self.recent_B[b]
            recent.append(positions[i])
            if any(math.dist(positions[i], before) < self.spacing for before in list(recent)[: -self.patience]):
                recent.clear()
                if self.far.config.ahead < float(aims.left_B[i]) < math.inf:
                    self._close(b, np.array(positions[i]), aims.place_BG[i].cpu().numpy())
        return aims

    def _close(self, b: int, position_G: np.ndarray, aim_G: np.ndarray) -> None:
        found = self.found.setdefault(b, [])
        if len(found) == BALLS:
            found.clear()
        radius = self.spacing * 2 ** len(found)
        forwards_G = (aim_G - position_G) / max(np.linalg.norm(aim_G - position_G), 1e-6)
        centre_G = position_G + (radius + self.spacing / 2) * forwards_G
        ball = Circle(tuple(centre_G.tolist()), float(radius), self.far.goal_dims)
        before = self.far
        if found:
            before = found[-1]
        found.append(before.closed_by(ball))
