"""What passages between rests change, and what has to hold for them: the effects in recorded data.

Objects rest most of the time, and something moves a few of them at once. All passages that flip the same switches and
move the same objects are recordings of one effect. What holds in all recordings that ended nearby, and would not by
chance, is needed for it. Everything is found by counting: a switch is an entry that is 0 or 1, an object is a set of
entries that move together, and nothing else is known of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from scipy.special import bdtrc

from gentraj.data.rests import FLIP, Rests

MOVED = 0.1  # speeds by which an entry changes at least in a passage that moves it
JITTER = 8.0  # standard deviations of its noise, or more, that it changes in one
TOGETHER = 0.7  # the share of the passages that move one entry in which another one of its object moves, too
FEWEST = 3  # recordings of an effect
RARE = 0.05  # as many recordings as the most frequent effect has, below which they count as accidents
NEAREST = (8, 16, 32, 64)  # recordings that ended, or began, nearest to a place: what they have in common is needed
TRIMMED = 0.05  # of these may be accidents, on each side
UNSEEN = 4  # times as far as it is between the outermost of them, values may lie beyond them
CHANCE = 1e-6  # what happens by chance with at most this probability, is none
EXPECTED = 16  # recordings by chance, where one or none say that a place has to be free
SHUFFLES = 8  # times that recordings and what they met are shuffled, to see what chance would give
REACH = 3.0  # distances between recorded ends, within which a place is like recorded ones, or as many speeds


@dataclass(frozen=True)
class Passages:
    """M recorded passages from a rest to the next one, in G entries."""

    before_MG: np.ndarray
    after_MG: np.ndarray
    moved_MG: np.ndarray
    """Whether each entry changed in between."""
    steps_M: np.ndarray
    """Environment steps from the beginning of the rest before to that of the rest after."""

    @classmethod
    def of(cls, position_NG: np.ndarray, found: Rests, is_rest_N: np.ndarray) -> Passages:
        """The passages between the rests of recorded positions."""
        resting = np.flatnonzero(is_rest_N & (found.next_N < len(position_NG)))
        end_M, first_M = np.unique(found.next_N[resting], return_index=True)
        begin_M = found.since_N[resting[first_M]]
        before_MG, after_MG = position_NG[begin_M], position_NG[end_M]
        range_MG = np.zeros_like(before_MG)
        if len(end_M):
            cuts = np.stack([begin_M, end_M], 1).reshape(-1)
            high_MG = np.maximum(np.maximum.reduceat(position_NG, cuts)[::2], after_MG)
            range_MG = high_MG - np.minimum(np.minimum.reduceat(position_NG, cuts)[::2], after_MG)
        least_G = np.maximum(MOVED * found.speed, JITTER * found.noise_G)
        moved_MG = np.where(found.scale_G == FLIP, before_MG != after_MG, range_MG > least_G)
        return cls(before_MG, after_MG, moved_MG, end_M - begin_M)


@dataclass(frozen=True)
class Bounds:
    """Within which the C values lie that something needs; infinite where it does not matter."""

    low_C: np.ndarray
    high_C: np.ndarray

    @classmethod
    def common(cls, nearest_KC: np.ndarray, base_BC: np.ndarray, counts: Sequence[int] = NEAREST) -> Bounds:
        """What the first of some recordings have in common, by their `counts`, and would not by chance: values that as
        many of so many draws from the base would have with a probability of at most `CHANCE`."""
        low_C, high_C = np.full(base_BC.shape[1], -np.inf), np.full(base_BC.shape[1], np.inf)
        for k in sorted({min(k, len(nearest_KC)) for k in counts}):
            sorted_kC = np.sort(nearest_KC[:k], 0)
            trimmed = int(TRIMMED * k)
            lowest_C, highest_C = sorted_kC[trimmed], sorted_kC[k - 1 - trimmed]
            share_C = ((base_BC >= lowest_C) & (base_BC <= highest_C)).mean(0)
            is_common_C = bdtrc(k - 2 * trimmed - 1, k, share_C) <= CHANCE
            beyond_C = UNSEEN * (trimmed + 1) / (k + 1) * (highest_C - lowest_C)  # more recordings would reach farther
            low_C = np.where(is_common_C, lowest_C - beyond_C, low_C)
            high_C = np.where(is_common_C, highest_C + beyond_C, high_C)
        return cls(low_C, high_C)

    def but(self, entries_C: np.ndarray) -> Bounds:
        """The same without bounds on some values."""
        return Bounds(np.where(entries_C, -np.inf, self.low_C), np.where(entries_C, np.inf, self.high_C))

    def hold(self, value_C: np.ndarray, margin: float | np.ndarray) -> bool:
        """Whether values lie within the bounds, up to a margin."""
        return bool(((value_C >= self.low_C - margin) & (value_C <= self.high_C + margin)).all())


class Hole:
    """Offsets between two objects that are never recorded, though they would be by chance: where the one is, the other
    one cannot be."""

    def __init__(self, offset_NW: np.ndarray, chance_RW: np.ndarray):
        self.recorded, self.chance = KDTree(offset_NW), KDTree(chance_RW)
        self.nearest = min(-(-EXPECTED * self.chance.n // self.recorded.n), self.chance.n)
        self.is_told = self.recorded.n >= EXPECTED

    def has(self, offset_W: np.ndarray) -> bool:
        """Whether an offset is among these."""
        if not self.is_told:
            return False
        radius = self.chance.query(offset_W, [self.nearest])[0][0]
        return len(self.recorded.query_ball_point(offset_W, radius * (1 + 1e-6) + 1e-9)) <= 1


@dataclass(frozen=True)
class Effect:
    """What N recorded passages change in the same way."""

    flips_G: np.ndarray
    """The switches that it flips."""
    moves_G: np.ndarray
    """The entries of the objects that it moves."""
    before_NG: np.ndarray
    after_NG: np.ndarray
    steps: float
    """The environment steps that it takes, in the median."""
    base_MG: np.ndarray
    """What all passages found, of whichever effect."""
    alike: tuple[tuple[int, ...], ...]
    """The entries of the object that it moves, and of those with as many entries; none if it does not move one."""
    speed: float

    @cached_property
    def _begins(self) -> KDTree:
        return KDTree(self.before_NG[:, self.moves_G])

    @cached_property
    def _ends(self) -> KDTree:
        return KDTree(self.after_NG[:, self.moves_G])

    @cached_property
    def reach(self) -> float:
        """The distance to recorded ends within which it can end."""
        apart_N = self._ends.query(self._ends.data, [2])[0][:, 0]
        return REACH * max(self.speed, float(np.median(apart_N)))

    def ended(self, end_G: np.ndarray) -> np.ndarray:
        """(K,) the recordings that ended nearest to a place, the nearest first; none if it moves nothing there."""
        return self._near(self._ends, end_G)

    def began(self, begin_G: np.ndarray) -> np.ndarray:
        """(K,) the recordings that began nearest to a place, in the same way."""
        return self._near(self._begins, begin_G)

    def _near(self, tree: KDTree, place_G: np.ndarray) -> np.ndarray:
        distance_K, index_K = tree.query(place_G[self.moves_G], np.arange(1, min(NEAREST[-1], tree.n) + 1))
        return index_K[distance_K <= self.reach]

    @cached_property
    def always(self) -> Bounds:
        """What the entries have to be before it, wherever it ends, by what all of its recordings have in common."""
        return Bounds.common(self.before_NG, self.base_MG, (len(self.before_NG),))

    def needs(self, near_K: np.ndarray) -> Bounds:
        """What the entries have to be before it, by what some of its recordings have in common, or all."""
        near = Bounds.common(self.before_NG[near_K], self.base_MG)
        return Bounds(np.maximum(near.low_C, self.always.low_C), np.minimum(near.high_C, self.always.high_C))

    def stands(self, near_K: np.ndarray) -> Bounds:
        """The offset to the nearest object that it has to end at, as on top of another one, in the same way."""
        own, *others = self.alike
        end_NW = self.after_NG[:, own]
        base_RW = np.concatenate([_nearest(end_NW, np.roll(self.before_NG, roll, 0), others)
                                  for roll in _rolls(len(end_NW))])
        return Bounds.common(_nearest(end_NW[near_K], self.before_NG[near_K], others), base_RW)

    def offset(self, end_G: np.ndarray, before_G: np.ndarray) -> np.ndarray:
        """(W,) the offset to the nearest of the other objects, where it ends."""
        own, *others = self.alike
        return _nearest(end_G[None, own], before_G[None], others)[0]

    @cached_property
    def _holes(self) -> tuple[Hole, Hole]:
        own, *others = self.alike
        begin_NW, end_NW = self.before_NG[:, own], self.after_NG[:, own]
        met = np.concatenate([end_NW - self.before_NG[:, other] for other in others])
        by_chance = np.concatenate([end_NW - np.roll(self.before_NG, roll, 0)[:, other] for other in others
                                    for roll in _rolls(len(end_NW))])
        begun = np.concatenate([begin_NW - self.before_NG[:, other] for other in others])
        rested = np.concatenate([self.base_MG[:, own] - self.base_MG[:, other] for other in others])
        return Hole(begun, rested), Hole(met, by_chance)

    def is_free(self, before_G: np.ndarray, end_G: np.ndarray) -> bool:
        """Whether no other object is in the way where its object begins and ends."""
        own, *others = self.alike
        begin, end = self._holes
        return not any(begin.has(before_G[list(own)] - before_G[list(other)])
                       or end.has(end_G[list(own)] - before_G[list(other)]) for other in others)


def effects_of(passages: Passages, scale_G: np.ndarray, speed: float) -> tuple[list[Effect], list[tuple[int, ...]]]:
    """The effects that recorded passages have, and the objects that they move, each by its entries."""
    is_switch_G = scale_G == FLIP
    objects = objects_of(passages.moved_MG & ~is_switch_G)
    changed_MG = passages.moved_MG.copy()
    for entries in objects:
        changed_MG[:, entries] = passages.moved_MG[:, entries].any(1, keepdims=True)
    kinds, kind_M, count_K = np.unique(changed_MG, axis=0, return_inverse=True, return_counts=True)
    kind_M = kind_M.reshape(-1)
    fewest = max(FEWEST, RARE * count_K.max(initial=0))
    effects, rng = [], np.random.default_rng(0)
    for kind in np.flatnonzero((count_K >= fewest) & kinds.any(1)):
        rows = rng.permutation(np.flatnonzero(kind_M == kind))  # those next to each other had much in common
        moved = [entries for entries in objects if kinds[kind, entries[0]]]
        alike = ()
        if len(moved) == 1:
            others = [entries for entries in objects if entries not in moved and len(entries) == len(moved[0])]
            alike = (moved[0], *others)
        effects.append(Effect(kinds[kind] & is_switch_G, kinds[kind] & ~is_switch_G, passages.before_MG[rows],
                              passages.after_MG[rows], float(np.median(passages.steps_M[rows])), passages.before_MG,
                              alike, speed))
    return effects, objects


def objects_of(moved_MG: np.ndarray) -> list[tuple[int, ...]]:
    """The objects by their entries: those that move together in most passages which move one of them."""
    count_GG = moved_MG.T.astype(int) @ moved_MG.astype(int)
    more_GG = np.maximum(np.diag(count_GG)[:, None], np.diag(count_GG))
    _, part_G = connected_components(count_GG > TOGETHER * more_GG)
    return [tuple(np.flatnonzero(part_G == part).tolist()) for part in np.unique(part_G[moved_MG.any(0)])]


def _nearest(end_NW: np.ndarray, before_NG: np.ndarray, others: Sequence[tuple[int, ...]]) -> np.ndarray:
    """(N, W) the offset from each end to the nearest of the other objects."""
    offset_NKW = np.stack([end_NW - before_NG[:, other] for other in others], 1)
    nearest_N = np.linalg.norm(offset_NKW, axis=2).argmin(1)
    return offset_NKW[np.arange(len(end_NW)), nearest_N]


def _rolls(rows: int) -> list[int]:
    """By how many rows recordings are moved against what they met, so that only chance joins them."""
    return [int(roll) for roll in np.linspace(0, rows, SHUFFLES + 2)[1:-1]]
