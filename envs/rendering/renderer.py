"""Renders observations: the simulator is set to the state of an observation and draws it; and postures of bodies that
planned observations show."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..evaluation.replay import RECOVERY, CannotReplay, kind, place
from ..making import EnvironmentFactory, environment_factory
from .film import CannotRender, render_frame


class Renderer:
    """`renderer(obs_O, goal_G)` returns a frame (height, width, 3), uint8, of the environment `env`.

    Raises `CannotRender` if the machine cannot draw or the observation does not determine the simulator's state.
    """

    def __init__(self, env: str):
        self.factory: EnvironmentFactory = environment_factory(env, {"render_mode": "rgb_array"})
        self.env: Any = None

    def __call__(self, obs_O: np.ndarray, goal_G: np.ndarray) -> np.ndarray:
        if self.env is None:
            self.env = self.factory()
            self.env.reset(seed=0)
        try:
            place(self.env, self.factory.env_id, obs_O, goal_G)
        except CannotReplay as error:
            raise CannotRender(str(error)) from error
        return render_frame(self.env)

    def close(self) -> None:
        if self.env is not None:
            self.env.close()
            self.env = None


def postures(base: Any, env_id: str, obs_NHO: np.ndarray, seconds: float | np.ndarray, root_K: np.ndarray | None = None,
             ) -> np.ndarray:
    """Returns the positions qpos (N, H, Q) that sequences of observations show, in the MuJoCo environment `base`.

    Entries that the observation leaves out, the root's position on an endless floor, begin at `root_K` (0 by default)
    and follow the observed velocities, `seconds` from one observation to the next: one number, or (H - 1,). Further
    entries of an observation, such as the contact forces of Ant, are not needed. Raises `CannotReplay` where an
    observation does not begin with positions and velocities.
    """
    known = RECOVERY.get(kind(env_id))
    model = getattr(base, "model", None)
    width = obs_NHO.shape[-1]
    if known is None or model is None:
        raise CannotReplay(f"{env_id}: its observations do not tell the posture of a body; those of "
                           f"{', '.join(RECOVERY)} do")
    hidden = known.hidden if getattr(base, "_exclude_current_positions_from_observation", False) else 0
    if width < model.nq + model.nv - hidden:
        raise CannotReplay(f"{env_id}: an observation of width {width} does not hold {model.nq - hidden} positions and "
                           f"{model.nv} velocities")
    seen_NHQ, speed_NHV = np.split(obs_NHO[..., : model.nq + model.nv - hidden].astype(float), [model.nq - hidden], -1)
    speed_NHK = speed_NHV[..., :hidden]
    moved_NHK = np.zeros_like(speed_NHK)
    moved_NHK[:, 1:] = np.cumsum((speed_NHK[:, 1:] + speed_NHK[:, :-1]) / 2 * np.reshape(seconds, (-1, 1)), 1)
    root_K = np.zeros(hidden) if root_K is None else np.asarray(root_K, float)[:hidden]
    return np.concatenate([root_K + moved_NHK, seen_NHQ], -1)


def placed(model: Any, qpos_MQ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions (M, P, 3) and the orientations (M, P, 4), w first, of the P bodies of a MuJoCo model in
    each of M postures. A posture that is not finite is drawn as the model's own."""
    from mujoco import MjData, mj_kinematics  # pyright: ignore[reportAttributeAccessIssue]

    data = MjData(model)
    position_MP3, turn_MP4 = np.empty((len(qpos_MQ), model.nbody, 3)), np.empty((len(qpos_MQ), model.nbody, 4))
    for m, qpos_Q in enumerate(qpos_MQ):
        data.qpos[:] = qpos_Q if np.isfinite(qpos_Q).all() else model.qpos0
        mj_kinematics(model, data)
        position_MP3[m], turn_MP4[m] = data.xpos, data.xquat
    return position_MP3, turn_MP4
