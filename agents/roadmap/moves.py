"""The roadmap of what rests most of the time, as objects do, which an arm moves one after another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gentraj.data.rests import FLIP, Rests

from .graph import REACH, PlaceGraph, Places, Roadmap, Route, Way

HELD = 0.02  # spacings by which entries change at most that a passage leaves as they are
FAR_REACH = 4.0  # spacings within which a goal may belong to the nearest place of the core


@dataclass(frozen=True)
class LastMoves(Way):
    """Ways whose last passage was perhaps recorded with other entries elsewhere, which it leaves as they are."""

    is_held_PG: np.ndarray
    """The entries that the last passage leaves as they are, where the goal is the next."""


@dataclass(frozen=True)
class Moves(Roadmap[LastMoves]):
    """A passage leads to where the position comes to rest next, its steps begin with the rest before, and an agent
    heads for the end of one passage at a time."""

    resting_P: np.ndarray
    """Whether recorded positions rested in each place."""

    @classmethod
    def of(cls, position_NG: np.ndarray, found: Rests, is_rest_N: np.ndarray, places: int, seed: int) -> Moves:
        """The roadmap of recorded positions, as `roadmap_of` builds it, which finds their rests."""
        chosen = Places.of(position_NG, found.scale_G, found.speed, places, seed)
        resting_P = np.bincount(chosen.place_N, is_rest_N, len(chosen.place_PG)) > 0
        may_begin_N = is_rest_N | ~resting_P[chosen.place_N]
        begin_M = np.flatnonzero(may_begin_N & (found.next_N < len(found.next_N)))
        end_M = found.next_N[begin_M]
        graph = PlaceGraph.of(position_NG, chosen, found.speed, begin_M, end_M, end_M - found.since_N[begin_M])
        return cls(graph, resting_P)

    @property
    def is_resting_P(self) -> np.ndarray:
        return self.resting_P

    @cached_property
    def _range_EG(self) -> np.ndarray:
        return self.graph.passage_EWG.max(1) - self.graph.passage_EWG.min(1)

    @cached_property
    def _is_held_EG(self) -> np.ndarray:
        """The entries that each passage leaves as they are."""
        return self._range_EG <= HELD * self.graph.spacing

    @cached_property
    def _is_clean_E(self) -> np.ndarray:
        """Whether each passage moves some of the entries and none of the others."""
        return (self._is_held_EG | (self._range_EG > self.graph.spacing / self.graph.scale_G)).all(1)

    def near(self, position_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._near(position_G, FLIP / 2)

    def _near(self, position_G: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
        graph = self.graph
        distance_P = graph.distance(position_G)
        is_alike_P = self.resting_P == self.resting_P[distance_P.argmin()]
        near = (is_alike_P & (distance_P <= REACH * graph.spacing)).nonzero()[0]
        near = graph.connected(near, distance_P, reach)
        return near, distance_P[near] / graph.speed

    def way(self, goal_G: np.ndarray) -> LastMoves:
        """Finds the shortest ways to a goal, as `Roadmap` says.

        What is not at its goal yet needs one more passage, and a passage may lead to the goal from places that it was
        not recorded from: if passages that move some of the entries and none of the others end near the goal, such a
        passage leads there from each place that another such passage was recorded from, and that is the goal in the
        other entries, and not in the switches that it flips.
        """
        graph = self.graph
        near, steps = self._near(goal_G, FAR_REACH * graph.spacing)
        last_P, is_held_PG = np.full(len(graph.place_PG), np.inf), np.zeros(graph.place_PG.shape, bool)
        more = float(np.median(graph.steps_E)) if len(graph.steps_E) else math.inf
        last_P[near] = np.maximum(steps, 1e-3)
        last_P[near] += np.where(steps > 1, more, 0)
        ends_E = np.isin(graph.edge_E2[:, 1], near) & self._is_clean_E
        for is_held_G in np.unique(self._is_held_EG[ends_E], axis=0):
            alike_E = (self._is_held_EG == is_held_G).all(1) & self._is_clean_E
            off_P = np.linalg.norm((graph.place_PG - goal_G) * graph.scale_G * is_held_G, axis=1)
            steps_P = np.median(graph.steps_E[alike_E]) + np.where(off_P > graph.speed, more, 0)
            begins = np.unique(graph.edge_E2[alike_E, 0])
            flips_G = ~is_held_G & (graph.scale_G == FLIP)
            can_P = (off_P <= REACH * graph.spacing) & (graph.place_PG != goal_G)[:, flips_G].all(1)
            begins = begins[can_P[begins]]
            better = begins[steps_P[begins] < last_P[begins]]
            last_P[better] = steps_P[better]
            is_held_PG[better] = is_held_G
        found = graph.shortest(goal_G, last_P)
        return LastMoves(found.goal_G, found.steps_P, found.next_P, is_held_PG)

    def along(self, way: LastMoves, position_G: np.ndarray, place: int, left: float, steps: float) -> Route:
        """The way to the end of its first passage, which leaves other entries as they are now; all of it to the goal if
        `steps` are infinite."""
        graph, most = self.graph, math.inf if math.isinf(steps) else 1
        places, steps_N = [np.asarray(position_G), graph.place_PG[place]], [0.0, left - way.steps_P[place]]
        is_held_G = np.ones(len(position_G), bool)
        passed = 0
        while passed < most and way.next_P[place] != place:
            is_held_G &= self._is_held_EG[graph.passage(place, way.next_P[place])]
            place = way.next_P[place]
            places.append(np.where(is_held_G, position_G, graph.place_PG[place]))
            steps_N.append(left - way.steps_P[place])
            passed += 1
        if passed < most:
            is_held_G &= way.is_held_PG[place] & math.isfinite(steps)  # all of the way ends at the goal
            places.append(np.where(is_held_G, position_G, way.goal_G))
            steps_N.append(left)
        return Route(np.array(places), np.array(steps_N), left)
