"""Distilled decisions: the teacher's actions wherever the student goes; killed anywhere and resumed, the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from following import Follow
from small import DATASET, gentraj, killed
from test_planner_runs import tiny as planner
from test_policy_runs import tiny

from gentraj import runs
from gentraj.agents.policies.student import Student, StudentActor, StudentConfig
from gentraj.agents.roadmap.far_goals import RoadmapConfig, roadmap_of_tensors
from gentraj.config import ConfigError
from gentraj.constraints import Circle
from gentraj.data import Episodes, load_episodes
from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.making import environment_factory
from gentraj.runs.kinds.run import of_kind
from gentraj.runs.learn.dagger import DecisionConfig, Legs, MixedRollout
from gentraj.runs.learn.distillation import distill
from gentraj.training import TrainingConfig
from gentraj.training.checkpoint import NothingSaved
from gentraj.trajectory import Agent

CONFIG = DecisionConfig(episodes=6, rounds=1, num_envs=4,
                        policy=StudentConfig(width=8, depth=1, components=2, batch_size=8),
                        training=TrainingConfig(4, warmup=1, save_every=1, log_every=2, keep=9))


@pytest.fixture(scope="module")
def teacher(follow: Path, tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    """A policy that acts without noise, whatever the seed."""
    return runs.train(tiny("td3bc", follow), folder=tmp_path_factory.mktemp("teacher") / "run", progress=False)


@pytest.fixture(scope="module")
def student(teacher: runs.Run, tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    return distill(teacher, CONFIG, tmp_path_factory.mktemp("student") / "run", progress=False)


def actions(run: runs.Run, episodes: Episodes) -> torch.Tensor:
    """The actions of the run at each observation that is followed by an action."""
    agent = run.agent(run.action_space())
    return torch.cat([agent.act(torch.from_numpy(one.obs[:-1])) for one in episodes])


def test_every_round_holds_the_teacher_s_actions_alone(teacher: runs.Run, student: runs.Run) -> None:
    first, second = (load_episodes(student.folder / f"decisions-{number}.npz") for number in range(2))
    for played in (first, second):
        assert torch.allclose(torch.from_numpy(played.act), actions(teacher, played), atol=1e-5)
        error = played.act[:, 0] - np.concatenate([one.obs[:-1, 0] for one in played])
        assert np.allclose(played.reward, -abs(error), atol=1e-5)  # they were carried out
    assert len(first) == 6 and first.lengths.tolist() == [10] * 6 and 0 < second.num_steps < 60
    assert not set(map(bytes, first.obs)) & set(map(bytes, second.obs))  # in episodes of its own


def test_a_planner_is_distilled_with_the_goals_that_it_was_given(small_run: Path, tmp_path: Path) -> None:
    student = distill(runs.load(small_run), replace(CONFIG, episodes=2, rounds=0), tmp_path / "run", progress=False)
    played = load_episodes(tmp_path / "run" / "decisions-0.npz")
    assert played.num_steps == 600 and len(played) > 4 and len(np.unique(played.extras["goal"], axis=0)) > 2
    assert all(len(np.unique(turn.extras["goal"], axis=0)) == 1 for turn in played)
    assert isinstance(policy := student.main, Student) and policy.config.goal_dims == (0, 1) and policy.config.sample
    with pytest.raises(ValueError, match="trained with a goal was given none"):
        student.agent(student.action_space()).act(torch.zeros(1, 4))


class Constant(Agent):
    """An agent that does the same in every step, and counts the episodes that it has begun."""

    def __init__(self, value: float):
        self.value, self.begun = value, 0

    def _reset(self, seeds_B: list[int], mask_B: torch.Tensor) -> None:
        self.begun += int(mask_B.sum())

    def _act(self, obs_BO: torch.Tensor, goal_BG: torch.Tensor | None) -> torch.Tensor:
        return torch.full((len(obs_BO), 1), self.value)


class Towards(Agent):
    """An agent that acts by the goal that it is given."""

    def _act(self, obs_BO: torch.Tensor, goal_BG: torch.Tensor | None) -> torch.Tensor:
        assert goal_BG is not None
        return goal_BG


def test_the_teacher_keeps_the_goal_of_the_student_and_the_data_have_it() -> None:
    goals_NG, seeds = torch.arange(10.0)[:, None], [3, 4]
    agent, own_BG = MixedRollout(Towards(), Towards(), 3, 60, goals_NG), torch.tensor([[-1.0], [-2.0]])
    agent.reset(seeds)
    act_BT = np.concatenate([agent.act(torch.zeros(2, 1), own_BG).numpy() for _ in range(60)], 1)
    obs, end = np.zeros((122, 1), np.float32), np.zeros(120, bool)
    end[[59, 119]] = True
    played = Episodes(obs, act_BT.reshape(-1, 1), np.zeros(120), np.zeros(120, bool), end, np.array([60, 60]),
                      {"goal": own_BG.numpy().repeat(61, 0)}, goal_dims=(0,))
    taught = agent.taught(played, seeds)
    assert taught is not None
    assert all((turn.extras["goal"] == turn.act[0]).all() for turn in taught)
    assert {-1.0, -2.0} <= set(taught.act[:, 0].tolist()) and len(set(taught.act[:, 0].tolist())) > 4
    for seed in seeds:
        turns = agent.turns(seed)
        assert [turn.teacher for turn in turns] == [i % 2 == 1 for i in range(len(turns))]
        assert all(a.goal_G is b.goal_G for a, b in zip(turns[::2], turns[1::2], strict=False))


def test_a_teacher_goes_to_far_goals_in_legs_and_the_data_have_the_goals_of_these() -> None:
    agent = MixedRollout(Towards(), Towards(), 9, 60, legs=Legs(lambda obs_BO, goal_BG: obs_BO + goal_BG, 4))
    agent.reset([3])
    act_TA = torch.cat([agent.act(torch.full((1, 1), float(t)), torch.full((1, 1), 100.0)) for t in range(60)])
    end = np.arange(60) == 59
    played = Episodes(np.arange(61, dtype=np.float32)[:, None], act_TA.numpy(), np.zeros(60), ~end & end, end,
                      np.array([60]), {"goal": np.full((61, 1), 100, np.float32)}, goal_dims=(0,))
    taught = agent.taught(played, [3])
    assert taught is not None and len(taught) > 1
    for turn in taught:
        assert (turn.extras["goal"][:-1] == turn.act).all()  # what the teacher was given
        first = turn.obs[0, 0]
        assert turn.act[:, 0].tolist() == [100 + first + 4 * (t // 4) for t in range(len(turn.act))]
    of_student = {t for t in range(60) if act_TA[t] == 100}
    assert of_student and len(of_student) + taught.num_steps == 60


@pytest.mark.filterwarnings("ignore:no recorded way")  # in so few data
def test_a_student_of_a_planner_for_far_goals_has_its_roadmap_and_decides_for_what_is_within_reach(
        umaze: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = replace(planner("far-goals", DATASET), roadmap=RoadmapConfig(ahead=3))  # the maze is small
    teacher = runs.train(config, folder=tmp_path / "teacher", progress=False)
    folder = distill(teacher, replace(CONFIG, episodes=2, rounds=0), tmp_path / "run", progress=False).folder
    student = runs.load(folder)
    assert student.kept.keys() == teacher.kept.keys() and torch.equal(student.kept["place"], teacher.kept["place"])
    road = roadmap_of_tensors(teacher.kept).graph
    start, goal = torch.zeros(2, 4), torch.from_numpy(road.core_PG[[0, -1]])
    start[:, :2] = torch.from_numpy(road.core_PG[[-1, 0]])
    agents = [run.agent(student.action_space()) for run in (student, runs.straight(student))]
    for agent in agents:
        agent.reset([1, 2])
    ahead = runs.ahead_of(teacher)
    assert ahead is not None and not torch.equal(ahead(start, goal), goal)
    assert torch.equal(agents[0].act(start, goal), agents[1].act(start, ahead(start, goal)))
    middle = Circle(tuple(road.core_PG[len(road.core_PG) // 2].tolist()), 0.1, (0, 1))
    round_it, unaware = (agent.avoiding([middle]) for agent in agents)
    assert unaware is agents[1] and isinstance(round_it, StudentActor) and round_it.ahead is not None
    assert len(round_it.ahead.roadmap.graph.edge_E2) < len(road.edge_E2)
    policy = of_kind(student, runs.PolicyRun).policy
    policy.config = replace(policy.config, chunk=3, execute=3)
    replan = of_kind(teacher, runs.PlannerRun).planning.replan
    assert [legs.steps for legs in map(Legs.of, (teacher, student)) if legs] == [replan, 3]
    assert gentraj("export", student.folder, "--out", tmp_path / "near.pt2") == 0
    assert "towards goals within reach" in capsys.readouterr().err


def test_turns_are_the_teacher_s_alone_and_do_not_depend_on_the_environments_beside() -> None:
    kept = []
    for num_envs in (3, 8):
        agent = MixedRollout(Constant(-1.0), teacher := Constant(1.0), 2, 10)
        played = rollout(agent, environment_factory("tests/Follow-v0"), 8,
                         settings=RolloutSettings(num_envs=num_envs), record=True, progress=False)
        assert isinstance(played.recorded, Episodes) and played.recorded.num_steps == 80
        kept.append(agent.taught(played.recorded, played.seeds))
        assert (kept[-1].act == 1).all() and kept[-1].num_steps == (played.recorded.act == 1).sum()
        assert teacher.begun >= len(kept[-1]) + 8 and kept[-1].truncated[np.cumsum(kept[-1].lengths) - 1].all()
    assert kept[0] == kept[1] and 20 < kept[0].num_steps < 60 and kept[0].lengths.max() <= 3


class Falls(Follow):
    """As in `Follow`, but an episode ends after `steps` steps."""

    steps: int

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        obs, reward, *_ = super().step(action)
        self.done += 1
        return obs, reward, self.done == self.steps, False, {}

    def reset(self, **given: Any) -> tuple[np.ndarray, dict]:
        self.done = 0
        return super().reset(**given)


class FallsInTwo(Falls):
    steps = 2


class FallsInOne(Falls):
    steps = 1


gymnasium.register("tests/FallsInTwo-v0", f"{__name__}:FallsInTwo", max_episode_steps=1000)
gymnasium.register("tests/FallsInOne-v0", f"{__name__}:FallsInOne", max_episode_steps=1000)


def test_a_student_that_ends_every_episode_early_is_taught_in_shorter_turns(teacher: runs.Run, tmp_path: Path,
                                                                          capsys: pytest.CaptureFixture) -> None:
    """Turns have 100 steps on average, and all environments end them in the same step."""
    distill(teacher, CONFIG, tmp_path / "two", env_id="tests/FallsInTwo-v0", progress=False)
    assert "shorter turns are played" in capsys.readouterr().err
    assert load_episodes(tmp_path / "two" / "decisions-1.npz").lengths.tolist() == [1] * 6
    with pytest.raises(ValueError, match=r"round 1: all episodes end after one step, .* rounds=0"):
        distill(teacher, CONFIG, tmp_path / "one", env_id="tests/FallsInOne-v0", progress=False)


def resumed_is_the_same(teacher: runs.Run, student: runs.Run, folder: Path) -> None:
    resumed = distill(teacher, CONFIG, folder, resume=True, progress=False)
    again, before = resumed.main.state_dict(), student.main.state_dict()
    assert all(torch.equal(again[key], value) for key, value in before.items())


def distilled(teacher: Path, folder: Path) -> None:
    distill(runs.load(teacher), CONFIG, folder, progress=False)


def test_killed_and_resumed_it_is_the_uninterrupted_student(teacher: runs.Run, student: runs.Run,
                                                            tmp_path: Path) -> None:
    """Killed in the training on both rounds."""
    killed(tmp_path / "decisions-1.npz", distilled, teacher.folder, tmp_path)
    resumed_is_the_same(teacher, student, tmp_path)


def test_other_settings_are_not_resumed(teacher: runs.Run, student: runs.Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="episodes was 6 and is 7"):
        distill(teacher, replace(CONFIG, episodes=7), student.folder, resume=True, progress=False)
    with pytest.raises(ValueError, match="holds a distillation already"):
        distill(teacher, CONFIG, student.folder, progress=False)
    with pytest.raises(NothingSaved, match="nothing distilled yet"):
        distill(teacher, CONFIG, tmp_path / "new", resume=True, progress=False)


def test_the_command_distils_and_says_what_is_next(teacher: runs.Run, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "c++" / "out"  # a '+' also joins datasets
    words = ("--method", "decision", "--run-dir", out, "--episodes", 2, "--rounds", 1, "--steps", 2,
             "--policy.width", 8, "--policy.batch-size", 4)
    assert gentraj("distill", teacher.folder, *words) == 0
    assert f"next: gentraj evaluate {out}" in capsys.readouterr().out
    assert gentraj("distill", teacher.folder, *words) == 2
    assert "continue it with --resume" in capsys.readouterr().err
    assert gentraj("distill", teacher.folder, *words, "--resume") == 0
    assert gentraj("export", out, "--out", tmp_path / "student.pt2") == 0
