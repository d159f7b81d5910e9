"""The panel of one browser: every control changes the session, which tells when there is something to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gentraj.envs.tasks.maze import Disc

from .drawing import Place, colours_in_words, on_floor
from .loading import alike
from .planning import Answer, ranges
from .scene import MazeScene, Scene, scene_of
from .session import Session, play

if TYPE_CHECKING:
    from viser import ClientHandle, GuiSliderHandle, SceneClickEvent

TEXTS_EVERY = 0.2  # seconds
SLIDERS = {
    "steps": ("Sampling steps", 1, "Network calls of the sampler: more are finer and slower"),
    "candidates": ("Plans", 1, "How many are sampled, of which one is followed"),
    "candidates per arrival": ("Plans per arrival", 1, "How many are sampled for each time at which they may arrive"),
    "scale": ("Guidance", 0.1, "How much plans are pulled towards a high return; 0 is not at all"),
    "temperature": ("Temperature", 0.05, "How much noise is in the plans"),
    "seed": ("Seed", 1, "Other seeds give other plans")}
"""The label of each setting, the difference between two places of its slider, and what it is."""


class Controls:
    """The panel and the scene of a session.

    What a control changes is changed, and drawn, by the session's worker.
    """

    def __init__(self, session: Session, client: ClientHandle):
        self.session = session
        self.client = client
        self.gui = client.gui
        self.api = client.scene
        self._build()
        self._build_for_run()
        session.on_change = self.draw
        session.ask()

    def draw(self) -> None:
        """Draws what the session has, and its texts soon: a browser takes longer to show them than plans."""
        session = self.session
        answer, step = session.answer, 0
        frame = self._frame(answer)
        if session.drive is not None:
            step = session.drive.steps
            answer = session.drive.plan_at(step) or answer
        self.scene.draw(answer, step, frame)
        session.worker.do("texts", self._tell, TEXTS_EVERY)

    @property
    def camera(self) -> tuple[Place, Place]:
        """Where a browser begins to look from, and at what."""
        return self.scene.camera

    # -- the panel

    def _build(self) -> None:
        gui = self.gui
        session = self.session
        do = session.worker.do
        gui.configure_theme(show_logo=False, show_share_button=False)
        gui.main_panel.dock_right()
        self.status = gui.add_markdown("", order=0)
        names = [each.name for each in session.runs]
        self.run = gui.add_dropdown("Run", names, order=1, hint="The run that plans")
        self.run.on_update(lambda _: do("choose", self._choose))
        with gui.add_folder("Denoising", order=5) as self.denoising:
            self.frame = gui.add_slider("Step", 0, 1, 1, 1, hint="Unfinished plans after each sampling step; the last "
                                        "is the plan")
            self.frame.on_update(lambda _: do("draw", self.draw))
        with gui.add_folder("Obstacles", order=6) as self.obstacles:
            self.clicks = gui.add_checkbox("Click adds one", False, hint="A click on an obstacle removes it")
            self.radius = gui.add_slider("Radius", 0.1, 1.0, 0.05, 0.3, hint="In widths of a cell of the maze")
            gui.add_button("Remove all").on_click(lambda _: do("block", session.block))
            self.clicks.on_update(lambda _: self._listen())
        with gui.add_folder("Closed loop", order=3):
            self.play = gui.add_button("Play")
            self.play.on_click(lambda _: do("toggle", self._toggle))
            self.step = gui.add_button("Step")
            self.step.on_click(lambda _: do("step", session.step))
            self.reset = gui.add_button("Reset")
            self.reset.on_click(lambda _: do("reset", session.reset))
            self.loop = gui.add_markdown("")

    def _build_for_run(self) -> None:
        """Makes the controls and the scene that depend on the chosen run."""
        session = self.session
        loaded = session.loaded
        with self.gui.add_folder("Planning", order=4) as self.planning:
            self.sliders = {name: self._slider(name, *limits) for name, limits in ranges(loaded).items()}
        self.scene: Scene = scene_of(self.api, session)
        self.obstacles.visible = loaded.kind == "planner" and loaded.maze is not None

    def _slider(self, name: str, low: float, high: float) -> GuiSliderHandle[float]:
        """A slider for a setting of the chosen run."""
        session = self.session
        kind = name
        if name == "candidates" and session.loaded.has_goal:
            kind = "candidates per arrival"
        label, step, hint = SLIDERS[kind]
        slider = self.gui.add_slider(label, low, high, step, getattr(session.settings[session.loaded], name), hint=hint)
        slider.on_update(lambda _: session.worker.do(name, lambda: session.set(**{name: slider.value})))
        return slider

    def _tell(self) -> None:
        """Writes the texts."""
        session = self.session
        self.status.content = status(session, self.scene.legend)
        self.loop.content = "The agent is at the start."
        if session.drive is not None:
            self.loop.content = str(session.drive)
        self.play.label = "Play"
        if session.playing:
            self.play.label = "Pause"

    def _frame(self, answer: Answer | None) -> int | None:
        """The frame of the denoising to draw; None for the finished plan. Fits the slider to the number of frames."""
        steps = 1
        if answer is not None and answer.frames:
            steps = len(answer.frames)
        self.denoising.visible = steps > 1
        finished = self.frame.value >= self.frame.max
        if self.frame.max != steps:
            self.frame.max = steps
            if finished or self.frame.value > steps:
                self.frame.value = steps
        if self.frame.value >= steps:
            return None
        return int(self.frame.value)

    # -- what the controls do

    def _choose(self) -> None:
        session = self.session
        named = {each.name: each for each in session.runs}
        loaded = named[self.run.value]
        before = session.loaded
        if loaded is before:
            return
        session.reset()
        session.choose(loaded)
        self.planning.remove()
        self.scene.close()
        self._build_for_run()
        if not alike(before, loaded):
            self.client.camera.position, self.client.camera.look_at = self.camera
        self.draw()

    def _toggle(self) -> None:
        """Plays the closed loop, or pauses it."""
        self.session.playing = not self.session.playing
        play(self.session)
        self.draw()

    def _listen(self) -> None:
        """Listens to clicks on the floor only while they add obstacles."""
        self.api.remove_click_callback("all")
        if self.clicks.value:
            self.api.on_click()(self._add_disc)

    def _add_disc(self, event: SceneClickEvent) -> None:
        place = on_floor(event.ray_origin, np.add(event.ray_origin, event.ray_direction))
        scene = self.scene
        if place is not None and isinstance(scene, MazeScene):
            x, y = (place - scene.offset_2).tolist()
            disc = Disc(x, y, self.radius.value * scene.unit)
            self.session.worker.do(f"{disc}", lambda: self.session.block(*self.session.discs, disc))


def status(session: Session, legend: Sequence[str]) -> str:
    """The runs with their latencies, what is drawn, and what is known of the newest plans, as Markdown."""
    lines = ["| run | what it is | a plan takes |", "|---|---|---|"]
    for loaded in session.runs:
        name = loaded.name
        if loaded is session.loaded:
            name = f"**{name}**"
        latency = ""
        if loaded in session.latencies:
            latency = f"{session.latencies[loaded]:.0f} ms"
            if loaded.kind == "policy":
                latency = f"{session.latencies[loaded]:.2g} ms a step"
        lines.append(f"| {name} | {loaded.run.summary} | {latency} |")
    lines.append("")
    if session.problem:
        lines.append(f"**{session.problem}**")
    elif (answer := session.answer) is not None:
        lines += [f"- {line}" for line in (*legend, colours_in_words(answer), str(answer))]
    return "\n".join(lines)
