"""Jumps on the way, through portals that lead anywhere: the ways of the fewest expected steps."""

from itertools import pairwise

import numpy as np
import pytest

from gentraj.agents.roadmap.far_goals import roadmap_of, roadmap_of_tensors
from gentraj.agents.roadmap.walks import Walks

STEP = 0.1
START, PORTAL, GOAL, BACK, TRAP = (0.0, 0.0), (4.0, 0.0), (14.0, 0.0), (-1.0, 0.0), (4.0, 50.0)


def straight(*corners: tuple[float, float]) -> np.ndarray:
    """Positions along straight lines, a step apart."""
    legs = []
    for begin, end in pairwise(corners):
        steps = round(np.hypot(end[0] - begin[0], end[1] - begin[1]) / STEP)
        legs.append(np.linspace(begin, end, steps, endpoint=False))
    return np.concatenate([*legs, [corners[-1]]])


def portal(leads_on: int, others: int, other: tuple[float, float] = BACK, *, safe: float | None = 8.0) -> Walks:
    """A lane to a portal, whose recorded jumps led on near the goal, and back behind its beginning or into a trap; a
    safe way goes round at some height."""
    through = np.concatenate([straight(START, PORTAL), straight((10, 0), GOAL)])
    astray = np.concatenate([straight(START, PORTAL), straight(other, (other[0] + 1, other[1]))])
    episodes = [through] * leads_on + [astray] * others
    episodes.append(straight(BACK, PORTAL))
    if safe is not None:
        episodes += [straight(START, (0, safe), (14, safe), GOAL)] * 2
    road = roadmap_of(np.concatenate(episodes), np.repeat(np.arange(len(episodes)), [len(one) for one in episodes]))
    assert isinstance(road, Walks)
    return road


def left(road: Walks) -> float:
    route = road.route(road.way(np.array(GOAL)), np.array(START))
    assert route is not None
    return route.left


def test_a_jump_that_always_leads_on_is_a_step_of_the_way():
    road = portal(20, 0)
    route = road.route(road.way(np.array(GOAL)), np.array(START))
    assert route is not None
    assert route.left == pytest.approx(80, abs=8)
    assert np.abs(route.place_NG[:, 1]).max() < 1
    assert route.place_NG[-1] == pytest.approx([4.3, 0], abs=0.5)  # into the portal


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_the_steps_of_a_way_are_those_expected_over_the_recorded_jumps(share: float):
    """Who is thrown back by a step and a lane tries again: 40 steps at first, 50 after each failure."""
    road = portal(round(40 * share), round(40 * (1 - share)), safe=None)
    assert left(road) == pytest.approx(40 + 40 + 50 * (1 / share - 1), rel=0.1)


def test_the_safe_way_is_taken_where_it_is_shorter_in_expectation():
    """It takes 300 steps, and the portal 80 + 50 (1 / p - 1)."""
    luckily, seldom = portal(20, 20), portal(2, 38)
    assert left(luckily) == pytest.approx(130, rel=0.1)
    assert left(seldom) == pytest.approx(300, rel=0.05)


def test_a_way_keeps_away_from_where_episodes_jumped_to_a_place_without_a_way():
    """Half of those who came by the direct lane are in the trap now, which they passed for as many steps."""
    road = portal(20, 20, TRAP)
    assert left(road) == pytest.approx(300, rel=0.05)


def test_passing_by_a_place_from_which_some_are_thrown_far_back_costs_what_is_expected():
    """One in four of those on the straight lane are thrown from its middle to a place 300 steps before it."""
    passing, thrown = straight(START, (8, 0)), straight(START, (4, 0))
    back = straight((0, 30), START)
    episodes = [passing] * 30 + [np.concatenate([thrown, back])] * 10 + [straight(START, (0, 2), (8, 2), (8, 0))] * 2
    road = roadmap_of(np.concatenate(episodes), np.repeat(np.arange(len(episodes)), [len(one) for one in episodes]))
    assert isinstance(road, Walks)
    route = road.route(road.way(np.array([8.0, 0])), np.array(START))
    assert route is not None
    assert route.left == pytest.approx(120, rel=0.1)
    assert route.place_NG[:, 1].max() > 1.5


def test_an_obstacle_at_a_portal_closes_it():
    road = portal(20, 0)
    closed = road.avoiding(lambda at_MG: np.linalg.norm(at_MG - np.array(PORTAL), axis=1) < 1)
    assert left(closed) == pytest.approx(300, rel=0.05)


def test_saved_tensors_give_the_same_jumps():
    road = portal(20, 20)
    again = roadmap_of_tensors(road.tensors())
    assert isinstance(again, Walks)
    assert left(again) == left(road)
    torn = {name: tensor for name, tensor in road.tensors().items() if name != "jumps.risk_E"}
    with pytest.raises(ValueError, match="of other versions"):
        roadmap_of_tensors(torn)
