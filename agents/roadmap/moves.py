"""The roadmap of what rests most of the time, as objects do, which an arm moves one after another."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import numpy as np

from gentraj.data.rests import FLIP, Rests

from .graph import REACH, PlaceGraph, Roadmap, Route, Way

HELD = 0.02  # spacings by which entries change at most that a passage leaves as they are


class Moves(Roadmap):
    """A passage leads to where the position comes to rest next, its steps begin with the rest before, and an agent
    heads for the end of one passage at a time."""

    @classmethod
    def of(cls, position_NG: np.ndarray, found: Rests, is_rest_N: np.ndarray, places: int) -> Moves:
        """The roadmap of recorded positions, as `roadmap_of` builds it, which finds their rests."""
        graph = PlaceGraph.of(position_NG, found.speed, found.speed, places)
        place_N = graph.place_of(position_NG)
        is_resting_P = np.bincount(place_N, is_rest_N, len(graph.place_PG)) > 0
        may_begin_N = is_rest_N | ~is_resting_P[place_N]
        begin_M = np.flatnonzero(may_begin_N & (found.next_N < len(found.next_N)))
        end_M = found.next_N[begin_M]
        graph = graph.with_passages(position_NG, place_N, begin_M, end_M, end_M - found.since_N[begin_M])
        return cls(replace(graph, is_resting_P=is_resting_P))

    @property
    def reach(self) -> float:
        return FLIP / 2

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

    def way(self, goal_G: np.ndarray) -> Way:
        """Finds the shortest ways to a goal, as `Roadmap` says.

        What is not at its goal yet needs one more passage, and a passage may lead to the goal from places that it was
        not recorded from: if passages that move some of the entries and none of the others end near the goal, such a
        passage leads there from each place that another such passage was recorded from, and that is the goal in the
        other entries, and not in the switches that it flips.
        """
        graph = self.graph
        last_P = self.last(goal_G)
        is_held_PG = np.zeros(graph.place_PG.shape, bool)
        ends_E = np.isfinite(last_P)[graph.edge_E2[:, 1]] & self._is_clean_E
        more = float(np.median(graph.steps_E)) if len(graph.steps_E) else math.inf
        last_P[last_P > 1] += more
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
        return graph.shortest(goal_G, last_P, is_held_PG)

    def along(self, way: Way, position_G: np.ndarray, place: int, left: float, steps: float) -> Route:
        """The way to the end of its first passage, which leaves other entries as they are now; all of it to the goal if
        `steps` are infinite."""
        places, steps_N = [np.asarray(position_G), self.graph.place_PG[place]], [0.0, left - way.steps_P[place]]
        is_held_G = np.ones(len(position_G), bool)
        while way.next_P[place] != place:
            is_held_G &= self._is_held_EG[self.graph.passage(place, way.next_P[place])]
            place = way.next_P[place]
            places.append(np.where(is_held_G, position_G, self.graph.place_PG[place]))
            steps_N.append(left - way.steps_P[place])
            if math.isfinite(steps):
                return Route(np.array(places), np.array(steps_N), left)
        is_held_G &= way.is_held_PG[place] & math.isfinite(steps)  # all of the way ends at the goal
        places.append(np.where(is_held_G, position_G, way.goal_G))
        steps_N.append(left)
        return Route(np.array(places), np.array(steps_N), left)
