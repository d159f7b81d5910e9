"""Ways in rooms with walls, of which a roadmap knows only what was recorded, or told."""

import numpy as np
import pytest
from rooms import HEIGHT, Room, road

from gentraj.agents.roadmap.far_goals import FarGoals, RoadmapConfig
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
