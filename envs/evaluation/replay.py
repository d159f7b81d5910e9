"""Dynamics error: the actions of a plan replayed in the true simulator, and how far that leads from the plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gentraj.trajectory import TrajectorySpec

from ..making import EnvironmentFactory, environment_factory
from ..recording.pointmaze import MAX_SPEED


class CannotReplay(ValueError):
    """Why the state of this simulator cannot be recovered from its observation, in one line."""


@dataclass(frozen=True)
class Recovery:
    """How an observation (qpos, qvel) became one: what recovers the state from it."""

    hidden: int = 0
    """First entries of qpos that it may leave out: the root's place on an endless floor, which moves nothing else."""
    seen_speed: float = math.inf
    """The observation clips velocities to this. A state that was faster is replayed at this speed."""
    step_speed: float = math.inf
    """The environment clips velocities to this before each step."""


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


def dynamics_error(factory: EnvironmentFactory, spec: TrajectorySpec, x_RHD: Tensor, act_RTA: Tensor, *,
                   dims: Sequence[int] | None = None, restart: bool = False) -> Tensor:
    """(R, H) float32 Euclidean distance between the observations of a plan and of its replay, in their own units.

    `x_RHD` are plans in environment units and `act_RTA` the actions of each environment step, T = (H - 1) * stride.
    `dims` are the entries that are compared, all by default. The replay starts at the plan's first row, where the error
    is 0. With `restart` it starts again at every row, so that each error is made on the way from one row to the next
    and none accumulates. Raises what `replay` raises, and ValueError for rows that are not evenly apart.
    """
    spec.require_even("dynamics_error")
    H, O, stride = spec.horizon, spec.obs_dim, spec.stride  # noqa: E741
    if act_RTA.shape[:2] != (len(x_RHD), (H - 1) * stride):
        raise ValueError(f"actions of shape {tuple(act_RTA.shape)} were given; ({len(x_RHD)}, {(H - 1) * stride}, A) "
                         "is expected, one for each environment step between the first row and the last")
    obs_RHO, act = spec.split(x_RHD)[0].cpu().double().numpy(), act_RTA.cpu().double().numpy()
    if restart:
        legs = act.reshape(-1, stride, act.shape[-1])
        reached = replay(factory, obs_RHO[:, :-1].reshape(-1, O), legs)[:, -1].reshape(-1, H - 1, O)
    else:
        reached = replay(factory, obs_RHO[:, 0], act)[:, stride - 1 :: stride]
    error_RH = np.zeros((len(x_RHD), H), np.float32)
    which = slice(None) if dims is None else list(dims)
    error_RH[:, 1:] = np.linalg.norm((reached - obs_RHO[:, 1:])[..., which], axis=-1)
    return torch.from_numpy(error_RH)


def replay(factory: EnvironmentFactory, obs_RO: np.ndarray, act_RTA: np.ndarray) -> np.ndarray:
    """(R, T, O) float64: what is observed after each of T environment steps from the states that `obs_RO` show.

    As `env.step` would from these states (to about 1e-8 where the solver runs; contacts amplify that), but all R side
    by side, in as many threads as torch uses. An environment that terminates goes on, and a state so impossible that
    the simulator resets itself stays where that leaves it. Raises `CannotReplay` for environments other than those of
    `RECOVERY`, or with an observation that is more or less than their positions and velocities.
    """
    env = factory()
    env.close()  # the model stays
    state_RTS = states(env.unwrapped, factory.env_id, obs_RO, act_RTA)[:, 1:]
    obs_RTO = state_RTS[..., state_RTS.shape[2] - obs_RO.shape[1] :]
    speed, seen = obs_RTO[..., -env.unwrapped.model.nv :], RECOVERY[kind(factory.env_id)].seen_speed
    np.clip(speed, -seen, seen, out=speed)
    return obs_RTO


def entries(env: str | None, obs_dim: int) -> dict[str, range]:
    """Which entries of an observation of such width are positions and which velocities; one group where unknown."""
    if env is not None and kind((factory := environment_factory(env)).env_id) in RECOVERY:
        made = factory()
        made.close()
        model = made.unwrapped.model
        if model.nq + model.nv - obs_dim in (0, RECOVERY[kind(factory.env_id)].hidden):
            return {"positions": range(obs_dim - model.nv), "velocities": range(obs_dim - model.nv, obs_dim)}
    return {"observation": range(obs_dim)}


def kind(env_id: str) -> str:
    """Of all versions and maps: PointMaze of PointMaze_UMaze-v3."""
    return env_id.replace("_", "-").split("-")[0]


def states(base: Any, env_id: str, obs_RO: np.ndarray, act_RTA: np.ndarray) -> np.ndarray:
    """(R, T + 1, S) time, qpos and qvel that an observation shows and after each environment step; as `replay`."""
    recovery = RECOVERY.get(kind(env_id))
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
    """(R, T, S) the states after each environment step. A clip stands between steps, so they are made one by one."""
    from mujoco import MjData  # pyright: ignore[reportAttributeAccessIssue]
    from mujoco.rollout import Rollout

    model, skip = base.model, getattr(base, "point_env", base).frame_skip
    workers = torch.get_num_threads()
    data = [MjData(model) for _ in range(workers)]
    R, T, _ = act_RTA.shape
    states, block = np.empty((R, T, state_RS.shape[1])), 1 if math.isfinite(step_speed) else T
    with Rollout(nthread=workers if workers > 1 else 0) as pool:
        for t in range(0, T, block):
            state_RS[:, -model.nv :] = state_RS[:, -model.nv :].clip(-step_speed, step_speed)
            control = np.repeat(act_RTA[:, t : t + block], skip, axis=1).astype(np.float64)
            moved = np.asarray(pool.rollout(model, data, state_RS, control)[0])
            states[:, t : t + block] = moved[:, skip - 1 :: skip]
            state_RS = states[:, t].copy()  # what was observed is not what is clipped
    return states


# -- what the environment pays

# (environment, states (R, T + 1, S) of time, qpos and qvel, actions (R, T, A), goals) -> rewards (R, T), ended (R, T)
Rewards = Callable[[Any, np.ndarray, np.ndarray, np.ndarray | None], tuple[np.ndarray, np.ndarray]]


class Simulator:
    """`simulator(obs_BO, act_BNTA, goal_BG)` -> (B, N) sums of rewards until the end, if one comes.

    The state is what an observation shows (`envs.evaluation.replay.RECOVERY`), so that an agent may be given the
    simulator and nothing else. Raises `CannotReplay` for environments other than those of `REWARDS`.
    """

    def __init__(self, factory: EnvironmentFactory):
        if kind(factory.env_id) not in REWARDS:
            raise CannotReplay(f"{factory.env_id}: its rewards are not known from states; those of "
                               f"{', '.join(REWARDS)} are")
        env = factory()
        env.close()  # the model stays
        self.env_id, self.base, self.rewards = factory.env_id, env.unwrapped, REWARDS[kind(factory.env_id)]

    def __call__(self, obs_BO: Tensor, act_BNTA: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        num = act_BNTA.shape[1]
        each = lambda x: x.repeat_interleave(num, 0).cpu().double().numpy()  # noqa: E731
        act_RTA = act_BNTA.flatten(0, 1).cpu().double().numpy()
        state_RTS = states(self.base, self.env_id, each(obs_BO), act_RTA)
        reward_RT, ended_RT = self.rewards(self.base, state_RTS, act_RTA, None if goal_BG is None else each(goal_BG))
        over_RT = np.cumsum(ended_RT, 1) - ended_RT > 0
        return torch.from_numpy((reward_RT * ~over_RT).sum(1)).float().view(act_BNTA.shape[:2])


def locomotion(base: Any, state_RTS: np.ndarray, act_RTA: np.ndarray,
               _: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Of Gymnasium's v5 runners: forward speed and health, less the control; a fall ends it."""
    speed_RT = np.diff(state_RTS[..., 1], axis=1) / base.dt
    qpos, qvel = np.split(state_RTS[:, 1:, 1:], [base.model.nq], -1)
    reward_RT = (base._forward_reward_weight * speed_RT
                 - base._ctrl_cost_weight * np.square(act_RTA.astype(np.float32)).sum(-1))
    if not hasattr(base, "_healthy_z_range"):
        return reward_RT, np.zeros(reward_RT.shape, bool)
    inside = lambda x, bounds: (bounds[0] < x) & (x < bounds[1])  # noqa: E731
    healthy_RT = inside(qpos[..., 1], base._healthy_z_range) & inside(qpos[..., 2], base._healthy_angle_range)
    if hasattr(base, "_healthy_state_range"):  # Hopper
        healthy_RT &= inside(np.concatenate([qpos[..., 2:], qvel], -1), base._healthy_state_range).all(-1)
    return reward_RT + healthy_RT * base._healthy_reward, ~healthy_RT & base._terminate_when_unhealthy


def maze(base: Any, state_RTS: np.ndarray, act_RTA: np.ndarray,
         goal_RG: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The environment's own rewards, dense or sparse; a maze is made so that nothing ends it."""
    if goal_RG is None:
        raise ValueError("a maze rewards being at a goal, and no goal was given")
    goal_RTG = np.broadcast_to(goal_RG[:, None], (*act_RTA.shape[:2], goal_RG.shape[1]))
    reward_RT = base.compute_reward(state_RTS[:, 1:, 1:3].reshape(-1, 2), goal_RTG.reshape(-1, 2), {})
    return np.asarray(reward_RT, float).reshape(act_RTA.shape[:2]), np.zeros(act_RTA.shape[:2], bool)


REWARDS: dict[str, Rewards] = {"PointMaze": maze, "HalfCheetah": locomotion, "Hopper": locomotion,
                               "Walker2d": locomotion}
