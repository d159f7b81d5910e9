"""Episodes that are held out of a training: which, what is measured on them, and that measuring changes nothing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import DATASET, config
from test_learning_curve import same_weights
from test_policy_runs import tiny

from gentraj import runs
from gentraj.data import Episodes, Windows, episodes_hash
from gentraj.distillation import ReflowConfig
from gentraj.randomness import generator
from gentraj.runs.judge.held_out import ACTION_ERROR, LOG_LIKELIHOOD, held_out_measures
from gentraj.runs.kinds.datasets import data_of
from gentraj.runs.kinds.folder import RunFolder
from gentraj.runs.kinds.run import Run, copy_of
from gentraj.runs.learn.distillation import FewStepRunConfig, distill
from gentraj.runs.learn.training import prepare
from gentraj.training.optimization import MovingAverage
from gentraj.training.step import TrainingStep, Trial


def holding_out(name: str, dataset: object, fraction: float = 0.2, seed: int = 0) -> runs.PolicyRunConfig:
    own = tiny(name, dataset)
    return replace(own, held_out=fraction, training=replace(own.training, seed=seed))


def test_whole_episodes_are_held_out_whatever_the_seed_of_the_training(hopper_file: Path, hopper: Episodes) -> None:
    (run, parts), (_, others) = (prepare(holding_out("bc-gaussian", hopper_file, seed=seed)) for seed in (0, 5))
    assert parts.test == others.test and len(parts.test) + len(parts.train) == len(hopper)
    assert {*parts.test.returns.tolist()} | {*parts.train.returns.tolist()} == {*hopper.returns.tolist()}
    assert len(prepare(holding_out("bc-gaussian", hopper_file, 1e-3))[1].test) == 1
    assert torch.allclose(run.policy.scales.obs.shift_D, torch.from_numpy(parts.train.obs.mean(0)), atol=1e-5)


def test_they_are_measured_at_each_checkpoint_and_a_resumed_training_measures_the_same(hopper_file: Path,
                                                                                      tmp_path: Path) -> None:
    settings = holding_out("iql", hopper_file)
    run = runs.train(settings, folder=tmp_path / "run", progress=False)
    rows = RunFolder(run.folder).held_out()
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert {"policy/loss", "policy/critic_loss", "policy/value_loss", ACTION_ERROR, LOG_LIKELIHOOD} <= rows[0].keys()
    parts = data_of(runs.load(run.folder))
    assert held_out_measures(runs.load(run.folder, step=2), parts.test) == {
        key: value for key, value in rows[1].items() if key != "step"}
    for step in (3, 4):
        shutil.rmtree(run.folder / f"step-0000000{step}")
    assert same_weights(runs.train(settings, folder=run.folder, resume=True, progress=False), run)
    assert RunFolder(run.folder).held_out() == rows
    assert episodes_hash(parts.train) == run.dataset_hash


def test_nothing_is_held_out_by_default(hopper_run: Path) -> None:
    run = runs.load(hopper_run)
    assert run.config.held_out == 0 and not (hopper_run / RunFolder.HELD_OUT).exists()


@pytest.mark.parametrize("name", ["bc-diffusion", "bc-gan", "iql", "fql", "swift"])
def test_a_loss_is_measured_that_an_update_would_report_and_no_weight_moves(name: str, hopper_file: Path) -> None:
    run, parts = prepare(tiny(name, hopper_file))
    measured, updated = copy_of(run), copy_of(run)
    batch = Windows(parts.train, run.main.spec).batch(0, 0, 8)

    def update(own: Run, kind: type[TrainingStep]) -> dict[str, torch.Tensor]:
        part = own.components["policy"]
        return part.update(kind(batch, part.optimizers(), generator(0)))

    losses, others = update(measured, Trial), update(updated, TrainingStep)
    assert losses.keys() == others.keys() and not same_weights(updated, run)
    for (key, parameter), other in zip(measured.main.named_parameters(), run.main.parameters(), strict=True):
        assert torch.equal(parameter, other), key
    first = next(key for key in losses if key in ("loss", "critic_loss", "value_loss", "energy_score"))
    assert torch.equal(losses[first], others[first])


def test_a_planner_and_a_world_model_are_measured_too(umaze: Episodes, hopper_file: Path) -> None:
    run, parts = prepare(replace(config(DATASET), held_out=0.2))
    found = held_out_measures(run.ready(None), parts.test)
    assert {"model/loss", "inverse/loss", "arrival/loss", ACTION_ERROR} <= found.keys()
    world = runs.WorldModelRunConfig(str(hopper_file), held_out=0.2)
    run, parts = prepare(replace(world, world=replace(world.world, width=8, batch_size=16)))
    found = held_out_measures(run.ready(None), parts.test)
    assert {"world/loss", "world/end_loss"} <= found.keys() and ACTION_ERROR not in found


def test_a_student_learns_from_none_of_what_its_teacher_did_not(hopper_file: Path, tmp_path: Path) -> None:
    teacher = runs.train(holding_out("bc-diffusion", hopper_file), folder=tmp_path / "teacher", progress=False)
    training = replace(teacher.config.training, seed=7)
    config = FewStepRunConfig(ReflowConfig(teacher_steps=2), training=training)
    student = distill(teacher, config, tmp_path / "student", progress=False)
    assert student.dataset_hash == teacher.dataset_hash and data_of(student).test == data_of(teacher).test
    last = RunFolder(student.folder).held_out()[-1]
    assert last["step"] == 4 and "policy/loss" in last and LOG_LIKELIHOOD not in last  # which would be its teacher's


def test_an_average_is_handed_back_to_its_network() -> None:
    network = torch.nn.Linear(1, 1)
    average = MovingAverage(network, 0.5)
    before = network.weight.detach().clone()
    average.hand_back()  # nothing is averaged yet
    assert torch.equal(network.weight, before)
    for value in (0.0, 1.0):
        torch.nn.init.constant_(network.weight, value)
        average.update_parameters(network)
    average.hand_back()
    assert np.isclose(network.weight.item(), 0.5)
