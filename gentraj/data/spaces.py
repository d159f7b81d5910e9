"""The Gymnasium spaces that a dataset may have: vectors, and goal-conditioned dicts of vectors."""

from __future__ import annotations

from typing import Any

from .episodes import DataError

GOAL_KEYS = ("observation", "achieved_goal", "desired_goal")


def act_width(name: str, space: Any) -> int:
    """The width of an action space. Raises `DataError` unless its actions are vectors."""
    if not _is_vector(space):
        raise DataError(f"{name}: action space {_brief(space)} is not supported, only vectors (1-D Box) are; flatten "
                        "the actions with gymnasium.spaces.utils.flatten and record the data again")
    return space.shape[0]


def obs_widths(name: str, space: Any) -> dict[str, int]:
    """{"obs": O} for a vector, or the three widths of a goal-conditioned dict. Raises `DataError` for anything else."""
    if _is_vector(space):
        return {"obs": space.shape[0]}
    parts = getattr(space, "spaces", None)
    if isinstance(parts, dict) and set(parts) == set(GOAL_KEYS) and all(map(_is_vector, parts.values())):
        return {key: parts[key].shape[0] for key in GOAL_KEYS}
    raise DataError(f"{name}: observation space {_brief(space)} is not supported, only vectors (1-D Box) and dicts of "
                    f"the vectors {', '.join(GOAL_KEYS)} are; flatten it with gymnasium.wrappers.FlattenObservation "
                    "(encode images first) and record the data again")


def _is_vector(space: Any) -> bool:
    return type(space).__name__ == "Box" and len(space.shape) == 1


def _brief(space: Any) -> str:
    text = " ".join(str(space).split())
    return text if len(text) < 100 else text[:97] + "..."
