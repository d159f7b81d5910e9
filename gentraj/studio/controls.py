"""The panel of one browser: every control changes the session, which tells when there is something to draw."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from .export import downloads
from .latest import Latest
from .loading import alike
from .planning import Answer, described
from .scene import Place, Scene, on_floor, scene_of
from .session import Session
from .world_view import WorldView

if TYPE_CHECKING:
    from viser import GuiApi, SceneApi

NONE = "none"
MOST_CANDIDATES, MOST_SCALE, MOST_TEMPERATURE, MOST_SEED = 16, 10.0, 2.0, 99
LOOP = "Closed loop"
TEXTS_EVERY = 0.2  # seconds


class Controls:
    """The panel and the scenes of a session.

    `gui` and `api` are those of one client, so that nobody else sees them, or those of a server. `client` is the one
    that files are sent to.
    """

    def __init__(self, gui: GuiApi, api: SceneApi, session: Session, client: Any = None):
        self.gui, self.api, self.session, self.client = gui, api, session, client
        self.scenes: list[Scene] = []
        self.drawing = threading.RLock()  # plans and the closed loop are drawn by different threads
        self.telling: Latest[None] = Latest(lambda _: self._tell(), "studio-texts")
        self.planning: Any = None
        self.world_view: WorldView | None = None
        """What a world model shows in the place of plans."""
        self._build()
        self._rebuild()
        session.on_plan = session.loop.changed = self.draw
        session.ask()

    def draw(self) -> None:
        """Draws what the session has."""
        with self.drawing:
            session, driven = self.session, self.session.loop.drive
            frame = self._frame(session.answers.get(0))
            for side, scene in enumerate(self.scenes):
                scene.place(session)
                scene.move(None if driven is None else driven.way())
                answer = driven.plan if driven is not None and side == 0 else None
                scene.show(answer or session.answers.get(side), frame, self.by.value)
        self.telling.ask(None)

    def close(self) -> None:
        self.telling.close()
        if self.world_view is not None:
            self.world_view.close()
        self.session.close()

    @property
    def camera(self) -> tuple[Place, Place]:
        """Where a browser begins to look from, and at what."""
        return self.world_view.pair.camera if self.world_view is not None else self.scenes[-1].camera

    # -- the panel

    def _build(self) -> None:
        gui, session = self.gui, self.session
        gui.configure_theme(show_logo=False, show_share_button=False)
        gui.main_panel.dock_right()
        self.status = gui.add_markdown("", order=0)
        names = [each.name for each in session.runs]
        self.run = gui.add_dropdown("Run", names, order=1, hint="The run that plans")
        self.beside = gui.add_dropdown("Beside it", [NONE], order=2, hint="A second run with the same start and goal",
                                       visible=len(names) > 1)
        self.run.on_update(lambda _: session.attempt(self._choose))
        self.beside.on_update(lambda _: session.attempt(self._compare))
        with gui.add_folder("Denoising", order=4) as self.denoising:
            self.frame = gui.add_slider("Step", 0, 1, 1, 1, hint="Unfinished plans after each sampling step; the last "
                                        "is the plan")
            self.frame.on_update(lambda _: self.draw())
        with gui.add_folder("Obstacles", order=5) as self.obstacles:
            self.clicks = gui.add_checkbox("Click adds one", False, hint="A click on an obstacle removes it")
            self.radius = gui.add_slider("Radius", 0.1, 1.0, 0.05, 0.3)
            clear = gui.add_button("Remove all")
            clear.on_click(lambda _: session.remove_discs())
            self.clicks.on_update(lambda _: self._listen())
        with gui.add_folder(LOOP, order=6) as self.closed_loop:
            self.play, step, reset = (gui.add_button(name) for name in ("Play", "Step", "Reset"))
            self.loop = gui.add_markdown("")
            self.play.on_click(lambda _: session.attempt(self._play))
            step.on_click(lambda _: session.attempt(session.loop.step))
            reset.on_click(lambda _: session.attempt(session.reset))
        with gui.add_folder("Export", order=7, expand_by_default=False) as self.exports:
            for name, send in downloads(session, self.client, lambda: self.by.value).items():
                gui.add_button(name).on_click(lambda _, send=send: session.attempt(send))

    def _rebuild(self) -> None:
        """Makes the controls and scenes that depend on the chosen runs."""
        gui, session = self.gui, self.session
        loaded, own = session.loaded, session.own
        with self.drawing:
            if self.planning is not None:
                self.planning.remove()
            with gui.add_folder("Planning", order=3) as self.planning:
                self.sliders: dict[str, Any] = {}
                if loaded.most_steps > loaded.least_steps:
                    self._slider("steps", "Sampling steps", 1, loaded.most_steps, 1, own.steps)
                if loaded.several:
                    most = max(MOST_CANDIDATES, own.candidates)
                    self._slider("candidates", "Candidates", 1, most, 1, own.candidates)
                if loaded.guidance:
                    least, most = min(0.0, own.scale), max(MOST_SCALE, own.scale)
                    self._slider("scale", f"Guidance ({loaded.guidance})", least, most, 0.1, own.scale)
                if loaded.kind == "planner":
                    most = max(MOST_TEMPERATURE, own.temperature)
                    self._slider("temperature", "Temperature", 0.0, most, 0.05, own.temperature)
                self._slider("seed", "Seed", 0, MOST_SEED, 1, own.seed)
                valued = loaded.kind == "planner" and loaded.run.planning.select == "value"
                self.by = gui.add_dropdown("Colour", ["trust", "value"] if valued else ["trust"], visible=valued)
                self.by.on_update(lambda _: self.draw())
            self.obstacles.visible = loaded.kind == "planner" and loaded.maze is not None
            self.beside.options = (NONE, *(each.name for each in session.others))
            self.beside.value = NONE if session.second is None else session.second.name
            for scene in self.scenes if self.world_view is None else [self.world_view]:
                scene.close()
            imagines = loaded.kind == "world model"
            self.world_view = WorldView(gui, self.api, session, self.client) if imagines else None
            sides = 0 if imagines else 1 + (session.second is not None)
            self.scenes = [scene_of(self.api, session, side) for side in range(sides)]
            for folder in (self.planning, self.denoising, self.closed_loop, self.exports):
                folder.visible = not imagines

    def _slider(self, key: str, label: str, low: float, high: float, step: float, value: float) -> None:
        slider = self.gui.add_slider(label, low, high, step, value)
        slider.on_update(lambda _: self.session.set(**{key: slider.value}))
        self.sliders[key] = slider

    def _tell(self) -> None:
        """Writes the texts, which a browser takes longer to show than plans, and waits until it may do so again."""
        self.status.content = status(self.session)
        self.loop.content = self.session.loop.described()
        self.play.label = "Pause" if self.session.loop.playing.is_set() else "Play"
        time.sleep(TEXTS_EVERY)

    def _frame(self, answer: Answer | None) -> int | None:
        """The frame of the denoising to draw; None for the finished plan. Fits the slider to the number of frames."""
        steps = max(len(answer.frames) if answer is not None else 1, 1)
        self.denoising.visible = steps > 1 and self.world_view is None
        last = self.frame.value >= self.frame.max
        if self.frame.max != steps:
            self.frame.max = steps
            if last or self.frame.value > steps:
                self.frame.value = steps
        return None if self.frame.value >= steps else int(self.frame.value)

    # -- what the controls do

    def _choose(self) -> None:
        index = [each.name for each in self.session.runs].index(self.run.value)
        if index != self.session.index:
            before = self.session.loaded
            self.session.reset()
            self.session.choose(index)
            self._rebuild()
            if self.client is not None and not alike(before, self.session.loaded):
                self.client.camera.position, self.client.camera.look_at = self.camera
            self.session.ask()

    def _compare(self) -> None:
        names = [each.name for each in self.session.runs]
        index = None if self.beside.value == NONE else names.index(self.beside.value)
        if index != self.session.beside:
            self.session.compare(index)
            self._rebuild()
            if camera := getattr(self.client, "camera", None):
                camera.position, camera.look_at = self.camera
            self.session.ask()

    def _play(self) -> None:
        loop = self.session.loop
        if loop.playing.is_set():
            loop.pause()
        else:
            loop.play()
        self.draw()

    def _listen(self) -> None:
        """Listens to clicks on the floor only while they add obstacles."""
        self.api.remove_click_callback("all")
        if self.clicks.value:
            self.api.on_click()(self._clicked)

    def _clicked(self, event: Any) -> None:
        def add() -> None:
            place = on_floor(event.ray_origin, np.add(event.ray_origin, event.ray_direction))
            if place is not None:
                self.session.add_disc(place, self.radius.value)

        self.session.attempt(add)


def status(session: Session) -> str:
    """The runs with their latencies, and what is known of the newest plans, as Markdown."""
    rows = [f"| {'**' if each is session.loaded else ''}{each.name}{'**' if each is session.loaded else ''} "
            f"| {each.summary} | {session.plans.latency(each)} |" for each in session.runs]
    lines = ["| run | what it is | a plan takes |", "|---|---|---|", *rows, ""]
    answer = session.answers.get(0)
    if session.problem:
        lines.append(f"**{session.problem}**")
    elif answer is not None:
        rate = round(session.plans.rate)
        lines.append(described(answer) + (f" {rate} plans a second." if rate > 1 else ""))
    return "\n".join(lines)
