"""The roadmap of the data: a graph of the places that episodes pass through, which leads to goals beyond any plan.

Places are spread over the entries of the observations that a goal consists of. An edge leads from one place to another
where an episode went from the one to the other, and its weight is the fewest steps that took. The shortest way to a
goal then joins pieces of many episodes, so it may be longer than any of them (search on the replay buffer, Eysenbach
et al. 2019, arXiv 1906.05253; here over recorded passages instead of a learned distance).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from pydantic import PositiveInt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import KDTree
from torch import Tensor

from gentraj.config import settings
from gentraj.constraints import Blocks, Box, Circle, Constraint
from gentraj.constraints.kinds import largest
from gentraj.data import Episodes
from gentraj.data.rests import FLIP, Rests, scales
from gentraj.diffusion.guidance import Constrained
from gentraj.models.sampling import Guidance
from gentraj.trajectory import TrajectorySpec

SAMPLED = 20_000  # observations among which places are chosen
RESTING = 0.2  # share of the steps at rest, from which on passages lead from rest to rest
SPACING_STEPS = 3.0  # environment steps at full speed between two neighbouring places, at least
SPANS = (1, 2, 3, 5, 8)  # environment steps of the passages, for places SPACING_STEPS apart
HELD = 0.02  # spacings by which entries change at most that a passage leaves as they are
WAYPOINTS = 5  # positions that are kept of a passage, its ends included
BETWEEN = 4  # parts of the straight line between two waypoints, at whose ends obstacles are looked for
REACH = 2.0  # spacings within which a position belongs to a place
FAR_REACH = 4.0  # the same for the nearest place of the largest part in which ways lead from each place to every other
AT_ONCE = 16_384  # positions along passages that are compared with an obstacle; more do not fit into a core's cache
WAYS = 256  # to different goals, which are remembered
OBSTACLES = 64  # and obstacles, each with the passages that it closes


@settings
class RoadmapConfig:
    """Settings of the roadmap of the data, on which an agent goes to goals that are too far for it alone."""

    ahead: PositiveInt = 18
    """The agent heads for the first place that lies at least this many environment steps along the way to the goal, and
    for the goal itself once it is nearer. It does not count where the entries of the goal rest most of the time, as
    those of objects do: there the agent heads for the next place where they rest."""
    places: PositiveInt = 2000
    """Largest number of places. They are at least three environment steps at full speed apart, or one for objects."""


@dataclass(frozen=True)
class Way:
    """The shortest ways from all P places to one goal."""

    goal_G: np.ndarray
    steps_P: np.ndarray
    """Environment steps from each place to the goal; infinite where no way leads there."""
    next_P: np.ndarray
    """The place after each place, on its way to the goal; the place itself where the goal is the next."""
    is_held_PG: np.ndarray
    """The entries that the last passage leaves as they are, where the goal is the next."""


@dataclass(frozen=True)
class Route:
    """The N positions along the way from a position, which is the first, towards a goal."""

    place_NG: np.ndarray
    steps_N: np.ndarray
    """Environment steps from the first position to each."""
    left: float
    """Environment steps from the first position to the goal."""


@dataclass(frozen=True)
class Roadmap:
    """A directed graph of P places and E passages between them, in environment units and environment steps."""

    place_PG: np.ndarray
    """Places, in the entries of a goal."""
    edge_E2: np.ndarray
    """The places that each passage leads from and to."""
    steps_E: np.ndarray
    """The fewest steps that a passage took, and no fewer than the way takes at full speed."""
    passage_EWG: np.ndarray
    """Positions along the quickest recorded passage, evenly spaced in time, its ends included."""
    speed: float
    """Distance in one step, as a mean over a few steps, that 90 % of the recorded steps stay below in which the
    position moves."""
    spacing: float
    """Distance within which every recorded position has a place."""
    is_resting_P: np.ndarray
    """Whether recorded positions rested in each place, if positions rest most of the time, as those of objects do; else
    all are false. With rests, a passage leads to where the position comes to rest next, its steps begin with the rest
    before, and the agent heads for the end of one passage at a time."""
    _scale_G: np.ndarray = field(init=False, repr=False, compare=False)
    _place_GP: np.ndarray = field(init=False, repr=False, compare=False)
    _core_P: np.ndarray = field(init=False, repr=False, compare=False)
    _key_E: np.ndarray = field(init=False, repr=False, compare=False)
    _is_held_EG: np.ndarray = field(init=False, repr=False, compare=False)
    _is_clean_E: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        P = len(self.place_PG)
        graph = csr_array((np.ones(len(self.edge_E2)), self.edge_E2.T), shape=(P, P))
        part_P = connected_components(graph, connection="strong")[1]
        scale_G = scales(self.place_PG)
        range_EG = self.passage_EWG.max(1) - self.passage_EWG.min(1)
        object.__setattr__(self, "_scale_G", scale_G)
        object.__setattr__(self, "_place_GP", np.ascontiguousarray((self.place_PG * scale_G).T))
        object.__setattr__(self, "_core_P", part_P == np.bincount(part_P).argmax())
        object.__setattr__(self, "_key_E", self.edge_E2 @ (P, 1))
        is_held_EG = (range_EG <= HELD * self.spacing) & self.rests
        object.__setattr__(self, "_is_held_EG", is_held_EG)
        object.__setattr__(self, "_is_clean_E", (is_held_EG | (range_EG > self.spacing / self._scale_G)).all(1))

    @classmethod
    def of_episodes(cls, episodes: Episodes, goal_dims: tuple[int, ...], config: RoadmapConfig) -> Roadmap:
        """The roadmap of these entries of the observations of episodes. Raises ValueError where they never change."""
        episode_N = np.repeat(np.arange(len(episodes)), episodes.lengths + 1)
        return cls.of(episodes.obs[:, list(goal_dims)], episode_N, config.places)

    @classmethod
    def of(cls, position_NG: np.ndarray, episode_N: np.ndarray, places: int = 2000, seed: int = 0) -> Roadmap:
        """Builds the roadmap of recorded positions, in their order, and the number of the episode of each.

        Raises ValueError for data in which nothing moves.
        """
        position_NG = np.asarray(position_NG, np.float32)
        found = Rests.of(position_NG, episode_N)
        scaled_NG, speed = position_NG * found.scale_G, found.speed
        drawn = np.random.default_rng(seed).choice(len(position_NG), min(SAMPLED, len(position_NG)), replace=False)
        drawn = np.sort(drawn)
        is_rest_N = (found.since_N < np.arange(len(position_NG))) & (found.share > RESTING)
        rests = is_rest_N.any()
        chosen, spacing = spread(scaled_NG[drawn], speed * (1 if rests else SPACING_STEPS), places)
        place_PG = position_NG[drawn[chosen]]
        place_N = np.asarray(KDTree(scaled_NG[drawn[chosen]]).query(scaled_NG)[1])
        is_resting_P = np.bincount(place_N, is_rest_N, len(place_PG)) > 0
        passages = []  # rows: the key of an edge, the steps of a passage, where it begins, where it ends
        ways = to_rests(found, is_rest_N | ~is_resting_P[place_N]) if rests else spans(episode_N, spacing / speed)
        for begin, end in ways:
            is_passage = place_N[begin] != place_N[end]
            begin, end = begin[is_passage], end[is_passage]
            first, last = place_N[begin], place_N[end]
            least = np.linalg.norm((place_PG[first] - place_PG[last])[:, found.scale_G == 1], axis=1) / speed
            steps = np.maximum(least, end - (found.since_N[begin] if rests else begin))
            passages.append(np.stack([first * len(place_PG) + last, steps, begin, end]))
        passage_4M = np.concatenate(passages, 1)
        key_M, steps_M = passage_4M[0].astype(int), passage_4M[1]
        order = np.lexsort((steps_M, key_M))
        _, index = np.unique(key_M[order], return_index=True)
        quickest_E = order[index]
        begin_E, end_E = passage_4M[2:, quickest_E]
        at_EW = np.round(begin_E[:, None] + (end_E - begin_E)[:, None] * np.linspace(0, 1, WAYPOINTS)).astype(int)
        edge_E2 = np.stack(np.divmod(key_M[quickest_E], len(place_PG)), 1)
        steps_E = steps_M[quickest_E].astype(np.float32)
        return cls(place_PG, edge_E2, steps_E, position_NG[at_EW], speed, spacing, is_resting_P)

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Roadmap:
        """The roadmap that `tensors` gave. Raises ValueError where some of them are missing."""
        names = {"place", "edge", "steps", "passage", "speed", "spacing", "resting"}
        if missing := names - tensors.keys():
            raise ValueError(f"{', '.join(sorted(missing))} of the run's roadmap are missing; `gentraj train --resume` "
                             "writes them anew")
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        return cls(arrays["place"], arrays["edge"], arrays["steps"], arrays["passage"], float(arrays["speed"]),
                   float(arrays["spacing"]), arrays["resting"])

    @property
    def rests(self) -> bool:
        """Whether positions rest most of the time."""
        return bool(self.is_resting_P.any())

    @property
    def core_PG(self) -> np.ndarray:
        """The places of the largest part in which ways lead from each place to every other."""
        return self.place_PG[self._core_P]

    def tensors(self) -> dict[str, Tensor]:
        """All that it consists of, to be saved."""
        arrays = {"place": self.place_PG, "edge": self.edge_E2, "steps": self.steps_E, "passage": self.passage_EWG,
                  "speed": np.float64(self.speed), "spacing": np.float64(self.spacing), "resting": self.is_resting_P}
        return {name: torch.as_tensor(array) for name, array in arrays.items()}

    def way(self, goal_G: np.ndarray) -> Way:
        """Finds the shortest ways to a goal. All steps are infinite if the goal is outside of everything recorded."""
        P = len(self.place_PG)
        last_P, is_held_PG = self._last(goal_G)
        ends = np.flatnonzero(np.isfinite(last_P))
        start_E, end_E = np.concatenate([self.edge_E2, np.stack([ends, np.full(len(ends), P)], 1)]).T
        backwards = csr_array((np.concatenate([self.steps_E, last_P[ends]]), (end_E, start_E)), shape=(P + 1, P + 1))
        steps, previous = dijkstra(backwards, indices=P, return_predecessors=True)
        next_P = np.where(previous[:P] == P, np.arange(P), previous[:P])
        return Way(np.asarray(goal_G), steps[:P], next_P, is_held_PG)

    def _last(self, goal_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The steps (P,) from each place straight to a goal, infinite where it is not near, and the entries (P, G) that
        stay as they are on the way.

        Where positions rest, what is not at its goal yet needs one more passage, and a passage may lead to the goal
        from places that it was not recorded from: if passages that move some of the entries and none of the others end
        near the goal, such a passage leads there from each place that another such passage was recorded from, and that
        is the goal in the other entries, and not in the switches that it flips.
        """
        near, steps = self._near(goal_G, FAR_REACH * self.spacing)
        last_P, is_held_PG = np.full(len(self.place_PG), np.inf), np.zeros(self.place_PG.shape, bool)
        last_P[near] = np.maximum(steps, 1e-3)
        if not self.rests:
            return last_P, is_held_PG
        more = float(np.median(self.steps_E))
        last_P[near] += np.where(steps > 1, more, 0)
        ends_E = np.isin(self.edge_E2[:, 1], near) & self._is_clean_E
        for is_held_G in np.unique(self._is_held_EG[ends_E], axis=0):
            alike_E = (self._is_held_EG == is_held_G).all(1) & self._is_clean_E
            off_P = np.linalg.norm((self.place_PG - goal_G) * self._scale_G * is_held_G, axis=1)
            steps_P = np.median(self.steps_E[alike_E]) + np.where(off_P > self.speed, more, 0)
            begins = np.unique(self.edge_E2[alike_E, 0])
            flips_G = ~is_held_G & (self._scale_G == FLIP)
            can_P = (off_P <= REACH * self.spacing) & (self.place_PG != goal_G)[:, flips_G].all(1)
            begins = begins[can_P[begins]]
            better = begins[steps_P[begins] < last_P[begins]]
            last_P[better] = steps_P[better]
            is_held_PG[better] = is_held_G
        return last_P, is_held_PG

    def route(self, way: Way, position_G: np.ndarray, steps: float = np.inf) -> Route | None:
        """The way from a position to the first place that lies `steps` environment steps along it, or to the goal if it
        is nearer; where positions rest, to the end of the first passage. None if no way leads from there."""
        near, first = self._near(position_G, FLIP / 2 if self.rests else FAR_REACH * self.spacing)
        if not len(near):
            return None
        total = way.steps_P[near] + first
        best = total.argmin()
        place, left = int(near[best]), float(total[best])
        if not math.isfinite(left):
            return None
        places, steps_N = [np.asarray(position_G), self.place_PG[place]], [0.0, left - way.steps_P[place]]
        is_held_G = np.ones(len(position_G), bool)
        while not self._is_enough(steps_N, steps) and way.next_P[place] != place:
            passage = np.searchsorted(self._key_E, place * len(self.place_PG) + way.next_P[place])
            is_held_G &= self._is_held_EG[passage]
            place = way.next_P[place]
            places.append(np.where(is_held_G, position_G, self.place_PG[place]))
            steps_N.append(left - way.steps_P[place])
        if not self._is_enough(steps_N, steps):
            is_held_G &= way.is_held_PG[place] & np.isfinite(steps)  # all of the way ends at the goal
            places.append(np.where(is_held_G, position_G, way.goal_G))
            steps_N.append(left)
        return Route(np.array(places), np.array(steps_N), left)

    def crossing(self, is_blocked: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """(E,) whether each passage crosses what is blocked: positions (M, G) for which `is_blocked` is true. A passage
        is straight between two waypoints, and from and to its places."""
        corner_ECG = np.concatenate([self.place_PG[self.edge_E2[:, :1]], self.passage_EWG,
                                     self.place_PG[self.edge_E2[:, 1:]]], 1)
        share_S = np.arange(BETWEEN) / BETWEEN
        step_ECG = np.diff(corner_ECG, axis=1)
        along_ECSG = corner_ECG[:, :-1, None] + share_S[:, None] * step_ECG[:, :, None]
        along_MG = along_ECSG.reshape(-1, along_ECSG.shape[-1])
        parts = [is_blocked(along_MG[first : first + AT_ONCE]) for first in range(0, len(along_MG), AT_ONCE)]
        return np.concatenate(parts).reshape(len(self.steps_E), -1).max(1)

    def without(self, closed_E: np.ndarray) -> Roadmap:
        """The roadmap without these passages."""
        is_open_E = ~closed_E
        return replace(self, edge_E2=self.edge_E2[is_open_E], steps_E=self.steps_E[is_open_E],
                       passage_EWG=self.passage_EWG[is_open_E])

    def _is_enough(self, steps_N: Sequence[float], steps: float) -> bool:
        return len(steps_N) > 2 and math.isfinite(steps) if self.rests else steps_N[-1] >= steps

    def _near(self, position_G: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
        """The places of a position, and the environment steps that the straight line to each takes at full speed. In a
        corner that few episodes entered, or only left, its places may have no way, so the nearest place of the largest
        connected part is one of them, if it lies within `reach`."""
        scaled_G = np.asarray(position_G) * self._scale_G
        distance_P = np.sqrt(np.square(self._place_GP - scaled_G[:, None]).sum(0))
        nearest = distance_P.argmin()
        is_alike_P = self.is_resting_P == self.is_resting_P[nearest]
        near = (is_alike_P & (distance_P <= REACH * self.spacing)).nonzero()[0]
        if not self._core_P[near].any():
            nearest = np.where(self._core_P, distance_P, np.inf).argmin()
            if distance_P[nearest] <= reach:
                near = np.append(near, nearest)
        return near, distance_P[near] / self.speed


def to_rests(found: Rests, may_begin_N: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the rows in which passages begin, of those in which they may, and end: in the next rest."""
    begin = np.flatnonzero(may_begin_N & (found.next_N < len(found.next_N)))
    yield begin, found.next_N[begin]


def spans(episode_N: np.ndarray, spacing_steps: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the rows in which passages of some lengths begin and end, for places these environment steps apart."""
    stretch = spacing_steps / SPACING_STEPS
    for span in np.unique(np.round(np.array(SPANS) * stretch).astype(int)):
        begin = np.flatnonzero(episode_N[span:] == episode_N[:-span])
        yield begin, begin + span


def spread(position_NG: np.ndarray, spacing: float, places: int) -> tuple[list[int], float]:
    """Chooses places by farthest-point sampling until each position has one within `spacing`, or there are
    `places` of them; returns their indices, and the largest distance from a position to its place, or `spacing`."""
    column_GN = np.ascontiguousarray(position_NG.T)
    chosen, far_N = [0], np.full(len(position_NG), np.inf, column_GN.dtype)
    while True:
        square_N = sum(np.square(column_N - column_N[chosen[-1]]) for column_N in column_GN)
        np.minimum(far_N, np.sqrt(square_N), out=far_N)
        farthest = int(far_N.argmax())
        if far_N[farthest] <= spacing or len(chosen) >= places:
            return chosen, float(max(far_N[farthest], spacing))
        chosen.append(farthest)


@dataclass(frozen=True)
class Waypoints:
    """What agents in B environments aim at on their ways."""

    place_BG: Tensor
    """The place to go to: the goal itself where it is near, or where no way leads to it."""
    left_B: Tensor
    """The environment steps that the way to the goal takes; infinite where no recorded way leads to it."""


class FarGoals:
    """Aims an agent at goals beyond its reach: at the place that lies some steps along the way to its goal."""

    def __init__(self, roadmap: Roadmap, config: RoadmapConfig, goal_dims: Sequence[int]):
        """`goal_dims` are the entries of an observation that a goal consists of, in which the roadmap is made."""
        self.roadmap, self.config = roadmap, config
        self.goal_dims = tuple(goal_dims)
        self._way = lru_cache(WAYS)(self._find)
        self._closed_by = lru_cache(OBSTACLES)(self._find_closed)
        self._around = lru_cache(OBSTACLES)(self._find_around)
        self._warned: set[tuple[float, ...]] = set()

    def __call__(self, obs_BO: Tensor, goal_BG: Tensor) -> Tensor:
        """(B, G) the goals to act towards now, in these observations and towards these goals."""
        return self.aim(obs_BO, goal_BG).place_BG

    def outside(self, guide: Guidance) -> FarGoals:
        """The same with a way round the constraints of a guide, as `around` goes."""
        guides = guide if isinstance(guide, Sequence) else [guide]
        given = [one.constraints.constraints for one in guides if isinstance(one, Constrained)]
        return self.around([each for constraints in given for each in constraints.values()])

    def around(self, constraints: Sequence[Constraint]) -> FarGoals:
        """The same on a roadmap without the passages that constraints forbid, so that the way goes round obstacles.
        Only constraints on positions count: boxes, circles and blocks of entries of the goal. What an obstacle closes
        is remembered, for the next agent with this obstacle among others."""
        obstacles = [each for each in constraints
                     if isinstance(each, (Box, Circle, Blocks)) and set(each.dims) <= set(self.goal_dims)]
        if not obstacles:
            return self
        return self._around(frozenset(obstacles))

    def aim(self, obs_BO: Tensor, goal_BG: Tensor, detours: Mapping[int, FarGoals] | None = None) -> Waypoints:
        """The places to plan for now, (B, G) each, on the `detours` of some environments as far as these lead to their
        goals. Warns of a goal without a way, once."""
        places, left = goal_BG.cpu().numpy().copy(), np.full(len(goal_BG), np.inf, np.float32)
        for b, position_G in enumerate(obs_BO.cpu().numpy()[:, self.goal_dims]):
            route = None
            if detours and b in detours:
                route = detours[b].route(position_G, places[b], self.config.ahead)
            route = route or self.route(position_G, places[b], self.config.ahead)
            if route is None:
                self._warn(position_G, places[b])
            else:
                places[b], left[b] = route.place_NG[-1], route.left
        return Waypoints(torch.from_numpy(places).to(goal_BG), torch.from_numpy(left).to(goal_BG))

    def route(self, position_G: np.ndarray, goal_G: np.ndarray, steps: float = np.inf) -> Route | None:
        """The way from a position to its goal, by default all of it; None if no way leads from there."""
        return self.roadmap.route(self._way(tuple(goal_G.tolist())), position_G, steps)

    def _warn(self, position_G: np.ndarray, goal_G: np.ndarray) -> None:
        goal = tuple(goal_G.tolist())
        if goal not in self._warned:
            self._warned.add(goal)
            warnings.warn(f"no recorded way leads from {position_G.round(3).tolist()} to the goal "
                          f"{goal_G.round(3).tolist()}; the agent goes straight for it", stacklevel=2)

    def _find_around(self, obstacles: frozenset[Constraint]) -> FarGoals:
        closed_E = np.any([self._closed_by(each) for each in obstacles], 0)
        return FarGoals(self.roadmap.without(closed_E), self.config, self.goal_dims)

    def _find_closed(self, obstacle: Constraint) -> np.ndarray:
        """(E,) whether an obstacle closes each passage."""
        entries = [self.goal_dims.index(dim) for dim in obstacle.dims]

        def is_blocked(position_MG: np.ndarray) -> np.ndarray:
            vectors_1Md = torch.as_tensor(position_MG[None, :, entries]).double()
            spec = TrajectorySpec(len(entries), 0, max(len(position_MG), 2))  # as if they were timesteps
            return (largest(obstacle.excess(vectors_1Md, spec))[0] > 0).numpy()

        return self.roadmap.crossing(is_blocked)

    def _find(self, goal: tuple[float, ...]) -> Way:
        return self.roadmap.way(np.array(goal, np.float32))
