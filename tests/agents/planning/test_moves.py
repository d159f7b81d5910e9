"""The roadmap of objects and switches: recorded effects, one after another, in arrangements never recorded."""

from itertools import pairwise

import numpy as np
import pytest

from gentraj.agents.roadmap.far_goals import roadmap_of, roadmap_of_tensors
from gentraj.agents.roadmap.moves import Flips, Moves

TRAVEL = 5  # environment steps of a rest, and of a motion


class Recorder:
    """Records arrangements of G entries, which rest and are moved, one after another."""

    def __init__(self, *start: float):
        self.rows = [np.array(start, float)] * TRAVEL

    def move(self, **to: float) -> None:
        """Moves entries evenly, or flips them at once if they are switches, and rests."""
        after_G = self.rows[-1].copy()
        for entry, value in to.items():
            after_G[int(entry[1:])] = value
        self.go(after_G)
        self.rows += [after_G] * TRAVEL

    def lift(self, box: int, x: float, height: float) -> None:
        """Moves a box, whose entries are its x and its height, over others, and rests."""
        for x_over, over in ((self.now[box], 3), (x, 3), (x, height)):
            at_G = self.now.copy()
            at_G[[box, box + 1]] = x_over, over
            self.go(at_G)
        self.rows += [self.now] * TRAVEL

    def go(self, after_G: np.ndarray) -> None:
        self.rows += [*np.linspace(self.rows[-1], after_G, TRAVEL + 1)[1:]]

    def flip(self, *entries: int) -> None:
        after_G = self.rows[-1].copy()
        after_G[list(entries)] = 1 - after_G[list(entries)]
        self.rows += [after_G] * TRAVEL

    @property
    def now(self) -> np.ndarray:
        return self.rows[-1]

    def roadmap(self) -> Moves:
        position_NG = np.array(self.rows)
        road = roadmap_of(position_NG, np.zeros(len(position_NG), int))
        assert isinstance(road, Moves)
        return road


def arrangements(road: Moves, start: object, goal: object) -> list[list[float]] | None:
    route = road.route(road.way(np.array(goal, float)), np.array(start, float))
    if route is None:
        return None
    return route.place_NG.tolist()


def lights(side: int, presses: int = 40) -> tuple[Moves, np.ndarray]:
    """A puzzle of side x side lights: each button flips its own and its neighbours, pressed at random."""
    cell_B2 = np.stack(np.divmod(np.arange(side * side), side), 1)
    flips_BG = np.abs(cell_B2[:, None] - cell_B2).sum(2) <= 1
    rng, recorded = np.random.default_rng(0), Recorder(*[0] * side * side)
    for button in rng.permutation(np.arange(presses * side * side) % (side * side)):
        recorded.flip(*np.flatnonzero(flips_BG[button]))
    return recorded.roadmap(), flips_BG


def test_a_puzzle_is_solved_from_settings_never_recorded_in_the_fewest_presses():
    road, flips_BG = lights(4)
    recorded = {tuple(row) for row in road.passages.before_MG}
    rng = np.random.default_rng(1)
    for presses in (1, 3, 6):
        pressed = rng.choice(16, presses, replace=False)
        start_G = rng.integers(0, 2, 16)
        goal_G = (start_G + flips_BG[pressed].sum(0)) % 2
        way = arrangements(road, start_G, goal_G)
        assert way is not None and way[-1] == goal_G.tolist() and len(way) - 1 <= presses
        flipped = [np.abs(np.subtract(after, before)) for before, after in pairwise(way)]
        assert all((each == flips_BG).all(1).any() for each in flipped)
    assert tuple(start_G) not in recorded


def test_a_setting_that_no_presses_lead_to_is_known_to_have_no_way():
    """In 4 x 4 lights, only one setting of sixteen can be reached, and no light can be changed alone."""
    road, _ = lights(4)
    for goal_G in np.eye(16, dtype=np.float32):
        search = road.way(goal_G).search(np.zeros(16, np.float32))
        assert search.moves is None and search.is_whole and search.expanded == 0


def test_the_fewest_steps_of_flips_are_those_of_an_enumeration():
    rng = np.random.default_rng(0)
    flips, steps = rng.integers(1, 64, 9).tolist(), rng.uniform(1, 5, 9)
    left = Flips(flips, steps.tolist())
    best = dict.fromkeys(range(64), np.inf)
    for used in range(1 << 9):
        bits, took = 0, 0.0
        for number in range(9):
            if used >> number & 1:
                bits, took = bits ^ flips[number], took + steps[number]
        best[bits] = min(best[bits], took)
    assert [left.left(bits) for bits in range(64)] == pytest.approx([best[bits] for bits in range(64)])


def locked(changes: int = 400, noise: float = 0.0) -> Moves:
    """A drawer (entry 0) that is shut at 0 and open at 10, a lock (1) that has to be 1 for it, and a lamp (2)."""
    rng, recorded = np.random.default_rng(0), Recorder(0, 0, 0)
    for change in rng.integers(3, size=changes):
        if change:
            recorded.flip(int(change))
        elif recorded.now[1]:
            recorded.move(_0=10 - recorded.now[0] + rng.uniform(-0.01, 0.01))
    recorded.rows = [row + noise * rng.normal() * np.array([1, 0, 0]) for row in recorded.rows]
    return recorded.roadmap()


def test_a_lock_is_opened_for_a_drawer_and_shut_again():
    way = arrangements(locked(), [0, 0, 1], [10, 0, 1])
    assert way == [[0, 0, 1], [0, 1, 1], [10, 1, 1], [10, 0, 1]]
    assert arrangements(locked(), [0, 1, 1], [10, 1, 0]) in ([[0, 1, 1], [10, 1, 1], [10, 1, 0]],
                                                            [[0, 1, 1], [0, 1, 0], [10, 1, 0]])


def test_noise_at_rest_changes_no_way():
    way = arrangements(locked(noise=0.03), [0, 0, 1], [10, 0, 1])
    assert way == [[0, 0, 1], [0, 1, 1], [10, 1, 1], [10, 0, 1]]


def test_what_is_so_by_chance_is_not_needed():
    """A box is brought anywhere, and a lamp is flipped, both whenever."""
    rng, recorded = np.random.default_rng(0), Recorder(0, 0)
    for change in rng.integers(2, size=600):
        if change:
            recorded.flip(1)
        else:
            recorded.move(_0=rng.uniform(0, 10))
    for effect in recorded.roadmap().effects:
        assert np.isinf([effect.always.low_C, effect.always.high_C]).all()


def shelves(moves: int = 600) -> Moves:
    """Two boxes, each in one of the places 0, 10 and 20, where only one has room."""
    rng, recorded = np.random.default_rng(0), Recorder(0, 10)
    for _ in range(moves):
        box = rng.integers(2)
        recorded.move(**{f"_{box}": 30 - recorded.now.sum()})
    return recorded.roadmap()


def test_a_place_has_to_be_free():
    """Two boxes change places by way of the third place."""
    way = arrangements(shelves(), [0, 10], [10, 0])
    assert way in ([[0, 10], [20, 10], [20, 0], [10, 0]], [[0, 10], [0, 20], [10, 20], [10, 0]])


def test_an_obstacle_on_the_way_of_an_object_is_gone_round():
    """A cart goes anywhere on a square of 10, and a wall from below ends at a height of 6."""
    rng, recorded = np.random.default_rng(0), Recorder(0, 0)
    for x, y in rng.uniform(0, 10, (400, 2)):
        recorded.move(_0=x, _1=y)
    road = recorded.roadmap()
    assert len(arrangements(road, [2, 2], [8, 2]) or ()) == 2
    round_it = road.avoiding(lambda at_MG: (abs(at_MG[:, 0] - 5) < 0.5) & (at_MG[:, 1] < 6))
    way = arrangements(round_it, [2, 2], [8, 2])
    assert way is not None and len(way) >= 3
    assert arrangements(road.avoiding(lambda at_MG: abs(at_MG[:, 0] - 5) < 0.5), [2, 2], [8, 2]) is None


def test_objects_anywhere_go_round_each_other():
    """Two discs of diameter 1 in a square of 4, which are brought anywhere that the other one is not."""
    rng, recorded = np.random.default_rng(0), Recorder(1, 1, 3, 3)
    for _ in range(1500):
        disc = 2 * rng.integers(2)
        other_2 = recorded.now[[2, 3] if disc == 0 else [0, 1]]
        place_2 = rng.uniform(0, 4, 2)
        while np.linalg.norm(place_2 - other_2) < 1:
            place_2 = rng.uniform(0, 4, 2)
        recorded.move(**{f"_{disc}": place_2[0], f"_{disc + 1}": place_2[1]})
    road = recorded.roadmap()
    assert road.objects == [(0, 1), (2, 3)]
    way = arrangements(road, [1, 2, 3, 2], [3, 2, 1, 2])
    assert way is not None and len(way) == 4 and way[-1] == [3, 2, 1, 2]
    assert all(np.linalg.norm(np.subtract(each[:2], each[2:])) > 0.9 for each in way)
    assert len(arrangements(road, [1, 2, 3, 2], [1, 1, 3, 3]) or ()) == 3


def test_what_only_ever_went_one_step_on_is_never_asked_for_two():
    """A cart goes from station to station, 0, 10, 20 and 30, and back from the last one to the first."""
    recorded = Recorder(0)
    for station in [10, 20, 30, 0] * 60:
        recorded.move(_0=station)
    assert arrangements(recorded.roadmap(), [10], [0]) == [[10], [20], [30], [0]]


def test_a_box_in_a_drawer_is_moved_with_it():
    """A box (0) lies on the table between 0 and 10 or in the drawer (1), which is open at 20 and shut at 40; the box is
    put into the open drawer at 60, and moves to 80 with it."""
    rng, recorded = np.random.default_rng(0), Recorder(0, 40)
    for change in rng.integers(3, size=2000):
        box, drawer = recorded.now
        if change == 0:
            inside = {"_0": box + 60 - 2 * drawer} if box > 50 else {}
            recorded.move(_1=60 - drawer, **inside)
        elif change == 1 and (box < 50 or drawer == 20):
            recorded.move(_0=rng.uniform(0, 10))
        elif drawer == 20 and box < 50:
            recorded.move(_0=60 + rng.uniform(-1, 1))
    road = recorded.roadmap()
    assert arrangements(road, [5, 40], [80, 40]) == [[5, 40], [5, 20], [pytest.approx(60, abs=1), 20], [80, 40]]
    out = arrangements(road, [80, 40], [5, 40])
    assert out is not None and len(out) == 4 and out[1][1] == 20 and out[1][0] == pytest.approx(60, abs=1)


def test_a_goal_that_nothing_was_ever_near_has_no_way():
    assert arrangements(shelves(), [0, 10], [50, 10]) is None


@pytest.mark.parametrize("made", [lambda: lights(2)[0], locked])
def test_saved_tensors_give_the_same_ways(made):
    road = made()
    again = roadmap_of_tensors(road.tensors())
    start, goal = road.passages.before_MG[3], road.passages.after_MG[9]
    assert isinstance(again, Moves)
    assert arrangements(again, start, goal) == arrangements(road, start, goal)


def stacked(moves: int = 2000) -> Moves:
    """Two boxes of width 1, each at x in 0 to 10 and a height of 0 or 1: on the other one, which then stays."""
    rng, recorded = np.random.default_rng(0), Recorder(2, 0, 7, 0)
    for _ in range(moves):
        box = 2 * rng.integers(2)
        other = 2 - box
        if recorded.now[other + 1] == 1:
            continue  # the other one stands on it
        if recorded.now[box + 1] == 0 and rng.random() < 0.5:
            recorded.lift(box, recorded.now[other], 1)
            continue
        x = rng.uniform(0, 10)
        while abs(x - recorded.now[other]) < 1:
            x = rng.uniform(0, 10)
        recorded.lift(box, x, 0)
    return recorded.roadmap()


def test_a_box_stands_on_another_one_which_is_brought_there_before():
    road = stacked()
    assert arrangements(road, [2, 0, 7, 0], [5, 1, 5, 0]) == [[2, 0, 7, 0], [2, 0, 5, 0], [5, 1, 5, 0]]
    swapped = arrangements(road, [5, 1, 5, 0], [5, 0, 5, 1])
    assert swapped is not None and len(swapped) == 5  # down, aside, to the goal, and on top
    assert [each[1] + each[3] for each in swapped] == [1, 0, 0, 0, 1]


def test_nothing_floats():
    assert arrangements(stacked(), [2, 0, 7, 0], [5, 1, 7, 0]) is None
