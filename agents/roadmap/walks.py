"""The roadmap of what moves most of the time, as a robot does in a maze."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .graph import REACH, PlaceGraph, Places, Roadmap, Route, Way

SPACING_STEPS = 3.0  # environment steps at full speed between two neighbouring places, at least
SPANS = (1, 2, 3, 5, 8)  # environment steps of the passages, for places SPACING_STEPS apart
FAR_REACH = 4.0  # spacings within which a position may belong to the nearest place of the core


@dataclass(frozen=True)
class Walks(Roadmap[Way]):
    """A passage is a piece of an episode, and an agent heads for the first place some steps along its way."""

    @classmethod
    def of(cls, position_NG: np.ndarray, episode_N: np.ndarray, scale_G: np.ndarray, speed: float, places: int,
           seed: int) -> Walks:
        """The roadmap of recorded positions, as `roadmap_of` builds it, which finds their scales and their speed."""
        chosen = Places.of(position_NG, scale_G, SPACING_STEPS * speed, places, seed)
        stretch = chosen.spacing / speed / SPACING_STEPS
        begins, ends = [], []
        for span in np.unique(np.round(np.array(SPANS) * stretch).astype(int)):
            begin = np.flatnonzero(episode_N[span:] == episode_N[:-span])
            begins.append(begin)
            ends.append(begin + span)
        begin_M, end_M = np.concatenate(begins), np.concatenate(ends)
        return cls(PlaceGraph.of(position_NG, chosen, speed, begin_M, end_M, end_M - begin_M))

    @property
    def is_resting_P(self) -> np.ndarray:
        return np.zeros(len(self.graph.place_PG), bool)

    def near(self, position_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        graph = self.graph
        distance_P = graph.distance(position_G)
        near = (distance_P <= REACH * graph.spacing).nonzero()[0]
        near = graph.connected(near, distance_P, FAR_REACH * graph.spacing)
        return near, distance_P[near] / graph.speed

    def way(self, goal_G: np.ndarray) -> Way:
        near, steps = self.near(goal_G)
        last_P = np.full(len(self.graph.place_PG), np.inf)
        last_P[near] = np.maximum(steps, 1e-3)
        return self.graph.shortest(goal_G, last_P)

    def along(self, way: Way, position_G: np.ndarray, place: int, left: float, steps: float) -> Route:
        """The way to the first place that lies `steps` environment steps along it, or to the goal if it is nearer."""
        places, steps_N = [np.asarray(position_G), self.graph.place_PG[place]], [0.0, left - way.steps_P[place]]
        while steps_N[-1] < steps and way.next_P[place] != place:
            place = way.next_P[place]
            places.append(self.graph.place_PG[place])
            steps_N.append(left - way.steps_P[place])
        if steps_N[-1] < steps:
            places.append(way.goal_G)
            steps_N.append(left)
        return Route(np.array(places), np.array(steps_N), left)
