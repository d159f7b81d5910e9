"""The Gymnasium spaces that a dataset may have: vectors, goal-conditioned dicts of vectors, and other dicts of Boxes,
which are flattened; and Gymnasium's EnvSpec as a dataset stores it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec
    from gymnasium.spaces import Box



def spec_as_json(spec: EnvSpec) -> str | None:
    """Gymnasium's EnvSpec as JSON, without wrappers and without classes and functions as entry points, as an
    environment is made anew by its id. None where an argument of the environment cannot be written as JSON."""
    code = {name: None for name in ("entry_point", "vector_entry_point") if callable(getattr(spec, name))}
    try:
        return replace(spec, additional_wrappers=(), **code).to_json()
    except (TypeError, ValueError):
        return None


def observed(space: Any) -> Any:
    """The entries of a Dict that are read, or None for another space.

    Goals that are Dicts themselves, as the tasks of FrankaKitchen, are left out: they are the same in each episode.
    """
    parts = getattr(space, "spaces", None)
    if isinstance(parts, dict) and hasattr(parts.get("desired_goal"), "spaces"):
        return {key: part for key, part in parts.items() if key == "observation"}
    return parts


def is_part(space: Any) -> TypeGuard[Box]:
    """Whether the space is a Box that can be a part of a flat observation: no image, and of up to two dimensions."""
    dims = len(space.shape) if type(space).__name__ == "Box" else 3
    return dims < 2 or (dims == 2 and space.dtype != "uint8")


def flattening(name: str, parts: Mapping[str, Any]) -> str:
    """A line that says how a dict observation of these Boxes was flattened."""
    widths = ", ".join(f"{key} ({math.prod(part.shape)})" for key, part in parts.items())
    return f"{name}: the dict observation is flattened, as by gymnasium.spaces.utils.flatten: {widths}"


def is_vector(space: Any) -> TypeGuard[Box]:
    """Whether the space is a 1-D Box with at least one entry."""
    return type(space).__name__ == "Box" and len(space.shape) == 1 and space.shape[0] > 0
