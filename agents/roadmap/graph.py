"""The graph of the places that episodes pass through, which leads to goals beyond any plan.

Places are spread over the entries of the observations that a goal consists of. A passage leads from one place to
another where an episode went from the one to the other, and its weight is the fewest steps that took. The shortest way
to a goal then joins pieces of many episodes, so it may be longer than any of them (search on the replay buffer,
Eysenbach et al. 2019, arXiv 1906.05253; here over recorded passages instead of a learned distance).

Two kinds of roadmaps lie on it: `Walks` of what moves most of the time, and `Moves` of what rests, as objects do.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import KDTree
from torch import Tensor

from gentraj.data.rests import scales

SAMPLED = 20_000  # observations among which places are chosen
WAYPOINTS = 5  # positions that are kept of a passage, its ends included
BETWEEN = 4  # parts of the straight line between two waypoints, at whose ends obstacles are looked for
REACH = 2.0  # spacings within which a position belongs to a place
AT_ONCE = 16_384  # positions along passages that are compared with an obstacle; more do not fit into a core's cache


@dataclass(frozen=True)
class Way:
    """The shortest ways from all P places to one goal."""

    goal_G: np.ndarray
    steps_P: np.ndarray
    """Environment steps from each place to the goal; infinite where no way leads there."""
    next_P: np.ndarray
    """The place after each place, on its way to the goal; the place itself where the goal is the next."""


W = TypeVar("W", bound=Way)


@dataclass(frozen=True)
class Route:
    """The N positions along the way from a position, which is the first, towards a goal."""

    place_NG: np.ndarray
    steps_N: np.ndarray
    """Environment steps from the first position to each."""
    left: float
    """Environment steps from the first position to the goal."""


@dataclass(frozen=True)
class Places:
    """P places that are spread over N recorded positions."""

    place_PG: np.ndarray
    place_N: np.ndarray
    """The place of each position."""
    spacing: float
    """Distance within which every position has a place."""
    scale_G: np.ndarray
    """What the entries of positions are multiplied by, as `scales` says."""

    @classmethod
    def of(cls, position_NG: np.ndarray, scale_G: np.ndarray, spacing: float, places: int, seed: int) -> Places:
        """At most so many places, as `spread` chooses them."""
        drawn = np.random.default_rng(seed).choice(len(position_NG), min(SAMPLED, len(position_NG)), replace=False)
        drawn = np.sort(drawn)
        scaled_NG = position_NG * scale_G
        chosen, spacing = spread(scaled_NG[drawn], spacing, places)
        place_N = np.asarray(KDTree(scaled_NG[drawn[chosen]]).query(scaled_NG)[1])
        return cls(position_NG[drawn[chosen]], place_N, spacing, scale_G)


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

    @classmethod
    def of(cls, position_NG: np.ndarray, places: Places, speed: float, begin_M: np.ndarray, end_M: np.ndarray,
           took_M: np.ndarray) -> PlaceGraph:
        """The graph of the passages that begin and end in these rows of recorded positions, and took so many steps."""
        place_PG = places.place_PG
        is_passage_M = places.place_N[begin_M] != places.place_N[end_M]
        begin_M, end_M, took_M = begin_M[is_passage_M], end_M[is_passage_M], took_M[is_passage_M]
        first_M, last_M = places.place_N[begin_M], places.place_N[end_M]
        way_MG = (place_PG[first_M] - place_PG[last_M])[:, places.scale_G == 1]
        steps_M = np.maximum(np.linalg.norm(way_MG, axis=1) / speed, took_M)
        key_M = first_M * len(place_PG) + last_M
        order = np.lexsort((steps_M, key_M))
        _, index = np.unique(key_M[order], return_index=True)
        quickest_E = order[index]
        begin_E1, end_E1 = begin_M[quickest_E, None], end_M[quickest_E, None]
        at_EW = np.round(begin_E1 + (end_E1 - begin_E1) * np.linspace(0, 1, WAYPOINTS)).astype(int)
        edge_E2 = np.stack([first_M[quickest_E], last_M[quickest_E]], 1)
        steps_E = steps_M[quickest_E].astype(np.float32)
        return cls(place_PG, edge_E2, steps_E, position_NG[at_EW], speed, places.spacing)

    @cached_property
    def scale_G(self) -> np.ndarray:
        """What the entries are multiplied by, so that two positions that differ by a switch are far from each other."""
        return scales(self.place_PG)

    @cached_property
    def is_core_P(self) -> np.ndarray:
        """Whether a place belongs to the core, the largest part in which ways lead from each place to every other."""
        P = len(self.place_PG)
        graph = csr_array((np.ones(len(self.edge_E2)), self.edge_E2.T), shape=(P, P))
        part_P = connected_components(graph, connection="strong")[1]
        return part_P == np.bincount(part_P).argmax()

    @property
    def core_PG(self) -> np.ndarray:
        """The places of the core."""
        return self.place_PG[self.is_core_P]

    @cached_property
    def _place_GP(self) -> np.ndarray:
        return np.ascontiguousarray((self.place_PG * self.scale_G).T)

    @cached_property
    def _key_E(self) -> np.ndarray:
        return self.edge_E2 @ (len(self.place_PG), 1)

    def shortest(self, goal_G: np.ndarray, last_P: np.ndarray) -> Way:
        """The shortest ways to a goal, with the steps from each place straight to it, infinite where it is not near."""
        P = len(self.place_PG)
        ends = np.flatnonzero(np.isfinite(last_P))
        start_E, end_E = np.concatenate([self.edge_E2, np.stack([ends, np.full(len(ends), P)], 1)]).T
        backwards = csr_array((np.concatenate([self.steps_E, last_P[ends]]), (end_E, start_E)), shape=(P + 1, P + 1))
        steps, previous = dijkstra(backwards, indices=P, return_predecessors=True)
        next_P = np.where(previous[:P] == P, np.arange(P), previous[:P])
        return Way(np.asarray(goal_G), steps[:P], next_P)

    def passage(self, first: int, last: int) -> int:
        """The number of the passage that leads from one place to the other."""
        return int(np.searchsorted(self._key_E, first * len(self.place_PG) + last))

    def distance(self, position_G: np.ndarray) -> np.ndarray:
        """(P,) the distances from a position to all places."""
        scaled_G = np.asarray(position_G) * self.scale_G
        return np.sqrt(np.square(self._place_GP - scaled_G[:, None]).sum(0))

    def connected(self, near: np.ndarray, distance_P: np.ndarray, reach: float) -> np.ndarray:
        """The places that are near, with the nearest one of the core, if it lies within `reach` and none of them
        belongs to the core: in a corner that few episodes entered, or only left, places may have no way."""
        if self.is_core_P[near].any():
            return near
        nearest = np.where(self.is_core_P, distance_P, np.inf).argmin()
        return np.append(near, nearest) if distance_P[nearest] <= reach else near

    def crossing(self, is_blocked: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """(E,) whether each passage crosses what is blocked: positions (M, G) for which `is_blocked` is true. A passage
        is straight between two waypoints, and from and to its places."""
        corner_ECG = np.concatenate([self.place_PG[self.edge_E2[:, :1]], self.passage_EWG,
                                     self.place_PG[self.edge_E2[:, 1:]]], 1)
        share_S = np.arange(BETWEEN) / BETWEEN
        step_ECG = np.diff(corner_ECG, axis=1)
        along_ECSG = corner_ECG[:, :-1, None] + share_S[:, None] * step_ECG[:, :, None]
        along_MG = along_ECSG.reshape(-1, along_ECSG.shape[-1])
        blocked_M = np.zeros(len(along_MG), bool)
        for first in range(0, len(along_MG), AT_ONCE):
            blocked_M[first : first + AT_ONCE] = is_blocked(along_MG[first : first + AT_ONCE])
        return blocked_M.reshape(along_ECSG.shape[:3]).any((1, 2))

    def without(self, closed_E: np.ndarray) -> PlaceGraph:
        """The graph without these passages."""
        is_open_E = ~closed_E
        return replace(self, edge_E2=self.edge_E2[is_open_E], steps_E=self.steps_E[is_open_E],
                       passage_EWG=self.passage_EWG[is_open_E])


@dataclass(frozen=True)
class Roadmap(ABC, Generic[W]):
    """A graph of places with what it takes to go from a position to a place, and from a place to a goal."""

    graph: PlaceGraph

    @abstractmethod
    def way(self, goal_G: np.ndarray) -> W:
        """Finds the shortest ways to a goal. All steps are infinite if the goal is outside of everything recorded."""

    @abstractmethod
    def near(self, position_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The places of a position, and the environment steps that the straight line to each takes at full speed."""

    @abstractmethod
    def along(self, way: W, position_G: np.ndarray, place: int, left: float, steps: float) -> Route:
        """The route of `left` steps along a way whose first place is `place`, as far as `route` goes."""

    @property
    @abstractmethod
    def is_resting_P(self) -> np.ndarray:
        """Whether recorded positions rested in each place, if positions rest most of the time; else all are false."""

    def route(self, way: W, position_G: np.ndarray, steps: float = np.inf) -> Route | None:
        """The way from a position to where an agent heads that looks `steps` environment steps ahead, by default all
        of it. None if no way leads from there."""
        near, first = self.near(position_G)
        if not len(near):
            return None
        total = way.steps_P[near] + first
        best = total.argmin()
        left = float(total[best])
        return self.along(way, position_G, int(near[best]), left, steps) if math.isfinite(left) else None

    def without(self, closed_E: np.ndarray) -> Roadmap[W]:
        """The roadmap without these passages."""
        return replace(self, graph=self.graph.without(closed_E))

    def tensors(self) -> dict[str, Tensor]:
        """All that it consists of, to be saved."""
        graph = self.graph
        arrays = {"place": graph.place_PG, "edge": graph.edge_E2, "steps": graph.steps_E, "passage": graph.passage_EWG,
                  "speed": np.float64(graph.speed), "spacing": np.float64(graph.spacing), "resting": self.is_resting_P}
        return {name: torch.as_tensor(array) for name, array in arrays.items()}


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
