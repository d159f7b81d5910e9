"""Students of few steps as runs: the same bits after a kill, and everything that does not learn is the teacher's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from small import changed, gentraj, killed

from gentraj import runs
from gentraj.agents.planning.planner import Planner
from gentraj.distillation import STUDENTS, FewStep, ReflowConfig
from gentraj.runs.learn.distillation import METHODS, FewStepRunConfig, distill, student_settings
from gentraj.training import TrainingConfig
from gentraj.trajectory import Condition, SamplingOptions

TRAINING = TrainingConfig(4, warmup=1, save_every=1, log_every=2, keep=9)
REFLOW = FewStepRunConfig(ReflowConfig(steps=2), training=TRAINING)


@pytest.fixture(scope="module")
def teacher(small_run: Path) -> runs.Run:
    return runs.load(small_run)


@pytest.fixture(scope="module")
def student(teacher: runs.Run, tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    return distill(teacher, REFLOW, tmp_path_factory.mktemp("student") / "run", progress=False)


def distilled(teacher: Path, folder: Path) -> None:
    distill(runs.load(teacher), REFLOW, folder, progress=False)


def test_a_planner_of_a_student_has_all_but_the_model_of_its_teacher(teacher: runs.Run, student: runs.Run) -> None:
    assert student.summary == "planner, reflow" and student.step == 4
    assert student.planning == replace(teacher.planning, steps=2)
    for name in teacher.components.keys() - {"model"}:
        own = student.components[name].state_dict()
        assert all(torch.equal(tensor, own[key]) for key, tensor in teacher.components[name].state_dict().items())
    space = teacher.action_space()
    plans, planned = student.agent(space), teacher.agent(space)
    assert isinstance(plans, Planner) and isinstance(planned, Planner)
    assert plans.sampler.trust and planned.sampler.trust
    torch.testing.assert_close(plans.sampler.trust.threshold_H, planned.sampler.trust.threshold_H)
    before = student.model.network_calls
    student.model.sample(Condition.empty(student.model.spec), options=SamplingOptions(steps=student.planning.steps),
                         seed=0)
    assert student.model.network_calls == before + 2


def test_a_student_learns_from_as_many_early_windows_as_its_teacher(teacher: runs.Run) -> None:
    training = replace(teacher.config.training, min_episode_start_fraction=0.2)
    early = changed(teacher, config=replace(teacher.config, training=training))
    assert student_settings(early, REFLOW).training == replace(TRAINING, min_episode_start_fraction=0.2)


def test_a_distillation_that_was_killed_goes_on_with_the_same_bits(teacher: runs.Run, student: runs.Run,
                                                                  tmp_path: Path) -> None:
    killed(tmp_path / "run" / "step-00000003", distilled, teacher.folder, tmp_path / "run")
    assert runs.load(tmp_path / "run").step == 3
    resumed = distill(teacher, REFLOW, tmp_path / "run", resume=True, progress=False)
    expected, found = (cast(FewStep, run.model).state_dict() for run in (student, resumed))
    assert all(torch.equal(tensor, found[key]) for key, tensor in expected.items())


def test_a_policy_s_student_acts_by_the_generator_it_learnt(hopper_file: Path, tmp_path: Path) -> None:
    words = ("--policy.batch-size", 8, "--policy.model.network.width", 8, "--policy.model.network.depth", 1)
    assert gentraj("train", "bc-flow", "--dataset", hopper_file, "--steps", 3, *words, "--training.warmup", 1,
                   "--run-dir", tmp_path / "bc") == 0
    options = "--steps", 3, "--training.warmup", 1, "--run-dir", tmp_path / "student"
    assert gentraj("distill", tmp_path / "bc", "--method", "reflow", "--student.steps", 1, *options) == 0
    run = runs.load(tmp_path / "student")
    assert run.summary == "BC, reflow" and isinstance(run.model, FewStep)
    agent, obs = run.agent(run.action_space()), run.reference.x_BHD[:3, 0, : run.data.obs_dim]
    agent.reset([0, 1, 2])
    assert agent.act(obs).shape == (3, run.data.act_dim) and run.model.network_calls == 1


def test_what_cannot_be_distilled_is_refused_in_a_line(teacher: runs.Run, student: runs.Run, hopper_run: Path,
                                                      tmp_path: Path) -> None:
    config = FewStepRunConfig(ReflowConfig(), training=TRAINING)
    with pytest.raises(ValueError, match=r"planner, reflow\); a student of few steps learns from a diffusion"):
        distill(student, config, tmp_path / "a")
    with pytest.raises(ValueError, match=r"BC, gaussian\); a student of few steps learns from a diffusion"):
        distill(runs.load(hopper_run), config, tmp_path / "a")
    with pytest.raises(ValueError, match=r"env_id is .* without an environment; leave it out"):
        distill(teacher, config, tmp_path / "a", env_id="Hopper-v5")
    noisy = replace(teacher.config, model=replace(teacher.config.model, prediction="eps"))  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"planner, diffusion\) that predicts eps, .*; train a run with"):
        student_settings(changed(teacher, config=noisy), config)
    assert {*STUDENTS, "decision"} == METHODS.keys()
