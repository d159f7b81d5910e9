"""Colours, light and lines of the scenes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..plots.style import trust_scale
from .planning import Answer

if TYPE_CHECKING:
    from viser import SceneApi

SEGMENTS_AT_FIRST = 64  # for which a node of lines has room
TRUST = 4.0  # the trust ratios 1 / TRUST and TRUST are the ends of the colours
GOAL = CROSSING = "#C8102E"  # red, which no plan has but where it crosses a wall or an obstacle
THIN = 1.5  # thickness of lines in pixels
THICK = 4.0
EDGE = 7.0
SKY, GROUND = (255, 255, 255), (190, 195, 215)
DRAG = ": drag me"  # beside the name of what can be dragged


Place = tuple[float, float, float]


def on_floor(eye_3: ArrayLike, through_3: ArrayLike, height: float = 0.0) -> np.ndarray | None:
    """Where the ray from the eye through a point meets the plane at a height: (2,), or None if it never does."""
    eye = np.array(eye_3, float)
    ray = np.array(through_3, float) - eye
    if ray[2] == 0 or (height - eye[2]) / ray[2] <= 0:
        return None
    return (eye + ray * (height - eye[2]) / ray[2])[:2]


def rgb(colour: str) -> tuple[int, int, int]:
    """The colour "#rrggbb" as three numbers."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def linear(colours: np.ndarray) -> np.ndarray:
    """Colours of sRGB, 0 to 255, in proportion to light (IEC 61966-2-1), uint8, of the same shape."""
    part = np.asarray(colours, float) / 255
    light = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return (255 * light).round().astype(np.uint8)


def trust_colours(ratio_N: np.ndarray) -> np.ndarray:
    """(N, 3) the colours of trust ratios, uint8: blue where trusted and orange where not."""
    norm, shade = trust_scale(TRUST)
    return (255 * np.asarray(shade(norm(np.clip(ratio_N, 1 / TRUST, TRUST))))[:, :3]).astype(np.uint8)


def plan_colours(answer: Answer) -> np.ndarray:
    """(N, 3) the colours of the plans, uint8: from dark to light by value, or by trust where there are no values."""
    if answer.value_N is None:
        return trust_colours(answer.ratio_N)
    from matplotlib import colormaps

    low = answer.value_N.min()
    part_N = (answer.value_N - low) / max(answer.value_N.max() - low, 1e-9)
    return (255 * np.asarray(colormaps["viridis"](part_N))[:, :3]).astype(np.uint8)


def colours_in_words(answer: Answer) -> str:
    """What `plan_colours` mean."""
    if answer.loaded.kind == "policy":
        return "A policy plans nothing: what is drawn is what it would do in the simulator."
    if answer.value_N is not None:
        return "Plans are dark where their value is low and yellow where it is high."
    return "Blue plans are trusted and orange ones are not: the darker, the farther from the limit between them."


def light(api: SceneApi, cast_shadow: bool = False) -> None:
    """Lights a scene by a sun and a sky.

    Viser's own light is an environment map, with which a browser without a GPU takes about three times as long for
    each frame. Shadows double that time once more.
    """
    api.configure_environment_map(None)
    api.configure_default_lights(enabled=False)
    api.add_light_hemisphere("/sky", sky_color=SKY, ground_color=GROUND, intensity=2.0, position=(0.0, 0.0, 1.0))
    api.add_light_directional("/sun", intensity=4.0, position=(-0.15, 0.6, 1.0), cast_shadow=cast_shadow)


class Lines:
    """Segments under a name of a scene, `thickness` pixels thick.

    A browser takes long to make a node and to remove it, so that one node is kept whose room doubles when there are
    more segments. Segments without a length, at the end of the last one, fill what is left of it.
    """

    def __init__(self, api: SceneApi, name: str, thickness: float):
        self.api = api
        self.name = name
        self.thickness = thickness
        self.handle: Any = None

    def draw(self, points_M23: np.ndarray, colours_M3: np.ndarray) -> None:
        """Draws segments (M, 2, 3) in colours (M, 3) or in one (3,), in the place of those before."""
        count = len(points_M23)
        room = SEGMENTS_AT_FIRST
        if self.handle is not None:
            room = len(self.handle.points)
            self.handle.visible = count > 0
        if count == 0:
            return
        while room < count:
            room *= 2
        points_L23 = np.concatenate([points_M23, np.tile(points_M23[-1, 1], (room - count, 2, 1))]).astype(np.float32)
        colours_L3 = np.pad(np.broadcast_to(colours_M3, (count, 3)), ((0, room - count), (0, 0)), "edge")
        # The browser takes the colours of vertices for light, and would draw them too bright.
        colours_L23 = np.repeat(linear(colours_L3)[:, None], 2, 1)
        if self.handle is not None and len(self.handle.points) == room:
            self.handle.points = points_L23
            self.handle.colors = colours_L23
            return
        if self.handle is not None:
            self.handle.remove()
        self.handle = self.api.add_line_segments(self.name, points_L23, colours_L23, thickness=self.thickness,
                                                 thickness_units="screen")


def pieces(places_MK: np.ndarray) -> np.ndarray:
    """(M - 1, 2, K) the segments of the polyline through M places."""
    return np.stack([places_MK[:-1], places_MK[1:]], 1)


def segments(lines: Sequence[np.ndarray], height: float) -> np.ndarray:
    """(M, 2, 3) the segments of polylines (H, 2) at a height above the floor."""
    flat_M22 = np.concatenate([np.zeros((0, 2, 2)), *map(pieces, lines)])
    return np.pad(flat_M22, ((0, 0), (0, 0), (0, 1)), constant_values=height).astype(np.float32)
