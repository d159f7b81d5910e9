"""A run on a GPU from its training to its export, with what is made of it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import following  # noqa: F401 (registers the environment)
import numpy as np
import pytest
import small
import torch
from gymnasium.spaces import Box
from simulated_device import counted
from test_training_on_a_device import DEVICE, act, dataset_of, narrow

from gentraj.agents.planning.plan_critic import PlanCriticConfig
from gentraj.agents.policies import POLICIES
from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.bc import BCConfig
from gentraj.agents.policies.expo import ExpoConfig
from gentraj.agents.policies.policy import PolicyConfig
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.policies.steering import SteeredConfig
from gentraj.agents.policies.student import StudentConfig
from gentraj.agents.realtime.background import Deadline
from gentraj.data import ContextConfig, HindsightConfig, Windows, load_episodes, save_npz
from gentraj.data.windows import GoalContext
from gentraj.envs.evaluation.rollout import rollout
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import RandomAgent
from gentraj.envs.tasks.maze import Disc
from gentraj.networks import ResidualMLPConfig
from gentraj.randomness import generator
from gentraj.runs import Run, load, train
from gentraj.runs.judge.choosing import ChooseConfig, rank_checkpoints
from gentraj.runs.judge.measures import measure_run
from gentraj.runs.judge.world_evaluation import OpenLoop
from gentraj.runs.kinds.planner_run import PlannerRun
from gentraj.runs.kinds.presets import PRESETS
from gentraj.runs.kinds.run import of_kind
from gentraj.runs.kinds.world_run import WorldModelRun
from gentraj.runs.learn.augmentation import AugmentConfig, augment
from gentraj.runs.learn.dagger import DecisionConfig
from gentraj.runs.learn.distillation import METHODS, FewStepRunConfig, distill
from gentraj.runs.learn.finetuning import finetune
from gentraj.runs.learn.steering import steer, steered_settings
from gentraj.runs.show import report
from gentraj.runs.show.export import export_run
from gentraj.runs.show.report import make_report
from gentraj.studio.loading import ready
from gentraj.studio.planning import Question, Settings, answers
from gentraj.training import TrainingConfig
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Condition

FEW_STEPS = [name for name, method in METHODS.items() if isinstance(method.config, FewStepRunConfig)]
BRIEF = TrainingConfig(2, warmup=1)
DECISION = DecisionConfig(2, 1, 2, StudentConfig(width=8, depth=1, batch_size=8), BRIEF)
FAILED = re.compile(r"skipped, \w+: ")  # a figure of a report, with the exception


@pytest.fixture(scope="module")
def planner(umaze, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A planner with a critic that was trained in two parts, and loaded."""
    folder = tmp_path_factory.mktemp("planner") / "run"
    config = small.config()
    config = replace(config, model=config.model.with_network(ResidualMLPConfig(16, 1)),
                     critic=PlanCriticConfig(width=8, batch_size=8), training=BRIEF)
    train(config, folder=folder, device=DEVICE, progress=False)
    train(replace(config, training=replace(BRIEF, steps=4)), folder=folder, device=DEVICE, resume=True, progress=False)
    return load(folder, device=DEVICE)


def test_a_planner_is_evaluated_sampled_and_measured(planner: Run, tmp_path: Path) -> None:
    words = "--start", 1, 1, "--goal", -1, -1, "--num", 2, "--out", tmp_path / "a.npz"
    assert small.gentraj("sample", planner.folder, *words) == 0
    assert small.gentraj("evaluate", planner.folder, "--episodes", 1, "--no-baselines", "--acting.replan", 150) == 0
    assert isinstance(planner, PlannerRun)
    arrival = planner.likeliest_arrival(torch.tensor([[1.0, 1, 0, 0]]), torch.tensor([[-1.0, -1]]))
    assert 0 < int(arrival) < planner.model.spec.horizon
    assert measure_run(planner, num=32)["measures"]["start"]


@pytest.mark.parametrize("method", FEW_STEPS)
def test_a_planner_is_distilled(method: str, planner: Run, tmp_path: Path) -> None:
    config = METHODS[method].config
    assert isinstance(config, FewStepRunConfig)
    student = distill(planner, replace(config, training=BRIEF), tmp_path / "run", device=DEVICE, progress=False)
    assert torch.isfinite(student.model.sample(Condition.empty(student.model.spec), seed=0)).all()


@pytest.mark.parametrize("name", ["diffusion-policy", "veteran", "pointmaze"])
def test_a_run_is_steered(name: str, data: dict[bool, Path], tmp_path: Path) -> None:
    config = replace(narrow(PRESETS[name]), dataset=dataset_of(name, data), training=BRIEF)
    run = train(config, folder=tmp_path / "run", device=DEVICE, progress=False)
    config = steered_settings(run)
    config = replace(config, policy=replace(narrow(config.policy), frozen=config.policy.frozen), training=BRIEF)
    frozen: Any = load(run.folder, device=DEVICE)
    if run.data.goal_dims:
        config = replace(config, context=GoalContext(goals=HindsightConfig()))
        frozen.arrival.network[-1].bias.data[-1] += 20  # a plan to the next timestep would leave nothing to the noise
    steered = steer(frozen, config, tmp_path / "steered", device=DEVICE, progress=False)
    assert torch.isfinite(act(steered)).all()


def test_a_checkpoint_is_chosen_by_held_out_data_and_in_a_world_model(data: dict[bool, Path], tmp_path: Path) -> None:
    each = TrainingConfig(2, warmup=1, save_every=1)
    for name in ("iql", "world-model"):
        config = replace(narrow(PRESETS[name]), dataset=dataset_of(name, data), held_out=0.34, training=each)
        train(config, folder=tmp_path / name, device=DEVICE, progress=False)
    choice = ChooseConfig(world=tmp_path / "world-model", world_episodes=2)
    ranking = rank_checkpoints(tmp_path / "iql", choice, DEVICE)
    assert all(row.keys() >= {"imagined", "action_error"} for row in ranking.measures.values())
    world = of_kind(load(tmp_path / "world-model", device=DEVICE), WorldModelRun).world_model
    windows = Windows(load_episodes(dataset_of("", data)), world.spec).batch(0, 0, 4)
    assert torch.isfinite(OpenLoop.of(world, windows, range(4)).mean.obs_BTO).all()


@pytest.mark.parametrize("config", [
    StudentConfig(), SteeredConfig(frozen=BCConfig(chunk=4)), ExpoConfig(frozen=BCConfig(chunk=4), delay=1),
    BCConfig(max_delay=2, chunk=4)])
def test_a_policy_that_is_no_preset_learns_without_a_wait_and_acts(config: PolicyConfig,
                                                                   data: dict[bool, Path]) -> None:
    episodes = load_episodes(dataset_of("", data))
    config = narrow(config)
    scales = StateActionScales.fit(episodes, ContextConfig())
    policy = POLICIES.made_of(config)(config, scales).to(DEVICE)
    windows, optimizers = Windows(episodes, policy.spec), policy.optimizers()
    for step in range(3):
        with counted() as waits:
            policy.update(TrainingStep(windows.batch(step, 0, 8).to(DEVICE), optimizers, generator(step), unread=[]))
    assert not waits, f"waits:\n{waits}"
    one_A = np.ones(2, np.float32)
    assert Actor(policy, -one_A, one_A).act(torch.zeros(2, 4)).abs().max() <= 1


def test_a_planner_and_a_policy_of_chunks_work_in_the_background(planner: Run, data: dict[bool, Path],
                                                                 tmp_path: Path) -> None:
    config = replace(narrow(PRESETS["diffusion-policy"]), dataset=dataset_of("", data), training=BRIEF)
    policy = train(config, folder=tmp_path / "run", device=DEVICE, progress=False)
    for run, goal_BG in ((planner, torch.ones(1, 2)), (policy, None)):
        agent = run.agent(Box(-1, 1, (2,)), deadline=Deadline(600.0))
        agent.reset([0])
        for _ in range(3):
            assert agent.act(torch.zeros(1, 4), goal_BG).abs().max() <= 1


@pytest.fixture(scope="module")
def follow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    played = rollout(RandomAgent(-np.ones(1), np.ones(1)), environment_factory("tests/Follow-v0"), 20, record=True,
                     progress=False).recorded
    assert played is not None
    return save_npz(played, tmp_path_factory.mktemp("follow") / "follow.npz")


def test_a_policy_is_fine_tuned_and_distilled_and_a_world_model_imagines_more_data(
        follow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("iql", "world-model"):
        config = replace(narrow(PRESETS[name]), dataset=str(follow), held_out=0.2, training=BRIEF)
        train(config, folder=tmp_path / name, device=DEVICE, progress=False)
    run = load(tmp_path / "iql", device=DEVICE)
    few = {"updates": 0.1, "checks": 2, "policy.critic.width": 8, "policy.edit.width": 8}
    tuned = finetune(run, folder=tmp_path / "tuned", steps=60, settings=few, device=DEVICE, progress=False)
    student = distill(tuned, DECISION, tmp_path / "student", device=DEVICE, progress=False)
    for made in (student, load(tmp_path / "world-model", device=DEVICE)):
        make_report(made)
    assert tuned.device == student.device == run.device and not FAILED.search(capsys.readouterr().err)
    more = AugmentConfig(str(follow), tmp_path / "world-model", 4, "tests/more-v0", policy=tuned.folder)
    augment(more, progress=False)


def test_a_planner_is_reported_distilled_and_exported_and_plans_in_the_studio(
        planner: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(report, "EPISODES", 1)
    monkeypatch.setattr(report, "FRAMES", 2)
    make_report(planner)
    assert not FAILED.search(capsys.readouterr().err)
    distill(planner, replace(DECISION, episodes=1, num_envs=1), tmp_path / "run", device=DEVICE, progress=False)
    question = Question((1.0, 1.0, 0.0, 0.0), (-1.0, -1.0), Settings(steps=2), (Disc(0.0, 1.0, 0.2),))
    assert np.isfinite(next(answers(ready(planner), question)).x_NHD).all()
    program = export_run(planner)
    inputs, _ = program.example_inputs
    assert torch.isfinite(program.module()(*inputs)).all()
