"""A switch by confidence: who acts follows from how sure the student is, in each environment by itself."""

from __future__ import annotations

from collections.abc import Sequence

import following  # noqa: F401 (registers the environment)
import numpy as np
import pytest
import torch
from torch import Tensor

from gentraj.agents.wrappers import ConfidenceSwitch
from gentraj.constraints import Circle
from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.making import environment_factory
from gentraj.trajectory import Agent


class Constant(Agent):
    """An agent that does the same in every step; it notes the seeds with which it was reset in which environments."""

    def __init__(self, value: float):
        self.value, self.began = value, list[tuple[int, int]]()

    def _reset(self, seeds_B: list[int], mask_B: Tensor) -> None:
        self.began += [(i, seeds_B[i]) for i in mask_B.nonzero().flatten().tolist()]

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        return torch.full((len(obs_BO), 1), self.value)


class Candid(Constant):
    """One that is as sure as the first entry of the observation."""

    def confidence(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        return obs_BO[:, 0]


def switch(**settings: float) -> ConfidenceSwitch:
    return ConfidenceSwitch(Candid(-1.0), Constant(1.0), **settings)  # type: ignore[arg-type]


def acted(agent: ConfidenceSwitch, confidence_BT: Sequence[Sequence[float]]) -> list[list[int]]:
    """Whose the actions are in each environment and step: 1 for the teacher's, -1 for the student's."""
    agent.reset(range(len(confidence_BT)))
    columns = [agent.act(torch.tensor(column_B)[:, None]) for column_B in zip(*confidence_BT, strict=True)]
    return torch.cat(columns, 1).int().tolist()


def test_the_teacher_acts_for_some_steps_where_the_student_is_unsure_and_goes_on_if_it_still_is() -> None:
    confidence_BT = [[0.5, 0.4, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], [0.4, 0.9, 0.9, 0.4, 0.9, 0.9, 0.9, 0.9], [0.9] * 8]
    agent = switch(min_confidence=0.5, steps=3)
    assert acted(agent, confidence_BT) == [[-1, 1, 1, 1, -1, -1, -1, -1], [1, 1, 1, 1, 1, 1, -1, -1], [-1] * 8]
    assert [i for i, _ in agent.teacher.began] == [1, 0]  # type: ignore[attr-defined]
    assert [i for i, _ in agent.student.began] == [0, 1, 2, 0, 1]  # type: ignore[attr-defined]


def test_a_take_over_has_a_seed_of_its_episode_and_step_and_a_new_episode_is_the_student_s() -> None:
    agent = switch(steps=2)
    agent.reset([0, 1])
    for confidence_B in ([0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]):
        agent.act(torch.tensor(confidence_B)[:, None])
    first, second, third = agent.teacher.began  # type: ignore[attr-defined]
    assert len({first, second, third}) == 3 and agent.by_teacher_B.tolist() == [True, True]
    agent.reset([7, 8], torch.tensor([True, False]))
    assert agent.act(torch.ones(2, 1)).flatten().tolist() == [-1, -1] and agent.left_B.tolist() == [0, 0]
    alone = switch(steps=2)
    alone.reset([0])
    alone.act(torch.zeros(1, 1))
    assert alone.teacher.began == [first]  # type: ignore[attr-defined]


def test_both_are_told_of_obstacles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Constant, "avoiding", lambda agent, obstacles: type(agent)(agent.value + len(obstacles)))
    told = switch(min_confidence=0.2, steps=3).avoiding([Circle((0.0, 0.0), 1.0, (0, 1))])
    assert acted(told, [[0.1, 0.9, 0.9, 0.9]]) == [[2, 2, 2, 0]] and (told.min_confidence, told.steps) == (0.2, 3)


@pytest.mark.parametrize("num_envs", [3, 8])
def test_a_rollout_counts_how_often_the_teacher_acted(num_envs: int) -> None:
    played = rollout(switch(min_confidence=0.1, steps=2), environment_factory("tests/Follow-v0"), 8,
                     settings=RolloutSettings(num_envs=num_envs), record=True, progress=False)
    assert played.recorded is not None and 0 < np.mean(played.recorded.act == 1) < 1
    assert played.share(played.teacher_steps) == np.mean(played.recorded.act == 1)
