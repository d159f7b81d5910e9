"""The 3-D scene of a maze: walls, start and goal to be dragged, obstacles, plans and the executed path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..plots.style import BLUE, GREEN, INK, VERMILION
from .bodies import BodyScene
from .drawing import Lines, light, plan_colours, rgb, segments
from .driving import Way
from .loading import BODY, Loaded
from .planning import Answer, Disc, check_place
from .session import Session

if TYPE_CHECKING:
    from viser import SceneApi

GOAL = CROSSING = "#C8102E"  # red, which no plan has but where it crosses a wall or an obstacle
WALL, FLOOR = (196, 201, 208), (246, 247, 249)
HEIGHT = 0.25  # of the walls, in cells
PLANS, CHOSEN, PATH = 0.03, 0.05, 0.07  # heights of the lines above the floor
THIN, THICK, EDGE = 1.5, 4.0, 7.0  # their thickness in pixels
REACHED = 0.45  # the distance from the goal that counts as success
GAP = 1.0  # between two mazes, in cells


Place = tuple[float, float, float]


class Scene(Protocol):
    """What is drawn for one run of a session."""

    camera: tuple[Place, Place]
    """Where a browser begins to look from, and at what."""

    def show(self, answer: Answer | None, frame: int | None = None, by: str = "trust") -> None:
        """Draws plans, or a frame of their denoising, coloured by "trust" or "value"."""
        ...

    def place(self, session: Session) -> None:
        """Moves start, goal and obstacles to where they are in the session."""
        ...

    def move(self, way: Way | None) -> None:
        """Draws the body and the executed path of a closed loop."""
        ...

    def close(self) -> None: ...


def on_floor(eye_3: Sequence[float], through_3: Sequence[float], height: float = 0.0) -> np.ndarray | None:
    """Where the ray from the eye through a point meets the plane at a height: (2,), or None if it never does.

    Raises ValueError for what is no place.
    """
    eye = check_place(eye_3, 3)
    ray = check_place(through_3, 3) - eye
    if ray[2] == 0 or (height - eye[2]) / ray[2] <= 0:
        return None
    return (eye + ray * (height - eye[2]) / ray[2])[:2]


def boxes(low_W2: np.ndarray, high_W2: np.ndarray, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and triangles (F, 3) of boxes that stand on the floor.

    No two triangles share a vertex, so that faces are shaded flat.
    """
    corner_83 = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
    face = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6],
                     [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])
    low_W3 = np.pad(low_W2, ((0, 0), (0, 1)))
    size_W3 = np.pad(high_W2 - low_W2, ((0, 0), (0, 1)), constant_values=height)
    vertices = (low_W3[:, None] + corner_83[face].reshape(-1, 3) * size_W3[:, None]).reshape(-1, 3)
    return vertices, np.arange(len(vertices)).reshape(-1, 3)


class MazeScene:
    """A maze of PointMaze, whatever its map, seen from above at an angle.

    `side` 1 is drawn beside side 0. The handles of start and goal call `session.move_start` and `session.move_goal`
    while they are dragged.
    """

    def __init__(self, api: SceneApi, session: Session, side: int = 0):
        self.api, self.session = api, session
        self.loaded: Loaded = session.loaded if side == 0 else session.second or session.loaded
        maze = self.loaded.maze
        if maze is None:
            raise ValueError(f"{self.loaded.factory.env_id} is no maze of PointMaze")
        self.maze, self.width = maze, maze.free.shape[1] * maze.scaling
        self.shift = side * (self.width + GAP * maze.scaling)
        self.root = f"/run{side}"
        middle, rows = self.shift / 2, maze.free.shape[0] * maze.scaling
        self.camera = (middle, -0.7 * rows, 0.8 * max(rows, self.width + self.shift)), (middle, -0.05 * rows, 0.0)
        self.parts: dict[str, Any] = {"": api.add_frame(self.root, show_axes=False, position=(self.shift, 0.0, 0.0))}
        self.lines = {name: Lines(api, f"{self.root}/{name}", thickness) for name, thickness in
                      (("plans", THIN), ("outline", EDGE), ("chosen", THICK), ("path", THICK))}
        self.discs: dict[Disc, Any] = {}
        light(api)
        self._build()
        self.place(session)

    def close(self) -> None:
        self.parts[""].remove()

    def show(self, answer: Answer | None, frame: int | None = None, by: str = "trust") -> None:
        if answer is None or answer.loaded is not self.loaded:
            return
        if (noisy_NHD := answer.unfinished(frame)) is None:
            lines, crosses_S = [answer.places(n) for n in range(len(answer.x_NHD))], answer.crossing
        else:
            lines, crosses_S = list(noisy_NHD[..., list(self.loaded.dims)]), np.zeros(noisy_NHD.shape[1] - 1, bool)
        colours = plan_colours(answer, by)
        self.lines["plans"].draw(segments(lines, PLANS),
                                 np.repeat(colours, [max(len(line) - 1, 0) for line in lines], axis=0))
        chosen = segments([lines[answer.chosen]], CHOSEN)
        self.lines["outline"].draw(chosen - [0, 0, 0.005], np.array(rgb(INK)))
        self.lines["chosen"].draw(chosen, np.where(crosses_S[:, None], rgb(CROSSING), colours[answer.chosen]))

    def place(self, session: Session) -> None:
        start = [session.obs[dim] for dim in self.loaded.dims]
        goal = session.goal[:2] if len(session.goal) > 1 else None
        self.parts["start"].position = (*start, 0.12)
        for name in ("goal", "reached"):
            if name in self.parts and goal is not None:
                self.parts[name].position = (*goal, 0.12 if name == "goal" else 0.01)
        for disc in [each for each in self.discs if each not in session.discs]:
            self.discs.pop(disc).remove()
        for disc in [each for each in session.discs if each not in self.discs]:
            self.discs[disc] = self._disc(disc)

    def move(self, way: Way | None) -> None:
        shown = way is not None and way.loaded is self.loaded
        self.parts["body"].visible = shown
        places_T2 = np.zeros((0, 2))
        if way is not None and shown:
            places_T2 = np.array(way.path)[:, list(self.loaded.dims)]
            self.parts["body"].position = (*places_T2[-1], BODY)
        self.lines["path"].draw(segments([places_T2], PATH), np.array(rgb(BLUE)))

    def _build(self) -> None:
        api, root, maze = self.api, self.root, self.maze
        rows = maze.free.shape[0] * maze.scaling
        # Flat faces look the same in "toon" shades, which take a browser without a GPU less time.
        api.add_box(f"{root}/floor", FLOOR, dimensions=(self.width, rows, 0.02), position=(0, 0, -0.015),
                    material="toon3")
        low_W2, high_W2 = maze.wall_boxes()
        finite_W = (np.isfinite(low_W2) & np.isfinite(high_W2)).all(1)
        vertices, faces = boxes(low_W2[finite_W], high_W2[finite_W], HEIGHT * maze.scaling)
        api.add_mesh_simple(f"{root}/walls", vertices, faces, color=WALL, material="toon3")
        self.parts["start"] = self._marker("start", GREEN, self.session.move_start)
        if len(self.session.goal) > 1 and self.loaded.has_goal:
            self.parts["goal"] = self._marker("goal", GOAL, self.session.move_goal)
            self.parts["reached"] = api.add_cylinder(f"{root}/reached", REACHED, 0.01, color=rgb(GOAL),
                                                     opacity=0.18, cast_shadow=False)
        self.parts["body"] = api.add_icosphere(f"{root}/body", BODY, rgb(BLUE), visible=False)
        api.add_label(f"{root}/name", self.loaded.name, position=(0, rows / 2 + 0.3, HEIGHT))

    def _marker(self, name: str, colour: str, move: Any) -> Any:
        handle = self.api.add_icosphere(f"{self.root}/{name}", 0.16, rgb(colour))
        self.api.add_label(f"{self.root}/{name}/label", name, position=(0, 0, 0.25))

        def follow(event: Any) -> None:
            place = on_floor(event.client.camera.position, event.end_position, 0.12)
            if place is not None:
                move(place - [self.shift, 0])

        async def drag(event: Any) -> None:
            self.session.attempt(follow, event)

        handle.on_drag("left")(drag)
        return handle

    def _disc(self, disc: Disc) -> Any:
        handle = self.api.add_cylinder(f"{self.root}/disc-{disc.x:.4f}-{disc.y:.4f}-{disc.radius:.4f}", disc.radius,
                                       HEIGHT / 2, color=rgb(VERMILION), opacity=0.55,
                                       position=(disc.x, disc.y, HEIGHT / 4))

        async def remove(_: Any) -> None:
            self.session.remove_discs(disc)

        handle.on_click(remove)
        return handle


def scene_of(api: SceneApi, session: Session, side: int = 0) -> Scene:
    """The scene of a session's chosen run, or of the one beside it (side 1)."""
    if session.loaded.maze is not None:
        return MazeScene(api, session, side)
    return BodyScene(api, session, side)
