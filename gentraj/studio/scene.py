"""The 3-D scene of a maze: walls, start and goal to be dragged, obstacles, plans and the executed path."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from gentraj.agents.roadmap.far_goals import roadmap_of_tensors
from gentraj.envs.tasks.maze import Disc, Maze

from ..plots.style import BLUE, GREEN, GREY, INK, PURPLE, VERMILION
from .bodies import Body, BodyScene
from .drawing import (
    CROSSING,
    DRAG,
    EDGE,
    GOAL,
    THICK,
    THIN,
    Lines,
    Place,
    light,
    on_floor,
    plan_colours,
    rgb,
    segments,
)
from .lanes import SignalScene
from .planning import Answer
from .session import Session

if TYPE_CHECKING:
    from viser import CylinderHandle, IcosphereHandle, SceneApi, SceneNodeDragEvent

WALL, FLOOR = (196, 201, 208), (246, 247, 249)
# Lengths in cells of the maze.
HEIGHT = 0.25  # of the walls
BALL = 0.16  # radius of start and goal
MARKER = 0.12  # the height of their middle above the floor
WAY = 0.02  # heights of the lines above the floor
PLANS = 0.03
CHOSEN = 0.05
PATH = 0.07
PLACE = 0.04  # diameter of a place of the roadmap
BROAD = 8.0

class Scene(Protocol):
    """What is drawn for one run of a session."""

    camera: tuple[Place, Place]
    """Where a browser begins to look from, and at what."""
    legend: tuple[str, ...]
    """What is drawn, in words."""

    def draw(self, answer: Answer | None, step: int = 0, frame: int | None = None) -> None:
        """Draws the session's start, goal and obstacles, its closed loop as it was after `step` steps, and plans, or a
        frame of their denoising."""
        ...

    def close(self) -> None: ...


class MazeScene:
    """The maze of a run's environment, seen from above at an angle.

    While the balls at start and goal are dragged, the session moves them. Of a run with a roadmap, its places are
    drawn, and the way of a planner to the goal.
    """

    legend: tuple[str, ...] = ("Drag a ball, the start or the goal: the plans follow.",
                               "A thin line is a plan up to where it arrives; the thick one is followed.")

    def __init__(self, api: SceneApi, session: Session, maze: Maze):
        self.api = api
        self.session = session
        self.loaded = session.loaded
        self.unit = maze.scaling
        depth, self.width = (np.array(maze.free.shape) * self.unit).tolist()
        self.camera = ((0.0, -0.7 * depth, 0.8 * max(depth, self.width)), (0.0, -0.05 * depth, 0.0))
        self.offset_2 = -maze.middle
        """Where the origin of the environment is drawn."""
        self.root = "/run"
        self.frame = api.add_frame(self.root, show_axes=False, position=(*self.offset_2, 0.0))
        light(api)
        self._build_maze(maze, depth)
        self.start = self._marker("start", GREEN, session.move_start)
        self.goal: IcosphereHandle | None = None
        if len(session.goal) > 1 and self.loaded.has_goal:
            self.goal = self._marker("goal", GOAL, session.move_goal)
            self.reached = api.add_cylinder(f"{self.root}/reached", self.loaded.goal_radius, 0.01, color=rgb(GOAL),
                                            opacity=0.18, cast_shadow=False)
        self.body = Body(api, f"{self.root}/body", self.loaded.base.model)
        self.way = Lines(api, f"{self.root}/way", BROAD)
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
        if answer is not None:
            self._draw_plans(answer, frame)

    def _draw_plans(self, answer: Answer, frame: int | None) -> None:
        if frame is None or frame >= len(answer.frames):
            lines = [answer.places(n) for n in range(len(answer.x_NHD))]
            crosses_S = answer.crossing
        else:
            lines = list(answer.frames[frame][..., list(self.loaded.dims)])
            crosses_S = np.zeros(len(lines[answer.chosen]) - 1, bool)
        colours_N3 = plan_colours(answer)
        way_W2 = np.zeros((0, 2))
        if answer.route is not None:
            way_W2 = answer.route.place_NG[:, :2]
        self.way.draw(segments([way_W2], WAY * self.unit), np.array(rgb(PURPLE)))
        self.plans.draw(segments(lines, PLANS * self.unit),
                        np.repeat(colours_N3, [max(len(line) - 1, 0) for line in lines], axis=0))
        chosen_M23 = segments([lines[answer.chosen]], CHOSEN * self.unit)
        self.outline.draw(chosen_M23 - [0, 0, 0.005 * self.unit], np.array(rgb(INK)))
        self.chosen.draw(chosen_M23, np.where(crosses_S[:, None], rgb(CROSSING), colours_N3[answer.chosen]))

    def _place(self) -> None:
        """Moves start, goal and obstacles to where they are in the session."""
        x, y = [self.session.obs[dim] for dim in self.loaded.dims]
        self.start.position = x, y, MARKER * self.unit
        if self.goal is not None:
            x, y = self.session.goal[:2]
            self.goal.position = x, y, MARKER * self.unit
            self.reached.position = x, y, 0.01
        for disc in set(self.discs) - set(self.session.discs):
            self.discs.pop(disc).remove()
        for disc in set(self.session.discs) - set(self.discs):
            self.discs[disc] = self._disc(disc)

    def _draw_path(self, step: int) -> None:
        """Draws the body and the executed path of the closed loop."""
        drive = self.session.drive
        places_T2 = np.zeros((0, 2))
        if drive is not None:
            places_T2 = np.array(drive.path[: step + 1])[:, list(self.loaded.dims)]
            self.body.draw(drive.postures[step][None])
        else:
            self.body.hide()
        self.path.draw(segments([places_T2], PATH * self.unit), np.array(rgb(BLUE)))

    def _build_maze(self, maze: Maze, depth: float) -> None:
        import trimesh  # which comes with viser

        # Flat faces look the same in "toon" shades, which take a browser without a GPU less time.
        x, y = maze.middle
        self.api.add_box(f"{self.root}/floor", FLOOR, dimensions=(self.width, depth, 0.02), position=(x, y, -0.015),
                         material="toon3")
        for doors, opacity in ((maze.entrances, 0.7), (maze.exits, 0.2)):
            for door in doors:
                self.api.add_cylinder(f"{self.root}/door-{door.x:g}-{door.y:g}", door.radius, 0.01, color=rgb(INK),
                                      opacity=opacity, position=(door.x, door.y, 0.005))
        run = self.loaded.run
        if run.roadmap is not None:
            place_P2 = roadmap_of_tensors(run.kept).core_PG[:, :2]
            place_P3 = np.pad(place_P2, ((0, 0), (0, 1)), constant_values=WAY * self.unit / 2)
            self.api.add_point_cloud(f"{self.root}/places", place_P3, rgb(GREY), point_size=PLACE * self.unit,
                                     point_shape="circle")
        low_W2, high_W2 = maze.wall_boxes()
        finite_W = (np.isfinite(low_W2) & np.isfinite(high_W2)).all(1)
        # No two triangles share a vertex, so that faces are shaded flat.
        corners_F33 = np.concatenate([
            trimesh.creation.box(bounds=[[*low_2, 0.0], [*high_2, HEIGHT * self.unit]]).triangles
            for low_2, high_2 in zip(low_W2[finite_W], high_W2[finite_W], strict=True)])
        faces_F3 = np.arange(corners_F33.size // 3).reshape(-1, 3)
        self.api.add_mesh_simple(f"{self.root}/walls", corners_F33.reshape(-1, 3), faces_F3, color=WALL,
                                 material="toon3")
        self.api.add_label(f"{self.root}/name", self.loaded.name,
                           position=(x, y + depth / 2 + 0.3 * self.unit, HEIGHT * self.unit))

    def _marker(self, name: str, colour: str, move: Callable[[np.ndarray], None]) -> IcosphereHandle:
        """A ball that can be dragged; `move` is called with the place on the floor under it."""
        handle = self.api.add_icosphere(f"{self.root}/{name}", BALL * self.unit, rgb(colour))
        self.api.add_label(f"{self.root}/{name}/label", f"{name}{DRAG}", position=(0, 0, 0.25 * self.unit))

        async def drag(event: SceneNodeDragEvent) -> None:
            place = on_floor(event.client.camera.position, event.end_position, MARKER * self.unit)
            if place is not None:
                self.session.worker.do(f"move {name}", lambda: move(place - self.offset_2))

        handle.on_drag("left")(drag)
        return handle

    def _disc(self, disc: Disc) -> CylinderHandle:
        height = HEIGHT * self.unit
        handle = self.api.add_cylinder(f"{self.root}/disc-{disc.x:.4f}-{disc.y:.4f}-{disc.radius:.4f}", disc.radius,
                                       height / 2, color=rgb(VERMILION), opacity=0.55,
                                       position=(disc.x, disc.y, height / 4))

        def remove() -> None:
            self.session.block(*(each for each in self.session.discs if each != disc))

        handle.on_click(lambda _: self.session.worker.do(f"remove {disc}", remove))
        return handle


def scene_of(api: SceneApi, session: Session) -> Scene:
    """The scene of a session's run."""
    maze = session.loaded.maze
    if session.loaded.base is None:
        return SignalScene(api, session)
    if maze is not None:
        return MazeScene(api, session, maze)
    return BodyScene(api, session)
