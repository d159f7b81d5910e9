"""What agents remember of each environment: a planner its last plan, a policy the last steps."""

from __future__ import annotations

import torch
from torch import Tensor

from gentraj.device import to_device
from gentraj.trajectory import Batch, TrajectorySpec


def between(x_BHD: Tensor, tau_T: Tensor) -> Tensor:
    """(B, T, D) plans interpolated linearly at the times `tau_T`, in timesteps; the last one repeats after the end."""
    below_T = tau_T.floor().long().clamp(max=x_BHD.shape[1] - 2)
    return torch.lerp(x_BHD[:, below_T], x_BHD[:, below_T + 1], (tau_T - below_T).clamp(max=1)[:, None])


class LastPlan:
    """The last plan of each environment."""

    def __init__(self, spec: TrajectorySpec, batch: int, device: torch.device):
        self.spec, self.device = spec, device
        self.x_BHD = torch.zeros(batch, spec.horizon, spec.dim, device=device)
        self.arrival_step_B = torch.zeros(batch, dtype=torch.long, device=device)
        """The timesteps at which the plans arrive; 0 before the first plan of an environment."""

    def keep(self, which_B: Tensor, x_BHD: Tensor, arrival_step_B: Tensor) -> None:
        """Remembers the plans of these environments."""
        index_N = to_device(which_B.nonzero()[:, 0], self.device)
        self.x_BHD[index_N] = x_BHD
        self.arrival_step_B[index_N] = arrival_step_B

    def leaps(self, data: Batch) -> Tensor:
        """(P,) the longest step of each plan that was made, before its arrival, in units of the longest step in the
        windows `data`: the largest of all entries of an observation that move there; 0 if none does."""
        moved_WHO = steps_of(self.spec.split(data.x_BHD)[0]) * data.mask_BHD[..., :1]
        most_O = moved_WHO.amax((0, 1))
        made_B = self.arrival_step_B > 0
        move_PHO = steps_of(self.spec.split(self.x_BHD[made_B])[0])
        h_H = torch.arange(self.spec.horizon, device=self.device)
        move_PHO[h_H > self.arrival_step_B[made_B, None]] = 0
        in_units_PHO = torch.where(most_O > 0, move_PHO / most_O, 0)
        return in_units_PHO.flatten(1).max(dim=1).values


def steps_of(obs_BHO: Tensor) -> Tensor:
    """How far each timestep is from the one before it, (B, H, O); 0 for the first."""
    return obs_BHO.diff(dim=1, prepend=obs_BHO[:, :1]).abs()


class ObservationBuffer:
    """The last `length` observations and actions of each environment."""

    def __init__(self, spec: TrajectorySpec, length: int, batch: int):
        self.spec, self.length = spec, length
        self.x_BTD = torch.zeros(batch, length, spec.dim)  # on the CPU; the newest is the last
        self.steps_B = torch.zeros(batch, dtype=torch.long)

    def add(self, obs_BO: Tensor, act_BA: Tensor) -> None:
        """Appends the observation and the action of one environment step, in every environment."""
        if not self.length:
            return
        x_B1D = self.spec.join(obs_BO, act_BA[:, : self.spec.act_dim].to(obs_BO.device))[:, None].to(self.x_BTD)
        self.x_BTD = torch.cat([self.x_BTD, x_B1D], 1)[:, 1:]
        self.steps_B += 1

    def correct(self, act_BA: Tensor) -> None:
        """Replaces the action of the last step, in every environment."""
        if self.length:
            obs_BO, _ = self.spec.split(self.x_BTD[:, -1])
            x_BD = self.spec.join(obs_BO, act_BA[:, : self.spec.act_dim].to(obs_BO))
            self.x_BTD = torch.cat([self.x_BTD[:, :-1], x_BD[:, None]], 1)

    def seen(self, obs_BO: Tensor) -> Tensor:
        """What each environment's agent sees (`TrajectorySpec.seen`), in which these observations are the present."""
        if not self.length:
            return obs_BO
        first_B1 = (self.length - self.steps_B).clamp(min=0)[:, None]  # of the episode's steps, or else the present
        t_T = torch.arange(self.length, device=first_B1.device)
        x_BLD = torch.cat([self.x_BTD, self.spec.beginning(obs_BO)[:, :1].to(self.x_BTD)], 1)
        x_BTD = x_BLD.take_along_dim(t_T.maximum(first_B1)[..., None], 1)
        x_BTD[..., self.spec.obs_dim :] *= (t_T >= first_B1)[..., None]
        return self.spec.seen(obs_BO, x_BTD)
