"""The true simulator: states that observations show, and the dynamics error of plans by their actions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from gentraj.trajectory import TrajectorySpec

from ..making import EnvironmentFactory, environment_factory
from ..recording.pointmaze import MAX_SPEED


class CannotReplay(ValueError):
    """The state of a simulator cannot be recovered from its observation; the message says why in one line."""


@dataclass(frozen=True)
class Recovery:
    """How an environment makes its observation from (qpos, qvel), so that the state can be recovered from it."""

    hidden: int = 0
    """First entries of qpos that the observation may leave out: the root's position on an endless floor, on which
    nothing else depends."""
    seen_speed: float = math.inf
    """The observation clips velocities to this speed. A faster state is replayed at this speed."""
    step_speed: float = math.inf
    """The environment clips velocities to this speed before each step."""


RECOVERY: dict[str, Recovery] = {
    "PointMaze": Recovery(step_speed=MAX_SPEED),
    "InvertedPendulum": Recovery(),
    "HalfCheetah": Recovery(hidden=1),
    "Hopper": Recovery(hidden=1, seen_speed=10),
    "Walker2d": Recovery(hidden=1, seen_speed=10),
    "Swimmer": Recovery(hidden=2),
    "Ant": Recovery(hidden=2),
    "Humanoid": Recovery(hidden=2),
}


def dynamics_error(factory: EnvironmentFactory, spec: TrajectorySpec, x_RHD: Tensor, act_RTA: Tensor,
                   dims: Sequence[int] | None = None) -> Tensor:
    """Returns the Euclidean distances (R, H - 1), float32, between the observations of plans from the second timestep
    on, and those to which the plans' actions lead from the timestep before.

    `x_RHD` are plans in environment units and `act_RTA` the actions of each environment step, T = (H - 1) * stride.
    `dims` are the entries of the observation that are compared, all by default. Raises what `replay` raises, and
    ValueError for another number of actions.
    """
    legs = spec.horizon - 1
    if act_RTA.shape[:2] != (len(x_RHD), legs * spec.stride):
        raise ValueError(f"actions of shape {tuple(act_RTA.shape)} were given; ({len(x_RHD)}, {legs * spec.stride}, A) "
                         "is expected, one for each environment step between the first timestep and the last")
    obs_RHO, act = spec.split(x_RHD)[0].cpu().double().numpy(), act_RTA.cpu().double().numpy()
    starts = rearrange(obs_RHO[:, :-1], "r leg o -> (r leg) o")
    ends = replay(factory, starts, rearrange(act, "r (leg t) a -> (r leg) t a", leg=legs))[:, -1]
    which = slice(None) if dims is None else list(dims)
    away = (rearrange(ends, "(r leg) o -> r leg o", leg=legs) - obs_RHO[:, 1:])[..., which]
    return torch.from_numpy(np.linalg.norm(away, axis=-1).astype(np.float32))


def replay(factory: EnvironmentFactory, obs_RO: np.ndarray, act_RTA: np.ndarray) -> np.ndarray:
    """Returns the observations (R, T, O), float64, after each of T environment steps from the states of `obs_RO`.

    They are those of `env.step` from these states (up to about 1e-8 where the solver runs; contacts amplify that), but
    all R are simulated side by side, in as many threads as torch uses. Termination is ignored, and if a state is so
    impossible that the simulator resets itself, the replay goes on from there. Raises `CannotReplay` for environments
    other than those of `RECOVERY` and for observations that are not just positions and velocities, and ValueError for
    numbers that are not finite or actions of another shape.
    """
    env = factory()
    env.close()  # the model stays in memory
    state_RTS = states(env.unwrapped, factory.env_id, obs_RO, act_RTA)[:, 1:]
    obs_RTO = state_RTS[..., state_RTS.shape[2] - obs_RO.shape[1] :]
    speed, seen = obs_RTO[..., -env.unwrapped.model.nv :], RECOVERY[kind(factory.env_id)].seen_speed
    np.clip(speed, -seen, seen, out=speed)
    return obs_RTO


def entries(env: str | None, obs_dim: int) -> dict[str, range]:
    """Groups the entries of an observation into positions and velocities, or into one group if these are unknown."""
    unknown = {"observation": range(obs_dim)}
    if env is None:
        return unknown
    factory = environment_factory(env)
    recovery = RECOVERY.get(kind(factory.env_id))
    if recovery is None:
        return unknown
    simulator = factory()
    simulator.close()
    model = getattr(simulator.unwrapped, "model", None)  # somebody's own environment may have such a name, too
    if model is None or model.nq + model.nv - obs_dim not in (0, recovery.hidden):
        return unknown
    return {"positions": range(obs_dim - model.nv), "velocities": range(obs_dim - model.nv, obs_dim)}


def kind(env_id: str) -> str:
    """Returns the environment's name without map and version: PointMaze for PointMaze_UMaze-v3."""
    return env_id.replace("_", "-").split("-")[0]


def simulated(base: Any) -> Any:
    """Returns the MuJoCo environment: `base` itself, the point inside a maze, or the `base` of an environment around
    one of another library."""
    if hasattr(base, "point_env"):
        return base.point_env
    return base if hasattr(base, "model") else getattr(base, "base", base)


def place(env: Any, env_id: str, obs_O: np.ndarray, goal_G: np.ndarray) -> None:
    """Sets the simulator of an environment to the state that an observation (O,) shows, and its goal to `goal_G` (G,),
    which may be empty; an environment with a method `place` does this itself. Raises `CannotReplay` if the observation
    does not determine the state."""
    base = env.unwrapped
    if hasattr(base, "place"):
        try:
            base.place(obs_O, goal_G)
        except ValueError as error:
            raise CannotReplay(f"{env_id}: {error}") from error
        return
    if not hasattr(base, "model"):
        raise CannotReplay(f"{env_id} is not a MuJoCo environment, so it cannot be set to an observation's state")
    idle_RTA = np.zeros((1, 1, base.model.nu))
    state_S = states(base, env_id, obs_O[None].astype(float), idle_RTA)[0, 0, 1:]
    if len(goal_G) and hasattr(base, "update_target_site_pos"):
        base.goal = np.asarray(goal_G, float)
        base.update_target_site_pos()
    simulated(base).set_state(state_S[: base.model.nq], state_S[base.model.nq :])


def states(base: Any, env_id: str, obs_RO: np.ndarray, act_RTA: np.ndarray) -> np.ndarray:
    """Returns time, qpos and qvel (R, T + 1, S) at the start and after each environment step; see `replay`."""
    recovery = RECOVERY.get(kind(env_id)) if hasattr(base, "model") else None
    skipped = base.model.nq + base.model.nv - obs_RO.shape[1] if recovery else 0
    if recovery is None or skipped not in (0, recovery.hidden):
        raise CannotReplay(f"{env_id}: an observation of width {obs_RO.shape[1]} does not tell the simulator's "
                           f"state; plain positions and velocities of {', '.join(RECOVERY)} do")
    if act_RTA.shape != (len(obs_RO), act_RTA.shape[1], base.model.nu) or not act_RTA.size:
        raise ValueError(f"actions of shape {act_RTA.shape} were given for {len(obs_RO)} states; at least one step of "
                         f"{base.model.nu} numbers for each is expected")
    if not (np.isfinite(obs_RO).all() and np.isfinite(act_RTA).all()):
        raise ValueError("observations or actions to replay hold NaN or infinity; finite numbers are expected")
    state_RS = np.concatenate([np.zeros((len(obs_RO), 1 + skipped)), obs_RO], 1)
    return np.concatenate([state_RS[:, None], _simulate(base, state_RS.copy(), act_RTA, recovery.step_speed)], 1)


def _simulate(base: Any, state_RS: np.ndarray, act_RTA: np.ndarray, step_speed: float) -> np.ndarray:
    """Returns the states (R, T, S) after each environment step; one step per call if speeds are clipped in between."""
    from mujoco import MjData  # pyright: ignore[reportAttributeAccessIssue]
    from mujoco.rollout import Rollout

    model = base.model
    skip = simulated(base).frame_skip
    workers = torch.get_num_threads()
    data = [MjData(model) for _ in range(workers)]
    R, T, _ = act_RTA.shape
    states = np.empty((R, T, state_RS.shape[1]))
    block = 1 if math.isfinite(step_speed) else T
    with Rollout(nthread=workers if workers > 1 else 0) as pool:
        for t in range(0, T, block):
            state_RS[:, -model.nv :] = state_RS[:, -model.nv :].clip(-step_speed, step_speed)
            control = np.repeat(act_RTA[:, t : t + block], skip, axis=1).astype(np.float64)
            moved = np.asarray(pool.rollout(model, data, state_RS, control)[0])
            states[:, t : t + block] = moved[:, skip - 1 :: skip]
            state_RS = states[:, t].copy()  # the observation holds the speed before it is clipped
    return states
