"""Signals over time, for runs in an environment that is not MuJoCo's: entries of observations and actions over steps.

In shapes, D is the entries of an observation and behind them those of an action, and E those that have a lane.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..plots.signals import choose_entries, executed, left_out
from ..plots.style import BLUE, GREEN, GREY
from ..runs.show.floor import entry_names
from .drawing import DRAG, GOAL, THICK, THIN, Lines, Place, light, on_floor, plan_colours, rgb
from .loading import Loaded
from .planning import Answer
from .session import Session

if TYPE_CHECKING:
    from viser import IcosphereHandle, LabelHandle, SceneApi, SceneNodeDragEvent

MOST_LANES = 8
WIDTH = 10.0  # of a lane
TALL = 7.0  # the height of all lanes
HIGHEST = 1.8  # of a lane with the gap above
FULL = 0.75  # of a lane is below its gap
BEYOND = 0.12  # how far a line leaves its lane, in heights
BALL = 0.12  # radius
AHEAD = 30  # steps that are shown where there is no plan
TURN = 20  # steps after which the window goes on
PAST = 2  # times as many steps are shown before the present as after it


class Ball(NamedTuple):
    """A ball in the lane of an entry."""

    handle: IcosphereHandle
    put: Callable[[int, float], None]
    """Puts it to a step and a value."""


class Lanes:
    """The entries that vary in the data, each in a lane as high as its range there or as the limits of an action, which
    are -1 and 1 where it has none.

    They stand upright in the plane y = 0, with the steps to the right. A line outside its lane is drawn along it.
    """

    def __init__(self, api: SceneApi, root: str, loaded: Loaded):
        self.api = api
        self.root = root
        self.lines: dict[str, Lines] = {}
        self.first = self.last = 0
        """The steps at the left end and at the right one."""
        ranges = loaded.run.ranges()
        limits_2A = np.array([loaded.space.low, loaded.space.high])
        limits_2A = np.where(np.isfinite(limits_2A), limits_2A, [[-1.0], [1.0]])
        low_D, high_D = np.concatenate([np.array([ranges.low_O.tolist(), ranges.high_O.tolist()]), limits_2A], axis=1)
        names = entry_names(loaded.run.data)
        varying, self.entries = choose_entries(low_D, high_D, MOST_LANES)
        self.low_E = low_D[self.entries]
        self.size_E = (high_D - low_D)[self.entries]
        lane = min(HIGHEST, TALL / len(self.entries))
        self.height = FULL * lane
        self.bottom_E = lane * np.arange(len(self.entries))[::-1]

        middle = (WIDTH / 2 - 0.6, 0.0, lane * len(self.entries) / 2 - 0.5)
        self.camera: tuple[Place, Place] = ((middle[0], -0.85 * max(WIDTH, TALL), middle[2]), middle)
        self.frame = api.add_frame(root, show_axes=False)
        light(api)
        for entry, z in zip(self.entries, self.bottom_E, strict=True):
            self._say(f"name{entry}", names[entry], -1.0, z + self.height / 2)
            self._say(f"low{entry}", f"{low_D[entry]:.3g}", -0.1, z)
            self._say(f"high{entry}", f"{high_D[entry]:.3g}", -0.1, z + self.height)
        below = ["environment steps", *left_out(names, varying, self.entries, low_D)]
        self._say("below", "; ".join(below), WIDTH, -0.6)
        self.ticks = [self._say(f"tick{x}", "", x + 0.1, -0.2) for x in (0.0, WIDTH / 2, WIDTH)]

    def close(self) -> None:
        self.frame.remove()

    def show(self, first: int, last: int) -> None:
        """Shows the steps from `first` to `last`, in whole `TURN`s: while a number changes, a slow browser draws none.
        """
        first = first // TURN * TURN
        last = -(-last // TURN) * TURN
        if (first, last) == (self.first, self.last):
            return
        self.first = first
        self.last = last
        for tick, step in zip(self.ticks, (first, (first + last) // 2, last), strict=True):
            tick.text = str(step)
        step_2 = np.array([first, last])
        edges_N2D = np.zeros((2, 2, 1 + self.entries[-1]))
        edges_N2D[..., self.entries] = np.stack([self.low_E, self.low_E + self.size_E])[:, None]
        self.draw("edges", step_2, edges_N2D, np.array(rgb(GREY)), 1.0)

    def draw(self, name: str, step_T: np.ndarray, x_NTD: np.ndarray, colours: np.ndarray, thickness: float) -> None:
        """Draws N sequences at these steps, in the place of those that had the name, above what was first drawn before.

        They may lack the last entries. `colours` are (3,), or (N, 1, 3), or (1, T - 1, 3) for each part. Nothing is
        drawn of what is NaN.
        """
        if name not in self.lines:
            self.lines[name] = Lines(self.api, f"{self.root}/{name}", thickness)
        lacking = max(0, 1 + int(self.entries[-1]) - x_NTD.shape[-1])
        x_NTD = np.pad(x_NTD, ((0, 0), (0, 0), (0, lacking)), constant_values=np.nan)
        part_NTE = np.clip((x_NTD[..., self.entries] - self.low_E) / self.size_E, -BEYOND, 1 + BEYOND)
        place_NTE3 = np.zeros((*part_NTE.shape, 3))
        place_NTE3[..., 0] = self.across(step_T)[:, None]
        place_NTE3[..., 1] = -0.01 * list(self.lines).index(name)
        place_NTE3[..., 2] = self.bottom_E + self.height * part_NTE
        part_NSE23 = np.stack([place_NTE3[:, :-1], place_NTE3[:, 1:]], 3)
        inside_S = (step_T[:-1] >= self.first) & (step_T[1:] <= self.last)
        shown_NSE = np.isfinite(part_NSE23).all((3, 4)) & inside_S[:, None]
        colours_NSE3 = np.broadcast_to(colours[..., None, :], (*shown_NSE.shape, 3))
        self.lines[name].draw(part_NSE23[shown_NSE], colours_NSE3[shown_NSE])

    def hide(self, name: str) -> None:
        """Draws no longer what has the name."""
        if name in self.lines:
            self.lines[name].draw(np.zeros((0, 2, 3)), np.zeros(3))

    def across(self, step_T: np.ndarray) -> np.ndarray:
        """(T,) where these steps are."""
        return WIDTH * (step_T - self.first) / (self.last - self.first)

    def ball(self, name: str, entry: int, colour: str, move: Callable[[float], None], label: str) -> Ball:
        """A ball in the lane of an entry, with a label unless that is empty; `move` is called with the value to which
        it is dragged."""
        [row] = np.flatnonzero(self.entries == entry)
        bottom = self.bottom_E[row]
        low = self.low_E[row]
        size = self.size_E[row]
        handle = self.api.add_icosphere(f"{self.root}/{name}", BALL, rgb(colour))
        if label:
            self.api.add_label(f"{self.root}/{name}/label", label, position=(0.1, 0.0, 0.4))

        def put(step: int, value: float) -> None:
            z = bottom + self.height * (value - low) / size
            handle.position = (float(self.across(np.array(step))), 0.0, float(z))

        async def drag(event: SceneNodeDragEvent) -> None:
            ends_23 = np.array([event.client.camera.position, event.end_position])
            place = on_floor(*ends_23[:, [0, 2, 1]])  # the plane y = 0 is upright
            if place is not None:
                part = np.clip((place[1] - self.frame.position[2] - bottom) / self.height, 0, 1)
                move(float(low + size * part))

        handle.on_drag("left")(drag)
        return Ball(handle, put)

    def _say(self, name: str, text: str, x: float, z: float) -> LabelHandle:
        return self.api.add_label(f"{self.root}/{name}", text, position=(x, 0.0, z), anchor="center-right")


class SignalScene:
    """What an agent observed and did, and what it plans, over time.

    What a planner begins from can be dragged before the first step, and a goal at any time.
    """

    legend: tuple[str, ...] = (
        "Steps go to the right: blue is what was observed and done, then come plans; the thick one is followed.",
        "A lane is an entry's range in the data, or an action's limits. Drag a planner's balls up or down.")

    def __init__(self, api: SceneApi, session: Session):
        self.session = session
        self.loaded = session.loaded
        self.lanes = Lanes(api, "/run", self.loaded)
        self.camera = self.lanes.camera
        self.close = self.lanes.close
        self.starts: dict[int, Ball] = {}
        """The balls by entries of the observation."""
        self.goals: dict[int, Ball] = {}
        """The balls by entries of the goal."""
        data = self.loaded.run.data
        ball = self.lanes.ball
        for entry in map(int, self.lanes.entries):
            if entry < data.obs_dim and self.loaded.kind == "planner":
                label = "" if self.starts else f"start{DRAG}"
                self.starts[entry] = ball(f"start{entry}", entry, GREEN, self._asks(session.start_at, entry), label)
            if entry in data.goal_dims:
                label = "" if self.goals else f"goal{DRAG}"
                index = data.goal_dims.index(entry)
                self.goals[index] = ball(f"goal{index}", entry, GOAL, self._asks(session.aim_at, index), label)

    def draw(self, answer: Answer | None, step: int = 0, frame: int | None = None) -> None:
        drive = self.session.drive
        if drive is not None and self.loaded.kind == "policy":  # what it would do is shown from the start
            answer = None
        last = step + AHEAD
        if answer is not None:
            last = max(step + 1, int(answer.step_H[-1]))
        self.lanes.show(max(step - PAST * (last - step), 0), last)
        for entry, ball in self.starts.items():
            ball.handle.visible = drive is None
            ball.put(step, self.session.obs[entry])
        for index, ball in self.goals.items():
            ball.put(last, self.session.goal[index])
        for name in ("executed", "plans", "chosen"):
            self.lanes.hide(name)
        if drive is not None and step:
            x_1TD = executed(np.array(drive.path[: step + 1]), np.array(drive.actions[:step]))
            self.lanes.draw("executed", np.arange(step + 1), x_1TD, np.array(rgb(BLUE)), THICK)
        if answer is not None:
            self._draw_plans(answer, frame)

    def _draw_plans(self, answer: Answer, frame: int | None) -> None:
        x_NHD = answer.x_NHD
        if frame is not None and frame < len(answer.frames):
            x_NHD = answer.frames[frame]
        after_NH = np.arange(x_NHD.shape[1]) > answer.arrival_step_N[:, None]
        x_NHD = np.where(after_NH[..., None], np.nan, x_NHD)
        colours_N13 = plan_colours(answer)[:, None]
        chosen = slice(answer.chosen, answer.chosen + 1)
        step_H = answer.step_H[: x_NHD.shape[1]]  # a plan that was made longer has frames of its first part
        self.lanes.draw("plans", step_H, x_NHD, colours_N13, THIN)
        self.lanes.draw("chosen", step_H, x_NHD[chosen], colours_N13[chosen], THICK)

    def _asks(self, change: Callable[[dict[int, float]], None], index: int) -> Callable[[float], None]:
        """A function that has the session change one entry to a value."""
        return lambda value: self.session.worker.do(f"move {index}", lambda: change({index: value}))
