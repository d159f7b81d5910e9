"""Samples of a run's generator under a start, a goal and a context, as `gentraj sample` writes them."""

from __future__ import annotations

import reprlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import FiniteFloat, NonNegativeInt
from torch import Tensor

from gentraj.agents.episodic import finite_actions

from ...config import settings
from ...diffusion.guidance import ClassifierFree
from ...files import new_file
from ...randomness import as_seeds, fresh_seed, unfold
from ...ranges import FarFromData
from ...trajectory import DEFAULT_OPTIONS, ArrayLike, Condition, SamplingOptions, as_array, as_tensor
from ..kinds.planner_run import PlannerRun
from ..kinds.policy_run import PolicyRun
from ..kinds.run import Run


class Samples(NamedTuple):
    """N trajectories of H timesteps, or N chunks of K actions that a policy's generator sampled for one observation.

    All numbers are in environment units.
    """

    obs_NHO: Tensor
    """The observations; (N, 1, O) for chunks of actions."""
    act_NHA: Tensor
    """The actions, of width 0 for trajectories without actions; (N, K, A) for chunks."""
    stride: int
    """Environment steps between two timesteps."""
    ratio_NH: Tensor | None = None
    """Of whole ways to a goal, the trust ratio of the plan that each timestep belongs to; NaN after the arrival, where
    the last timestep repeats."""

    def save(self, path: Path) -> None:
        """Writes the arrays `obs`, `act` and `stride`, and `ratio` if there is one, as an .npz file, which is written
        whole or not at all."""
        arrays = {"obs": self.obs_NHO.cpu().numpy(), "act": self.act_NHA.cpu().numpy(), "stride": np.array(self.stride)}
        if self.ratio_NH is not None:
            arrays["ratio"] = self.ratio_NH.numpy()
        with new_file(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)


@settings
class Given:
    """What samples are conditioned on; None is unknown. A policy is given a start and, if it has goals, a goal."""

    start: tuple[FiniteFloat, ...] | None = None
    """The first observation: a whole observation, or only the entries that a goal has. A policy needs a whole one."""
    goal: tuple[FiniteFloat, ...] | None = None
    """The goal to reach."""
    arrival: NonNegativeInt | None = None
    """The timestep of the plan, counted from 0, at which it reaches the goal; by default the most probable one if there
    is a start, else the last one. With a start and a goal alone, a planner with a roadmap plans the whole way, which
    may be longer than its plans."""
    context: tuple[FiniteFloat, ...] | None = None
    """The context that the model is conditioned on, such as a return, a goal or a task."""
    guidance: float = 1.0
    """Weight of classifier-free guidance by the context: 0 ignores the context, 1 samples as the model was trained, and
    more exaggerates the context."""


def sample_run(run: Run, start: ArrayLike | None = None, num: int = 16, *, goal: ArrayLike | None = None,
               arrival: int | None = None, context: ArrayLike | None = None, guidance: float = 1.0,
               seed: int | None = None, options: SamplingOptions = DEFAULT_OPTIONS) -> Samples:
    """Samples `num` trajectories of a planner's model, or chunks of actions of a policy's generator; see `Run.sample`.

    The chunks are the candidates that the policy chooses from, or the actions that it was trained on, not always the
    action that it takes. Those of a steered policy are made from the noise of its actor. Raises ValueError for a run
    without a generator of trajectories or actions, and for numbers that do not fit the run.
    """
    if not isinstance(run, PlannerRun | PolicyRun):
        raise ValueError(f"{run.description}, which predicts what actions lead to: gymnasium.make("
                         "'gentraj/WorldModel-v0', run=...) steps it, run.world_model.imagine rolls out batches")
    if not isinstance(num, int | np.integer) or num < 1:
        raise ValueError(f"num= is {num!r}; a whole number of at least 1 is expected")
    if seed is None:
        seed = fresh_seed()
    as_seeds(seed)  # raises ValueError for a negative one
    given = Given(_numbers("start", start), _numbers("goal", goal), arrival, _numbers("context", context), guidance)
    start_O = _tensor(given.start, run.device)
    goal_G = _tensor(given.goal, run.device)
    _warn_far(run, start_O, goal_G)
    if isinstance(run, PolicyRun):
        return _actions(run, num, given, seed, options)
    model = run.model
    alone = given == Given(given.start, given.goal)
    if run.roadmap is not None and start_O is not None and goal_G is not None and alone:
        return _whole(run, start_O, goal_G, num, seed, options)
    guide = ClassifierFree(given.guidance) if given.guidance != 1 else None
    x_NHD = model.sample(condition_of(run, given), num, guide=guide, seed=seed, options=options)[0]
    return Samples(*model.spec.split(x_NHD), model.spec.stride)


def _whole(run: PlannerRun, start_O: Tensor, goal_G: Tensor, num: int, seed: int,
           options: SamplingOptions) -> Samples:
    """Whole ways to a goal. Raises ValueError for a start that is not a whole observation."""
    _check_width("start=", start_O, run.data.obs_dim, ", a whole observation, for the whole way to a goal")
    _check_width("goal=", goal_G, len(run.data.goal_dims))
    config = replace(run.planning, steps=options.steps or run.planning.steps, temperature=options.temperature)
    ways = run.sampler(config, options=options).whole(start_O.expand(num, -1), goal_G.expand(num, -1),
                                                      unfold(num, seed))
    longest = max(way.spec.horizon for way in ways)
    x_NHD = torch.stack([way.padded(longest) for way in ways])
    ratio_NH = torch.stack([F.pad(way.ratio_T, (0, longest - len(way.ratio_T)), value=torch.nan) for way in ways])
    spec = run.model.spec
    return Samples(*spec.split(x_NHD), spec.stride, ratio_NH)


def _numbers(what: str, given: ArrayLike | None) -> tuple[float, ...] | None:
    """The entries of an array (X,), or of the one row of an array (1, X). Raises ValueError for more rows, and
    TypeError for what is no array of numbers."""
    if given is None:
        return None
    array = as_array(as_tensor(given, what))
    if array.shape[:-1] not in ((), (1,)):
        raise ValueError(f"{what} is {reprlib.repr(given)}; an array of numbers, one axis long, is expected")
    return tuple(array.ravel().tolist())


def _tensor(numbers: tuple[float, ...] | None, device: torch.device) -> Tensor | None:
    return None if numbers is None else torch.as_tensor(numbers, dtype=torch.float32).to(device)


def _warn_far(run: Run, start_X: Tensor | None, goal_G: Tensor | None) -> None:
    """Warns of entries of the start and the goal that are far from the data."""
    ranges = run.ranges()
    found = []
    for what, values in (("start", start_X), ("goal", goal_G)):
        for known in (ranges, ranges.goal):
            if values is not None and known is not None and values.shape == known.mid_O.shape:
                found.append(known.difference(values[None].cpu(), what))
                break
    if far := "; ".join(filter(None, found)):
        warnings.warn(f"samples far outside the data are not to be trusted: {far}", FarFromData, stacklevel=3)


def _actions(run: PolicyRun, num: int, given: Given, seed: int, options: SamplingOptions) -> Samples:
    """Chunks of actions. Raises ValueError without an observation or a goal, and for what a policy does not use."""
    policy, contexts = run.policy, run.context.kinds
    start_O = _tensor(given.start, run.device)
    goal_G = _tensor(given.goal, run.device)
    foreign = given.arrival is not None or given.context is not None or given.guidance != 1
    if foreign or start_O is None or (goal_G is None) == bool(contexts):
        needed = "observation and a goal; give start= and goal=" if contexts else "observation; give start="
        raise ValueError(f"{run.description}, whose actions are sampled for an {needed}, and no other condition")
    _check_width("start=", start_O, run.data.obs_dim)
    if goal_G is not None:
        _check_width("goal=", goal_G, run.data.context_dim)
        goal_G = goal_G[None]
    with torch.no_grad():
        state_NS = policy.scales.state(policy.spec.seen(start_O[None]), goal_G).expand(num, -1)
        act_NKA = finite_actions(policy.generated(state_NS, unfold(num, seed), options), "the policy")
    return Samples(start_O.expand(num, 1, -1), policy.scales.act.unnormalize(act_NKA), 1)


def condition_of(run: PlannerRun, given: Given) -> Condition:
    """The condition of a planner's model. Raises ValueError if something has a wrong number of numbers."""
    spec, goal_dims = run.model.spec, list(run.planning.goal_dims) or list(range(run.data.obs_dim))
    start_O = _tensor(given.start, run.device)
    goal_G = _tensor(given.goal, run.device)
    context_C = _tensor(given.context, run.device)
    condition = Condition.empty(spec, device=run.device)
    if start_O is not None and len(start_O) == len(goal_dims):
        condition = condition.with_obs(0, start_O, goal_dims)
    elif start_O is not None:
        fewer = f" or {len(goal_dims)} (its entries {goal_dims})" if len(goal_dims) < spec.obs_dim else ""
        _check_width("start=", start_O, spec.obs_dim, fewer)
        condition = condition.with_obs(0, start_O)
    if goal_G is not None:
        _check_width("goal=", goal_G, len(goal_dims), f" (entries {goal_dims})")
        timestep = spec.horizon - 1 if given.arrival is None else given.arrival
        if given.arrival is None and start_O is not None:
            timestep = run.likeliest_arrival(condition.values_BHD[:, 0, : spec.obs_dim], goal_G[None])
        condition = condition.with_obs(timestep, goal_G, goal_dims)
    elif given.arrival is not None:
        raise ValueError("arrival= says when to be at a goal; give goal=, too")
    if context_C is not None:
        _check_width("context=", context_C, run.data.context_dim, f" ({', '.join(run.context.kinds) or 'no context'})")
        condition = replace(condition, context_BC=context_C[None])
    return condition


def _check_width(option: str, numbers: Tensor, width: int, about: str = "") -> None:
    if len(numbers) != width:
        raise ValueError(f"{option} has {len(numbers)} numbers; {width}{about} are expected")
