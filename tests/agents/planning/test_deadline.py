"""A planner with a deadline acts in time, however long its plans take. A fake clock tells how long that is."""

import copy
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gentraj.agents.planning.deadline import ENDING, Background, Deadline, Effort, RealTimePlanner, efforts
from gentraj.agents.planning.planner import Planner, PlannerConfig
from gentraj.networks.rows import MIN_ROWS, batch_invariant, padding
from gentraj.randomness import RowNoise
from gentraj.trajectory import DEFAULT_OPTIONS, Agent, Condition, SamplingOptions, TrajectorySpec

SPEC = TrajectorySpec(obs_dim=1, act_dim=1, horizon=24)
CONFIG = PlannerConfig(arrival="fixed", replan=6, lookahead=1, steps=4, actions="joint", select="value")
SPACE = -99 * np.ones(1, np.float32), 99 * np.ones(1, np.float32)


class Time:
    """A clock that goes on only where someone works or waits, and a worker beside whom nobody has to wait."""

    def __init__(self) -> None:
        self.now = self.free = 0.0  # the present, and when the worker has done what it was given so far

    def __call__(self) -> float:
        return self.now

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Any:
        now, self.now = self.now, max(self.now, self.free)
        future = Done(self)
        try:
            future.found = function(*args)
        except ArithmeticError as error:
            future.error = error
        future.at = self.free = self.now
        self.now = now
        return future


class Done:
    """A future whose work is done at the time `at`."""

    def __init__(self, time: Time):
        self.time, self.at, self.found, self.error = time, 0.0, None, None

    def cancel(self) -> bool:
        return False

    def result(self, timeout: float) -> Any:
        if self.at > self.time.now + timeout:
            self.time.now += timeout
            raise TimeoutError
        self.time.now = max(self.time.now, self.at)
        if self.error is not None:
            raise self.error
        return self.found


class Walk:
    """A model of s' = s + a, whose actions are noise. A sampling step takes `cost` seconds."""

    spec, network_calls, device = SPEC, 0, torch.device("cpu")

    def __init__(self, time: Time, cost: float):
        self.time, self.cost, self.asked = time, cost, list[Condition]()

    def sample(self, condition: Condition, num_samples: int = 1, *, guide: object = None, observe: object = None,
               seed: Sequence[int] = (), options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        self.time.now += self.cost * (options.steps or 0)
        self.asked.append(condition)
        x = torch.where(condition.mask_BHD, condition.values_BHD, RowNoise(seed).normal(SPEC.horizon, SPEC.dim))
        first = condition.mask_BHD[0, :, 0].sum() - 1  # the present follows the history
        x[:, first + 1 :, 0] = x[:, first, :1] + x[:, first:-1, 1].cumsum(1)
        return x[:, None]


class Gain:
    """A critic to which a plan is worth the sum of its first actions."""

    plan_spec = SPEC

    def __call__(self, x_RHD: Tensor) -> Tensor:
        return x_RHD[:, :6, 1].sum(1)


class Student(Agent):
    """A fallback that always acts by 7."""

    def __init__(self) -> None:
        self.resets = 0

    def reset(self, mask_B: Tensor | None = None, seeds_B: Sequence[int] | None = None) -> None:
        self.resets += 1

    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        return torch.full((len(obs_BO), 1), 7.0)


START = torch.zeros(1, 1)


def in_time(seconds: float, cost: float = 0.25, *, known: bool = True, fallback: Any = None,
            **changes: Any) -> RealTimePlanner:
    """A planner whose plans of 4 steps take 4 * `cost` seconds, and whether it knows that in advance."""
    time: Any = Time()
    critic: Any = Gain()
    deadline = Deadline(seconds, fallback, clock=time, worker=time)
    agent = RealTimePlanner(Walk(time, cost), replace(CONFIG, **changes), *SPACE, critic=critic, deadline=deadline,
                            example=(START, None) if known else None)
    agent.reset(None, [3])
    agent.model.asked.clear()
    return agent


def play(agent: RealTimePlanner, steps: int) -> tuple[Tensor, Tensor]:
    """The states and the actions (T, 1) of an episode in real time, in which every action is in time."""
    time, seconds, state, states, acts = agent.clock, agent.deadline.seconds, START, [], []
    for _ in range(steps):
        start = time()
        act = agent.act(state)
        assert time() <= start + seconds + 1e-9
        agent.rest(start + seconds - time())
        time.now = start + seconds
        states.append(state)
        acts.append(act)
        state = state + act
    return torch.cat(states), torch.cat(acts)


def test_a_goal_that_moves_is_planned_for_while_the_previous_plan_is_followed() -> None:
    """A plan takes two steps. The one to the former goal, which is being made at step 5, is dropped."""
    agent, began = in_time(0.6), []
    for step in range(9):
        start = agent.clock()
        agent.act(START, torch.tensor([[5.0 if step < 5 else -5.0]]))
        agent.rest(start + 0.6 - agent.clock())
        agent.clock.now = start + 0.6
        began.append(agent.began)
    aims = [float(condition.values_BHD[0, -1, 0]) for condition in agent.model.asked]
    assert aims.index(-5.0) > 0 and set(aims[: aims.index(-5.0)]) == {5.0} and set(aims[aims.index(-5.0) :]) == {-5.0}
    assert began[5] == began[4] and began[7] >= 5  # the former plan is followed until the new one is ready
    assert agent.acted["the previous plan"] == 1


def test_plans_for_goals_that_have_moved_on_do_not_queue_up() -> None:
    """The worker is busy; the plan that waits for it is kept while the goal moves, and dropped where none is needed."""
    agent, free = in_time(0.3), threading.Event()
    agent.deadline = replace(agent.deadline, worker=(worker := Background()))
    worker.submit(free.wait, 60)
    jobs = set()
    for step in range(5):
        agent.act(START, torch.full((1, 1), 5.0 + step))
        jobs.add(agent.job.future)
    agent.act(START, START)  # the goal is reached
    free.set()
    assert len(jobs) == 1 and jobs.pop().cancelled()


def test_a_goal_that_moves_in_every_step_is_followed() -> None:
    """A plan takes two steps. Each was dropped for the next goal, so that none was ever ready."""
    agent = in_time(0.3)
    for step in range(20):
        start = agent.clock()
        agent.act(START, torch.full((1, 1), 5.0 + step))
        agent.rest(start + 0.3 - agent.clock())
        agent.clock.now = start + 0.3
    assert agent.acted["standing still"] < 3 and agent.decision_B > 4


def test_with_time_for_one_plan_it_acts_as_the_planner_does() -> None:
    agent = in_time(1.9, candidates=3)
    plain = Planner(agent.model, agent.config, *SPACE, critic=agent.critic)
    plain.reset(None, [3])
    states, acts = play(agent, 20)
    assert torch.equal(torch.cat([plain.act(state[None]) for state in states]), acts)
    assert agent.timing()["plans"] == {"4 steps, 3 candidates": 4} and agent.timing()["acted_by"] == {"the plan": 20}


@pytest.mark.parametrize("seconds", [0.17, 0.21, 0.26, 0.34, 0.51, 0.99])
def test_the_next_plan_is_made_while_this_one_is_carried_out(seconds: float) -> None:
    """It is begun just early enough, and starts from where the steps until then lead. The first one starts at rest."""
    agent = in_time(seconds)
    wait = int(np.ceil(0.5 / seconds)) - 1  # the first plan is one of 2 steps
    states, acts = play(agent, wait + 19)
    starts = [0, *range(wait + 6, wait + 19, 6)]
    asked = torch.stack([condition.values_BHD[0, 0, 0] for condition in agent.model.asked])
    torch.testing.assert_close(asked, states[starts, 0])
    assert agent.timing()["plans"] == {"2 steps, 1 candidates": 1, "4 steps, 1 candidates": 3}
    assert agent.timing()["acted_by"] == {"standing still": wait, "the plan": 19} if wait else {"the plan": 19}
    assert (acts[:wait] == 0).all() and (acts[wait:] != 0).all()


def test_the_committed_steps_are_the_history_of_the_next_plan() -> None:
    agent = in_time(0.34, history=3)
    states, acts = play(agent, 15)
    last, (x,) = agent.model.asked[-1].mask_BHD[0], agent.model.asked[-1].values_BHD
    assert last[:3].all() and last[3].tolist() == [True, False] and not last[4:].any()
    torch.testing.assert_close(x[:4, 0], states[10:14, 0])
    torch.testing.assert_close(x[:3, 1], acts[10:13, 0])


def test_more_time_is_spent_on_more_candidates_and_the_plan_is_no_worse() -> None:
    values, counts = [], []
    for seconds in (1.0, 1.5, 2.0, 4.5, 100.0):
        agent = in_time(seconds + 1e-6, candidates=2)
        play(agent, 1)
        assert agent.last.value_BN is not None
        counts.append(agent.last.value_BN.shape[1])
        values.append(agent.last.value_BN.max().item())
        torch.testing.assert_close(Gain()(agent.last.chosen()[0]).item(), values[-1])
    assert counts == [2, 2, 4, 8, 16] and values == sorted(values) and values[-1] > values[0]


def test_plans_that_take_too_long_are_made_with_less_effort() -> None:
    config = replace(CONFIG, steps=20, candidates=5)
    assert efforts(config) == [Effort(20, 5), Effort(10, 5), Effort(5, 5), Effort(2, 5), Effort(2, 2), Effort(2, 1)]
    assert efforts(replace(config, steps=1, candidates=1)) == [Effort(1, 1)]
    assert efforts(replace(config, steps=4), fixed_steps=True) == [Effort(4, 5), Effort(4, 2), Effort(4, 1)]
    # 20 steps take 5 s, and the next plan is due after 6 actions.
    for seconds, steps in ((0.8, 20), (0.4, 10), (0.2, 5), (0.1, 2), (0.01, 2)):
        agent = in_time(seconds, steps=20)
        play(agent, 60)
        first, *later = agent.timing()["plans"]
        assert first == "2 steps, 1 candidates" and later in ([f"{steps} steps, 1 candidates"], [])
        assert (steps > 2) == bool(later)


def test_a_plan_does_not_change_with_the_buffers_of_its_caller() -> None:
    """As where a driver writes each observation into the same array, while a plan is made of the one before."""
    agent, obs, goal = in_time(0.3), torch.zeros(1, 1), torch.full((1, 1), 5.0)
    agent.act(obs, goal)
    obs += 1
    goal += 1
    assert agent.job is not None and (agent.job.obs_BO.item(), agent.job.goal_BG.item()) == (0, 5)


def test_one_slow_plan_does_not_reduce_the_effort_for_good() -> None:
    """Plans of 4 steps are not measured any more while plans of 2 steps are made, which say how fast they would be."""
    agent = in_time(0.34)
    play(agent, 13)
    agent.model.cost = 5.0
    play(agent, 7)
    agent.model.cost = 0.25
    play(agent, 200)
    before = agent.planned.copy()
    play(agent, 60)
    assert agent.planned - before == {"4 steps, 1 candidates": 10}
    assert agent.timing()["plan_ms"] == pytest.approx({"4 steps, 1 candidates": 1000, "2 steps, 1 candidates": 500})


def test_a_plan_that_is_followed_for_longer_than_replan_steps_is_counted_as_the_previous_one() -> None:
    """The least plan takes five steps, and two steps of each are followed before the next one is due."""
    agent = in_time(0.11, replan=2)
    play(agent, 24)
    assert agent.acted["the plan"] <= 2 * sum(agent.planned.values()) < agent.acted["the previous plan"]


@pytest.mark.parametrize("fallback", [False, True])
def test_where_no_plan_is_ready_something_else_acts(fallback: bool) -> None:
    student = Student() if fallback else None
    agent = in_time(0.3, known=False, fallback=student)
    _, acts = play(agent, 6)
    plan = agent.last.chosen()[0][0, :, 1:]
    assert (acts[:3] == (7 if fallback else 0)).all()
    assert torch.equal(acts[3:], plan[3:6] if fallback else plan[:3])  # it has gone on with the fallback meanwhile
    if student is not None:
        agent.reset(None, [4])
        assert student.resets == 2


def test_a_late_plan_is_carried_out_from_where_it_is_by_then() -> None:
    agent = in_time(1.1)
    play(agent, 5)
    first = agent.last.chosen()[0][0]
    agent.model.cost = 0.65  # a neighbour: 2.6 s a plan, in the place of 1 s
    _, acts = play(agent, 7)
    second = agent.last.chosen()[0][0]
    assert torch.equal(acts[:3], first[5:8, 1:])  # steps 5 to 7; a plan was due at step 6
    assert torch.equal(acts[3:], second[2:6, 1:])
    assert agent.timing()["acted_by"]["the previous plan"] == 2


def test_with_a_worker_that_hangs_the_previous_plan_is_followed_to_its_end() -> None:
    agent = in_time(1.1, fallback=Student())
    play(agent, 5)
    plan = agent.last.chosen()[0][0]
    agent.model.cost = 1e9
    _, acts = play(agent, 30)
    assert torch.equal(acts[: agent.reach - 5], plan[5 : agent.reach, 1:]) and (acts[agent.reach - 5 :] == 7).all()


def test_a_fallback_that_takes_over_again_has_forgotten_what_it_did_before() -> None:
    """The rest of a chunk of actions was for the steps after it; by then a plan was followed for 9 steps."""
    agent = in_time(0.3, known=False, fallback=(student := Student()))
    play(agent, 5)
    assert student.resets == 1
    agent.model.cost = 1e9
    play(agent, 40)
    assert student.resets == 2 and agent.acted["the fallback"] > 10


@pytest.mark.parametrize("error", [None, ArithmeticError("of a plan that nobody needs any more")])
def test_a_plan_of_an_episode_that_has_ended_is_forgotten_and_delays_no_other(error: Exception | None) -> None:
    agent = in_time(0.3)
    agent.act(START)
    agent.job.future.error = error
    agent.reset(None, [8])
    _, acts = play(agent, 10)
    plain = Planner(agent.model, agent.config, *SPACE, critic=agent.critic)
    plain.reset(None, [8])
    assert torch.equal(acts[1:2], plain.act(START)) and acts[0] == 0  # a plan takes 0.5 s


def test_a_worker_that_hangs_does_not_stop_a_reset() -> None:
    agent = in_time(0.3)
    agent.model.cost = 1e9
    agent.act(START)
    start = agent.clock()
    agent.reset(None, [8])
    assert agent.clock() <= start + ENDING and play(agent, 3)[1].eq(0).all()


def test_plans_of_the_background_do_not_depend_on_their_batch_either() -> None:
    agent: Any = in_time(60.0, cost=0.0)
    agent.deadline = replace(agent.deadline, worker=Background())
    sample, rows = agent.model.sample, []
    agent.model.sample = lambda *args, **options: (rows.append(padding(1)), sample(*args, **options))[1]
    for invariant in (True, False):
        with batch_invariant(invariant):
            agent.reset(None, [3])
            agent.act(START)
    assert rows[0] == MIN_ROWS - 1 and rows[-1] == 0


def test_what_is_left_of_the_previous_plan_is_where_it_is_when_the_next_one_starts() -> None:
    agent = in_time(0.34, shifted=True)
    play(agent, 7)
    first, began = agent.last.chosen()[0][0], agent.began
    play(agent, 3)
    assert agent.began == began + 6 and not torch.equal(agent.last.chosen()[0][0], first)
    asked = agent.model.asked[-1]
    torch.testing.assert_close(asked.values_BHD[0, :12, 1], first[6:18, 1])
    assert asked.mask_BHD[0, :12].all() and not asked.mask_BHD[1, 1:].any()


def test_errors_of_the_planning_are_raised_by_act() -> None:
    agent = in_time(1.5)
    agent.model.sample = lambda *args, **options: 1 / 0
    with pytest.raises(ZeroDivisionError):
        agent.act(START)


def test_after_an_error_of_the_planning_the_next_call_plans_anew() -> None:
    agent = in_time(1.5)
    sample, agent.model.sample = agent.model.sample, lambda *args, **options: 1 / 0
    with pytest.raises(ZeroDivisionError):
        agent.act(START)
    agent.model.sample = sample
    agent.act(START)
    assert agent.timing()["acted_by"] == {"the plan": 1}


def test_one_environment_and_a_positive_time_are_expected() -> None:
    with pytest.raises(ValueError, match="2 observations were given to a planner with a deadline, which acts in one"):
        in_time(1.0).act(torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"Deadline.seconds"):
        Deadline(0.0)


def test_a_forked_process_has_a_thread_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Background()
    worker.submit(divmod, 7, 2).result(60)
    before, process = worker.threads, os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: process + 1)  # the thread of the pool is not there any more
    assert worker.submit(divmod, 9, 2).result(60) == (4, 1) and worker.threads is not before


def test_a_planner_is_copied_while_it_plans() -> None:
    agent: Any = in_time(0.3)
    agent.act(START)
    agent.job.future = Future()  # as threads have it, with a lock
    assert copy.deepcopy(agent).job is None


def test_a_thread_works_in_the_background_and_a_copy_has_its_own() -> None:
    worker = Background()
    assert worker.submit(divmod, 7, 2).result(60) == (3, 1)
    other = copy.deepcopy(worker)
    assert other.submit(divmod, 9, 2).result(60) == (4, 1) and other.threads is not worker.threads
    agent: Any = in_time(60.0, cost=0.0)
    agent.deadline = replace(agent.deadline, worker=worker)
    assert agent.act(START).shape == (1, 1) and agent.timing()["acted_by"] == {"the plan": 1}
