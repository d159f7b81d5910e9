"""From a plan to actions: the targets of each environment step along the plan, and the action towards them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gentraj.device import constant, to_device
from gentraj.trajectory import TrajectorySpec

from ..episodic import finite_actions
from ..memory import between
from .inverse_dynamics import InverseDynamics
from .sampler import PlannerConfig, check_dims


@dataclass(eq=False)
class PlanTracker:
    """Follows plans of the layout `spec`: by inverse dynamics, by the plan's own actions, or by a PD controller.

    Raises ValueError for settings that need inverse dynamics, actions or entries that are not there.
    """

    spec: TrajectorySpec
    config: PlannerConfig
    """How plans are followed."""
    low_A: np.ndarray
    """The lowest actions of the action space."""
    high_A: np.ndarray
    """The highest ones."""
    inverse: InverseDynamics | None = None
    count: int = field(init=False)
    """The number of targets of a plan, one for each environment step."""
    ahead: int = field(init=False)
    """Environment steps of a plan, by its own time, that are carried out or looked ahead to."""
    offset: int = field(init=False)
    """The number of targets before the one that the action of a new plan leads to."""
    goal_dims: tuple[int, ...] = field(init=False)
    """The entries of an observation that a goal consists of."""

    def __post_init__(self) -> None:
        self.count = self.config.replan + self.config.lookahead
        self.ahead = math.ceil(self.config.pace * (self.count - 1))
        self.offset = self.config.lookahead - 1
        if self.config.actions == "joint":
            self.ahead, self.offset = self.config.replan, 0
        self._low_A, self._high_A = torch.as_tensor(self.low_A).float(), torch.as_tensor(self.high_A).float()
        config, act_dim = self.config, len(self.low_A)
        if config.actions == "track" and not len(config.goal_dims) == len(config.rest_dims) == act_dim:
            raise ValueError(f"planner.actions is 'track', which needs a position and a velocity for each of {act_dim} "
                             f"actions; planner.goal_dims are {config.goal_dims} and planner.rest_dims "
                             f"{config.rest_dims}")
        if config.actions == "joint" and not self.spec.act_dim:
            raise ValueError("planner.actions is 'joint', which needs a model of observations and actions; this "
                             "model has no actions, so leave it out, or train with joint=True")
        if config.actions == "inverse":
            if self.inverse is None:
                raise ValueError("planner.actions is 'inverse', which needs inverse dynamics; train them, or set it to "
                                 "'joint'")
            trained = self.inverse.config.lookahead
            if config.lookahead > trained:
                raise ValueError(f"lookahead is {config.lookahead}; the inverse dynamics were trained to look "
                                 f"{trained} steps ahead; give at most that")
        check_dims("rest_dims", config.rest_dims, self.spec.obs_dim)
        self.goal_dims = config.goal_dims or tuple(range(self.spec.obs_dim))

    def targets(self, x_BHD: Tensor, arrival_step_B: Tensor | None) -> Tensor:
        """(B, T, D): the observations 1 .. T environment steps ahead, each with the action of the step before.

        Plans are interpolated linearly between two timesteps. From the timestep of arrival on, if there is one, the
        targets stay at rest where the plan arrived.
        """
        spec = self.spec
        index_T = self.config.pace * torch.arange(self.count + 1, device=x_BHD.device) / spec.stride
        along_BTD = between(x_BHD, index_T)
        if arrival_step_B is not None:
            last_B = arrival_step_B.clamp(max=x_BHD.shape[1] - 1)  # a plan that arrives later has not arrived yet
            there_BO = spec.split(x_BHD[torch.arange(len(x_BHD), device=x_BHD.device), last_B])[0]
            arrived_BT1 = (index_T >= arrival_step_B[:, None])[..., None]
            along_BTD = torch.where(arrived_BT1, self.at_rest(there_BO)[:, None], along_BTD)
        return spec.join(spec.split(along_BTD[:, 1:])[0], spec.split(along_BTD[:, :-1])[1])

    def action(self, obs_BO: Tensor, target_BTD: Tensor, age_B: Tensor) -> Tensor:
        """(B, A) actions inside the action space along targets, which are those of a plan made `age_B` steps ago. All
        are on the CPU.

        Raises ValueError for actions that are not finite.
        """
        target_BD = target_BTD[torch.arange(len(obs_BO)), age_B + self.offset]
        act_BA = self._towards(obs_BO, target_BD).cpu().float()
        return finite_actions(act_BA.clamp(self._low_A, self._high_A), "the planner")

    def chunk(self, obs_BO: Tensor, target_BTD: Tensor) -> Tensor:
        """(B, E, A) the actions inside the action space that need no later observation: `replan` joint actions, or
        else the first action."""
        if self.config.actions == "joint":
            act_BEA = self.spec.split(target_BTD[:, : self.config.replan])[1]
        else:
            act_BEA = self._towards(obs_BO, target_BTD[:, self.offset])[:, None]
        return act_BEA.clamp(to_device(self._low_A, act_BEA.device), to_device(self._high_A, act_BEA.device))

    def is_near(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """(B,) true where the observation is within `hold_radius` of the goal."""
        if goal_BG is None:
            return torch.zeros(len(obs_BO), dtype=torch.bool, device=obs_BO.device)
        goal_G = constant(self.goal_dims, obs_BO.device, torch.long)
        return (obs_BO[:, goal_G] - goal_BG).norm(dim=-1) <= self.config.hold_radius

    def at_rest(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        """(B, D) timesteps with these observations, in which the entries `rest_dims` and the action are 0; with the
        goal's entries if there is a goal."""
        obs_BO = obs_BO.clone()
        if goal_BG is not None:
            obs_BO[:, constant(self.goal_dims, obs_BO.device, torch.long)] = goal_BG
        obs_BO[:, constant(self.config.rest_dims, obs_BO.device, torch.long)] = obs_BO.new_zeros(())
        return self.spec.join(obs_BO, obs_BO.new_zeros(len(obs_BO), self.spec.act_dim))

    def _towards(self, obs_BO: Tensor, target_BD: Tensor) -> Tensor:
        """(B, A) the actions of these targets, or towards them."""
        target_BO, act_BA = self.spec.split(target_BD)
        if self.config.actions == "joint":
            return act_BA
        if self.inverse is not None and self.config.actions == "inverse":
            return self.inverse(obs_BO, target_BO, self.config.lookahead)
        missing_BO = target_BO - obs_BO  # gains of 1, as in the maze2d code of Diffuser's authors
        dims = (self.goal_dims, self.config.rest_dims)
        place, velocity = (missing_BO[:, constant(each, obs_BO.device, torch.long)] for each in dims)
        return place + velocity
