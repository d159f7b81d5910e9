"""A planner with a deadline acts in time, however long its plans take. A fake clock tells how long that is."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from planners import KnownValue, Walk, parts, planner
from torch import Tensor

from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.sampler import PlannerConfig
from gentraj.agents.realtime.background import MAX_RESET_WAIT_S, Deadline, SimulatedTime
from gentraj.agents.realtime.planner import RealTimePlanner, SamplingBudget, budgets
from gentraj.agents.roadmap.far_goals import FarGoals, RoadmapConfig, roadmap_of
from gentraj.constraints import Circle
from gentraj.randomness import Seeds
from gentraj.trajectory import Agent, Condition, TrajectorySpec

SPEC = TrajectorySpec(obs_dim=1, act_dim=1, horizon=24)
CONFIG = PlannerConfig(arrival="fixed", replan=6, lookahead=1, steps=4, actions="joint", select="value")
START = torch.zeros(1, 1)
GAIN = KnownValue(lambda x_RHD: x_RHD[:, :6, 1].sum(1), SPEC)  # the sum of a plan's first actions


class Timed(Walk):
    """A model each of whose sampling steps takes `cost` seconds."""

    def __init__(self, time: SimulatedTime, cost: float):
        super().__init__(SPEC)
        self.time, self.cost, self.all_asked = time, cost, list[Condition]()

    def walk(self, condition: Condition, seeds: Seeds) -> Tensor:
        self.time.now += self.cost * (self.options.steps or 0)
        self.all_asked.append(condition)
        return super().walk(condition, seeds)


class Student(Agent):
    """A fallback that always acts by 7."""

    def __init__(self) -> None:
        self.resets = 0

    def _reset(self, seeds_B: list[int], mask_B: Tensor) -> None:
        self.resets += 1

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        return torch.full((len(obs_BO), 1), 7.0)


class InTime:
    """A planner whose plans of 4 steps take 4 * `cost` seconds, its fake clock, and whether it knows that."""

    def __init__(self, seconds: float, cost: float = 0.25, *, known: bool = True, fallback: Agent | None = None,
                 far: FarGoals | None = None, **changes: Any):
        self.time: Any = SimulatedTime()
        self.model, self.seconds, self.state = Timed(self.time, cost), seconds, START
        deadline = Deadline(seconds, fallback, self.time, self.time)
        self.agent = RealTimePlanner(*parts(self.model, replace(CONFIG, **changes), 1, critic=GAIN, far=far), deadline)
        if known:
            self.agent.warm_up(START, None)
        self.agent.reset([3])
        self.model.all_asked.clear()

    def step(self, goal_BG: Tensor | None = None) -> Tensor:
        """One action in real time, which has to be in time."""
        start = self.time()
        act = self.agent.act(self.state, goal_BG)
        assert self.time() <= start + self.seconds + 1e-9
        self.agent.rest(start + self.seconds - self.time())
        self.time.now = start + self.seconds
        return act

    def play(self, steps: int) -> tuple[Tensor, Tensor]:
        """The states and the actions (T, 1) of an episode that begins at `START`."""
        self.state, states, acts = START, [], []
        for _ in range(steps):
            states.append(self.state)
            acts.append(self.step())
            self.state = self.state + acts[-1]
        return torch.cat(states), torch.cat(acts)

    @property
    def plan(self) -> Tensor:
        """(H, 2) the last plan."""
        return self.agent.last.chosen()[0][0]

    @property
    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """What acted, and the plans."""
        timing = self.agent.timing()
        return timing["acted_by"], timing["plans"]


def test_with_time_for_one_plan_it_acts_as_the_planner_does() -> None:
    played = InTime(1.9, candidates=3)
    plain: Planner = planner(played.model, played.agent.config, 1, critic=GAIN)
    plain.reset([3])
    states, acts = played.play(20)
    assert torch.equal(torch.cat([plain.act(state[None]) for state in states]), acts)
    assert played.counts == ({"the plan": 20}, {"4 steps, 3 candidates": 4})


@pytest.mark.parametrize("seconds", [0.17, 0.26, 0.51, 0.99])
def test_the_next_plan_is_made_while_this_one_is_carried_out(seconds: float) -> None:
    """It is begun just early enough, and starts from where the steps until then lead. The first one starts at rest."""
    played, wait = InTime(seconds), int(np.ceil(0.5 / seconds)) - 1  # the first plan is one of 2 steps
    states, acts = played.play(wait + 19)
    asked = torch.stack([condition.values_BHD[0, 0, 0] for condition in played.model.all_asked])
    torch.testing.assert_close(asked, states[[0, *range(wait + 6, wait + 19, 6)], 0])
    acted = {"standing still": wait, "the plan": 19} if wait else {"the plan": 19}
    assert played.counts == (acted, {"2 steps, 1 candidates": 1, "4 steps, 1 candidates": 3})
    assert (acts[:wait] == 0).all() and (acts[wait:] != 0).all()


def test_the_budgets_halve_the_steps_and_then_the_candidates() -> None:
    config = replace(CONFIG, steps=20, candidates=5)
    assert budgets(config) == [(20, 5), (10, 5), (5, 5), (2, 5), (2, 2), (2, 1)]
    assert budgets(replace(config, steps=1, candidates=1)) == [SamplingBudget(1, 1)]
    assert budgets(replace(config, steps=4), fixed_steps=True) == [(4, 5), (4, 2), (4, 1)]


@pytest.mark.parametrize(("seconds", "steps"), [(0.8, 20), (0.4, 10), (0.2, 5), (0.1, 2), (0.01, 2)])
def test_plans_that_take_too_long_are_made_with_a_smaller_budget(seconds: float, steps: int) -> None:
    """20 steps take 5 s, and the next plan is due after 6 actions."""
    played = InTime(seconds, steps=20)
    played.play(60)
    first, *later = played.counts[1]
    assert first == "2 steps, 1 candidates" and later == ([f"{steps} steps, 1 candidates"] if steps > 2 else [])


def test_one_slow_plan_does_not_reduce_the_budget_for_good() -> None:
    """Plans of 4 steps are not measured any more while plans of 2 steps are made, which say how fast they would be."""
    played = InTime(0.34)
    played.play(13)
    played.model.cost = 5.0
    played.play(7)
    played.model.cost = 0.25
    played.play(200)
    before = played.agent.background.made.copy()
    played.play(60)
    assert played.agent.background.made - before == {"4 steps, 1 candidates": 10}
    plan_ms = played.agent.timing()["plan_ms"]
    assert plan_ms == pytest.approx({"4 steps, 1 candidates": 1000, "2 steps, 1 candidates": 500})


def test_a_clock_that_stands_still_in_the_warm_up_leaves_plans_to_be_measured_later() -> None:
    played = InTime(0.34, cost=0.0)
    assert set(played.agent.timing()["plan_ms"].values()) == {0.0}
    played.play(12)
    assert played.counts == ({"the plan": 12}, {"4 steps, 1 candidates": 2})
    played.model.cost = 0.25
    played.play(300)
    plan_ms = played.agent.timing()["plan_ms"]
    assert plan_ms == pytest.approx({"4 steps, 1 candidates": 1000, "2 steps, 1 candidates": 500})


def test_a_late_plan_is_carried_out_from_where_it_is_by_then() -> None:
    played = InTime(1.1)
    played.play(5)
    first = played.plan
    played.model.cost = 0.65  # a neighbour: 2.6 s a plan, in the place of 1 s
    _, acts = played.play(7)
    assert torch.equal(acts[:3], first[5:8, 1:])  # steps 5 to 7; a plan was due at step 6
    assert torch.equal(acts[3:], played.plan[2:6, 1:]) and played.counts[0]["the previous plan"] == 2


@pytest.mark.parametrize("fallback", [False, True])
def test_where_no_plan_is_ready_something_else_acts(fallback: bool) -> None:
    played = InTime(0.3, known=False, fallback=Student() if fallback else None)
    _, acts = played.play(6)
    assert (acts[:3] == (7 if fallback else 0)).all()
    began = 3 if fallback else 0  # it has gone on with the fallback meanwhile
    assert torch.equal(acts[3:], played.plan[began : began + 3, 1:])


def test_a_plan_is_followed_to_its_end_where_no_other_comes_and_then_the_fallback_begins_anew() -> None:
    """The rest of a chunk of actions of the fallback was for the steps after it."""
    student = Student()
    played = InTime(1.1, fallback=student)
    played.play(5)
    assert student.resets == 0
    plan, played.model.cost = played.plan, 1e9
    _, acts = played.play(40)
    reach = played.agent.tracker.config.replan
    assert torch.equal(acts[: reach - 5], plan[5:reach, 1:]) and (acts[reach - 5 :] == 7).all()
    assert student.resets == 1


def test_a_goal_that_moves_is_planned_for_while_the_previous_plan_is_followed() -> None:
    """A plan takes two steps. The one to the former goal, which is being made at step 5, is dropped."""
    played, began = InTime(0.6), []
    for step in range(9):
        played.step(torch.tensor([[5.0 if step < 5 else -5.0]]))
        began.append(played.agent.began)
    aims = [float(condition.values_BHD[0, -1, 0]) for condition in played.model.all_asked]
    assert aims == sorted(aims, reverse=True) and {*aims} == {5.0, -5.0}
    assert began[5] == began[4] and began[7] >= 5  # the former plan is followed until the new one is ready
    assert played.counts[0]["the previous plan"] == 1


def test_a_goal_that_moves_in_every_step_is_followed() -> None:
    """A plan takes two steps. Each was dropped for the next goal, so that none was ever ready."""
    played = InTime(0.3)
    for step in range(20):
        played.step(torch.full((1, 1), 5.0 + step))
    assert played.counts[0]["standing still"] < 3 and played.agent.decision_B > 4


def lane() -> FarGoals:
    return FarGoals(roadmap_of(np.arange(200.0)[:, None], np.zeros(200)), RoadmapConfig(), (0,))


def test_a_far_goal_is_approached_place_by_place_from_where_the_steps_until_then_lead() -> None:
    """A plan takes two steps, and its start is foreseen."""
    far, goal_BG = lane(), START + 190
    played = InTime(0.6, far=far)
    for _ in range(31):
        played.state = played.state + played.step(goal_BG).clamp(0, 1)
    asked_R2 = torch.stack([condition.values_BHD[0, [0, -1], 0] for condition in played.model.all_asked])
    assert len(asked_R2) >= 5 and played.counts[0]["the plan"] >= 28
    assert torch.equal(asked_R2[:, 1:], far.aim(asked_R2[:, :1], goal_BG.expand(len(asked_R2), -1)).place_BG)
    assert (asked_R2[:, 1] < 80).all()


def test_where_it_is_stuck_it_looks_for_another_way_and_plans_from_where_it_is() -> None:
    """A plan takes two steps, and starts where the steps until then would have led."""
    played = InTime(0.6, far=lane())
    while not played.agent.courses.of(torch.ones(1, dtype=torch.bool)):
        assert played.agent.step < 100
        played.step(START + 190)
    played.step(START + 190)
    starts = torch.cat([condition.values_BHD[:, 0, 0] for condition in played.model.all_asked])
    assert len(starts) > 9 and starts[[0, -1]].eq(0).all() and starts[1:-1].ne(0).all()
    played.agent.reset([3])
    assert not played.agent.courses.of(torch.ones(1, dtype=torch.bool))


def test_one_that_is_told_of_obstacles_takes_the_place_of_the_other() -> None:
    """It knows how long plans take, and counts on; a fallback is told, too."""
    played = InTime(0.6, far=lane(), fallback=InTime(0.6).agent)
    played.step(START + 90)
    before = played.agent
    played.agent = before.avoiding([Circle((150.0,), 1.0, (0,))])
    assert len(played.agent.courses.far.roadmap.graph.edge_E2) < len(before.courses.far.roadmap.graph.edge_E2)
    fallback: Any = played.agent.background.deadline.fallback
    assert fallback.sampler.guide is not None and before.sampler.guide is None
    played.step(START + 90)
    assert before.timing() == played.agent.timing() and sum(played.counts[0].values()) == 2


def test_a_plan_does_not_change_with_the_buffers_of_its_caller() -> None:
    """As where a driver writes each observation into the same array, while a plan is made of the one before."""
    played, obs, goal = InTime(0.3), torch.zeros(1, 1), torch.full((1, 1), 5.0)
    played.agent.act(obs, goal)
    obs += 1
    goal += 1
    job: Any = played.agent.background.job
    assert (job.obs_BO.item(), job.goal_BG.item()) == (0, 5)


def test_a_plan_of_an_episode_that_has_ended_is_forgotten_and_delays_no_other() -> None:
    played, fresh = InTime(0.3), InTime(0.3)
    played.agent.act(START)
    for each in (played, fresh):
        each.agent.reset([8])
    assert torch.equal(played.play(10)[1], fresh.play(10)[1])


def test_a_plan_that_never_ends_does_not_stop_a_reset() -> None:
    played = InTime(0.3)
    played.model.cost = 1e9
    played.agent.act(START)
    start = played.time()
    played.agent.reset([8])
    assert played.time() <= start + MAX_RESET_WAIT_S and played.play(3)[1].eq(0).all()


def test_a_positive_time_is_expected() -> None:
    with pytest.raises(ValueError, match=r"Deadline.seconds"):
        Deadline(0.0)
