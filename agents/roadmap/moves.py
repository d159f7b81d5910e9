"""The roadmap of what rests most of the time, as objects do: effects that were recorded, one after another."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gentraj.data.rests import FLIP, Rests

from .effects import Bounds, Effect, Passages, effects_of
from .graph import Route, spread

SPARE = 6  # places of each object, spread over its recorded ends, beside its goal and those that are needed
JOINT = 4  # recordings of an effect that moves several objects, from which it is tried to begin or to end at a place
ROUNDS = 3  # in which places are added that other ones need
EXPANDED = 5_000  # arrangements that are tried at most in the search for a way
NULL = 12  # dimensions of the flips that change nothing, all of which are tried in a sum of flips
BETWEEN = 16  # parts of the straight line between two places, at whose ends obstacles are looked for


@dataclass(frozen=True)
class Move:
    """An effect with its outcome: what it flips, and where it brings what it moves."""

    effect: Effect
    end_G: np.ndarray
    """Where the entries end that move."""
    begin_G: np.ndarray | None
    """Where they have to begin; None if they may begin anywhere, as one object does."""
    needs: Bounds
    """What has to hold before."""
    stands: Bounds | None
    """The offset to the nearest other object that has to hold where it ends."""

    def after(self, before_G: np.ndarray) -> np.ndarray:
        """The arrangement (G,) that it leads to."""
        moved_G = np.where(self.effect.moves_G, self.end_G, before_G)
        return np.where(self.effect.flips_G, 1 - before_G, moved_G).astype(np.float32)


class Flips:
    """The fewest steps that switches take from one setting to another, by effects that flip them in any order.

    Flips commute, so a way is a set of effects, and those which sum up to a setting are a solution of linear equations
    in numbers modulo 2, up to the sets that change nothing.
    """

    def __init__(self, flips: list[int], steps: list[float]):
        """Each effect flips the switches that are the bits of a number, and takes some steps."""
        self.steps_F = np.array(steps)
        self.basis: dict[int, tuple[int, int]] = {}  # by the highest bit: the switches, and the effects that flip them
        nulls = []
        for number, bits in enumerate(flips):
            rest, used = self._reduced(bits, 1 << number)
            if rest:
                self.basis[rest.bit_length()] = (rest, used)
            elif len(nulls) < NULL:
                nulls.append(used)
        span = [0]
        for null in nulls:
            span += [null ^ each for each in span]
        self.null_SF = np.array([self._effects(each) for each in span])

    def left(self, bits: int) -> float:
        """The environment steps that it takes to flip these switches; infinite where no effects do."""
        rest, used = self._reduced(bits, 0)
        if rest:
            return math.inf
        return float(((self.null_SF ^ self._effects(used)) @ self.steps_F).min())

    def _effects(self, used: int) -> np.ndarray:
        return np.array([used >> number & 1 for number in range(len(self.steps_F))], bool)

    def _reduced(self, bits: int, used: int) -> tuple[int, int]:
        while bits and bits.bit_length() in self.basis:
            flipped, by = self.basis[bits.bit_length()]
            bits, used = bits ^ flipped, used ^ by
        return bits, used


@dataclass(frozen=True)
class Search:
    """What a search for a way found."""

    moves: tuple[Move, ...] | None
    """The moves of the way, in their order; None if none was found."""
    expanded: int
    """The arrangements that were tried."""
    is_whole: bool
    """Whether it ended by itself: without a way, none leads to the goal over the places that were looked at."""


@dataclass(frozen=True)
class Moves:
    """Arrangements of objects and switches, and the effects that lead from one to another.

    A way is a sequence of recorded effects, and an agent heads for the outcome of one at a time. An effect may happen
    in arrangements in which it was never recorded, if all holds that its recordings have in common. Ways are searched
    by A* among the places that matter for a goal: no list of arrangements is ever made.
    """

    passages: Passages
    speed: float
    still: float
    """The distance within which two recorded positions are the same at rest."""
    scale_G: np.ndarray
    is_blocked: Callable[[np.ndarray], np.ndarray] | None = None
    """For positions (M, G), whether each is in an obstacle; None without obstacles."""

    @classmethod
    def of(cls, position_NG: np.ndarray, found: Rests, is_rest_N: np.ndarray) -> Moves:
        """The roadmap of recorded positions, as `roadmap_of` builds it, which finds their rests."""
        return cls(Passages.of(position_NG, found, is_rest_N), found.speed, found.still, found.scale_G)

    @property
    def spacing(self) -> float:
        """The distance within which an arrangement counts as another one."""
        return self.speed

    @property
    def core_PG(self) -> np.ndarray:
        """Recorded arrangements, as goals."""
        return self.passages.after_MG

    @cached_property
    def _found(self) -> tuple[list[Effect], list[tuple[int, ...]]]:
        return effects_of(self.passages, self.scale_G, self.speed)

    @property
    def effects(self) -> list[Effect]:
        """The effects of the passages."""
        return self._found[0]

    @property
    def objects(self) -> list[tuple[int, ...]]:
        """What moves as one, by its entries."""
        return self._found[1]

    @cached_property
    def switches(self) -> np.ndarray:
        """The entries that are 0 or 1."""
        return np.flatnonzero(self.scale_G == FLIP)

    @cached_property
    def flips(self) -> Flips:
        """The steps that flips take, of effects that move nothing."""
        only = [effect for effect in self.effects if not effect.moves_G.any()]
        return Flips([self.bits(effect.flips_G) for effect in only], [effect.steps for effect in only])

    @cached_property
    def steps_of(self) -> list[float]:
        """The fewest steps that each object takes to another place, where an effect moves several of them the share
        of one."""
        shares = [math.inf] * len(self.objects)
        for effect in self.effects:
            moved = [number for number, entries in enumerate(self.objects) if effect.moves_G[entries[0]]]
            for number in moved:
                shares[number] = min(shares[number], effect.steps / len(moved))
        return shares

    def bits(self, position_G: np.ndarray) -> int:
        """The switches of an arrangement as the bits of a number."""
        return sum(1 << number for number, entry in enumerate(self.switches) if position_G[entry])

    def left(self, position_G: np.ndarray, goal_G: np.ndarray) -> float:
        """The environment steps to a goal, and no more than there are, whatever has to hold for them; infinite where
        no effects lead there, and zero where it is reached."""
        left = self.flips.left(self.bits(position_G) ^ self.bits(goal_G))
        for entries, steps in zip(self.objects, self.steps_of, strict=True):
            own = list(entries)
            if np.linalg.norm(position_G[own] - goal_G[own]) > self.speed:
                left += steps
        return left

    def way(self, goal_G: np.ndarray) -> Ways:
        """What is known of all ways to a goal."""
        return Ways(self, np.asarray(goal_G, np.float32))

    def route(self, way: Ways, position_G: np.ndarray, steps: float = np.inf) -> Route | None:
        """The way from a position to the outcome of its first effect; all of it to the goal if `steps` are infinite.
        None if no way was found."""
        position_G = np.asarray(position_G, np.float32)
        moves = way.search(position_G).moves
        if moves is None:
            return None
        if not moves:
            return Route(np.array([position_G, way.goal_G]), np.zeros(2), 0.0)
        places, steps_N = [position_G], [0.0]
        for move in moves:
            places.append(move.after(places[-1]))
            steps_N.append(steps_N[-1] + move.effect.steps)
        left = steps_N[-1]
        if math.isfinite(steps):
            return Route(np.array(places[:2]), np.array(steps_N[:2]), left)
        return Route(np.array([*places[:-1], way.goal_G]), np.array(steps_N), left)

    def is_between(self, before_G: np.ndarray, after_G: np.ndarray) -> bool:
        """Whether an obstacle lies on the straight line from one arrangement to another."""
        if self.is_blocked is None:
            return False
        share_S1 = np.linspace(0, 1, BETWEEN + 1)[:, None]
        return bool(self.is_blocked(before_G + share_S1 * (after_G - before_G)).any())

    def avoiding(self, is_blocked: Callable[[np.ndarray], np.ndarray]) -> Moves:
        """The same with obstacles: positions (M, G) for which `is_blocked` is true."""
        return replace(self, is_blocked=is_blocked)

    def tensors(self) -> dict[str, Tensor]:
        """All that it consists of, to be saved."""
        passages = self.passages
        arrays = {"before": passages.before_MG, "after": passages.after_MG, "moved": passages.moved_MG,
                  "steps": passages.steps_M, "speed": np.float64(self.speed), "still": np.float64(self.still),
                  "scale": self.scale_G}
        return {name: torch.as_tensor(array) for name, array in arrays.items()}


class Ways:
    """The ways to one goal, among the places that matter for it: of each object its goal, some spare places, and those
    that something else needs."""

    def __init__(self, roadmap: Moves, goal_G: np.ndarray):
        self.roadmap, self.goal_G = roadmap, goal_G
        self.margin_G = np.where(roadmap.scale_G == FLIP, 0, roadmap.speed)
        self.begins: dict[tuple[int, bytes], Bounds | None] = {}
        self.places: list[list[np.ndarray]] = [[] for _ in roadmap.objects]
        self.moves = [Move(effect, goal_G, None, effect.always, None)
                      for effect in roadmap.effects if not effect.moves_G.any()]
        self.moves += self._joint(goal_G, of_begin=False)
        for number, entries in enumerate(roadmap.objects):
            own = list(entries)
            self._add(number, goal_G[own])
            for move in [move for move in self.moves if move.begin_G is not None and move.effect.moves_G[own[0]]]:
                self._add(number, move.begin_G[own])
        self._add_needed()
        self.few = len(self.moves)
        for number, entries in enumerate(roadmap.objects):
            for place_W in self._spare(list(entries)):
                self._add(number, place_W)

    def search(self, start_G: np.ndarray) -> Search:
        """The way from an arrangement that takes the fewest steps, without the spare places if they are not needed. At
        most `EXPANDED` others are tried with them, and without."""
        joint = self._joint(start_G, of_begin=True)
        found = self._search(start_G, self.moves[: self.few] + joint)
        if found.moves is not None:
            return found
        return self._search(start_G, self.moves + joint)

    def _search(self, start_G: np.ndarray, moves: list[Move]) -> Search:
        """The same with some moves, by A*."""
        roadmap = self.roadmap
        left = roadmap.left(start_G, self.goal_G)
        queue, number = [(left, left, 0, start_G)], itertools.count(1)
        came: dict[bytes, tuple[bytes, Move]] = {}
        took = {start_G.tobytes(): 0.0}
        expanded = 0
        while queue and math.isfinite(queue[0][0]) and expanded < EXPANDED:
            total, left, _, here_G = heapq.heappop(queue)
            here = here_G.tobytes()
            if left == 0:
                return Search(_joined(came, here), expanded, True)
            if total > took[here] + left:
                continue
            expanded += 1
            for move in moves:
                next_G = move.after(here_G)
                there, after = next_G.tobytes(), took[here] + move.effect.steps
                if after < took.get(there, math.inf) and self._may(move, here_G, next_G):
                    took[there], came[there] = after, (here, move)
                    left = roadmap.left(next_G, self.goal_G)
                    heapq.heappush(queue, (after + left, left, next(number), next_G))
        return Search(None, expanded, expanded < EXPANDED)

    def _may(self, move: Move, here_G: np.ndarray, next_G: np.ndarray) -> bool:
        """Whether a move may happen in an arrangement, by all that is known of its effect."""
        effect = move.effect
        if not move.needs.hold(here_G, self.margin_G):
            return False
        if effect.moves_G.any():
            bounds = self._bounds_of_begin(effect, here_G)
            if bounds is None or not bounds.hold(here_G, self.margin_G):
                return False
        if move.begin_G is not None and np.linalg.norm((here_G - move.begin_G)[effect.moves_G]) > self.roadmap.speed:
            return False
        if move.stands is not None and not move.stands.hold(effect.offset(move.end_G, here_G), self.roadmap.speed):
            return False
        if len(effect.alike) > 1 and not effect.is_free(here_G, move.end_G):
            return False
        return not self.roadmap.is_between(here_G, next_G)

    def _bounds_of_begin(self, effect: Effect, here_G: np.ndarray) -> Bounds | None:
        """What has to hold for an effect where its objects are now; None where it never began nearby."""
        key = (id(effect), here_G[effect.moves_G].tobytes())
        if key not in self.begins:
            near_K = effect.began(here_G)
            self.begins[key] = effect.needs(near_K).but(effect.moves_G) if len(near_K) else None
        return self.begins[key]

    def _spare(self, own: list[int]) -> list[np.ndarray]:
        """Places of an object (W,) that are spread over its recorded ends."""
        ends = [effect.after_NG[:, own] for effect in self.roadmap.effects
                if effect.alike and own == [*effect.alike[0]]]
        if not ends:
            return []
        end_NW = np.concatenate(ends)
        return list(end_NW[spread(end_NW, self.roadmap.speed, SPARE)[0]])

    def _add(self, number: int, place_W: np.ndarray) -> None:
        """Adds the moves that bring an object to a place."""
        own = list(self.roadmap.objects[number])
        self.places[number].append(place_W)
        end_G = self.goal_G.copy()
        end_G[own] = place_W
        for effect in self.roadmap.effects:
            if effect.alike and [*effect.alike[0]] == own:
                near_K = effect.ended(end_G)
                if len(near_K):
                    stands = effect.stands(near_K) if len(effect.alike) > 1 else None
                    self.moves.append(Move(effect, end_G, None, effect.needs(near_K), stands))

    def _joint(self, place_G: np.ndarray, of_begin: bool) -> list[Move]:
        """The moves of several objects at once that end at a place, or begin there, each by as much as in one of the
        recordings that did so nearby."""
        moves = []
        for effect in self.roadmap.effects:
            if effect.moves_G.any() and not effect.alike:
                near_K = effect.began(place_G) if of_begin else effect.ended(place_G)
                for nearest in near_K[:JOINT]:
                    by_G = effect.after_NG[nearest] - effect.before_NG[nearest]
                    end_G = place_G + by_G * of_begin
                    moves.append(Move(effect, end_G, end_G - by_G, effect.needs(near_K), None))
        return moves

    def _add_needed(self) -> None:
        """Adds the places that moves need where none that is known would do."""
        for _ in range(ROUNDS):
            before = len(self.moves)
            for move in self.moves[:before]:
                for number, entries in enumerate(self.roadmap.objects):
                    own = list(entries)
                    needs = Bounds(move.needs.low_C[own], move.needs.high_C[own])
                    if not any(needs.hold(place_W, 0.0) for place_W in self.places[number]):
                        before_NW = move.effect.before_NG[:, own]
                        fits_N = ((before_NW >= needs.low_C) & (before_NW <= needs.high_C)).all(1)
                        for place_W in before_NW[fits_N][:1]:
                            self._add(number, place_W)
            if len(self.moves) == before:
                return


def _joined(came: dict[bytes, tuple[bytes, Move]], here: bytes) -> tuple[Move, ...]:
    """The moves that led to an arrangement, in their order."""
    moves = []
    while here in came:
        here, move = came[here]
        moves.append(move)
    return tuple(reversed(moves))
