"""A run knows the ranges of its data, and its agent and its evaluation name the entries that lie far outside them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch

from gentraj import runs
from gentraj.agents.wrappers import NoisyAgent
from gentraj.config import from_json, to_json
from gentraj.data import Episodes
from gentraj.envs.evaluation.scoring import EvaluationConfig, score_agent
from gentraj.ranges import FarFromData
from gentraj.runs import DataFacts


def test_what_the_data_hold_is_near_them_and_another_unit_is_named_once(hopper: Episodes, hopper_run: Path) -> None:
    run = runs.load(hopper_run)
    agent, obs_BO = run.agent(run.action_space()), torch.from_numpy(hopper.obs[:4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.act(obs_BO)
    wrong_BO = obs_BO.clone()
    wrong_BO[:, 3] += 1000
    with pytest.warns(FarFromData, match=r"observation\[3\]") as warned:
        agent.act(wrong_BO)
        agent.act(wrong_BO)
    assert len(warned) == 1 and "observation[2]" not in str(warned[0].message)


def test_the_ranges_are_those_of_the_data_or_of_the_windows_of_a_run_without_them(
        hopper: Episodes, hopper_run: Path) -> None:
    run = runs.load(hopper_run)
    assert torch.equal(run.ranges().low_O, torch.from_numpy(hopper.obs.min(0)))
    assert torch.equal(run.ranges().high_O, torch.from_numpy(hopper.obs.max(0)))
    assert from_json(DataFacts, to_json(run.data)) == run.data
    old = small.changed(run, data=replace(run.data, obs_low=(), obs_high=()))
    assert (old.ranges().low_O >= run.ranges().low_O).all() and (old.ranges().high_O <= run.ranges().high_O).all()
    assert old.ranges().half_O.isfinite().all()


def test_an_evaluation_says_which_entries_are_not_those_of_the_data(
        hopper_run: Path, capsys: pytest.CaptureFixture) -> None:
    run = runs.load(hopper_run)
    config = EvaluationConfig(episodes=2, baselines=False)
    for unit, named in ((0.0, False), (1000.0, True)):
        agent = run.agent(run.action_space())
        ranges = agent.ranges
        assert ranges is not None
        ranges.mid_O[1] += unit  # of an entry that is measured in another unit
        score_agent(agent, str(run.data.env), config, progress=False)
        assert ("observation[1]" in capsys.readouterr().err) == named


def test_starts_of_samples_are_compared_in_python_too(hopper: Episodes, hopper_run: Path) -> None:
    run = runs.load(hopper_run)
    start = hopper.obs[0].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.sample(start, 2)
    with pytest.warns(FarFromData, match=r"start\[0\]"):
        run.sample((1e6, *start[1:]), 2)


def test_an_agent_that_is_let_leave_its_data_says_nothing_of_it_whatever_it_is_made_of(
        hopper: Episodes, hopper_run: Path, umaze: Episodes, small_run: Path) -> None:
    for folder, data in ((hopper_run, hopper), (small_run, umaze)):
        run, far_BO = runs.load(folder), torch.from_numpy(data.obs[:1]) + 1000
        space, goal_BG = run.action_space(), far_BO[:, : len(run.data.goal_dims)] if run.data.goal_dims else None
        for agent in (run.agent(space), NoisyAgent(run.agent(space), space.low, space.high, 0.1)):
            agent.leave_data()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                agent.act(far_BO, goal_BG)


def test_a_planner_for_goals_that_is_given_none_says_so_once(umaze: Episodes, small_run: Path) -> None:
    run = runs.load(small_run)
    agent, obs_BO = run.agent(run.action_space()), torch.from_numpy(umaze.obs[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.act(obs_BO, obs_BO[:, :2])
    with pytest.warns(UserWarning, match="goal") as warned:
        agent.act(obs_BO)
        agent.act(obs_BO)
    assert len(warned) == 1


def test_a_policy_without_goals_that_is_given_one_says_so_once(hopper: Episodes, hopper_run: Path) -> None:
    run = runs.load(hopper_run)
    agent, obs_BO = run.agent(run.action_space()), torch.from_numpy(hopper.obs[:2])
    with pytest.warns(UserWarning, match="goal") as warned:
        agent.act(obs_BO, obs_BO[:, :2])
        agent.act(obs_BO, obs_BO[:, :2])
    assert len(warned) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.agent(run.action_space()).act(obs_BO)
