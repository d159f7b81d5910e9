"""The 3-D scene of a maze: walls, start and goal to be dragged, obstacles, plans and the executed path."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike

from gentraj.envs.tasks.maze import Maze

from ..plots.style import BLUE, GREEN, INK, VERMILION
from .bodies import BodyScene
from .drawing import Lines, light, plan_colours, rgb, segments
from .loading import BODY
from .planning import Answer, Disc
from .session import Session

if TYPE_CHECKING:
    from viser import CylinderHandle, IcosphereHandle, SceneApi, SceneNodeDragEvent

GOAL = CROSSING = "#C8102E"  # red, which no plan has but where it crosses a wall or an obstacle
WALL, FLOOR = (196, 201, 208), (246, 247, 249)
HEIGHT = 0.25  # of the walls, in cells
MARKER = 0.12  # the height of the middle of start and goal above the floor
PLANS = 0.03  # heights of the lines above the floor
CHOSEN = 0.05
PATH = 0.07
THIN = 1.5  # their thickness in pixels
THICK = 4.0
EDGE = 7.0
REACHED = 0.45  # the distance from the goal that counts as success
GAP = 1.0  # between two mazes, in cells

Place = tuple[float, float, float]


class Scene(Protocol):
    """What is drawn for one run of a session."""

    camera: tuple[Place, Place]
    """Where a browser begins to look from, and at what."""

    def draw(self, answer: Answer | None, step: int = 0, frame: int | None = None) -> None:
        """Draws the session's start, goal and obstacles, its closed loop as it was after `step` steps, and plans, or a
        frame of their denoising."""
        ...

    def close(self) -> None: ...


def on_floor(eye_3: ArrayLike, through_3: ArrayLike, height: float = 0.0) -> np.ndarray | None:
    """Where the ray from the eye through a point meets the plane at a height: (2,), or None if it never does."""
    eye = np.array(eye_3, float)
    ray = np.array(through_3, float) - eye
    if ray[2] == 0 or (height - eye[2]) / ray[2] <= 0:
        return None
    return (eye + ray * (height - eye[2]) / ray[2])[:2]


class MazeScene:
    """A maze of PointMaze, whatever its map, seen from above at an angle.

    `side` 1 is drawn beside side 0. While the balls at start and goal are dragged, the session moves them.
    """

    def __init__(self, api: SceneApi, session: Session, side: int, maze: Maze):
        self.api = api
        self.session = session
        self.loaded = session.shown[side]
        depth, self.width = (np.array(maze.free.shape) * maze.scaling).tolist()
        self.shift = side * (self.width + GAP * maze.scaling)
        middle = self.shift / 2
        self.camera = (middle, -0.7 * depth, 0.8 * max(depth, self.width + self.shift)), (middle, -0.05 * depth, 0.0)
        self.root = f"/run{side}"
        self.frame = api.add_frame(self.root, show_axes=False, position=(self.shift, 0.0, 0.0))
        light(api)
        self._build_maze(maze, depth)
        self.start = self._marker("start", GREEN, session.move_start)
        self.goal: IcosphereHandle | None = None
        if len(session.goal) > 1 and self.loaded.has_goal:
            self.goal = self._marker("goal", GOAL, session.move_goal)
            self.reached = api.add_cylinder(f"{self.root}/reached", REACHED, 0.01, color=rgb(GOAL), opacity=0.18,
                                            cast_shadow=False)
        self.body = api.add_icosphere(f"{self.root}/body", BODY, rgb(BLUE), visible=False)
        self.plans = Lines(api, f"{self.root}/plans", THIN)
        self.outline = Lines(api, f"{self.root}/outline", EDGE)
        self.chosen = Lines(api, f"{self.root}/chosen", THICK)
        self.path = Lines(api, f"{self.root}/path", THICK)
        self.discs: dict[Disc, CylinderHandle] = {}
        self._place()

    def close(self) -> None:
        self.frame.remove()

    def draw(self, answer: Answer | None, step: int = 0, frame: int | None = None) -> None:
        self._place()
        self._draw_path(step)
        if answer is not None and answer.loaded is self.loaded:
            self._draw_plans(answer, frame)

    def _draw_plans(self, answer: Answer, frame: int | None) -> None:
        if frame is None or frame >= len(answer.frames):
            lines = [answer.places(n) for n in range(len(answer.x_NHD))]
            crosses_S = answer.crossing
        else:
            lines = list(answer.frames[frame][..., list(self.loaded.dims)])
            crosses_S = np.zeros(answer.x_NHD.shape[1] - 1, bool)
        colours_N3 = plan_colours(answer)
        self.plans.draw(segments(lines, PLANS),
                        np.repeat(colours_N3, [max(len(line) - 1, 0) for line in lines], axis=0))
        chosen_M23 = segments([lines[answer.chosen]], CHOSEN)
        self.outline.draw(chosen_M23 - [0, 0, 0.005], np.array(rgb(INK)))
        self.chosen.draw(chosen_M23, np.where(crosses_S[:, None], rgb(CROSSING), colours_N3[answer.chosen]))

    def _place(self) -> None:
        """Moves start, goal and obstacles to where they are in the session."""
        x, y = [self.session.obs[dim] for dim in self.loaded.dims]
        self.start.position = x, y, MARKER
        if self.goal is not None:
            x, y = self.session.goal[:2]
            self.goal.position = x, y, MARKER
            self.reached.position = x, y, 0.01
        for disc in set(self.discs) - set(self.session.discs):
            self.discs.pop(disc).remove()
        for disc in set(self.session.discs) - set(self.discs):
            self.discs[disc] = self._disc(disc)

    def _draw_path(self, step: int) -> None:
        """Draws the body and the executed path of the closed loop."""
        drive = self.session.drive
        places_T2 = np.zeros((0, 2))
        self.body.visible = drive is not None and drive.loaded is self.loaded
        if drive is not None and drive.loaded is self.loaded:
            places_T2 = np.array(drive.path[: step + 1])[:, list(self.loaded.dims)]
            self.body.position = *places_T2[-1], BODY
        self.path.draw(segments([places_T2], PATH), np.array(rgb(BLUE)))

    def _build_maze(self, maze: Maze, depth: float) -> None:
        import trimesh  # which comes with viser

        # Flat faces look the same in "toon" shades, which take a browser without a GPU less time.
        self.api.add_box(f"{self.root}/floor", FLOOR, dimensions=(self.width, depth, 0.02), position=(0, 0, -0.015),
                         material="toon3")
        low_W2, high_W2 = maze.wall_boxes()
        finite_W = (np.isfinite(low_W2) & np.isfinite(high_W2)).all(1)
        # No two triangles share a vertex, so that faces are shaded flat.
        corners_F33 = np.concatenate([
            trimesh.creation.box(bounds=[[*low_2, 0.0], [*high_2, HEIGHT * maze.scaling]]).triangles
            for low_2, high_2 in zip(low_W2[finite_W], high_W2[finite_W], strict=True)])
        faces_F3 = np.arange(corners_F33.size // 3).reshape(-1, 3)
        self.api.add_mesh_simple(f"{self.root}/walls", corners_F33.reshape(-1, 3), faces_F3, color=WALL,
                                 material="toon3")
        self.api.add_label(f"{self.root}/name", self.loaded.name, position=(0, depth / 2 + 0.3, HEIGHT))

    def _marker(self, name: str, colour: str, move: Callable[[np.ndarray], None]) -> IcosphereHandle:
        """A ball that can be dragged; `move` is called with the place on the floor under it."""
        handle = self.api.add_icosphere(f"{self.root}/{name}", 0.16, rgb(colour))
        self.api.add_label(f"{self.root}/{name}/label", name, position=(0, 0, 0.25))

        async def drag(event: SceneNodeDragEvent) -> None:
            place = on_floor(event.client.camera.position, event.end_position, MARKER)
            if place is not None:
                self.session.worker.do(f"move {name}", lambda: move(place - [self.shift, 0]))

        handle.on_drag("left")(drag)
        return handle

    def _disc(self, disc: Disc) -> CylinderHandle:
        handle = self.api.add_cylinder(f"{self.root}/disc-{disc.x:.4f}-{disc.y:.4f}-{disc.radius:.4f}", disc.radius,
                                       HEIGHT / 2, color=rgb(VERMILION), opacity=0.55,
                                       position=(disc.x, disc.y, HEIGHT / 4))

        def remove() -> None:
            self.session.block(*(each for each in self.session.discs if each != disc))

        handle.on_click(lambda _: self.session.worker.do(f"remove {disc}", remove))
        return handle


def scene_of(api: SceneApi, session: Session, side: int = 0) -> Scene:
    """The scene of a session's chosen run, or of the one beside it (side 1)."""
    maze = session.loaded.maze
    if maze is not None:
        return MazeScene(api, session, side, maze)
    return BodyScene(api, session, side)
