"""The roadmap of the data: shortest ways over recorded passages."""

import copy
import pickle
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from planners import KnownModel, straight

from gentraj.agents.planning.sampler import PlannerConfig, PlanSampler
from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.policies.student import Student, StudentConfig
from gentraj.agents.roadmap.courses import courses
from gentraj.agents.roadmap.detours import Detours
from gentraj.agents.roadmap.far_goals import (
    OBSTACLES,
    WAYS,
    FarGoals,
    RoadmapConfig,
    Waypoints,
    roadmap_of,
    roadmap_of_tensors,
)
from gentraj.agents.roadmap.graph import PlaceGraph
from gentraj.agents.roadmap.headings import Headings
from gentraj.agents.roadmap.moves import Moves
from gentraj.agents.roadmap.walks import Walks
from gentraj.constraints import Circle, Constraints, Speed
from gentraj.diffusion.guidance import Constrained
from gentraj.trajectory import TrajectorySpec


def line(length: float, step: float = 0.1, offset: tuple[float, float] = (0, 0)) -> np.ndarray:
    """Positions from the offset to the right."""
    x = np.arange(0, length + step / 2, step)
    return np.stack([x + offset[0], np.full_like(x, offset[1])], 1)



def roadmap(*episodes: np.ndarray) -> Walks:
    lengths = [len(episode) for episode in episodes]
    road = roadmap_of(np.concatenate(episodes), np.repeat(np.arange(len(episodes)), lengths))
    assert isinstance(road, Walks)
    return road


def two_lanes(ahead: int) -> FarGoals:
    """A lane leads straight from (0, 0) to (10, 0), and one goes round."""
    high = line(4)[:, ::-1]
    top = line(10, offset=(0, 4))
    round_it = np.concatenate([high[:-1], top[:-1], high[::-1] + np.array([10, 0])])
    return FarGoals(roadmap(line(10), round_it), RoadmapConfig(ahead=ahead), (0, 1))


class Aiming(Actor):
    """Acts by the place that it aims at."""

    def decide(self, obs_BO: torch.Tensor, goal_BG: torch.Tensor | None, seeds: Sequence[int]) -> torch.Tensor:
        assert goal_BG is not None
        return goal_BG[:, None].expand(-1, self.policy.execute, -1)



def test_a_way_joins_pieces_of_different_episodes():
    right = line(10)
    up = right[:, ::-1] + np.array([10, 0])
    road = roadmap(right, up)
    assert road.route(road.way(np.array([10.0, 10])), np.zeros(2)).left == pytest.approx(200, rel=0.05)


def rolled() -> Moves:
    """The roadmap of a ball that is rolled from 0 to anywhere, and from anywhere to 0, with rests in between."""
    rng = np.random.default_rng(0)
    rows = [0.0]
    for away in rng.uniform(1, 10, 100):
        rows += [0.0] * 10 + list(np.linspace(0, away, 10)) + [away] * 10 + list(np.linspace(away, 0, 10))
    road = roadmap_of(np.array(rows)[:, None], np.zeros(len(rows), int))
    assert isinstance(road, Moves)
    return road


def test_an_agent_heads_for_the_same_place_until_what_it_moves_rests():
    far = FarGoals(rolled(), RoadmapConfig(), (0,))
    aims = []
    far.aim = lambda obs_BO, goal_BG: aims.append(obs_BO) or Waypoints(goal_BG + len(aims), goal_BG[:, 0])
    headings, one, goal = courses(far, 4, 1), torch.ones(1, dtype=torch.bool), torch.tensor([[8.0]])
    assert isinstance(headings, Headings)
    places = [headings.aim(one, torch.tensor([[x]]), goal).place_BG.item() for x in (3.0, 4.0, 5.0, 5.0, 9.0, 9.0)]
    assert places == [9, 9, 9, 10, 10, 11]
    headings.forget(one)
    assert headings.aim(one, goal, goal).place_BG.item() == 12


def test_a_one_way_street_leads_nowhere_against_its_direction():
    road = roadmap(line(10))
    back = road.way(np.zeros(2))
    assert road.route(back, np.array([8.0, 0]), 12) is None
    assert road.route(road.way(np.array([8.0, 0])), np.zeros(2), 12) is not None



@pytest.mark.parametrize("made", [lambda: roadmap(line(10)), rolled])
def test_saved_tensors_give_the_same_roadmap(made):
    road = made()
    again = roadmap_of_tensors(road.tensors())
    goal, start = road.core_PG[[-1, 0]]
    assert type(again) is type(road)
    assert again.route(again.way(goal), start).left == road.route(road.way(goal), start).left


def test_a_planner_is_aimed_along_the_way_and_at_last_at_its_goal():
    far = FarGoals(roadmap(line(20)), RoadmapConfig(ahead=30), (0, 1))
    at = torch.tensor([[1.0, 0], [17.5, 0]])
    goal = torch.tensor([[19.0, 0], [19.0, 0]])
    aim = far.aim(at, goal)
    assert aim.place_BG[0].tolist() == pytest.approx([4, 0], abs=1.01)
    assert (aim.place_BG[1] == goal[1]).all()
    assert aim.left_B.tolist() == pytest.approx([180, 15], abs=5)


def test_a_goal_without_a_way_is_planned_for_straight_and_said_once():
    far = FarGoals(roadmap(line(20)), RoadmapConfig(), (0, 1))
    nowhere = torch.tensor([[5.0, 50.0]])
    with pytest.warns(UserWarning, match=r"no recorded way .*5\.0, 50\.0"):
        aim = far.aim(torch.zeros(1, 2), nowhere)
    assert (aim.place_BG == nowhere).all() and aim.left_B.isinf().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        far.aim(torch.zeros(1, 2), nowhere)


def test_an_obstacle_of_a_planner_s_constraints_is_gone_round():
    """The circle between two waypoints closes the straight lane."""
    far = two_lanes(ahead=30)
    spec = TrajectorySpec(2, 0, 8, 4)
    circle = Circle(np.array([5.0, 0.1]), 0.15, (0, 1))  # pyright: ignore[reportArgumentType]
    limits = Constraints(spec, [circle, Speed(1.0, (0, 1), dt=0.1)])
    start, goal = torch.zeros(1, 2), torch.tensor([[10.0, 0]])
    assert far.outside(None) is far
    assert far.aim(start, goal).place_BG[0].tolist() == pytest.approx([3, 0], abs=1.0)
    around = far.outside(Constrained(limits))
    assert around.aim(start, goal).place_BG[0].tolist() == pytest.approx([0, 3], abs=1.0)
    assert far.outside(Constrained(limits, strict=False)) is around  # it is not searched again



def test_random_walks_never_promise_a_way_faster_than_the_data_move():
    rng = np.random.default_rng(0)
    walks = [np.cumsum(rng.uniform(-0.2, 0.2, (400, 2)), 0) for _ in range(20)]
    road = roadmap(*walks)
    goal = walks[3][200]
    way = road.way(goal)
    far = np.linalg.norm(road.graph.place_PG - goal, axis=1)
    assert (way.steps_P * road.graph.speed >= far - 1e-6).all()


@pytest.mark.parametrize(("obs_dim", "goal_dims"), [(2, (0, 1)), (29, (0, 1)), (2, (1,)), (5, (4, 0, 2))])
def test_a_whole_plan_joins_windows_from_the_start_to_a_goal_of_any_entries(obs_dim, goal_dims):
    spec = TrajectorySpec(obs_dim, 0, horizon=8, stride=4)
    lane = np.random.default_rng(0).normal(size=(301, obs_dim)).astype(np.float32)
    lane[:, goal_dims] = np.arange(301)[:, None] * 0.1
    far_goals = FarGoals(roadmap_of(lane[:, goal_dims], np.zeros(301)), RoadmapConfig(), goal_dims)
    sampler = PlanSampler(KnownModel(spec, straight), PlannerConfig("fixed", goal_dims=goal_dims), far=far_goals)
    obs, goal = torch.as_tensor(lane[[10, 200]]), torch.as_tensor(lane[[250, 210]])[:, goal_dims]
    far, near = sampler.whole(obs, goal, [0, 1])
    for way, start_O, goal_G in zip((far, near), obs, goal, strict=True):
        assert (way.x_TD[0] == start_O).all() and (way.x_TD[-1, goal_dims] == goal_G).all()
        assert way.spec.horizon == len(way.x_TD) == len(way.ratio_T)
    assert len(near.x_TD) == 8 and 7 * 240 / 35 < len(far.x_TD) < 7 * 240 / 17
    assert far.x_TD[:, goal_dims].diff(dim=0).abs().amax() < 1



def test_an_agent_that_is_stuck_goes_another_way_until_its_episode_ends():
    """The first robot does not move, the second one does."""
    policy = Student(StudentConfig(chunk=4, execute=4, width=8, depth=1), StateActionScales.blank(2, 2, 2))
    agent = Aiming(policy, np.full(2, -20), np.full(2, 20), ahead=two_lanes(ahead=12))
    position, goal = torch.zeros(2, 2), torch.tensor([[10.0, 0]]).expand(2, 2)
    aims = []
    for _ in range(60):
        aims.append(agent.act(position, goal))
        position = torch.stack([position[0], aims[-1][1]])
    assert aims[0][0, 1] == 0 and aims[-1][0].tolist() == pytest.approx([0, 1.5], abs=0.5)
    assert all(aim[1, 1] == 0 for aim in aims)
    agent.reset(mask_B=torch.tensor([True, False]))
    assert torch.equal(agent.act(position, goal)[0], aims[0][0])


def test_an_agent_that_goes_to_and_fro_is_stuck():
    far = two_lanes(ahead=12)
    detours, one, goal = Detours(far, 4, 1), torch.ones(1, dtype=torch.bool), torch.tensor([[10.0, 0]])
    aims = [detours.aim(one, torch.tensor([[abs(decision % 8 - 4) * 0.15, 0]]), goal).place_BG[0]
            for decision in range(61)]
    assert aims[4][1] == 0 and aims[60].tolist() == pytest.approx([0, 1.5], abs=0.5)


def test_where_no_other_way_is_known_the_closed_one_is_tried_again():
    far = FarGoals(roadmap(line(10)), RoadmapConfig(ahead=12), (0, 1))
    detours, one = Detours(far, 12, 1), torch.ones(1, dtype=torch.bool)
    start, goal = torch.zeros(1, 2), torch.tensor([[10.0, 0]])
    for _ in range(8):
        aim = detours.aim(one, start, goal)
        assert aim.place_BG[0].tolist() == pytest.approx([1.8, 0], abs=0.5) and aim.left_B.isfinite()


def test_an_obstacle_that_is_told_is_searched_once_and_what_a_robot_is_stuck_at_is_never_kept():
    """Sixty episodes of a robot that is stuck in each."""
    far = two_lanes(ahead=12)
    circle = Circle((5.0, 0.0), 0.15, (0, 1))
    around = far.around([circle])
    detours, one = Detours(around, 12, 1), torch.ones(1, dtype=torch.bool)
    for episode in range(60):
        start, goal = torch.tensor([[0.0, 0.01 * episode]]), torch.tensor([[10.0, 0.0]])
        for _ in range(5):
            detours.aim(one, start, goal)
        assert len(detours.found[0]) >= 1
        detours.forget(one)
    assert not detours.found and not around.told
    assert list(far.told) == [frozenset([circle])] and far.around([circle]) is around
    for x in range(100):
        far.around([Circle((float(x), 0.0), 0.1, (0, 1))])
    assert len(far.told) == OBSTACLES


def test_the_ways_to_all_goals_of_a_batch_are_found_once(monkeypatch: pytest.MonkeyPatch):
    """However many goals there are, all environments together or one after another."""
    found, shortest = [], PlaceGraph.shortest
    monkeypatch.setattr(PlaceGraph, "shortest", lambda *given: found.append(1) or shortest(*given))
    far, batch = FarGoals(roadmap(line(20)), RoadmapConfig(), (0, 1)), WAYS + 44
    detours = Detours(far, 12, batch)
    obs, goal = torch.zeros(batch, 2), torch.zeros(batch, 2)
    goal[:, 0] = torch.linspace(5, 15, batch)
    first_B = torch.arange(batch) < batch // 2
    for _ in range(2):
        for which_B in (first_B, ~first_B, first_B | ~first_B):
            detours.aim(which_B, obs[which_B], goal[which_B])
    assert len(found) == batch


def test_where_one_obstacle_closes_every_passage_there_is_no_way_and_a_second_one_can_be_told():
    far = two_lanes(ahead=12)
    closed = far.around([Circle((5.0, 2.0), 99.0, (0, 1))])
    assert isinstance(closed.roadmap, Walks) and not len(closed.roadmap.graph.steps_E)
    again = closed.around([Circle((5.0, 0.0), 0.15, (0, 1))])
    start, goal = torch.zeros(1, 2), torch.tensor([[10.0, 0]])
    with pytest.warns(UserWarning, match="no recorded way"):
        assert again.aim(start, goal).left_B.isinf()
    objects = FarGoals(rolled(), RoadmapConfig(), (0,)).around([Circle((5.0,), 99.0, (0,))]).around(
        [Circle((5.0,), 1.0, (0,))])
    with pytest.warns(UserWarning, match="no recorded way"):
        assert objects.aim(torch.zeros(1, 1), torch.tensor([[8.0]])).left_B.isinf()



@pytest.mark.parametrize("copied", [copy.deepcopy, lambda agent: pickle.loads(cloudpickle.dumps(agent))])
@pytest.mark.parametrize("road", [lambda: two_lanes(ahead=12).around([Circle((5.0, 0.1), 0.15, (0, 1))]),
                                  lambda: FarGoals(rolled(), RoadmapConfig(), (0,))])
def test_a_copy_of_an_agent_on_its_way_acts_as_the_agent_does(road: Callable[[], FarGoals], copied: Any):
    """Before the first decision, in the midst of its course, and where it is stuck and has left its way."""
    far = road()
    dim = len(far.goal_dims)
    policy = Student(StudentConfig(chunk=2, execute=2, width=8, depth=1), StateActionScales.blank(dim, dim, dim))
    agent, at = Aiming(policy, np.full(dim, -20), np.full(dim, 20), ahead=far), torch.zeros(2, dim)
    goal = torch.zeros_like(at)
    goal[:, 0] = torch.tensor([10.0, 9.9])
    agent.reset([1, 2])
    for _ in range(3):
        other = copied(agent)
        for _ in range(20):
            assert torch.equal(agent.act(at, goal), other.act(at, goal))
