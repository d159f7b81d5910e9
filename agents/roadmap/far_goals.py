"""Agents that go to goals beyond their reach, on the roadmap of their data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor

from gentraj.config import settings
from gentraj.constraints import Blocks, Box, Circle, Constraint
from gentraj.constraints.kinds import largest
from gentraj.data import Episodes
from gentraj.data.rests import Rests
from gentraj.diffusion.guidance import Constrained
from gentraj.models.sampling import Guidance, Preference, as_plugins
from gentraj.trajectory import TrajectorySpec

from .effects import Passages
from .graph import PlaceGraph, Route, Way
from .jumps import Jumps
from .moves import Moves, Ways
from .walks import Walks

RESTING = 0.2  # share of the steps at rest, from which on passages lead from rest to rest
WAYS = 256  # to different goals at least, which are remembered
OBSTACLES = 64  # and obstacles that a user tells, each with the passages that it closes
K = TypeVar("K")
V = TypeVar("V")
Roadmap = Walks | Moves


@settings
class RoadmapConfig:
    """Settings of the roadmap of the data, on which an agent goes to goals that are too far for it alone."""

    ahead: PositiveInt = 18
    """The agent heads for the first place that lies at least this many environment steps along the way to the goal, and
    for the goal itself once it is nearer. It does not count where the entries of the goal rest most of the time, as
    those of objects do: there the agent heads for the next place where they rest."""
    places: PositiveInt = 2000
    """Largest number of places, which are at least three environment steps at full speed apart. It does not count where
    the entries of the goal rest most of the time."""


def roadmap_of(position_NG: np.ndarray, episode_N: np.ndarray, places: int = 2000) -> Roadmap:
    """Builds the roadmap of recorded positions, in their order, and the number of the episode of each: of moves where
    positions rest most of the time, or else of walks.

    Raises ValueError for data in which nothing moves.
    """
    position_NG = np.asarray(position_NG, np.float32)
    found = Rests.of(position_NG, episode_N)
    is_rest_N = (found.since_N < np.arange(len(position_NG))) & (found.share > RESTING)
    if is_rest_N.any():
        return Moves.of(position_NG, found, is_rest_N)
    return Walks.of(position_NG, episode_N, found, places)


def roadmap_of_episodes(episodes: Episodes, goal_dims: tuple[int, ...], config: RoadmapConfig) -> Roadmap:
    """The roadmap of these entries of the observations of episodes. Raises ValueError where they never change."""
    episode_N = np.repeat(np.arange(len(episodes)), episodes.lengths + 1)
    return roadmap_of(episodes.obs[:, list(goal_dims)], episode_N, config.places)


def roadmap_of_tensors(tensors: Mapping[str, Tensor]) -> Roadmap:
    """The roadmap that `tensors` gave. Raises ValueError where some of them are missing, or others are there."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    if arrays.keys() == {"before", "after", "moved", "steps", "speed", "still", "scale"}:
        passages = Passages(arrays["before"], arrays["after"], arrays["moved"], arrays["steps"])
        return Moves(passages, float(arrays["speed"]), float(arrays["still"]), arrays["scale"])
    jumps = {name.removeprefix("jumps."): array for name, array in arrays.items() if name.startswith("jumps.")}
    graph = {name: array for name, array in arrays.items() if not name.startswith("jumps.")}
    of_jumps = {field.name for field in fields(Jumps)}
    of_graph = {"place", "edge", "steps", "passage", "speed", "spacing"}
    of_walls = {"known", "known_place"}
    if graph.keys() - of_walls != of_graph or len(graph) == 7 or jumps.keys() not in (set(), of_jumps):
        raise ValueError(f"the run's roadmap consists of {', '.join(sorted(arrays))}, as those of other versions do; "
                         "`gentraj train --resume` writes it anew")
    places = PlaceGraph(arrays["place"], arrays["edge"], arrays["steps"], arrays["passage"], float(arrays["speed"]),
                        float(arrays["spacing"]), arrays.get("known", arrays["place"][:0]),
                        arrays.get("known_place", np.zeros(0, int)))
    return Walks(places, Jumps(**jumps) if jumps else Jumps.none(places))


@dataclass(frozen=True)
class Waypoints:
    """What agents in B environments aim at on their ways."""

    place_BG: Tensor
    """The place to go to: the goal itself where it is near, or where no way leads to it."""
    left_B: Tensor
    """The environment steps that the way to the goal takes; infinite where no recorded way leads to it."""


class FarGoals:
    """Aims an agent at goals beyond its reach: at the place that lies some steps along the way to its goal.

    It remembers ways to goals, and what the obstacles close that a user told; a copy finds them anew.
    """

    def __init__(self, roadmap: Roadmap, config: RoadmapConfig, goal_dims: Sequence[int]):
        """`goal_dims` are the entries of an observation that a goal consists of, in which the roadmap is made."""
        self.roadmap, self.config = roadmap, config
        self.goal_dims = tuple(goal_dims)
        self.most = WAYS
        self.ways: dict[tuple[float, ...], Way | Ways] = {}
        self.told: dict[frozenset[Constraint], FarGoals] = {}
        self._warned: set[tuple[float, ...]] = set()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"ways": {}, "told": {}}

    def __call__(self, obs_BO: Tensor, goal_BG: Tensor) -> Tensor:
        """(B, G) the goals to act towards now, in these observations and towards these goals."""
        return self.aim(obs_BO, goal_BG).place_BG

    def expect(self, goals: int) -> None:
        """Remembers the ways to at least so many goals at a time."""
        self.most = max(self.most, goals)

    def outside(self, guide: Guidance) -> FarGoals:
        """The same with a way round the constraints of a guide, as `around` goes."""
        constrained = [one for one in as_plugins(guide, Preference) if isinstance(one, Constrained)]
        return self.around([each for one in constrained for each in one.constraints.constraints.values()])

    def around(self, constraints: Sequence[Constraint]) -> FarGoals:
        """The same on a roadmap without the passages that constraints forbid, so that the way goes round obstacles.
        Only constraints on positions count: boxes, circles and blocks of entries of the goal. It is remembered, for the
        next agent with these obstacles."""
        obstacles = frozenset(each for each in constraints
                              if isinstance(each, (Box, Circle, Blocks)) and set(each.dims) <= set(self.goal_dims))
        if not obstacles:
            return self
        return _kept(self.told, obstacles, OBSTACLES, lambda: self.closed_by(*obstacles))

    def closed_by(self, *obstacles: Box | Circle | Blocks) -> FarGoals:
        """The same on a roadmap without the passages that cross obstacles, which is not remembered."""
        roadmap = self.roadmap
        for each in obstacles:
            roadmap = roadmap.avoiding(partial(_is_blocked, each, self.goal_dims))
        return FarGoals(roadmap, self.config, self.goal_dims)

    def aim(self, obs_BO: Tensor, goal_BG: Tensor, detours: Mapping[int, FarGoals] | None = None) -> Waypoints:
        """The places to plan for now, (B, G) each, on the `detours` of some environments as far as these lead to their
        goals. Warns of a goal without a way, once."""
        self.expect(len(goal_BG))
        places, left = goal_BG.cpu().numpy().copy(), np.full(len(goal_BG), np.inf, np.float32)
        for b, position_G in enumerate(obs_BO.cpu().numpy()[:, self.goal_dims]):
            route = None
            if detours and b in detours:
                route = detours[b].route(position_G, places[b], self.config.ahead)
            if route is None:
                route = self.route(position_G, places[b], self.config.ahead)
            if route is None:
                self._warn(position_G, places[b])
            else:
                places[b], left[b] = route.place_NG[-1], route.left
        return Waypoints(torch.from_numpy(places).to(goal_BG), torch.from_numpy(left).to(goal_BG))

    def route(self, position_G: np.ndarray, goal_G: np.ndarray, steps: float = math.inf) -> Route | None:
        """The way from a position to its goal, by default all of it; None if no way leads from there."""
        goal = tuple(goal_G.tolist())
        way = _kept(self.ways, goal, self.most, lambda: self.roadmap.way(np.array(goal, np.float32)))
        return self.roadmap.route(way, position_G, steps)

    def _warn(self, position_G: np.ndarray, goal_G: np.ndarray) -> None:
        goal = tuple(goal_G.tolist())
        if goal not in self._warned:
            self._warned.add(goal)
            warnings.warn(f"no recorded way leads from {position_G.round(3).tolist()} to the goal "
                          f"{goal_G.round(3).tolist()}; the agent goes straight for it", stacklevel=2)


def _is_blocked(obstacle: Box | Circle | Blocks, goal_dims: tuple[int, ...], position_MG: np.ndarray) -> np.ndarray:
    """(M,) whether an obstacle holds each position."""
    entries = [goal_dims.index(dim) for dim in obstacle.dims]
    vectors_1Md = torch.as_tensor(position_MG[None, :, entries]).double()
    spec = TrajectorySpec(len(entries), 0, max(len(position_MG), 2))  # as if they were timesteps
    return (largest(obstacle.excess(vectors_1Md, spec))[0] > 0).numpy()


def _kept(known: dict[K, V], key: K, most: int, find: Callable[[], V]) -> V:
    """The value of a key, which is found where it is not known. The `most` values stay that were asked for last."""
    value = known.pop(key, None)
    if value is None:
        value = find()
    known[key] = value
    if len(known) > most:
        for oldest in list(known)[:-most]:
            known.pop(oldest, None)  # a plan in another thread may have forgotten it by now
    return value
