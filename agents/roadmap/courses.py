"""The courses of agents: what they remember of their ways on a roadmap, chosen once by its kind."""

from __future__ import annotations

from .detours import Detours
from .far_goals import FarGoals
from .headings import Headings
from .moves import Moves

Courses = Detours | Headings


def courses(far: FarGoals, replan: int, batch: int) -> Courses:
    """The memory of agents in B environments that `far` leads to their goals, with `replan` environment steps between
    two decisions."""
    if isinstance(far.roadmap, Moves):
        return Headings(far, batch)
    return Detours(far, replan, batch)
