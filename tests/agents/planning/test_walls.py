"""Ways in rooms with walls, of which a roadmap knows only what was recorded, or told."""

import numpy as np
import pytest
from rooms import HEIGHT, Room, ledge, partition, road, sides

from gentraj.agents.roadmap.far_goals import FarGoals, RoadmapConfig, roadmap_of_tensors
from gentraj.agents.roadmap.parts import crossings, parts
from gentraj.agents.roadmap.walks import Walks
from gentraj.constraints import Blocks

NO_WALLS = np.zeros((0, 2, 2))


def block(width: float) -> tuple[Blocks, Room]:
    """A narrow block in the middle of a room, as it is told, and the room with it."""
    low, high = (2 - width / 2, 0.8), (2 + width / 2, 2.2)
    corners = [low, (low[0], high[1]), high, (high[0], low[1]), low]
    walls = [[corners[side], corners[side + 1]] for side in range(4)]
    return Blocks(low=(low,), high=(high,), dims=(0, 1)), Room(np.array(walls))


@pytest.mark.parametrize(("width", "away"), [(0.05, 0.05), (0.05, 0.15), (0.1, 0.05), (0.1, 0.15)])
def test_a_told_obstacle_thinner_than_two_places_is_gone_round_however_near_the_start_and_the_goal(width, away):
    told, room = block(width)
    far = FarGoals(road(Room(NO_WALLS).recorded(40)), RoadmapConfig(ahead=4), (0, 1)).around([told])
    y_B = np.linspace(1.1, 1.9, 8)
    start_B2 = np.stack([np.full(8, 2 - width / 2 - away), y_B], 1)
    goal_B2 = np.stack([np.full(8, 2 + width / 2 + away), HEIGHT - y_B], 1)
    for start_2, goal_2 in zip(start_B2, goal_B2, strict=True):
        route = far.route(start_2, goal_2)
        assert route is not None
        assert not room.hits(route.place_NG[:-1], route.place_NG[1:]).any()
    assert np.isfinite(room.reached(far, start_B2, goal_B2, detours=False)).all()


def test_who_is_in_a_told_obstacle_is_led_out_of_it():
    told, _ = block(0.1)
    far = FarGoals(road(Room(NO_WALLS).recorded(40)), RoadmapConfig(ahead=4), (0, 1)).around([told])
    assert far.route(np.array([2.0, 1.5]), np.array([3.0, 1.5])) is not None


@pytest.mark.parametrize("thickness", [0.02, 0.1])
def test_a_wall_that_nobody_tells_of_is_gone_round_however_thin(thickness):
    room = partition(thickness)
    far = FarGoals(road(room.recorded(seed=1)), RoadmapConfig(ahead=4), (0, 1))
    assert np.isfinite(room.reached(far, *sides(room, 12, seed=2))).mean() >= 0.9


def test_saved_tensors_keep_the_sides_of_walls():
    roadmap = road(partition(0.02).recorded(40))
    again = roadmap_of_tensors(roadmap.tensors())
    at_N2 = np.random.default_rng(0).uniform((1.9, 0), (2.1, 2.4), (200, 2))
    place_N = roadmap.graph.place_of(at_N2)
    assert isinstance(again, Walks) and np.array_equal(again.graph.place_of(at_N2), place_N)
    place_N2 = roadmap.graph.place_PG[place_N]
    assert ((place_N2[:, 0] < 2) == (at_N2[:, 0] < 2)).mean() > 0.9


def test_a_ledge_is_gone_down_anywhere_and_up_where_it_ends():
    room = ledge()
    far = FarGoals(road(room.recorded(seed=2)), RoadmapConfig(ahead=4), (0, 1))
    low_B2, high_B2 = sides(room, 12, seed=2)
    down_B, up_B = room.reached(far, high_B2, low_B2), room.reached(far, low_B2, high_B2)
    assert np.isfinite(down_B).all()
    assert np.isfinite(up_B).mean() >= 0.9
    assert up_B[np.isfinite(up_B)].mean() > down_B.mean()


def test_without_a_wall_nearly_no_place_is_divided():
    graph = road(Room(NO_WALLS).recorded()).graph
    assert len(np.unique(graph.known_K)) < 0.02 * len(graph.place_PG)


def wandered(steps: int, paths: int, low_y: float, high_y: float) -> tuple[np.ndarray, np.ndarray]:
    """Random walks of small steps in a box of width 1, one after another, and which position follows the one before."""
    rng = np.random.default_rng(0)
    at_T2 = [rng.uniform((-0.5, low_y), (0.5, high_y), (paths, 2))]
    for _ in range(steps - 1):
        to_T2 = at_T2[-1] + rng.normal(0, 0.08, (paths, 2))
        at_T2.append(np.clip(to_T2, (-0.5, low_y), (0.5, high_y)))
    follows = np.tile(np.arange(steps) > 0, paths)
    return np.stack(at_T2, 1).reshape(-1, 2), follows


def test_parts_are_told_apart_by_steps_that_would_have_led_from_one_to_the_other():
    walks = wandered(40, 6, -0.5, -0.01), wandered(40, 6, 0.01, 0.5)
    at_M2, follows_M = (np.concatenate(pair) for pair in zip(*walks, strict=True))
    every_M = np.ones(len(at_M2), bool)
    steps_S2 = np.random.default_rng(1).normal(0, 0.15, (32, 2))
    part_M = parts(at_M2, follows_M, every_M, steps_S2, 3)
    below, above = set(part_M[:240]) - {-1}, set(part_M[240:]) - {-1}
    assert len(below) == len(above) == 1 and below != above
    along_S2 = steps_S2 * (1, 0)  # who only goes along the wall would never have crossed it
    assert set(parts(at_M2, follows_M, every_M, along_S2, 3)) <= {-1, 0}


def test_paths_that_cross_join_their_positions():
    at_M2 = np.array([(-1, 0), (1, 0), (0, -1), (0, 1), (2, 2), (3, 3)], float)
    follows_M = np.array([False, True, False, True, False, True])
    assert set(zip(*crossings(at_M2, follows_M).nonzero(), strict=True)) == {(0, 1), (2, 3), (4, 5), (0, 3), (2, 1)}
