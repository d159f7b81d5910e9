"""A run on a GPU from its training to its export, with what is made of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch
from gymnasium.spaces import Box
from test_training_on_a_device import DEVICE, dataset_of, narrow

from gentraj.agents.planning.plan_critic import PlanCriticConfig
from gentraj.networks import ResidualMLPConfig
from gentraj.runs import Run, load, train
from gentraj.runs.distillation import METHODS, FewStepRunConfig, distill
from gentraj.runs.export import export_run
from gentraj.runs.measures import measure_run
from gentraj.runs.planner import PlannerRun
from gentraj.runs.presets import PRESETS
from gentraj.training import TrainingConfig
from gentraj.trajectory import Condition

FEW_STEPS = [name for name, method in METHODS.items() if isinstance(method.config, FewStepRunConfig)]
BRIEF = TrainingConfig(2, warmup=1)


@pytest.fixture(scope="module")
def planner(umaze, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A planner with a critic that was trained in two parts, and loaded."""
    folder = tmp_path_factory.mktemp("planner") / "run"
    config = small.config()
    config = replace(config, model=config.model.with_network(ResidualMLPConfig(16, 1)),
                     critic=PlanCriticConfig(width=8, batch_size=8), training=BRIEF)
    train(config, folder, device=DEVICE, progress=False)
    train(replace(config, training=replace(BRIEF, steps=4)), folder, device=DEVICE, resume=True, progress=False)
    return load(folder, device=DEVICE)


def test_a_planner_is_evaluated_sampled_and_measured(planner: Run, tmp_path: Path) -> None:
    words = "--start", 1, 1, "--goal", -1, -1, "--num", 2, "--out", tmp_path / "a.npz"
    assert small.gentraj("sample", planner.folder, *words) == 0
    assert small.gentraj("evaluate", planner.folder, "--episodes", 1, "--no-baselines", "--planner.replan", 150) == 0
    assert isinstance(planner, PlannerRun)
    arrival = planner.likeliest_arrival(torch.tensor([[1.0, 1, 0, 0]]), torch.tensor([[-1.0, -1]]))
    assert 0 < int(arrival) < planner.model.spec.horizon
    assert measure_run(planner, num=32)["measures"]["start"]


@pytest.mark.parametrize("method", FEW_STEPS)
def test_a_planner_is_distilled(method: str, planner: Run, tmp_path: Path) -> None:
    config = METHODS[method].config
    assert isinstance(config, FewStepRunConfig)
    student = distill(planner, replace(config, training=BRIEF), tmp_path / "run", device=DEVICE, progress=False)
    assert torch.isfinite(student.model.sample(Condition.empty(student.model.spec))).all()


def test_a_policy_with_goals_is_exported(data: dict[bool, Path], tmp_path: Path) -> None:
    config = replace(narrow(PRESETS["gcbc"]), dataset=dataset_of("gcbc", data), training=BRIEF)
    run = train(config, tmp_path / "run", device=DEVICE, progress=False)
    program = export_run(run, action_space=run.data.allowed(Box(-1, 1, (2,))))
    inputs, _ = program.example_inputs
    assert torch.isfinite(program.module()(*inputs)).all()
