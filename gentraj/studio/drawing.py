"""Colours, light and lines of the scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..plots.style import trust_scale
from .planning import Answer
from .side_by_side import SideBySide

if TYPE_CHECKING:
    from viser import SceneApi

SEGMENTS_AT_FIRST = 64  # for which a node of lines has room
TRUST = 4.0  # the trust ratios 1 / TRUST and TRUST are the ends of the colours
SKY, GROUND = (255, 255, 255), (190, 195, 215)


def rgb(colour: str) -> tuple[int, int, int]:
    """The colour "#rrggbb" as three numbers."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def linear(colours: np.ndarray) -> np.ndarray:
    """Colours of sRGB, 0 to 255, in proportion to light (IEC 61966-2-1), uint8, of the same shape."""
    part = np.asarray(colours, float) / 255
    light = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return (255 * light).round().astype(np.uint8)


def plan_colours(answer: Answer, by: str = "trust") -> np.ndarray:
    """(N, 3) the colours of the plans, uint8: blue where trusted and orange where not, or dark to light by value."""
    if by == "value" and answer.value_N is not None:
        from matplotlib import colormaps

        low, high = answer.value_N.min(), answer.value_N.max()
        shades = colormaps["viridis"]((answer.value_N - low) / max(high - low, 1e-9))
    else:
        norm, shade = trust_scale(TRUST)
        shades = shade(norm(np.clip(answer.ratio_N, 1 / TRUST, TRUST)))
    return (255 * np.asarray(shades)[:, :3]).astype(np.uint8)


def uncertainty_colours(beside: SideBySide) -> np.ndarray:
    """(T, 3) the colours of the imagined steps, uint8: blue where the model is trusted and orange where not."""
    norm, shade = trust_scale(TRUST)
    ratio_T = np.clip(beside.uncertainty_T / beside.limit, 1 / TRUST, TRUST)
    return (255 * np.asarray(shade(norm(ratio_T)))[:, :3]).astype(np.uint8)


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
        self.api, self.name, self.thickness = api, name, thickness
        self.handle: Any = None

    def draw(self, points_M23: np.ndarray, colours_M3: np.ndarray) -> None:
        """Draws segments (M, 2, 3) in colours (M, 3) or in one (3,), in the place of those before."""
        count = len(points_M23)
        if count == 0:
            if self.handle is not None:
                self.handle.visible = False
            return
        colours_M3 = np.broadcast_to(colours_M3, (count, 3))
        room = max(SEGMENTS_AT_FIRST if self.handle is None else len(self.handle.points), 1 << (count - 1).bit_length())
        points = np.concatenate([points_M23, np.broadcast_to(points_M23[-1, 1], (room - count, 2, 3))])
        colours = np.concatenate([colours_M3, np.broadcast_to(colours_M3[-1], (room - count, 3))])
        # The browser takes the colours of vertices for light, and would draw them too bright.
        self._put(points.astype(np.float32), np.repeat(linear(colours)[:, None], 2, 1))

    def _put(self, points_L23: np.ndarray, colours_L23: np.ndarray) -> None:
        if self.handle is not None and len(self.handle.points) != len(points_L23):
            self.handle.remove()
            self.handle = None
        if self.handle is None:
            self.handle = self.api.add_line_segments(self.name, points_L23, colours_L23, thickness=self.thickness,
                                                     thickness_units="screen")
        else:
            self.handle.points, self.handle.colors = points_L23, colours_L23
            self.handle.visible = True


def segments(lines: list[np.ndarray] | np.ndarray, height: float) -> np.ndarray:
    """(M, 2, 3) the segments of polylines (H, 2) at a height above the floor."""
    pieces = [np.stack([line[:-1], line[1:]], 1) for line in lines if len(line) > 1]
    flat_M22 = np.concatenate(pieces) if pieces else np.zeros((0, 2, 2))
    return np.concatenate([flat_M22, np.full((*flat_M22.shape[:2], 1), height)], -1).astype(np.float32)
