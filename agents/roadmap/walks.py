"""The roadmap of what moves most of the time, as a robot does in a maze."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gentraj.data.rests import Rests, speed_of

from .graph import FAR_REACH, PlaceGraph, Roadmap, Route, Way
from .jumps import Jumps, jumps_of
from .parts import behind_walls

SPACING_STEPS = 3.0  # environment steps at full speed between two neighbouring places, at least
SPANS = (1, 2, 3, 5, 8)  # environment steps of the passages, for places SPACING_STEPS apart


@dataclass(frozen=True)
class Walks(Roadmap):
    """A passage is a piece of an episode without a jump, and an agent heads for the first place some steps along its
    way, or into a jump if that comes before."""

    jumps: Jumps

    @classmethod
    def of(cls, position_NG: np.ndarray, episode_N: np.ndarray, found: Rests, places: int) -> Walks:
        """The roadmap of recorded positions, as `roadmap_of` builds it, which finds their rests."""
        is_jump_N = jumps_of(position_NG, episode_N)
        piece_N = np.cumsum(np.concatenate([[True], (np.diff(episode_N) != 0) | is_jump_N[:-1]]))
        speed = speed_of(position_NG[:, found.scale_G == 1], piece_N) or found.speed
        graph = PlaceGraph.of(position_NG, speed, SPACING_STEPS * speed, places)
        stretch = graph.spacing / graph.speed / SPACING_STEPS
        begins, ends = [], []
        for span in np.unique(np.round(np.array(SPANS) * stretch).astype(int)):
            begin = np.flatnonzero(piece_N[span:] == piece_N[:-span])
            begins.append(begin)
            ends.append(begin + span)
        begin_M, end_M = np.concatenate(begins), np.concatenate(ends)
        graph = behind_walls(graph, position_NG, piece_N, begin_M, end_M)
        return cls(graph, Jumps.of(position_NG, piece_N, is_jump_N, graph))

    @property
    def reach(self) -> float:
        return FAR_REACH * self.graph.spacing

    def way(self, goal_G: np.ndarray) -> Way:
        last_P = self.last(goal_G)
        return self.jumps.expected(self.graph.shortest(goal_G, last_P), self.graph, last_P)

    def without(self, closed_E: np.ndarray) -> Walks:
        return replace(self, graph=self.graph.without(closed_E), jumps=self.jumps.without(closed_E))

    def avoiding(self, is_blocked: Callable[[np.ndarray], np.ndarray]) -> Walks:
        closed = super().avoiding(is_blocked)
        return replace(closed, jumps=closed.jumps.avoiding(is_blocked))

    def along(self, way: Way, position_G: np.ndarray, place: int, left: float, steps: float) -> Route:
        """The way to the first place that lies `steps` environment steps along it, or to the goal if it is nearer.
        A route that ends in a jump counts the steps after it as its last ones. It ends earlier, at the last place up to
        which the straight line from the position crosses no obstacle, unless all of the way is asked for."""
        places, steps_N = [np.asarray(position_G), self.graph.place_PG[place]], [0.0, left - way.steps_P[place]]
        while steps_N[-1] < steps and way.next_P[place] != place:
            place = way.next_P[place]
            places.append(self.graph.place_PG[place])
            steps_N.append(left - way.steps_P[place])
        if steps_N[-1] < steps:
            places.append(way.end_PG[place])
            steps_N.append(left)
        place_NG = np.array(places)
        if steps < math.inf:
            in_sight = int(np.logical_and.accumulate(self.graph.sees(position_G, place_NG[2:])).sum())
            place_NG, steps_N = place_NG[: 2 + in_sight], steps_N[: 2 + in_sight]
        return Route(place_NG, np.array(steps_N), left)

    def tensors(self) -> dict[str, Tensor]:
        """All that it consists of, to be saved; without jumps its graph alone."""
        tensors = super().tensors()
        if len(self.jumps.place_K):
            tensors |= {f"jumps.{name}": torch.as_tensor(array) for name, array in vars(self.jumps).items()}
        return tensors
