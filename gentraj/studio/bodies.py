"""The 3-D scene of a MuJoCo body: its present posture, and the postures of plans as ghosts coloured by value or trust.

In shapes, M is a number of postures, P of bodies, Q of positions (qpos).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from gentraj.envs.evaluation.replay import CannotReplay
from gentraj.envs.rendering import placed, postures

from ..plots.style import INK
from .drawing import Lines, light, pieces, plan_colours, rgb
from .planning import Answer
from .session import Session

if TYPE_CHECKING:
    from viser import SceneApi

AHEAD = 6  # ghosts along the chosen plan
LANES = 12  # plans beside the chosen one, each with the ghost of its last state
GHOST = 0.35  # the opacity of those
LANE = 0.8  # and of these
UNSET = np.array([0.5, 0.5, 0.5, 1], np.float32)  # MuJoCo's colour of a geom to which none was given
SEEN_GROUPS = 3  # MuJoCo's own viewer shows the groups of geoms below this
TRACE = 400  # places of the torso that the path keeps


class Body:
    """The moving parts of a MuJoCo model, drawn in any number of postures under a node of a scene."""

    def __init__(self, api: SceneApi, root: str, model: Any):
        self.api = api
        self.root = root
        self.model = model
        self.meshes = meshes_of(model, fixed=False)
        self.handles: dict[int, Any] = {}

    def draw(self, qpos_MQ: np.ndarray, colours_M3: np.ndarray | None = None, opacities_M: np.ndarray | None = None,
             shift_M3: np.ndarray | None = None) -> None:
        """Draws M postures in the place of those before, in the model's own colours by default."""
        count = len(qpos_MQ)
        position_MP3, turn_MP4 = placed(self.model, qpos_MQ)
        if shift_M3 is not None:
            position_MP3 = position_MP3 + shift_M3[:, None]
        if opacities_M is None:
            opacities_M = np.ones(count)
        for body, (vertices, faces, colour_3) in self.meshes.items():
            props = {"batched_positions": position_MP3[:, body].astype(np.float32),
                     "batched_wxyzs": turn_MP4[:, body].astype(np.float32),
                     "batched_colors": np.tile(colour_3, (count, 1)).astype(np.uint8),
                     "batched_opacities": opacities_M.astype(np.float32)}
            if colours_M3 is not None:
                props["batched_colors"] = colours_M3.astype(np.uint8)
            handle = self.handles.get(body)
            if handle is not None and len(handle.batched_positions) == count:
                for name, value in props.items():
                    setattr(handle, name, value)
                handle.visible = True
            else:
                if handle is not None:
                    handle.remove()
                self.handles[body] = self.api.add_batched_meshes_simple(
                    f"{self.root}/{body}", vertices, faces, **props, lod="off", receive_shadow=False)

    def hide(self) -> None:
        for handle in self.handles.values():
            handle.visible = False


def draw_ground(api: SceneApi, root: str, model: Any) -> None:
    """Draws what does not move: the floor and the fixed geoms of a MuJoCo model, under a node of a scene."""
    api.add_grid(f"{root}/floor", infinite_grid=True, fade_distance=12 * max(spread(model)), cell_size=0.5,
                 section_size=2.0, plane_color=(246, 247, 249), plane_opacity=0.6, shadow_opacity=0.2,
                 position=(0, 0, floor_height(model)))
    position_1P3, turn_1P4 = placed(model, model.qpos0[None])
    for body, (vertices, faces, colour) in meshes_of(model, fixed=True).items():
        api.add_mesh_simple(f"{root}/fixed{body}", vertices, faces, color=colour, flat_shading=True,
                            position=position_1P3[0, body], wxyz=turn_1P4[0, body])


class BodyScene:
    """The body of a run's environment, whose root stays in the middle while the floor moves.

    The chosen plan is shown by ghosts where it will be. The last states of the other plans stand behind it, side by
    side, those with the highest values in front.
    """

    legend: tuple[str, ...] = (
        "The solid body is where the agent is; the line is the path of its root.",
        "Ghosts before it are what it plans or does next. Those side by side are where its other plans end, the best "
        "in front.")

    def __init__(self, api: SceneApi, session: Session):
        self.session = session
        self.loaded = session.loaded
        self.base = self.loaded.base
        self.model = self.base.model
        self.root = "/run"
        self.qpos_Q = self.model.qpos0.copy()
        self.seconds = float(getattr(self.base, "dt", 0.0)) or self.model.opt.timestep
        self.lane = lane_width(self.model)
        self.frame = api.add_frame(self.root, show_axes=False)
        light(api, cast_shadow=True)
        draw_ground(api, self.root, self.model)
        self.body = Body(api, f"{self.root}/body", self.model)
        self.ghosts = Body(api, f"{self.root}/ghosts", self.model)
        size = float(max(spread(self.model)))
        self.camera = (0.9 * size, -2.4 * size, 1.2 * size), (0.0, 0.0, 0.3 * size)
        self.line = Lines(api, f"{self.root}/trace", 3.0)
        self._move(0)

    def close(self) -> None:
        self.frame.remove()

    def draw(self, answer: Answer | None, step: int = 0, frame: int | None = None) -> None:
        self._move(step)
        # What a policy would do is shown from the start.
        begun = self.session.drive is not None and self.loaded.kind == "policy"
        if answer is None or begun:
            self.ghosts.hide()
            return
        x_NHD = answer.x_NHD
        if frame is not None and frame < len(answer.frames):
            x_NHD = answer.frames[frame]
        obs_NHO = x_NHD[..., : self.loaded.run.data.obs_dim]
        with contextlib.suppress(CannotReplay):  # then the body is shown without plans
            seconds = self.seconds * answer.stride
            qpos_NHQ = postures(self.base, self.loaded.factory.env_id, obs_NHO, seconds, self.qpos_Q)
            self._draw_ghosts(answer, qpos_NHQ, plan_colours(answer))

    def _move(self, step: int) -> None:
        """Puts the body into the session's start, or where the simulator of the closed loop had it after `step` steps,
        and draws the way of its root."""
        drive = self.session.drive
        trace_M3 = np.zeros((0, 3))
        if drive is None:
            with contextlib.suppress(CannotReplay):
                obs_11O = np.array([[self.session.obs]])
                self.qpos_Q = postures(self.base, self.loaded.factory.env_id, obs_11O, self.seconds)[0, 0]
        else:
            self.qpos_Q = drive.postures[step]
            trace_M3 = placed(self.model, np.array(drive.postures[max(step - TRACE, 0) : step + 1]))[0][:, 1]
        self.line.draw(pieces(trace_M3), np.array(rgb(INK)))
        self.body.draw(self.qpos_Q[None])
        x, y = placed(self.model, self.qpos_Q[None])[0][0, 1, :2]
        self.frame.position = (-x, -y, 0.0)  # with its root in the middle

    def _draw_ghosts(self, answer: Answer, qpos_NHQ: np.ndarray, colours_N3: np.ndarray) -> None:
        chosen = answer.chosen
        last_N = np.minimum(answer.arrival_step_N, qpos_NHQ.shape[1] - 1).astype(int)
        along = np.unique(np.linspace(1, max(last_N[chosen], 1), AHEAD).round().astype(int))
        rank_N = -answer.ratio_N
        if answer.value_N is not None:
            rank_N = answer.value_N
        order = np.argsort(-rank_N, kind="stable")
        others = order[order != chosen][:LANES]
        qpos_MQ = np.concatenate([qpos_NHQ[chosen, along], qpos_NHQ[others, last_N[others]]])
        colours_M3 = colours_N3[[chosen] * len(along) + others.tolist()]
        opacities_M = np.repeat([GHOST, LANE], [len(along), len(others)])
        shift_M3 = np.zeros((len(qpos_MQ), 3))
        shift_M3[len(along):, 1] += self.lane * np.arange(1, len(others) + 1)
        self.ghosts.draw(qpos_MQ, colours_M3, opacities_M, shift_M3)


def meshes_of(model: Any, *, fixed: bool) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Vertices (V, 3), triangles (F, 3) and colour (3,) of the visible geoms of each body that is fixed to the world,
    or of each that is not; of all geoms where nothing that moves is visible, as in PointMaze. Planes, which are
    endless, are left out."""
    from mjviser.conversions import is_fixed_body, merge_geoms
    from mujoco import mjtGeom  # pyright: ignore[reportAttributeAccessIssue]

    found = {}
    visible_G = model.geom_rgba[:, 3] > 0
    if not fixed and not visible_G[model.body_weldid[model.geom_bodyid] > 0].any():
        visible_G[:] = True
    for body in range(model.nbody):
        if bool(is_fixed_body(model, body)) != fixed:
            continue
        geoms = [g for g in range(model.ngeom) if model.geom_bodyid[g] == body and visible_G[g]
                 and model.geom_group[g] < SEEN_GROUPS and model.geom_type[g] != mjtGeom.mjGEOM_PLANE]
        if geoms:
            mesh = merge_geoms(model, geoms)
            found[body] = (np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.uint32),
                           colour_of(model, geoms[0]))
    return found


def spread(model: Any) -> np.ndarray:
    """(3,) how far (m) the moving parts reach along each axis, in the model's own posture; 1 where nothing moves."""
    from viser.transforms import SO3

    position_1P3, turn_1P4 = placed(model, model.qpos0[None])
    points = [SO3(turn_1P4[0, body]).as_matrix() @ vertices.T + position_1P3[0, body, :, None]
              for body, (vertices, _, _) in meshes_of(model, fixed=False).items()]
    if not points:
        return np.ones(3)
    return np.ptp(np.concatenate(points, axis=1), axis=1)


def lane_width(model: Any) -> float:
    """The distance (m) at which two bodies side by side in y do not touch, in the model's own posture."""
    return float(spread(model)[1]) + 0.25


def floor_height(model: Any) -> float:
    """The height (m) of the model's floor, a plane of the world; 0 without one."""
    from mujoco import mjtGeom  # pyright: ignore[reportAttributeAccessIssue]

    for geom in range(model.ngeom):
        if model.geom_type[geom] == mjtGeom.mjGEOM_PLANE:
            return float(model.geom_pos[geom, 2])
    return 0.0


def colour_of(model: Any, geom: int) -> np.ndarray:
    """(3,) the colour of a geom, uint8, as MuJoCo draws it: its own if it has one, else that of its material."""
    rgba_4 = model.geom_rgba[geom]
    material = model.geom_matid[geom]
    if material >= 0 and (rgba_4 == UNSET).all():
        rgba_4 = model.mat_rgba[material]
    return (255 * np.clip(rgba_4[:3], 0, 1)).astype(np.uint8)
