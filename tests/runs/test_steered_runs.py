"""Steered runs: a run like any other, with the frozen policy in its folder, and the same bits after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.spaces import Box
from small import gentraj, killed
from test_policy_runs import tiny

from gentraj import runs
from gentraj.agents.policies.steering import Steered
from gentraj.gan import GANConfig
from gentraj.networks import TemporalUNetConfig
from gentraj.runs.kinds.run import DataFacts
from gentraj.runs.learn.steering import ARRIVAL, frozen_settings, steer, steered_settings
from gentraj.runs.show.export import RecordedNoise
from gentraj.training import TrainingConfig
from gentraj.training.checkpoint import saved_step

TRAINING = TrainingConfig(4, warmup=2, save_every=1, log_every=2, keep=9)
WORDS = ("--steps", 4, "--training.warmup", 2, "--training.save-every", 1, "--training.log-every", 2, "--training.keep",
         9, "--policy.batch-size", 8, "--policy.actor.width", 8, "--policy.critic.width", 8)


@pytest.fixture(scope="module")
def flow(follow: Path, tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    return runs.train(tiny("bc-flow", follow), folder=tmp_path_factory.mktemp("flow") / "run", progress=False)


@pytest.fixture(scope="module")
def steered(flow: runs.Run, tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    """To be read."""
    return steered_to(flow, tmp_path_factory.mktemp("steered") / "run")


def settings(run: runs.Run, **changes: Any) -> runs.PolicyRunConfig:
    config = steered_settings(run)
    policy: Any = config.policy
    policy = replace(policy, batch_size=8, actor=replace(policy.actor, width=8),
                     critic=replace(policy.critic, width=8), **changes)
    return replace(config, policy=policy, training=TRAINING)


def steered_to(run: runs.Run, folder: Path, resume: bool = False) -> runs.Run:
    return steer(run, settings(run), folder, resume=resume, progress=False)


def steered_of(folder: Path, to: Path) -> None:
    steered_to(runs.load(folder), to)


def weights(run: runs.Run, prefix: str = "") -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in run.main.state_dict().items() if key.startswith(prefix)}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def test_the_folder_holds_the_frozen_policy_whose_weights_stay(flow: runs.Run, steered: runs.Run) -> None:
    loaded = runs.load(steered.folder)
    assert loaded.step == 4 and loaded.summary == "steered BC, flow" and isinstance(loaded.main, Steered)
    assert same(weights(loaded, "frozen."), weights(flow)) and loaded.main.frozen.noise_dim == 1
    agent, obs = loaded.agent(loaded.action_space()), loaded.reference.x_BHD[:3, 0, :2]
    agent.reset([0, 1, 2])
    assert agent.act(obs).shape == (3, 1)


@pytest.mark.parametrize("by", ["steer", "train"])
def test_killed_and_resumed_it_is_the_uninterrupted_run(by: str, flow: runs.Run, steered: runs.Run,
                                                        tmp_path: Path) -> None:
    cut = tmp_path / "run"
    killed(cut / "step-00000002", steered_of, flow.folder, cut)
    assert runs.load(cut).step == 2
    if by == "steer":
        again = steered_to(flow, cut, resume=True)
    else:  # as every run
        again = runs.train(runs.load(cut).config, folder=cut, resume=True, progress=False)
    assert same(weights(again), weights(steered))


def test_the_command_makes_a_run_that_every_command_takes(flow: runs.Run, follow: Path, tmp_path: Path,
                                                          capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "run"
    words = "steer", flow.folder, "--dataset", follow, "--out", out, *WORDS
    assert gentraj(*words) == 0 and f"next: gentraj evaluate {out}" in capsys.readouterr().out
    assert gentraj(*words) == 2 and "holds a training already" in capsys.readouterr().err
    assert gentraj(*words, "--resume", "--policy.bound", 1) == 2
    assert "bound was 2.0 and is 1.0" in capsys.readouterr().err
    assert gentraj("evaluate", out, "--episodes", 2, "--no-baselines", "--acting.temperature", 1) == 0
    assert gentraj("export", out, "--out", tmp_path / "a.pt2") == 0
    assert gentraj("sample", out, "--num", 1, "--start", 0, 0, "--out", tmp_path / "a.npz") == 0
    assert "1 chunk of 1 action\n" in capsys.readouterr().err
    assert gentraj("finetune", out, "--steps", 20, "--run-dir", tmp_path / "tuned") == 0
    tuned = runs.load(tmp_path / "tuned", step=saved_step(tmp_path / "tuned"))
    assert same(weights(tuned, "frozen."), weights(runs.load(out))) and tuned.summary == "edited steered BC, flow"


def test_what_has_no_noise_or_other_data_is_refused_in_one_line(
        flow: runs.Run, far_run: Path, follow: Path, hopper_file: Path, tmp_path: Path,
        capsys: pytest.CaptureFixture) -> None:
    out = "--run-dir", tmp_path / "run"
    for name in ("bc-mip", "td3bc"):
        run = runs.train(tiny(name, follow, steps=1), folder=tmp_path / name, progress=False)
        assert gentraj("steer", run.folder, *out) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "do not depend on noise" in err
    for words, message in (((far_run,), "with a roadmap, and only planners that make one plan of"),
                           ((flow.folder, "--dataset", hopper_file), "obs_dim 11"),
                           ((flow.folder, "--policy.frozen.batch-size", 9), "policy.frozen.batch_size is 9"),
                           ((flow.folder, "--policy.chunk", 2), "that of the frozen policy is 1")):
        assert gentraj("steer", *words, *out) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and message in err
    with pytest.raises(ValueError, match="whose weights are not in them"):
        runs.train(settings(flow), folder=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_its_samples_are_made_from_the_noise_of_the_actor(flow: runs.Run, tmp_path: Path) -> None:
    run: Any = steered_to(flow, tmp_path / "run")
    policy = run.main
    for network in (policy.network, policy.average.module):
        network[-1].bias.data[:] = torch.tensor([1.0, -9.0])  # mu and log sigma: hardly any noise is left
    samples = run.sample((0.1, 0.2), 3)
    obs = torch.tensor([[0.1, 0.2]])
    own = policy.scales.act.unnormalize(policy.sample_actions(policy.scales.state(obs, None), [0]))
    assert samples.act_NHA.shape == (3, 1, 1)
    torch.testing.assert_close(samples.act_NHA, own.expand(3, -1, -1), rtol=0, atol=0.1)
    assert not torch.allclose(flow.sample((0.1, 0.2), 30, seed=0).act_NHA, own, rtol=0, atol=0.1)


@pytest.mark.parametrize("name", ["bc-gan", "fql"])
def test_policies_of_every_kind_are_steered(name: str, hopper_file: Path, tmp_path: Path) -> None:
    run = runs.train(tiny(name, hopper_file, steps=1), folder=tmp_path / "run", progress=False)
    made = steered_to(run, tmp_path / "steered")
    assert made.main.spec.horizon == 33 and made.main.chunk == run.main.execute
    assert same(weights(made, "frozen."), weights(run))


def test_a_model_that_chooses_among_candidates_makes_one_of_the_noise_that_it_is_given() -> None:
    config = runs.PlannerRunConfig(horizon=8, stride=1, joint=True, model=GANConfig(TemporalUNetConfig(width=8)))
    run = runs.PlannerRun.build(config, DataFacts(2, 1, 0, (), (), None))
    frozen: Any = frozen_settings(run)
    assert frozen.run.model == replace(config.model, best_of=1) != config.model


def test_a_planner_for_goals_is_steered_by_one_plan_for_one_arrival(small_run: Path, tmp_path: Path) -> None:
    run: Any = runs.load(small_run)
    run.arrival.network[-1].bias.data[9] += 20  # a plan to the next timestep would leave nothing to the noise
    policy: Any = steered_to(run, tmp_path / "steered").main
    obs, goal = run.reference.x_BHD[:4, 0], torch.tensor([[1.0, 1.0]]).expand(4, -1)
    planner = replace(run.planning, arrival_thresholds=(ARRIVAL,))
    drawn: list[Any] = []
    planned = run.agent(Box(-1, 1, (2,)), planner).decide(obs, goal, RecordedNoise(range(4), drawn))
    own = policy.generate(policy.scales.state(obs, goal), drawn[0].flatten(1))
    torch.testing.assert_close(own, policy.scales.act.normalize(planned).clamp(-1, 1), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("name", "words"), [("veteran", ("--inverse.width", 8)),
                                             ("veteran+", ("--planner.replan", 2))])
def test_planners_are_steered_by_the_noise_of_a_plan(name: str, words: tuple[object, ...], hopper_file: Path,
                                                     tmp_path: Path) -> None:
    short = "--steps", 1, "--model.network.width", 8, "--batch-size", 8, "--critic.width", 8, "--critic.batch-size", 8
    assert gentraj("train", name, "--dataset", hopper_file, *short, *words, "--run-dir", tmp_path / "run") == 0
    run = runs.load(tmp_path / "run")
    made = steered_to(run, tmp_path / "steered")
    policy: Any = runs.load(made.folder).main
    frozen = policy.frozen
    for part, module in run.components.items():
        assert same(dict(module.state_dict()), dict(frozen.parts[part].state_dict()))
    assert made.summary == "steered planner" and policy.chunk == (2 if name == "veteran+" else 1)
    agent: Any = run.agent(Box(-1, 1, (3,)), frozen.config.run.planner)
    obs = run.reference.x_BHD[:4, 0, :11]
    drawn: list[Any] = []
    planned = agent.decide(obs, None, RecordedNoise(range(4), drawn))
    own = policy.generate(policy.scales.state(obs, None), drawn[0].flatten(1))
    torch.testing.assert_close(own, policy.scales.act.normalize(planned).clamp(-1, 1), rtol=0, atol=1e-4)
