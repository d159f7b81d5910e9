"""Lines in a scene that are redrawn many times a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .colours import linear

if TYPE_CHECKING:
    from viser import SceneApi

LEAST = 64  # segments for which a node has room


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
        room = max(LEAST if self.handle is None else len(self.handle.points), 1 << (count - 1).bit_length())
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
