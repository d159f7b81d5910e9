"""`gentraj judge RUN`: by held-out data, by policies, and by nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small import edit

from gentraj import runs
from gentraj.agents.policies.bc import BCConfig
from gentraj.cli import main
from gentraj.data import ContextConfig, Episodes, episodes_hash, save_npz
from gentraj.models.gaussian import GaussianConfig
from gentraj.networks import ResidualMLPConfig
from gentraj.runs import PolicyRunConfig
from gentraj.runs.judge import world_evaluation
from gentraj.runs.judge.world_evaluation import JudgeConfig, held_out
from gentraj.runs.kinds.run import Split
from gentraj.runs.kinds.world_run import WorldModelRunConfig
from gentraj.training import TrainingConfig
from gentraj.trajectory import TrajectorySpec
from gentraj.worlds.model import WorldModelConfig

TRAINING = TrainingConfig(20, warmup=1, threads=1)


@pytest.fixture(scope="module")
def folder(hopper_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data and the runs `world`, `policy-0`, `policy-1` and `policy-2`."""
    made = tmp_path_factory.mktemp("judged")
    data = str(shutil.copy(hopper_file, made / f"data{hopper_file.suffix}"))
    world = WorldModelConfig(model=None, members=2, width=16, depth=1, batch_size=32)
    config = WorldModelRunConfig(world=world, held_out=0.2, training=TRAINING)
    runs.train(config, data, folder=made / "world", progress=False)
    policy = BCConfig(model=GaussianConfig(network=ResidualMLPConfig(16, 1)))
    for seed in range(3):
        training = TrainingConfig(20, warmup=1, threads=1, seed=seed)
        config = PolicyRunConfig(policy=policy, training=training)
        runs.train(config, data, folder=made / f"policy-{seed}", progress=False)
    return made


def test_it_says_how_far_predictions_and_the_order_of_policies_hold(folder: Path,
                                                                   capsys: pytest.CaptureFixture[str]) -> None:
    policies = [str(folder / f"policy-{seed}") for seed in range(3)]
    assert main(["judge", str(folder / "world"), "--policies", *policies, "--episodes", "2",
                 "--seed", "3", "--env-id", "Hopper-v5", "--env-kwargs", "max_episode_steps=100"]) == 0
    judged = json.loads((folder / "world" / "world.json").read_text())
    assert judged["seed"] == 3 and judged["windows"] > 0
    for guesses in judged["open_loop"].values():
        assert {len(error_T) for error_T in guesses.values()} == {judged["horizon"]}
    assert set(judged["policies"]["returns"]) == set(policies)
    assert all(len(of["imagined"]) == len(of["true"]) == 2 for of in judged["policies"]["returns"].values())
    for name in ("open-loop", "calibration", "imagined"):
        assert (folder / "world" / "figures" / f"{name}.png").stat().st_size > 1000
    assert "rank correlation" in capsys.readouterr().out


def test_other_data_where_its_own_lay_judge_nothing(folder: Path, tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    config: Any = runs.RunFolder(folder / "world").read().run
    other = save_npz(runs.WorldModelRun.split(config, runs.read_data(config))[0], tmp_path / "other.npz")
    run = shutil.copytree(folder / "world", tmp_path / "world")
    edit(run, lambda held: held["run"].update(dataset=str(other)))
    assert main(["judge", str(run)]) == 2
    assert "holds other data than" in capsys.readouterr().err


def test_data_that_are_missing_are_not_recorded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    run = shutil.copytree(folder / "world", tmp_path / "world")
    edit(run, lambda held: held["run"].update(dataset="gentraj/mujoco/walker2d-expert-v0"))
    assert main(["judge", str(run)]) == 2
    assert "walker2d-expert-v0: no such dataset" in capsys.readouterr().err.splitlines()[-1]


def test_planning_in_it_is_by_the_mean_and_says_so(folder: Path) -> None:
    assert main(["evaluate", str(folder / "world"), "--episodes", "1", "--no-baselines", "--out",
                 str(folder / "scores.json")]) == 0
    assert "mean" in json.loads((folder / "scores.json").read_text())["sampling"]


def test_the_environment_and_the_sampler_that_are_named_are_heeded_or_refused(
        folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policies = [str(folder / f"policy-{seed}") for seed in range(3)]
    assert main(["judge", str(folder / "world"), "--policies", *policies, "--episodes", "1",
                 "--env-id", "HalfCheetah-v5", "--out", str(tmp_path / "world.json")]) == 2
    assert "HalfCheetah-v5" in capsys.readouterr().err
    assert main(["evaluate", str(folder / "world"), "--sampler", "heun"]) == 2
    assert "a sampler, a grid, an eta or another option of sampling was given" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["evaluate", "--policies", "policy-0"], ["judge", "--video", "films"]])
def test_what_is_no_option_of_judging_or_of_acting_is_refused(given: list[str], folder: Path) -> None:
    assert main([given[0], str(folder / "world"), *given[1:]]) == 2


@pytest.mark.filterwarnings("error")
def test_a_world_of_which_a_single_step_is_held_out_is_judged_without_warnings(tmp_path: Path) -> None:
    """As of a bandit: the spread of one observation is 0, not the root of 0 / 0."""
    rng, end = np.random.default_rng(0), np.ones(2, bool)
    data = save_npz(Episodes(rng.normal(size=(4, 2)), rng.uniform(-1, 1, (2, 1)), np.ones(2), end, ~end,
                             np.ones(2, int)), tmp_path / "bandit.npz")
    world = WorldModelConfig(model=None, members=2, width=16, depth=1, batch_size=8)
    training = TrainingConfig(1, warmup=1, threads=1)
    config = WorldModelRunConfig(world=world, training=training)
    run = runs.train(config, data, folder=tmp_path / "run", progress=False)
    judged = world_evaluation.evaluate_world_model(run, tmp_path / "run" / "figures", JudgeConfig())
    assert (judged["windows"], judged["horizon"], judged["ends"]["steps"]) == (1, 1, 1)


def test_steps_that_no_held_out_window_has_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 24 windows, most of which start in episodes of two steps, none need reach the 20th step, whose error was 0."""
    lengths = np.array([30] + [2] * 1000)
    steps, last = int(lengths.sum()), np.cumsum(lengths) - 1
    data = Episodes(np.zeros((steps + len(lengths), 1)), np.zeros((steps, 1)), np.zeros(steps), np.zeros(steps, bool),
                    np.isin(np.arange(steps), last), lengths)
    run: Any = SimpleNamespace(config=None, split=lambda config, episodes: Split(data, data, data),
                               context=ContextConfig(), folder=Path(), dataset_hash=episodes_hash(data),
                               world_model=SimpleNamespace(spec=TrajectorySpec(data.obs_dim, data.act_dim, 2)))
    monkeypatch.setattr(world_evaluation, "read_data", lambda *_, **__: data)
    monkeypatch.setattr(world_evaluation, "HELD_OUT_WINDOWS", 24)
    masks = [held_out(run, seed).mask_BHD for seed in range(5)]
    assert all(mask_BHD[..., 0].any(0).all() for mask_BHD in masks) and 3 in {mask.shape[1] for mask in masks}
    monkeypatch.setattr(world_evaluation, "HELD_OUT_WINDOWS", 5000)
    assert held_out(run, 0).x_BHD.shape[:2] == (2030, 21)
