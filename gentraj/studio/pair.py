"""The scene of a world model: the simulator's body and the imagined one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gentraj.envs.rendering.renderer import placed

from ..plots.style import INK
from .bodies import Body, draw_ground, lane_width, spread
from .colours import light, rgb, uncertainty_colours
from .imagining import Beside
from .lines import Lines

if TYPE_CHECKING:
    from viser import SceneApi

FRAMES_PER_SECOND = 20.0  # of the simulator's steps while they are played


class Pair:
    """Two bodies: the simulator's in its own colours, and the imagined one coloured by the model's uncertainty.

    In a maze both move in the same place; on an endless floor the imagined one runs in a lane behind the other.
    """

    def __init__(self, api: SceneApi, root: str, base: Any, fixed_place: bool):
        self.model = base.model
        self.frame = api.add_frame(root, show_axes=False)
        light(api, cast_shadow=not fixed_place)
        draw_ground(api, root, self.model)
        self.real, self.imagined = Body(api, f"{root}/real", self.model), Body(api, f"{root}/imagined", self.model)
        self.fixed_place = fixed_place
        self.lane_3 = np.zeros(3) if fixed_place else np.array([0.0, lane_width(self.model), 0.0])
        self.lines = {name: Lines(api, f"{root}/{name}-way", 4.0) for name in ("real", "imagined")}
        size = float(self.model.stat.extent if fixed_place else 1.5 * max(spread(self.model)))
        self.camera = (0.0, -1.3 * size, 1.3 * size if fixed_place else 0.8 * size), (0.0, 0.0, 0.2 * size)

    def close(self) -> None:
        self.frame.remove()

    def draw(self, beside: Beside, step: int) -> None:
        """Draws both after `step` steps, with the ways of their roots until then."""
        self.real.draw(beside.qpos_SQ[step][None])
        place_M3 = self._line("real", beside.qpos_SQ[: step + 1], np.tile(rgb(INK), (step, 1)), np.zeros(3))
        if not self.fixed_place:
            self.frame.position = (-place_M3[-1, 0], -place_M3[-1, 1], 0.0)
        if beside.imagined_qpos_SQ is not None:
            colours_T3 = uncertainty_colours(beside)
            self.imagined.draw(beside.imagined_qpos_SQ[step][None], colours_T3[max(step - 1, 0)][None],
                               np.full(1, 0.75), self.lane_3[None])
            self._line("imagined", beside.imagined_qpos_SQ[: step + 1], colours_T3[:step], self.lane_3)

    def _line(self, name: str, qpos_MQ: np.ndarray, colours_L3: np.ndarray, shift_3: np.ndarray) -> np.ndarray:
        """Draws the way of the root, and returns its places (M, 3)."""
        place_M3 = placed(self.model, qpos_MQ)[0][:, first_moving(self.model)] + shift_3
        self.lines[name].draw(np.stack([place_M3[:-1], place_M3[1:]], 1), colours_L3)
        return place_M3


def first_moving(model: Any) -> int:
    """The first body of a model that moves: its root."""
    moving = [body for body in range(1, model.nbody) if model.body_dofnum[body] > 0]
    return moving[0] if moving else 0
