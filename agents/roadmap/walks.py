"""The roadmap of what moves most of the time, as a robot does in a maze."""

from __future__ import annotations

import numpy as np

from gentraj.data.rests import Rests

from .graph import FAR_REACH, PlaceGraph, Roadmap, Route, Way

SPACING_STEPS = 3.0  # environment steps at full speed between two neighbouring places, at least
SPANS = (1, 2, 3, 5, 8)  # environment steps of the passages, for places SPACING_STEPS apart


class Walks(Roadmap):
    """A passage is a piece of an episode, and an agent heads for the first place some steps along its way."""

    @classmethod
    def of(cls, position_NG: np.ndarray, episode_N: np.ndarray, found: Rests, places: int) -> Walks:
        """The roadmap of recorded positions, as `roadmap_of` builds it, which finds their speed."""
        graph = PlaceGraph.of(position_NG, found.speed, SPACING_STEPS * found.speed, places)
        stretch = graph.spacing / graph.speed / SPACING_STEPS
        begins, ends = [], []
        for span in np.unique(np.round(np.array(SPANS) * stretch).astype(int)):
            begin = np.flatnonzero(episode_N[span:] == episode_N[:-span])
            begins.append(begin)
            ends.append(begin + span)
        begin_M, end_M = np.concatenate(begins), np.concatenate(ends)
        return cls(graph.with_passages(position_NG, graph.place_of(position_NG), begin_M, end_M, end_M - begin_M))

    @property
    def reach(self) -> float:
        return FAR_REACH * self.graph.spacing

    def way(self, goal_G: np.ndarray) -> Way:
        return self.graph.shortest(goal_G, self.last(goal_G))

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
