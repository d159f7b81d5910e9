"""Samples of a run's generator under a start, a goal and a context, as `gentraj sample` writes them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gentraj.agents.prior import action_model_of
from gentraj.envs.making import recorded_factory

from ..diffusion.composition import ClassifierFree
from ..files import write_file
from ..trajectory import DEFAULT_OPTIONS, Condition, SamplingOptions
from .planner import PlannerRun
from .policy import PolicyRun
from .run import Run

Numbers = Sequence[float] | np.ndarray | Tensor


class Samples(NamedTuple):
    """N trajectories of H timesteps, or N chunks of K actions that a policy's generator sampled for one observation.

    All numbers are in environment units.
    """

    obs_NHO: Tensor
    """The observations; (N, 1, O) for chunks of actions."""
    act_NHA: Tensor
    """The actions, of width 0 for trajectories without actions; (N, K, A) for chunks."""
    stride: int | tuple[int, ...]
    """Environment steps between two timesteps, or from the first timestep to each later one."""

    def save(self, path: Path) -> None:
        """Writes the arrays `obs`, `act` and `stride` as an .npz file, which is written whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, obs=self.obs_NHO.cpu().numpy(), act=self.act_NHA.cpu().numpy(),
                            stride=np.array(self.stride))
        write_file(path, buffer.getvalue())


@dataclass(frozen=True)
class Given:
    """What samples are conditioned on; None is unknown. A policy is given a start and, if it has goals, a goal."""

    start: Numbers | None = None
    """The first observation: a whole one, or only the entries that a goal has. A policy needs a whole one."""
    goal: Numbers | None = None
    """The goal, which trajectories reach at `arrival`."""
    arrival: int | None = None
    """The timestep at which the goal is reached; by default the likeliest one if there is a start, else the last."""
    context: Numbers | None = None
    """The context that the model is conditioned on, such as a return or a task."""
    guidance: float = 1.0
    """The weight of classifier-free guidance by the context: 0 ignores the context, 1 samples as the model was trained,
    and more exaggerates the context."""

    def tensors(self, device: torch.device) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The start (O,), the goal (G,) and the context (C,) on a device."""
        start, goal, context = (None if numbers is None else torch.as_tensor(numbers, dtype=torch.float32).to(device)
                                for numbers in (self.start, self.goal, self.context))
        return start, goal, context


def sample_run(run: Run, num: int = 16, given: Given | None = None, *, seed: int = 0,
               options: SamplingOptions = DEFAULT_OPTIONS) -> Samples:
    """Samples `num` trajectories of a planner's model, or chunks of actions of a policy's generator.

    The chunks are the candidates that the policy chooses from, or the actions that it was trained on, not always the
    action that it takes. Raises ValueError for a run without a generator of trajectories or actions, and for numbers
    that do not fit the run.
    """
    given = given or Given()
    if num < 1:
        raise ValueError(f"--num is {num}; give at least 1")
    if given.arrival is not None and given.goal is None:
        raise ValueError("--arrival says when to be at a goal; give --goal too")
    if not isinstance(run, PlannerRun | PolicyRun):
        raise ValueError(f"{run.description}, which predicts what actions lead to: gymnasium.make("
                         "'gentraj/WorldModel-v0', run=...) steps it, run.world_model.imagine rolls out batches")
    _ = run.model  # the run refuses here if it has no model
    _check_places(run, given)
    _warn_far(run, given)
    if isinstance(run, PolicyRun):
        return _actions(run, num, given, seed, options)
    guide = None
    if given.guidance != 1:
        if given.context is None:
            raise ValueError(f"--guidance is {given.guidance}, which weighs a context; give --context too, or leave it "
                             "out")
        guide = ClassifierFree(given.guidance)
    x_NHD = run.model.sample(condition_of(run, given), num, guide=guide, seed=seed, options=options)[0]
    return Samples(*run.model.spec.split(x_NHD), run.model.spec.spacing)


def _check_places(run: Run, given: Given) -> None:
    """Raises ValueError if the start or the goal lies in a wall of the run's maze or outside the maze."""
    factory, dims = recorded_factory(run.data.env), list(run.data.goal_dims)
    if factory is None or factory.maze is None or len(dims) != 2:
        return
    for option, numbers in (("--start", given.start), ("--goal", given.goal)):
        place = np.zeros(0) if numbers is None else np.asarray(numbers, np.float32)
        text = ",".join(f"{x:g}" for x in place)
        place = place[dims] if len(place) == run.data.obs_dim else place
        if len(place) == 2 and not factory.maze.is_free(place):
            centres = ", ".join(f"{x:g},{y:g}" for x, y in factory.maze.centre(factory.maze.cells))
            raise ValueError(f"{option} {text} lies in a wall of {factory.env_id} or outside it; the free cells have "
                             f"the centres {centres}")


def _warn_far(run: Run, given: Given) -> None:
    """Warns of entries of the start and the goal that lie far outside the windows that the run keeps of its data."""
    obs_O = run.reference.x_BHD[..., : run.data.obs_dim].flatten(0, 1)[run.reference.mask_BHD[..., 0].flatten()]
    low_O, high_O = obs_O.aminmax(dim=0)
    far = []
    for option, numbers in (("--start", given.start), ("--goal", given.goal)):
        values = [] if numbers is None else list(numbers)
        entries = range(run.data.obs_dim) if len(values) == run.data.obs_dim else run.data.goal_dims
        for value, o in zip(values, entries, strict=False):
            low, high = low_O[o].item(), high_O[o].item()
            if not low - (high - low) <= value <= high + (high - low):
                far.append(f"{option} has {value:g} for entry {o} of an observation, which is {low:.3g} to {high:.3g} "
                           "in the data")
    if far:
        warnings.warn(f"samples far outside the data are not to be trusted: {'; '.join(far)}", stacklevel=3)


def _actions(run: PolicyRun, num: int, given: Given, seed: int, options: SamplingOptions) -> Samples:
    """Chunks of actions. Raises ValueError without an observation or a goal, and for what a policy does not use."""
    policy, contexts = run.policy, run.context.kinds
    start_O, goal_G, context_C = given.tensors(run.device)
    foreign = given.arrival is not None or context_C is not None or given.guidance != 1
    if foreign or start_O is None or (goal_G is None) == bool(contexts):
        needed = "observation and a goal; give --start and --goal" if contexts else "observation; give --start"
        raise ValueError(f"{run.description}, whose actions are sampled for an {needed}, and no other condition")
    _check_width("--start", start_O, run.data.obs_dim)
    goal_1G = None
    if goal_G is not None:
        _check_width("--goal", goal_G, run.data.context_dim)
        goal_1G = goal_G[None]
    with torch.no_grad():
        state_1S = policy.scales.state(start_O[None], goal_1G)
        actions = action_model_of(policy)
        x_NKD = actions.model.sample(actions.condition(state_1S), num, seed=seed, options=options)[0]
        act_NKA = policy.scales.act.unnormalize(actions.actions(x_NKD))
    return Samples(start_O.expand(num, 1, -1), act_NKA, 1)


def condition_of(run: PlannerRun, given: Given) -> Condition:
    """The condition of a planner's model. Raises ValueError if something has a wrong number of numbers."""
    spec, goal_dims = run.model.spec, list(run.planning.goal_dims) or list(range(run.data.obs_dim))
    start_O, goal_G, context_C = given.tensors(run.device)
    condition = Condition.empty(spec, device=run.device)
    if start_O is not None:
        if len(start_O) == len(goal_dims):
            condition = condition.with_obs(0, start_O, goal_dims)
        else:
            fewer = f" or {len(goal_dims)} (its entries {goal_dims})" if len(goal_dims) < spec.obs_dim else ""
            _check_width("--start", start_O, spec.obs_dim, fewer)
            condition = condition.with_obs(0, start_O)
    if goal_G is not None:
        _check_width("--goal", goal_G, len(goal_dims), f" (entries {goal_dims})")
        timestep = spec.horizon - 1 if given.arrival is None else given.arrival
        if given.arrival is None and start_O is not None:
            timestep = run.likeliest_arrival(condition.values_BHD[:, 0, : spec.obs_dim], goal_G[None])
        condition = condition.with_obs(timestep, goal_G, goal_dims)
    if context_C is None:
        return condition
    kinds = f" ({', '.join(run.context.kinds)})" if run.context.kinds else ", as the run was trained without a context,"
    _check_width("--context", context_C, run.data.context_dim, kinds)
    return replace(condition, context_BC=context_C[None])


def _check_width(option: str, numbers: Tensor, width: int, about: str = "") -> None:
    if len(numbers) != width:
        raise ValueError(f"{option} has {len(numbers)} numbers; {width}{about} are expected")
