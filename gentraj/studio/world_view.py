"""The panel and the scene of a world model: what it predicts beside what the simulator does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gentraj.envs.rendering import placed

from ..plots.style import BLUE, INK, VERMILION
from ..progress import one_line
from .bodies import Body, draw_ground, lane_width, spread
from .drawing import Lines, light, pieces, rgb, trust_colours
from .driving import SideBySide, compare_with_simulator
from .lanes import SignalPair
from .loading import Loaded, agents_like

if TYPE_CHECKING:
    from viser import GuiApi, SceneApi

    from .session import Session

RANDOM = "random"
SHOWN_STEPS = 100  # that are shown at first
MOST_STEPS = 500
FRAMES_PER_SECOND = 20.0  # of the simulator's steps while they are played
SERIES = ({"label": "step"}, {"label": "error", "stroke": VERMILION, "width": 2},
          {"label": "uncertainty", "stroke": BLUE, "width": 2})


class Pair:
    """Two bodies: the simulator's in its own colours, and the predicted one coloured by the model's uncertainty.

    In a maze both move in the same place; on an endless floor the predicted one runs in a lane behind the other.
    """

    legend = ("The body in colours of its own is the simulator's, the other one is predicted: blue where the model is "
              "trusted, orange where not.")

    def __init__(self, api: SceneApi, root: str, world: Loaded):
        self.model = world.base.model
        self.fixed_place = world.maze is not None
        self.frame = api.add_frame(root, show_axes=False)
        light(api, cast_shadow=not self.fixed_place)
        draw_ground(api, root, self.model)
        self.real = Body(api, f"{root}/real", self.model)
        self.predicted = Body(api, f"{root}/predicted", self.model)
        self.real_way = Lines(api, f"{root}/real-way", 4.0)
        self.predicted_way = Lines(api, f"{root}/predicted-way", 4.0)
        self.lane_3 = np.zeros(3)
        if world.maze is not None:
            x, y = world.maze.middle
            self.frame.position = (-x, -y, 0.0)
            size = float(self.model.stat.extent)
            self.camera = (0.0, -1.3 * size, 1.3 * size), (0.0, 0.0, 0.2 * size)
        else:
            self.lane_3[1] = lane_width(self.model)
            size = 1.5 * float(max(spread(self.model)))
            self.camera = (0.0, -1.3 * size, 0.8 * size), (0.0, 0.0, 0.2 * size)

    def close(self) -> None:
        self.frame.remove()

    def draw(self, beside: SideBySide, step: int) -> None:
        """Draws both after `step` steps, with the ways of their roots until then."""
        self.real.draw(beside.qpos_SQ[step][None])
        place_M3 = self._root(beside.qpos_SQ[: step + 1])
        self.real_way.draw(pieces(place_M3), np.array(rgb(INK)))
        if not self.fixed_place:
            self.frame.position = (-place_M3[-1, 0], -place_M3[-1, 1], 0.0)
        if beside.predicted_qpos_SQ is not None:
            colours_T3 = trust_colours(beside.uncertainty_T / beside.limit)
            self.predicted.draw(beside.predicted_qpos_SQ[step][None], colours_T3[max(step - 1, 0)][None],
                                np.full(1, 0.75), self.lane_3[None])
            place_M3 = self._root(beside.predicted_qpos_SQ[: step + 1]) + self.lane_3
            self.predicted_way.draw(pieces(place_M3), colours_T3[:step])

    def _root(self, qpos_MQ: np.ndarray) -> np.ndarray:
        """The places (M, 3) of the first body that moves."""
        moving = np.flatnonzero(self.model.body_dofnum)
        return placed(self.model, qpos_MQ)[0][:, moving[0]]


def pair_of(api: SceneApi, root: str, world: Loaded) -> Pair | SignalPair:
    """What shows the simulator and the prediction: bodies, or in an environment that is not MuJoCo's signals."""
    if world.base is None:
        return SignalPair(api, root, world)
    return Pair(api, root, world)


class WorldView:
    """The controls of a world model's run and its scene, for one browser; the session's worker does what they ask."""

    def __init__(self, gui: GuiApi, api: SceneApi, session: Session):
        self.gui = gui
        self.session = session
        self.world = session.loaded
        self.pair = pair_of(api, "/prediction", self.world)
        self.beside: SideBySide | None = None
        self.playing = False
        self.actors = {each.name: each for each in agents_like(self.world, session.runs)}
        self._build()
        self.ask()

    def ask(self) -> None:
        """Asks for a prediction with the settings of the panel."""
        self.session.worker.do("predict", self._predict)

    def close(self) -> None:
        """Removes the panel and the scene; called by the worker, as all that draws."""
        for name in ("predict", "show", "play"):
            self.session.worker.waiting.pop(name, None)
        self.folder.remove()
        self.pair.close()

    def _build(self) -> None:
        gui = self.gui
        do = self.session.worker.do
        with gui.add_folder("Prediction") as self.folder:
            self.status = gui.add_markdown("")
            self.step = gui.add_slider("Step", 0, SHOWN_STEPS, 1, 0)
            self.button = gui.add_button("Play")
            self.chart = gui.add_uplot(_series(np.zeros(2), np.zeros(2)), SERIES, aspect=1.6,  # type: ignore[arg-type]
                                       scales={"x": {"time": False}},  # steps, which it would take for seconds
                                       title="error and uncertainty (deviations of one step)")
            self.actor = gui.add_dropdown("Actions of", [*self.actors, RANDOM], hint="The run whose agent acts in the "
                                          "simulator; the world model predicts the outcome of the same actions.")
            most = min(self.world.factory.max_episode_steps, MOST_STEPS)
            self.steps = gui.add_slider("Steps", min(10, most), most, 1, min(SHOWN_STEPS, most))
            self.restart = gui.add_slider("Restart every", 0, 100, 1, 0, hint="Steps after which the prediction "
                                          "begins again at the simulator's state; 0 is never.")
            self.noise = gui.add_slider("Noise", 0.0, 1.0, 0.05, 0.0, hint="0 is the model's mean, 1 its samples.")
            self.seed = gui.add_number("Seed", 0, min=0, max=2**31 - 1, step=1)
        for setting in (self.actor, self.steps, self.restart, self.noise, self.seed):
            setting.on_update(lambda _: self.ask())
        self.step.on_update(lambda _: do("show", self._show))
        self.button.on_click(lambda _: do("toggle", self._toggle))

    def _predict(self) -> None:
        try:
            beside = compare_with_simulator(self.world, self.actors.get(self.actor.value), int(self.steps.value),
                                            int(self.restart.value), float(self.noise.value), int(self.seed.value))
        except (ValueError, RuntimeError) as error:
            self.status.content = one_line(error)
            return
        self.beside = beside
        self.step.max = len(beside.act_TA)
        self.step.value = len(beside.act_TA)
        self.chart.data = _series(beside.error_T, beside.uncertainty_T)
        self._show()  # also if the slider was there already

    def _show(self) -> None:
        """Draws both bodies after as many steps as the slider says."""
        if self.beside is not None:
            step = min(int(self.step.value), len(self.beside.act_TA))
            self.pair.draw(self.beside, step)
            self.status.content = self._status(self.beside, step)

    def _toggle(self) -> None:
        self.playing = not self.playing
        self._play()

    def _play(self) -> None:
        """Shows the next step, after the last one the first, and goes on until the last one."""
        self.button.label = "Play"
        if self.playing and self.beside is not None:
            last = len(self.beside.act_TA)
            self.step.value = (int(self.step.value) + 1) % (last + 1)  # which shows it
            self.playing = self.step.value < last
        if self.playing:
            self.button.label = "Pause"
            self.session.worker.do("play", self._play, 1 / FRAMES_PER_SECOND)

    def _status(self, beside: SideBySide, step: int) -> str:
        T = len(beside.act_TA)
        lines = [f"**{self.world.name}** beside the simulator, step {step} of {T}"]
        if step:
            lines.append(f"error {beside.error_T[step - 1]:.2f}, uncertainty {beside.uncertainty_T[step - 1]:.2f} "
                         f"(trusted up to {beside.limit:.2f})")
        if beside.trusted == T:
            lines.append(f"trusted for all {T} steps")
        else:
            lines.append(f"trusted for {beside.trusted} steps: {beside.why_T[beside.trusted]}")
        if beside.ended:
            lines.append(f"the simulator's episode ended after {T} steps ({beside.ended})")
        if beside.predicted_qpos_SQ is None and self.world.base is not None:
            lines.append("the model's observations do not tell a posture, so that its body is not drawn")
        lines.append(self.pair.legend)
        return "  \n".join(lines)


def _series(error_T: np.ndarray, uncertainty_T: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three lines of the chart; a chart needs at least two points."""
    error_M, uncertainty_M = [np.pad(x_T, (0, max(0, 2 - len(x_T))), "edge").astype(float)
                              for x_T in (error_T, uncertainty_T)]
    return np.arange(1, len(error_M) + 1, dtype=float), error_M, uncertainty_M
