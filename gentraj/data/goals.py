"""Goals in hindsight: which observations of the data are drawn as the goals of windows."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from annotated_types import Ge

from ..config import Fraction, Registry, settings
from .episodes import DataError, Episodes
from .rests import Rests


@settings
class HindsightConfig:
    """Goals in hindsight (Andrychowicz et al. 2017, arXiv 1707.01495): observations of the data, by default as OGBench
    draws them.

    Each step costs 1 until the observation is the goal, which is terminal, so that a goal d steps away has the value
    -(1 - discount^d) / (1 - discount). The rewards and terminations of the data do not count.
    Raises ValueError for shares of more than 1 together, and for whole observations that come to rest.
    """

    current: Fraction = 0.2
    """Share of the goals that values are learned for that are the present observation."""
    random: Fraction = 0.3
    """Share of these goals that are drawn from all observations of the data. The others are later observations of the
    same episode."""
    steps: Annotated[float, Ge(1)] | None = 100.0
    """Mean number of environment steps to these later observations, which are drawn from a geometric distribution that
    ends with the episode; usually 1 / (1 - discount). None draws all of them equally often."""
    at_rest: bool = False
    """Draw later observations only where the entries of the goal come to rest after a change, as objects do: the first
    such observation from the drawn one on. With `actor_steps` 1, actions are learned for the next change alone."""
    whole: bool = False
    """Take whole observations as goals, as most published scores of OGBench do, in the place of the entries that the
    data name, such as the positions of objects. OGBench's environments then give such goals, too."""
    actor_current: Fraction = 0.0
    """The same as `current`, of the goals that actions are learned for. Swift, which labels actions by values, learns
    them for the goals of the values."""
    actor_random: Fraction = 0.0
    """The same as `random`, of the goals that actions are learned for."""
    actor_steps: Annotated[float, Ge(1)] | None = None
    """The same as `steps`, of the goals that actions are learned for."""

    def __post_init__(self) -> None:
        if self.whole and self.at_rest:
            raise ValueError("goals are to be whole observations that come to rest, which a robot hardly does; leave "
                             "out whole or at_rest")
        for current, random in ((self.current, self.random), (self.actor_current, self.actor_random)):
            if current + random > 1:
                raise ValueError(f"of the goals {current:g} are to be current and {random:g} random; shares of at most "
                                 "1 together are expected")


class Hindsight:
    """Draws the goals of windows from the observations of episodes."""

    def __init__(self, config: HindsightConfig, episodes: Episodes):
        self.config = config
        self.rows = len(episodes.obs)
        self.last_E = np.cumsum(episodes.lengths + 1) - 1  # rows of `obs`
        self.next_N = np.arange(1, self.rows + 1)
        if config.at_rest:
            if not episodes.goal_dims:
                raise DataError(f"{episodes.name} does not say which entries of an observation make a goal, so that "
                                "nobody knows when these are at rest; leave context.goals.at_rest out")
            episode_N = np.repeat(np.arange(len(episodes)), episodes.lengths + 1)
            next_N = Rests.of(episodes.obs[:, list(episodes.goal_dims)], episode_N).next_N
            if (next_N == self.rows).all():
                raise DataError(f"{episodes.name}: the entries of a goal never come to rest after a change; leave "
                                "context.goals.at_rest out")
            self.next_N = np.minimum(next_N, self.last_E[episode_N])

    def draw(self, row_B: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(2, B) rows of `obs` that are the goals of values and of actions, for windows that start in `row_B`."""
        config = self.config
        return np.stack([self._drawn(row_B, rng, config.current, config.random, config.steps),
                         self._drawn(row_B, rng, config.actor_current, config.actor_random, config.actor_steps)])

    def _drawn(self, row_B: np.ndarray, rng: np.random.Generator, current: float, random: float,
               steps: float | None) -> np.ndarray:
        left_B = self.last_E[np.searchsorted(self.last_E, row_B)] - row_B
        if steps is None:
            ahead_B = rng.integers(1, left_B, endpoint=True)
        else:
            ahead_B = np.minimum(rng.geometric(1 / steps, len(row_B)), left_B)
        share_B = rng.random(len(row_B))
        later_B = self.next_N[row_B + ahead_B - 1]
        goal_B = np.where(share_B < random, rng.integers(self.rows, size=len(row_B)), later_B)
        return np.where(share_B >= 1 - current, row_B, goal_B)


GOAL_SAMPLERS: Registry[HindsightConfig, Hindsight] = Registry({"hindsight": (HindsightConfig, Hindsight)})
"""What draws goals, by the name that is given as `--context.goals`."""


def goal_entries(e: Episodes) -> list[int]:
    """The entries of an observation that a goal in hindsight gives values for: `goal_dims`, or all of them."""
    return list(e.goal_dims or range(e.obs_dim))


def without_goals(e: Episodes) -> Episodes:
    """The same episodes without the goals that they record, which do not count where others are drawn."""
    extras = {key: value for key, value in e.extras.items() if key != "goal"}
    return replace(e, extras=extras, goal_dims=tuple(goal_entries(e)), validate=False)
