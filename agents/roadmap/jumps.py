"""Jumps on the way, as through a portal, that may lead anywhere: ways are those of the fewest expected steps.

A stochastic shortest path (Bertsekas and Tsitsiklis 1991): what a jump leads to is drawn from what recorded ones led
to, and passing by a place where episodes jumped carries the risk of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial import KDTree

from gentraj.data.rests import STILL, scales

from .graph import PlaceGraph, Way

JUMP = 3.0  # times as far as nearly all recorded steps: farther is a jump
NEARLY_ALL = 0.95
POOLED = 50  # recorded jumps, at most, nearest to those of a place, whose ends are counted as theirs
POOL_REACH = 2.0  # spacings within which they are
BEYOND = 3  # steps beyond the beginning of a jump that an agent heads for to jump
LOST = 10  # times as many steps as it takes to pass all places: what it counts to be where no way leads to the goal
ROUNDS = 30  # of policy iteration, which mostly takes three
ENDLESS = 1e-6  # the chance at least that jumps end: who could jump for ever is given a finite number of steps


@dataclass(frozen=True)
class Jumps:
    """The jumps of a graph of P places with E passages: from K of the places, where J of them led."""

    place_K: np.ndarray
    enter_KG: np.ndarray
    """Where to head for in order to jump."""
    end_J2: np.ndarray
    """From which of the K places, and to which of the P, jumps led."""
    share_J: np.ndarray
    """How many of those from there."""
    risk_E: np.ndarray
    """The share of those who jump before they are at the end of each passage."""
    from_E: np.ndarray
    """From which of the K places they jump there."""

    @classmethod
    def none(cls, graph: PlaceGraph) -> Jumps:
        """No jumps."""
        edges, dims = len(graph.edge_E2), graph.place_PG.shape[1]
        return cls(np.zeros(0, int), np.zeros((0, dims), np.float32), np.zeros((0, 2), int), np.zeros(0),
                   np.zeros(edges), np.zeros(edges, int))

    @classmethod
    def of(cls, position_NG: np.ndarray, piece_N: np.ndarray, is_jump_N: np.ndarray, graph: PlaceGraph) -> Jumps:
        """The recorded jumps, each from the position of a row to that of the next, and the number of the piece between
        jumps of each position."""
        row_M = np.flatnonzero(is_jump_N)
        if not len(row_M):
            return cls.none(graph)
        place_N = graph.place_of(position_NG)
        place_K, k_M = np.unique(place_N[row_M], return_inverse=True)
        before_M = np.maximum(row_M - 1, 0)
        is_step_M1 = (piece_N[before_M] == piece_N[row_M])[:, None]
        pace_MG = (position_NG[row_M] - position_NG[before_M]) * is_step_M1
        begin_KG = _means(position_NG[row_M], k_M)
        enter_KG = begin_KG + BEYOND * _means(pace_MG, k_M)
        ends, shares = [], []
        tree = KDTree(position_NG[row_M] * graph.scale_G)
        far_KN, near_KN = tree.query(begin_KG * graph.scale_G, POOLED)
        for k in range(len(place_K)):
            near_N = near_KN[k, far_KN[k] <= max(POOL_REACH * graph.spacing, far_KN[k, 0])]
            place_J, many_J = np.unique(place_N[row_M[near_N] + 1], return_counts=True)
            ends.append(np.stack([np.full(len(place_J), k), place_J], 1))
            shares.append(many_J / many_J.sum())
        visits_P = np.bincount(place_N, minlength=len(graph.place_PG))
        rate_P = np.bincount(place_N[row_M], minlength=len(visits_P)) / np.maximum(visits_P, 1)
        waypoint_EWG = graph.passage_EWG
        via_EW = graph.place_of(waypoint_EWG.reshape(-1, waypoint_EWG.shape[-1])).reshape(waypoint_EWG.shape[:2])
        stays_E = (1 - rate_P[via_EW].mean(1)) ** graph.steps_E
        worst_E = np.take_along_axis(via_EW, rate_P[via_EW].argmax(1)[:, None], 1)[:, 0]
        from_E = np.minimum(np.searchsorted(place_K, worst_E), len(place_K) - 1)
        return cls(place_K, enter_KG.astype(np.float32), np.concatenate(ends), np.concatenate(shares), 1 - stays_E,
                   from_E)

    def without(self, closed_E: np.ndarray) -> Jumps:
        """The jumps where these passages are closed."""
        return replace(self, risk_E=self.risk_E[~closed_E], from_E=self.from_E[~closed_E])

    def avoiding(self, is_blocked: Callable[[np.ndarray], np.ndarray]) -> Jumps:
        """The jumps without those for which one would head into what is blocked."""
        enter_KG = self.enter_KG.copy()
        enter_KG[is_blocked(self.enter_KG)] = np.inf
        return replace(self, enter_KG=enter_KG)

    def expected(self, way: Way, graph: PlaceGraph, last_P: np.ndarray) -> Way:
        """The ways of the fewest expected steps, by policy iteration from `way`, on which nobody jumps."""
        if not len(self.place_K):
            return way
        P, K = len(graph.place_PG), len(self.place_K)
        lost = LOST * P * graph.spacing / graph.speed
        share_KP = csr_array((self.share_J, self.end_J2.T), shape=(K, P))
        enter_K = np.linalg.norm((self.enter_KG - graph.place_PG[self.place_K]) * graph.scale_G, axis=1) / graph.speed
        to_E = graph.edge_E2[:, 1]
        value_P = np.where(np.isfinite(way.steps_P), way.steps_P, lost)
        for _ in range(ROUNDS):
            after_K = share_KP @ value_P
            risk_E = self.risk_E * np.maximum(after_K[self.from_E] - value_P[to_E], 0)
            jump_P = np.full(P, np.inf)
            has_hope_K = share_KP @ np.isfinite(way.steps_P) > 0
            jump_P[self.place_K] = np.where(has_hope_K, enter_K + after_K, np.inf)
            risky = replace(graph, steps_E=graph.steps_E + risk_E)
            end_P = np.minimum(last_P, jump_P)
            way = risky.shortest(way.goal_G, end_P)
            found_P = self._evaluated(way, end_P, jump_P < last_P, enter_K, share_KP, lost)
            if np.allclose(found_P, value_P, rtol=1e-3):
                break
            value_P = found_P
        end_PG = way.end_PG.copy()
        jumps_K = jump_P[self.place_K] < last_P[self.place_K]
        end_PG[self.place_K[jumps_K]] = self.enter_KG[jumps_K]
        return replace(way, end_PG=end_PG)

    def _evaluated(self, way: Way, end_P: np.ndarray, at_jump_P: np.ndarray, enter_K: np.ndarray, share_KP: csr_array,
                   lost: float) -> np.ndarray:
        """(P,) the expected steps from each place for those who jump at the ends of a way where `at_jump_P` says so."""
        P, K = len(end_P), len(self.place_K)
        last_P = way.next_P
        while (last_P[last_P] != last_P).any():
            last_P = last_P[last_P]
        k_P = np.full(P, -1)
        k_P[self.place_K] = np.arange(K)
        has_way_P = np.isfinite(way.steps_P)
        fixed_P = np.where(has_way_P, way.steps_P, lost)  # up to the end of each way, be it the goal or a jump
        on_N = np.flatnonzero(has_way_P & at_jump_P[last_P])  # the places whose ways end in a jump
        from_N = last_P[on_N]
        k_N = k_P[from_N]
        fixed_P[on_N] += enter_K[k_N] - end_P[from_N]
        then_PK = csr_array((np.ones(len(on_N)), (on_N, k_N)), shape=(P, K))
        then_KK = csr_array(share_KP @ then_PK).toarray()
        after_K = np.linalg.solve(np.eye(K) - (1 - ENDLESS) * then_KK, share_KP @ fixed_P)
        return fixed_P + then_PK @ after_K


def _means(rows_MG: np.ndarray, k_M: np.ndarray) -> np.ndarray:
    """(K, G) the mean of the rows of each number."""
    return np.stack([np.bincount(k_M, column) for column in rows_MG.T], 1) / np.bincount(k_M)[:, None]


def jumps_of(position_NG: np.ndarray, episode_N: np.ndarray) -> np.ndarray:
    """(N,) whether the step from each position to the next is a jump, much farther than nearly all others."""
    far_N = np.linalg.norm(np.diff(position_NG, axis=0) * (scales(position_NG) == 1), axis=1)
    far_N[episode_N[1:] != episode_N[:-1]] = 0
    moving_M = far_N[far_N > STILL * far_N.max(initial=0)]
    if not len(moving_M):
        return np.zeros(len(position_NG), bool)
    return np.append(far_N > JUMP * np.quantile(moving_M, NEARLY_ALL), False)
