"""Action sequences tried in the true simulator, many side by side, and what the environment would pay for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..making import EnvironmentFactory
from .replay import CannotReplay, kind, states

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
