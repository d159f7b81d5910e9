"""Measures how good a planner's trajectories are, compared with windows of data, as `gentraj measure` writes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from gentraj.agents.memory import between
from gentraj.envs.evaluation.replay import CannotReplay, dynamics_error
from gentraj.envs.making import EnvironmentFactory, environment_factory, recorded_factory

from ... import metrics
from ...config import JsonObject
from ...constraints import Blocks, Box, Constraint, Constraints
from ...data import windows_of
from ...progress import busy
from ...randomness import fold, generator
from ...trajectory import Batch, Condition, SamplingOptions
from ..kinds.datasets import read_data
from ..kinds.planner_run import PlannerRun
from ..kinds.run import Run, environment_of, of_kind

LEAST = 8  # trajectories at least, as some metrics look at five neighbours
PLANS_AT_ONCE = 128  # plans whose actions are computed at a time

UNITS = {  # std: standard deviations of the data, as a root mean square over a trajectory; env: environment units
    "precision": "share", "recall": "share", "density": "1 where alike", "coverage": "share",
    "sliced_wasserstein": "std", "frechet_distance": "std^2",
    "two_sample_accuracy": "0.5 where alike", "novelty": "std, to the nearest other window that the run keeps",
    "walls_share": "of trajectories", "walls_worst": "env, depth",
    "observations_share": "of trajectories", "observations_worst": "env, beyond the data",
    "actions_share": "of trajectories", "actions_worst": "env, beyond the bounds", "row_error": "env, mean"}


def measure_run(run: Run, *, dataset: str | None = None, num: int = 512, steps: int | None = None,
                seed: int = 0) -> JsonObject:
    """Measures the planner's samples; returns what measures.json holds.

    These are step, seed, steps, dataset, num, and `measures` as {column: {name: number or None}}. The columns are
    "data"; "start", samples conditioned on the first observation; and, if there are goals, "start and goal", samples
    conditioned on the goal's entries of the last timestep too. `units` has the unit of each name, and `left_out` says
    why others are missing. Raises ValueError for too few trajectories or windows and for a policy, and what
    `load_episodes` raises.
    """
    if num < LEAST:
        raise ValueError(f"num= is {num}; at least {LEAST} trajectories are needed to compare them with data")
    run = of_kind(run, PlannerRun)  # raises ValueError for a policy, which has no trajectories to measure
    windows, train = choose_windows(run, dataset, 2 * num, seed)
    num = len(windows.x_BHD) // 2
    real, other = windows.x_BHD[:num], windows.x_BHD[num : 2 * num]
    reference = ReferenceMetrics(run, real, seed)
    with busy("measuring data"):
        columns = {"data": reference.measure(other, train, own=dataset is None)}
    for name, conditions_R in conditions(run, windows).items():
        condition = conditions_R[num : 2 * num]
        with busy(f"sampling and measuring, {name} known"):
            x_RHD = run.model.sample(condition.to(run.device), seed=[fold(seed, r) for r in range(num)],
                                     options=SamplingOptions(steps=steps))[:, 0].cpu()
            columns[name] = reference.measure(x_RHD, train)
    return {"step": run.step, "seed": seed, "steps": steps, "dataset": dataset or "reference windows", "num": num,
            "measures": columns, "units": {name: UNITS.get(name, "") for name in columns["start"]},
            "left_out": reference.left_out}


def choose_windows(run: PlannerRun, dataset: str | None, most: int, seed: int) -> tuple[Batch, Tensor]:
    """Up to `most` different windows without padding, in random order, and all training windows that the run keeps.

    Both are on the CPU. Raises ValueError if there are too few.
    """
    reference = run.reference.to(torch.device("cpu"))
    whole_R = reference.mask_BHD.flatten(1).all(1).nonzero()[:, 0]
    x_RF = reference.x_BHD[whole_R].flatten(1).numpy()
    _, first = np.unique(x_RF, axis=0, return_index=True)  # windows are sampled with replacement
    different = reference.take(whole_R[first])
    if dataset is None:
        windows = different.take(torch.randperm(len(first), generator=generator(seed))[:most])
    else:
        windows = _dataset_windows(run, dataset, most, seed)
    if len(windows.x_BHD) < 2 * LEAST:
        spec = run.model.spec
        raise ValueError(f"{dataset or run.folder}: only {len(windows.x_BHD)} windows of {spec.horizon} timesteps, "
                         f"{spec.stride} environment steps apart, lie whole in an episode; at least {2 * LEAST} are "
                         "needed, give a dataset= of longer or more episodes")
    return windows, different.x_BHD


def _dataset_windows(run: PlannerRun, dataset: str, most: int, seed: int) -> Batch:
    episodes, spec = read_data(replace(run.config, dataset=dataset), run.folder), run.model.spec
    windows = windows_of(episodes, spec, run.context)
    first, ends = np.arange(len(windows)), windows.window_ends
    end = ends[np.searchsorted(ends, first, "right")]
    whole = np.flatnonzero(first + spec.times[-1] + (spec.act_dim > 0) <= end)  # the last observation has no action
    return windows.gather(np.random.default_rng(seed).permutation(whole)[:most])


def conditions(run: PlannerRun, windows: Batch) -> dict[str, Condition]:
    """What samples are conditioned on, by name: the start of each window, and its goal if the run has goals."""
    obs_RHO, goal_dims = run.model.spec.split(windows.x_BHD)[0], list(run.planning.goal_dims)
    unknown = replace(Condition.empty(run.model.spec, len(obs_RHO)), context_BC=windows.context_BC)
    start = unknown.with_obs(0, obs_RHO[:, 0])
    if not goal_dims:
        return {"start": start}
    return {"start": start, "start and goal": start.with_obs(-1, obs_RHO[:, -1, goal_dims], goal_dims)}


class ReferenceMetrics:
    """Measures sets of trajectories against the same real windows; all are on the CPU, in environment units."""

    def __init__(self, run: PlannerRun, real_RHD: Tensor, seed: int):
        self.run, self.real_RHD = run, real_RHD
        self.seed = seed
        self.spec, self.scale = run.model.spec, metrics.fit_scale(real_RHD)
        self.dims = list(run.planning.goal_dims) or list(range(self.spec.obs_dim))  # entries of the same unit
        factory = recorded_factory(run.data.env)
        self.constraints = {name: Constraints(self.spec, [constraint])
                            for name, constraint in limits(run, real_RHD, factory).items()}
        self.left_out: dict[str, str] = {}
        """What could not be measured, and why."""
        if "walls" not in self.constraints:
            self.left_out["walls"] = "the environment has no maze, or is not known"

    def measure(self, x_RHD: Tensor, train_RHD: Tensor, *, own: bool = False) -> dict[str, float | None]:
        """All measures of a set of trajectories.

        Novelty is the distance to the nearest window of `train_RHD`; if `own`, the trajectories are themselves among
        these windows, and it is the distance to the nearest other one.
        """
        measures: dict[str, float | None] = {**metrics.measure(self.real_RHD, x_RHD, seed=self.seed)}
        measures["novelty"] = None
        if len(train_RHD):
            x, train = metrics.features(x_RHD, self.scale), metrics.features(train_RHD, self.scale)
            measures["novelty"] = float(metrics.novelty(x, train, 1 + own).mean())
        for name, constraint in self.constraints.items():
            measures[f"{name}_share"], measures[f"{name}_worst"] = metrics.violations(x_RHD, constraint)
        try:
            return measures | {"row_error": self._dynamics(x_RHD)}
        except ValueError as error:  # such as `CannotReplay`
            self.left_out["dynamics"] = str(error)
            return measures

    def _dynamics(self, x_RHD: Tensor) -> float:
        factory = environment_factory(environment_of(self.run))
        if (keys := self.run.data.obs_keys) not in ((), ("observation",)):
            raise CannotReplay(f"the observation is made of {', '.join(keys)}, which is not the state alone")
        act_RTA = plan_actions(self.run, x_RHD)
        return float(dynamics_error(factory, self.spec, x_RHD, act_RTA, self.dims).mean())


def limits(run: PlannerRun, real_RHD: Tensor, factory: EnvironmentFactory | None) -> dict[str, Constraint]:
    """The constraints that a trajectory must satisfy, by name: the walls of a maze, the range of observations in
    these windows, and the bounds of the actions."""
    spec, position = run.model.spec, run.planning.goal_dims
    low_D = real_RHD.amin((0, 1)).tolist()
    high_D = real_RHD.amax((0, 1)).tolist()
    O = spec.obs_dim  # noqa: E741
    constraints: dict[str, Constraint] = {}
    if factory and factory.maze and len(position) == 2:
        constraints["walls"] = Blocks(*factory.maze.wall_boxes(), dims=position)
    constraints["observations"] = Box(tuple(low_D[:O]), tuple(high_D[:O]), tuple(range(O)))
    if spec.act_dim:
        low_A, high_A = low_D[O:], high_D[O:]
        if factory:
            space = factory().action_space
            low_A, high_A = space.low.tolist(), space.high.tolist()
        constraints["actions"] = Box(tuple(low_A), tuple(high_A), tuple(range(O, spec.dim)))
    return constraints


def plan_actions(run: PlannerRun, x_RHD: Tensor) -> Tensor:
    """(R, T, A) the actions of the T = (H - 1) * stride environment steps of open-loop plans, on the CPU.

    They are the plan's own actions if its timesteps are environment steps. For a plan of observations, inverse dynamics
    compute them: at each step from the plan's observation to the one `planner.lookahead` steps later, or to the last
    one, with observations interpolated between timesteps. Raises `CannotReplay` for plans with actions whose timesteps
    are several environment steps apart, and without inverse dynamics.
    """
    spec = run.model.spec
    if spec.act_dim and spec.stride > 1:
        raise CannotReplay(f"the timesteps of its trajectories are {spec.stride} environment steps apart, and it has "
                           "no actions for the steps between them")
    if spec.act_dim:
        return spec.split(x_RHD)[1][:, :-1]
    if run.inverse is None:
        raise CannotReplay("its trajectories are coarse plans; only the models that fill them in have actions")
    T = spec.times[-1]
    index_T = torch.arange(T + 1, device=run.device) / spec.stride
    ahead_T = torch.arange(T, 0, -1, device=run.device).clamp(max=run.planning.lookahead)
    parts = []
    for plans_RHD in x_RHD.to(run.device).split(PLANS_AT_ONCE):
        path_RTO = between(plans_RHD, index_T)
        act_RTA = plans_RHD.new_empty(len(plans_RHD), T, run.data.act_dim)
        for k in ahead_T.unique().tolist():
            now = (ahead_T == k).nonzero()[:, 0]
            here, there = (rearrange(path_RTO[:, t], "r t o -> (r t) o") for t in (now, now + k))
            act_RTA[:, now] = rearrange(run.inverse(here, there, k), "(r t) a -> r t a", t=len(now))
        parts.append(act_RTA.cpu())
    return torch.cat(parts)
