"""The graph of the places that episodes pass through, which leads to goals beyond any plan.

Places are spread over the entries of the observations that a goal consists of. A passage leads from one place to
another where an episode went from the one to the other, and its weight is the fewest steps that took. The shortest way
to a goal then joins pieces of many episodes, so it may be longer than any of them (search on the replay buffer,
Eysenbach et al. 2019, arXiv 1906.05253; here over recorded passages instead of a learned distance).

The roadmap of what moves most of the time lies on it, `Walks`; that of what rests, as objects do, is `Moves`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from einops import rearrange
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import KDTree
from torch import Tensor

from gentraj.data.rests import scales

SAMPLED = 20_000  # observations among which places are chosen
WAYPOINTS = 5  # positions that are kept of a passage, its ends included
BETWEEN = 4  # parts of the straight line between two waypoints, at whose ends obstacles are looked for
ALONG = 16  # parts of the straight line from a position to its place, at whose ends they are, too
REACH = 2.0  # spacings within which a position belongs to a place
FAR_REACH = 4.0  # spacings within which a goal may belong to the nearest place of the core
AT_ONCE = 16_384  # positions along passages that are compared with an obstacle; more do not fit into a core's cache


@dataclass(frozen=True)
class Way:
    """The shortest ways from all P places to one goal."""

    goal_G: np.ndarray
    steps_P: np.ndarray
    """Environment steps from each place to the goal; infinite where no way leads there."""
    next_P: np.ndarray
    """The place after each place, on its way to the goal; the place itself where its way ends."""
    end_PG: np.ndarray
    """Where to go from each place if the way ends there: to the goal, or into a jump on the way to it."""


@dataclass(frozen=True)
class Route:
    """The N positions along the way from a position, which is the first, towards a goal."""

    place_NG: np.ndarray
    steps_N: np.ndarray
    """Environment steps from the first position to each."""
    left: float
    """Environment steps from the first position to the goal."""


@dataclass(frozen=True)
class PlaceGraph:
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
    known_KG: np.ndarray
    """Recorded positions of the places that a wall divides."""
    known_K: np.ndarray
    """The place of each: on its side of the wall."""
    obstacles: tuple[Callable[[np.ndarray], np.ndarray], ...] = ()
    """What is blocked beside the passages that are left out: for which positions (M, G) each of them is true."""

    @classmethod
    def of(cls, position_NG: np.ndarray, speed: float, spacing: float, places: int) -> PlaceGraph:
        """At most so many places of recorded positions, as `spread` chooses them, without passages."""
        some = np.random.default_rng(0).choice(len(position_NG), min(SAMPLED, len(position_NG)), replace=False)
        some = np.sort(some)
        chosen, spacing = spread(position_NG[some] * scales(position_NG), spacing, places)
        place_PG = position_NG[some[chosen]]
        passage_EWG = np.zeros((0, WAYPOINTS, place_PG.shape[1]), np.float32)
        return cls(place_PG, np.zeros((0, 2), int), np.zeros(0, np.float32), passage_EWG, speed, spacing,
                   np.zeros((0, place_PG.shape[1]), np.float32), np.zeros(0, int))

    def place_of(self, position_NG: np.ndarray) -> np.ndarray:
        """(N,) the place of each position: the nearest, or that of the nearest known position if a wall divides it."""
        scaled_NG = position_NG * self.scale_G
        place_N = np.asarray(self._places.query(scaled_NG)[1])
        divided = np.flatnonzero(np.isin(place_N, self.known_K))
        if len(divided):
            place_N[divided] = self.known_K[self._known.query(scaled_NG[divided])[1]]
        return place_N

    def with_passages(self, position_NG: np.ndarray, place_N: np.ndarray, begin_M: np.ndarray,
                      end_M: np.ndarray) -> PlaceGraph:
        """The graph with the passages that begin and end in these rows of recorded positions; `place_N` are the places
        of the positions, and those without a place, -1, make no passages."""
        is_passage_M = (place_N[begin_M] != place_N[end_M]) & (place_N[begin_M] >= 0) & (place_N[end_M] >= 0)
        begin_M, end_M = begin_M[is_passage_M], end_M[is_passage_M]
        first_M, last_M = place_N[begin_M], place_N[end_M]
        way_MG = (self.place_PG[first_M] - self.place_PG[last_M])[:, self.scale_G == 1]
        steps_M = np.maximum(np.linalg.norm(way_MG, axis=1) / self.speed, end_M - begin_M)
        key_M = first_M * len(self.place_PG) + last_M
        order = np.lexsort((steps_M, key_M))
        _, index = np.unique(key_M[order], return_index=True)
        quickest_E = order[index]
        begin_E1, end_E1 = begin_M[quickest_E, None], end_M[quickest_E, None]
        at_EW = np.round(begin_E1 + (end_E1 - begin_E1) * np.linspace(0, 1, WAYPOINTS)).astype(int)
        edge_E2 = np.stack([first_M[quickest_E], last_M[quickest_E]], 1)
        return replace(self, edge_E2=edge_E2, steps_E=steps_M[quickest_E].astype(np.float32),
                       passage_EWG=position_NG[at_EW])

    @cached_property
    def scale_G(self) -> np.ndarray:
        """What the entries are multiplied by, so that two positions that differ by a switch are far from each other."""
        return scales(self.place_PG)

    @cached_property
    def _places(self) -> KDTree:
        return KDTree(self.place_PG * self.scale_G)

    @cached_property
    def _known(self) -> KDTree:
        return KDTree(self.known_KG * self.scale_G)

    @cached_property
    def is_core_P(self) -> np.ndarray:
        """Whether a place belongs to the core, the largest part in which ways lead from each place to every other."""
        part_P = connected_components(self._leads[0], connection="strong")[1]
        return part_P == np.bincount(part_P).argmax()

    @property
    def core_PG(self) -> np.ndarray:
        """The places of the core."""
        return self.place_PG[self.is_core_P]

    @cached_property
    def _place_GP(self) -> np.ndarray:
        return np.ascontiguousarray((self.place_PG * self.scale_G).T)

    def shortest(self, goal_G: np.ndarray, last_P: np.ndarray) -> Way:
        """The shortest ways to a goal, with the steps from each place straight to it, infinite where it is not near."""
        P = len(self.place_PG)
        ends = np.flatnonzero(np.isfinite(last_P))
        start_E, end_E = np.concatenate([self.edge_E2, np.stack([ends, np.full(len(ends), P)], 1)]).T
        backwards = csr_array((np.concatenate([self.steps_E, last_P[ends]]), (end_E, start_E)), shape=(P + 1, P + 1))
        steps, previous = dijkstra(backwards, indices=P, return_predecessors=True)
        is_last_P = (previous[:P] == P) | (previous[:P] < 0)
        next_P = np.where(is_last_P, np.arange(P), previous[:P])
        return Way(np.asarray(goal_G), steps[:P], next_P, np.broadcast_to(goal_G, self.place_PG.shape))

    def straight(self, position_G: np.ndarray, reach: float, *, backwards: bool = False) -> np.ndarray:
        """(P,) the environment steps that the straight line between a position and each of its places takes at full
        speed; infinite for all other places, and for those behind obstacles. These are its own place, and those near it
        that passages lead to from there, or backwards, from which passages lead there.

        The nearest place of the core is one of its places, too, if it lies within `reach` and none of the others
        belongs to the core: in a corner that few episodes entered, or only left, places may have no way.
        """
        scaled_G = np.asarray(position_G) * self.scale_G
        distance_P = np.sqrt(np.square(self._place_GP - scaled_G[:, None]).sum(0))
        [own] = self.place_of(np.asarray(position_G)[None])
        leads = self._leads[backwards]
        is_near_P = np.zeros(len(distance_P), bool)
        is_near_P[leads.indices[leads.indptr[own] : leads.indptr[own + 1]]] = True
        is_near_P[own] = True
        is_near_P &= distance_P <= REACH * self.spacing
        if not (is_near_P & self.is_core_P).any():
            nearest = np.where(self.is_core_P, distance_P, np.inf).argmin()
            is_near_P[nearest] |= distance_P[nearest] <= reach
        is_near_P[is_near_P] = self.sees(position_G, self.place_PG[is_near_P])
        return np.where(is_near_P, distance_P / self.speed, np.inf)

    @cached_property
    def _leads(self) -> tuple[csr_array, csr_array]:
        P = len(self.place_PG)
        leads = csr_array((np.ones(len(self.edge_E2)), self.edge_E2.T), shape=(P, P))
        return leads, leads.T.tocsr()

    def sees(self, position_G: np.ndarray, place_NG: np.ndarray) -> np.ndarray:
        """(N,) whether the straight line from a position to each place crosses no obstacle. From inside an obstacle it
        leads out of it."""
        sees_N = np.ones(len(place_NG), bool)
        if not self.obstacles:
            return sees_N
        along_NSG = between(np.broadcast_to(position_G, place_NG.shape), place_NG, ALONG)
        for is_blocked in self.obstacles:
            blocked_NS = _blocked(along_NSG, is_blocked)
            sees_N &= ~blocked_NS.any(1) | (blocked_NS[:, 0] & ~blocked_NS[:, -1])
        return sees_N

    def crossing(self, is_blocked: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """(E,) whether each passage crosses what is blocked: positions (M, G) for which `is_blocked` is true. A passage
        is straight between two waypoints, and from and to its places. The straight line between its places counts, too,
        as agents head for the second from the first."""
        from_E1G, to_E1G = self.place_PG[self.edge_E2[:, :1]], self.place_PG[self.edge_E2[:, 1:]]
        corner_ECG = np.concatenate([from_E1G, self.passage_EWG, to_E1G], 1)
        along_ECSG = between(corner_ECG[:, :-1], corner_ECG[:, 1:], BETWEEN)
        straight_E1SG = between(from_E1G, to_E1G, ALONG)
        along_EMG = np.concatenate([rearrange(each, "E C S G -> E (C S) G") for each in (along_ECSG, straight_E1SG)], 1)
        return np.asarray(_blocked(along_EMG, is_blocked).any(1))

    def without(self, closed_E: np.ndarray) -> PlaceGraph:
        """The graph without these passages."""
        is_open_E = ~closed_E
        return replace(self, edge_E2=self.edge_E2[is_open_E], steps_E=self.steps_E[is_open_E],
                       passage_EWG=self.passage_EWG[is_open_E])


@dataclass(frozen=True)
class Roadmap(ABC):
    """A graph of places with what it takes to go from a place to a goal."""

    graph: PlaceGraph

    @property
    @abstractmethod
    def reach(self) -> float:
        """The distance within which a position may belong to the nearest place of the core."""

    @abstractmethod
    def way(self, goal_G: np.ndarray) -> Way:
        """Finds the shortest ways to a goal. All steps are infinite if the goal is outside of everything recorded."""

    @abstractmethod
    def along(self, way: Way, position_G: np.ndarray, place: int, left: float, steps: float) -> Route:
        """The route of `left` steps along a way whose first place is `place`, as far as `route` goes."""

    def route(self, way: Way, position_G: np.ndarray, steps: float = np.inf) -> Route | None:
        """The way from a position to where an agent heads that looks `steps` environment steps ahead, by default all
        of it. None if no way leads from there."""
        left_P = way.steps_P + self.graph.straight(position_G, self.reach)
        place = int(left_P.argmin())
        if math.isinf(left_P[place]):
            return None
        return self.along(way, position_G, place, float(left_P[place]), steps)

    def last(self, goal_G: np.ndarray) -> np.ndarray:
        """(P,) the environment steps from each place straight to a goal; infinite where it is not near."""
        straight_P = self.graph.straight(goal_G, FAR_REACH * self.graph.spacing, backwards=True)
        return np.maximum(straight_P, 1e-3).astype(np.float64)

    def avoiding(self, is_blocked: Callable[[np.ndarray], np.ndarray]) -> Self:
        """The roadmap without the passages that cross what is blocked, as `crossing` says; positions have no places
        behind it."""
        closed = self.without(self.graph.crossing(is_blocked))
        return replace(closed, graph=replace(closed.graph, obstacles=(*closed.graph.obstacles, is_blocked)))

    def without(self, closed_E: np.ndarray) -> Self:
        """The roadmap without these passages."""
        return replace(self, graph=self.graph.without(closed_E))

    @property
    def spacing(self) -> float:
        """The distance within which every recorded position has a place."""
        return self.graph.spacing

    @property
    def core_PG(self) -> np.ndarray:
        """The places from which ways lead to each other, as goals."""
        return self.graph.core_PG

    def tensors(self) -> dict[str, Tensor]:
        """All that it consists of, to be saved."""
        graph = self.graph
        arrays = {"place": graph.place_PG, "edge": graph.edge_E2, "steps": graph.steps_E, "passage": graph.passage_EWG,
                  "speed": np.float64(graph.speed), "spacing": np.float64(graph.spacing)}
        if len(graph.known_K):
            arrays |= {"known": graph.known_KG, "known_place": graph.known_K}
        return {name: torch.as_tensor(array) for name, array in arrays.items()}


def between(from_NG: np.ndarray, to_NG: np.ndarray, parts: int) -> np.ndarray:
    """(..., S, G) the positions along the straight lines between positions (..., G), at the ends of so many parts."""
    return from_NG[..., None, :] + np.linspace(0, 1, parts + 1)[:, None] * (to_NG - from_NG)[..., None, :]


def _blocked(along_NSG: np.ndarray, is_blocked: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(N, S) for which of the positions `is_blocked` is true."""
    along_MG = along_NSG.reshape(-1, along_NSG.shape[-1])
    blocked_M = np.zeros(len(along_MG), bool)
    for first in range(0, len(along_MG), AT_ONCE):
        blocked_M[first : first + AT_ONCE] = is_blocked(along_MG[first : first + AT_ONCE])
    return blocked_M.reshape(along_NSG.shape[:2])


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
