"""`HindsightWindows`: windows of data with goals in hindsight, whose rewards and ends are those of the goals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..trajectory import Batch, TrajectorySpec
from .episodes import Episodes
from .goals import GOAL_SAMPLERS, without_goals
from .windows import ContextConfig, Windows


def windows_of(episodes: Episodes, spec: TrajectorySpec, contexts: ContextConfig, early: float = 0.0) -> Windows:
    """The windows that components are trained on with these contexts: `HindsightWindows` where goals are drawn, or else
    `Windows`. Raises ValueError and `DataError` as these do."""
    kind = Windows if contexts.goals is None else HindsightWindows
    return kind(episodes, spec, contexts, early)


class HindsightWindows(Windows):
    """All windows of a dataset, each with a goal that values are learned for, `goal_BG`, and one that actions are
    learned for, which is the goal of its context.

    Each step costs 1 until the first of the two is reached, which is terminal; the rewards, terminations and goals of
    the data do not count. Raises ValueError as `Windows` do and for contexts that draw no goals, and `DataError` for
    data in which no such goals can be drawn.
    """

    def __init__(self, episodes: Episodes, spec: TrajectorySpec, contexts: ContextConfig, early: float = 0.0):
        if contexts.goals is None:
            raise ValueError("HindsightWindows need contexts whose `goals` say how goals are drawn; there are none")
        super().__init__(without_goals(episodes), spec, replace(contexts, goals=None), early)
        self.goals = GOAL_SAMPLERS.made_of(contexts.goals)(contexts.goals, episodes)

    def batch(self, step: int, seed: int, size: int = 64) -> Batch:
        rng = np.random.default_rng([seed, step])
        starts_B = self._drawn(rng, size)
        goal_2B = self.goals.draw(starts_B + self._episode(starts_B), rng)
        return self.gather(starts_B, goal_2B)

    def gather(self, starts_B: np.ndarray, goal_2B: np.ndarray | None = None) -> Batch:
        """The windows that start at these steps (B,), with the rows `goal_2B` of `obs` as the goals of values and of
        actions; by default these are the rows that the windows end with."""
        at = self.at(starts_B)
        if goal_2B is None:
            goal_2B = np.stack([self._last(at)] * 2)
        value_B, actor_B = goal_2B
        context_BC = None
        if self.context_rows is not None:
            context_BC = self.context_rows(at.row_B, actor_B)
        # Less the number of its episode, a row of `obs` is the step that begins with it. For a row of another episode,
        # the number of this one gives a step that is not in this one: before its first, or past the end.
        reached_B1 = (value_B - at.episode_B)[:, None]
        is_reached_B1 = (reached_B1 >= starts_B[:, None]) & (reached_B1 <= at.end_B1)
        cost_BL = np.full((len(starts_B), len(self.steps_L)), -1, np.float32)
        end_B1 = np.where(is_reached_B1, reached_B1, at.end_B1)
        reward_BH, terminal_BH = self._until(at, end_B1, is_reached_B1, cost_BL)
        goal_BG = self.episodes.obs[value_B][:, list(self.episodes.goal_dims)]
        return self._windows(at, context_BC, reward_BH, terminal_BH, goal_BG)
