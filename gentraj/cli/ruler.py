"""What a set of trajectories of a run is held against: real windows, walls and bounds, the true simulator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor

from agents.inverse_dynamics import InverseDynamics
from envs.making import EnvironmentFactory, recorded_factory
from envs.replay import CannotReplay, dynamics_error

from .. import metrics
from ..constraints import Blocks, Box, Constraint, Constraints
from ..metrics.distances import kth_distance
from ..runs import Run
from ..trajectory import Condition

PLANS = 128  # whose actions are computed at a time


@dataclass
class Ruler:
    """Measures sets of trajectories (on the CPU, environment units) against the same real windows."""

    run: Run
    real_RHD: Tensor
    seed: int
    left_out: dict[str, str] = field(default_factory=dict)
    """What could not be measured, and why."""

    def __post_init__(self) -> None:
        self.spec, self.scale = self.run.model.spec, metrics.fit_scale(self.real_RHD)
        self.dims = list(self.run.planning.goal_dims) or list(range(self.spec.obs_dim))  # they share a unit
        self.factory = recorded_factory(self.run.data.env)
        self.constraints = {name: Constraints(self.spec, [constraint])
                            for name, constraint in limits(self.run, self.real_RHD, self.factory).items()}
        if "walls" not in self.constraints:
            self.left_out["walls"] = "the environment is no maze of a point, or not known"

    def measure(self, x_RHD: Tensor, train_RHD: Tensor, condition: Condition | None = None, *,
                own: bool = False) -> dict[str, float | None]:
        """All numbers of a set; `condition` is what its trajectories were to obey.

        Novelty is the distance to the nearest of `train_RHD`, to the nearest other one if the set is its `own` part.
        """
        found: dict[str, float | None] = {**metrics.measure(self.real_RHD, x_RHD, seed=self.seed)}
        x, train = (metrics.features(some, self.scale) for some in (x_RHD, train_RHD))
        found["novelty"] = float(kth_distance(x, train, 2 if own else 1).mean()) if len(train) else None
        found["condition_error"] = (None if condition is None else
                                    float(metrics.condition_error(x_RHD[:, None], condition).max()))
        if self.spec.horizon > 2:
            found["smoothness"] = float(metrics.smoothness(x_RHD, self.spec, self.dims).mean())
        for name, constraint in self.constraints.items():
            found[f"{name}_share"], found[f"{name}_worst"] = metrics.violations(x_RHD, constraint)
        try:
            return found | self._dynamics(x_RHD)
        except CannotReplay as error:
            self.left_out["dynamics"] = str(error)
            return found

    def _dynamics(self, x_RHD: Tensor) -> dict[str, float]:
        if self.factory is None:
            raise CannotReplay("the data do not say which environment they come from")
        if (keys := self.run.data.obs_keys) not in ((), ("observation",)):
            raise CannotReplay(f"the observation is made of {', '.join(keys)}, which is not the state alone")
        act_RTA = plan_actions(self.run, x_RHD)
        row, whole = (dynamics_error(self.factory, self.spec, x_RHD, act_RTA, dims=self.dims, restart=restart)[:, 1:]
                      for restart in (True, False))
        return {"row_error": float(row.mean()), "row_error_p95": float(np.percentile(row, 95)),
                "replay_error": float(whole.mean()), "replay_error_last": float(whole[:, -1].mean())}


def limits(run: Run, real_RHD: Tensor, factory: EnvironmentFactory | None) -> dict[str, Constraint]:
    """What a trajectory must not violate: walls, for a point; the range of these windows; the actions' bounds."""
    spec = run.model.spec
    low_D, high_D = real_RHD.flatten(0, 1).aminmax(dim=0)
    box = lambda low, high, dims: Box(tuple(map(float, low)), tuple(map(float, high)), tuple(dims))  # noqa: E731
    made: dict[str, Constraint] = {}
    position = run.planning.goal_dims
    if factory and factory.maze and len(position) == 2:
        made["walls"] = Blocks(*factory.maze.wall_boxes(), dims=position)
    made["observations"] = box(low_D[: spec.obs_dim], high_D[: spec.obs_dim], range(spec.obs_dim))
    if spec.act_dim:
        space = factory().action_space if factory else None
        low, high = (space.low, space.high) if space else (low_D[spec.obs_dim :], high_D[spec.obs_dim :])
        made["actions"] = box(low, high, range(spec.obs_dim, spec.dim))
    return made


def plan_actions(run: Run, x_RHD: Tensor) -> Tensor:
    """(R, T, A) the actions, on the CPU, of the T = (H - 1) * stride environment steps of plans, decided beforehand.

    The plan's own, where its rows are environment steps. For a plan of observations the inverse dynamics give them: at
    each step from where the plan is towards where it is `planner.look` steps later, or at its end, straight lines
    between rows. Raises `CannotReplay` for actions of rows that are several steps apart.
    """
    spec = run.model.spec
    if spec.offsets:
        raise CannotReplay("the rows of its trajectories are not evenly apart")
    if spec.act_dim and spec.stride > 1:
        raise CannotReplay(f"the rows of its trajectories are {spec.stride} environment steps apart, and it has no "
                           "actions for those between")
    if "inverse" not in run.parts and not spec.act_dim:
        raise CannotReplay("its trajectories are coarse plans; the actions are those of the models that fill them in")
    if spec.act_dim:
        return spec.split(x_RHD)[1][:, :-1]
    return torch.cat([_inverse_actions(run, some.to(run.model.device)).cpu() for some in x_RHD.split(PLANS)])


def _inverse_actions(run: Run, x_RHD: Tensor) -> Tensor:
    inverse, spec = cast(InverseDynamics, run.parts["inverse"]), run.model.spec
    T = (spec.horizon - 1) * spec.stride
    tau = torch.arange(T + 1, device=x_RHD.device) / spec.stride
    below = tau.long().clamp(max=spec.horizon - 2)
    path_RTO = torch.lerp(x_RHD[:, below], x_RHD[:, below + 1], (tau - below)[:, None])
    act_RTA = x_RHD.new_empty(len(x_RHD), T, run.data.act_dim)
    ahead_T = torch.arange(T, 0, -1, device=x_RHD.device).clamp(max=run.planning.look)
    for k in ahead_T.unique().tolist():
        now = (ahead_T == k).nonzero()[:, 0]
        act = inverse(path_RTO[:, now].flatten(0, 1), path_RTO[:, now + k].flatten(0, 1), k)
        act_RTA[:, now] = act.unflatten(0, (len(x_RHD), len(now)))
    return act_RTA
