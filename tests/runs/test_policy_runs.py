"""A policy's run: from data a folder that is all it needs, the same bits after a kill, an honest score."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from small import DATASET, edit, gentraj, same_when_killed

from gentraj import runs
from gentraj.agents.planning.sampler import PlannerConfig
from gentraj.agents.policies import POLICIES
from gentraj.agents.policies.bc import BCConfig
from gentraj.agents.policies.iql import IQLConfig
from gentraj.config import ConfigError, from_json, to_json, with_settings
from gentraj.data import Episodes, HindsightConfig, concatenate, save_npz
from gentraj.envs.making import environment_factory
from gentraj.networks import ResidualMLPConfig
from gentraj.runs import PlannerRunConfig, PolicyRunConfig
from gentraj.runs.kinds import presets
from gentraj.runs.kinds.folder import RunFile
from gentraj.runs.kinds.planner_run import PlannerRun
from gentraj.runs.kinds.plans import PlannerPolicyConfig
from gentraj.runs.show.hub import from_pretrained
from gentraj.training import TrainingConfig
from gentraj.training.checkpoint import CheckpointError

TINY = ResidualMLPConfig(width=8, depth=1, frequencies=0)


def tiny(name: str, dataset: object, steps: int = 4) -> PolicyRunConfig:
    """A preset with the smallest networks, saved after each step."""
    policy: Any = presets.PRESETS[name].policy
    changes: dict[str, Any] = {"batch_size": 8}
    if policy.model is not None:
        changes |= {"model": policy.model.with_network(TINY)}
    elif hasattr(policy, "actor"):
        changes |= {"actor": replace(policy.actor, network=TINY)}
    for key, value in {"candidates": 2, "width": 8}.items():
        if key in {setting.name for setting in fields(policy)}:
            changes[key] = value
    if policy.critic is not None:
        changes["critic"] = replace(policy.critic, width=8, depth=1, members=2)
    return PolicyRunConfig(str(dataset), policy=replace(policy, **changes),
                           training=TrainingConfig(steps, warmup=2, save_every=1, log_every=2, keep=9))


def act(run: runs.Run, obs: torch.Tensor, goal: torch.Tensor | None = None) -> torch.Tensor:
    agent = run.agent(Box(-1, 1, (run.data.act_dim,)))
    agent.reset(range(len(obs)))
    return agent.act(obs, goal)


# -- training


@pytest.mark.parametrize("name", ["bc-gan", "iql", "diffusion-ql", "swift"])
def test_killed_and_resumed_it_is_the_uninterrupted_run(name: str, hopper_file: Path, tmp_path: Path) -> None:
    config = tiny(name, hopper_file)
    assert same_when_killed(config, tmp_path, after=2).components.keys() == {"policy"}


def test_data_of_this_process_are_kept_in_the_run_that_learns_from_them(hopper: Episodes, tmp_path: Path) -> None:
    """The run is the one that a file of the data makes, and it needs nothing else to go on."""
    data, rows = hopper, list[dict[str, Any]]()
    config = tiny("iql", "")
    run = runs.train(config, folder=tmp_path / "run", data=data, progress=False, on_row=rows.append)
    other = runs.train(replace(config, dataset=str(save_npz(data, tmp_path / "data.npz"))), folder=tmp_path / "other",
                       progress=False)
    assert [row["step"] for row in rows] == [2, 4]
    for one, two in zip(run.main.parameters(), other.main.parameters(), strict=True):
        assert torch.equal(one, two)
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    assert gentraj("train", "--resume", moved, "--steps", 5) == 0
    kept = (moved / "data.npz").read_bytes()
    for resume, wrong in ((True, data[:2]), (False, data[:2])):
        with pytest.raises((ConfigError, CheckpointError), match="moved"):
            runs.train(config, folder=moved, data=wrong, resume=resume, progress=False)
    assert (moved / "data.npz").read_bytes() == kept


def test_a_resumed_run_keeps_its_policy_but_for_how_it_acts(hopper_run: Path, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture) -> None:
    folder = shutil.copytree(hopper_run, tmp_path / "run")
    assert gentraj("train", "--resume", folder, "--steps", 5, "--policy.temperature", 0.5) == 0
    assert runs.load(folder).step == 5 and to_json(runs.load(folder).config)["policy"]["temperature"] == 0.5
    capsys.readouterr()
    assert gentraj("train", "--resume", folder, "--policy.batch-size", 9) == 2
    assert "run.policy.batch_size was 16 and is 9" in capsys.readouterr().err


def test_a_trained_policy_acts_by_other_settings(hopper_run: Path, tmp_path: Path,
                                                 capsys: pytest.CaptureFixture) -> None:
    means = {}
    for words in ((), ("--acting.temperature", 0), ("--acting.temperature", 0.0, "--seed", 0)):
        command = "evaluate", hopper_run, "--episodes", 2, "--no-baselines", *words
        assert gentraj(*command, "--out", tmp_path / "scores.json") == 0
        means[words] = json.loads((tmp_path / "scores.json").read_text())["return_mean"]
    first, *others = means.values()
    assert first != others[0] == others[1]
    capsys.readouterr()
    assert gentraj("evaluate", hopper_run, "--acting.execute", 2) == 2
    assert "--acting.execute is 2; a number up to" in capsys.readouterr().err
    run = runs.load(hopper_run)
    with pytest.raises(ValueError, match=r"policy\.batch_size is 9, and the policy was trained with 16; only"):
        run.agent(Box(-1, 1, (3,)), replace(run.config.policy, batch_size=9))
    with pytest.raises(ValueError, match=r"a policy \(BC, gaussian\), and a PlannerConfig was given; give it a"):
        run.agent(Box(-1, 1, (3,)), PlannerConfig())


def test_a_folder_is_all_that_it_needs(hopper: Episodes, hopper_file: Path, hopper_run: Path, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    obs = torch.from_numpy(hopper.obs[:5])
    before = act(runs.load(hopper_run), obs)
    monkeypatch.setattr("gentraj.runs.kinds.datasets.load_episodes", lambda *_: pytest.fail("the data were read"))
    folder = shutil.copytree(hopper_run, tmp_path / "elsewhere")
    assert torch.equal(act(runs.load(folder), obs), before) and before.abs().max() <= 1
    pretrained = runs.load(folder).save_pretrained(tmp_path / "pretrained")
    assert torch.equal(act(from_pretrained(pretrained), obs), before)
    card = (pretrained / "README.md").read_text()
    assert "run.agent()" in card and "| kind | BC, gaussian |" in card
    assert str(hopper_file.parent) not in card


def test_each_dataset_is_remembered_and_none_of_it_decides_a_training(hopper_file: Path, tmp_path: Path) -> None:
    both = runs.train(tiny("iql", f"{hopper_file}+{hopper_file}", steps=1), folder=tmp_path / "two", progress=False)
    assert [r.episodes for r in both.data.returns] == [12, 12]
    edit(tmp_path / "two", lambda config: config["data"].update(returns=[]))
    assert runs.load(tmp_path / "two").data.returns == ()


# A planner has no defaults.
PLANS = PlannerPolicyConfig(presets.PRESETS["veteran+"], runs.DataFacts(3, 2, 0, (), (), None))
POLICY_CONFIGS = [PLANS, *(config() for config in POLICIES.configs if config is not PlannerPolicyConfig)]


@pytest.mark.parametrize("config", [*presets.PRESETS.values(),
                                    *(PolicyRunConfig(policy=config) for config in POLICY_CONFIGS)], ids=str)
def test_settings_survive_json(config: runs.RunConfig) -> None:
    """Where a setting may have several kinds, the right one is read."""
    file = RunFile(config, runs.DataFacts(3, 2, 0, (), (), None))
    again = from_json(RunFile, to_json(file))
    assert again == file and type(again.run) is type(file.run)


def test_what_was_imagined_is_for_policies_with_a_critic_and_says_so(hopper: Episodes, tmp_path: Path) -> None:
    imagined = replace(hopper, extras={"imagined": np.ones((len(hopper.obs), 1))})
    path = str(save_npz(concatenate([hopper, imagined]), tmp_path / "both.npz"))
    episodes = runs.read_data(PolicyRunConfig(path, policy=IQLConfig()))
    assert episodes.num_steps == 2 * hopper.num_steps
    assert runs.PolicyRun.split(PolicyRunConfig(path), episodes).reference == hopper
    for config in (runs.WorldModelRunConfig(path), PolicyRunConfig(path, policy=BCConfig())):
        with pytest.warns(UserWarning, match=f"both: {hopper.num_steps} steps that a world model imagined"):
            seen = runs.read_data(config)
        assert seen == hopper


# -- goals


def test_where_the_data_have_goals_a_policy_is_conditioned_on_them(umaze: Episodes, tmp_path: Path) -> None:
    run = runs.train(tiny("bc-flow", DATASET), folder=tmp_path, progress=False)
    assert run.context.kinds == ("goal",) and run.data.context_dim == 2
    obs = torch.from_numpy(umaze.obs[:1]).expand(2, -1)
    one, other = (act(run, obs, torch.full((2, 2), side)) for side in (-1.0, 1.0))
    assert not torch.equal(one, other)
    with pytest.raises(ValueError, match="a goal was given none"):
        act(run, obs)


@pytest.fixture(scope="module")
def goalless_file(umaze: Episodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same episodes without goals and rewards."""
    bare = replace(umaze, extras={}, reward=np.zeros_like(umaze.reward), obs_keys=())
    return save_npz(bare, tmp_path_factory.mktemp("goalless") / "goalless.npz")


@pytest.mark.parametrize("name", ["diffusion-policy", "iql", "swift"])
def test_goals_in_hindsight_need_neither_goals_nor_rewards(name: str, umaze: Episodes, goalless_file: Path,
                                                           tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="draw goals by context"):
        runs.train(tiny(name, goalless_file), folder=tmp_path / "refused", progress=False)
    config = with_settings(tiny(name, goalless_file), {"context.goals": "hindsight"})
    run = runs.train(config, folder=tmp_path / "run", progress=False)
    assert run.context.goals == HindsightConfig() and run.data.context_dim == 2
    obs = torch.from_numpy(umaze.obs[:1]).expand(2, -1)
    one, other = (act(run, obs, torch.full((2, 2), side)) for side in (-1.0, 1.0))
    assert not torch.equal(one, other)


def test_goals_in_hindsight_may_be_whole_observations(umaze: Episodes, tmp_path: Path) -> None:
    """Where the data say that a goal is a position, they are still whole; an environment of positions does not fit."""
    settings = {"context.goals": "hindsight", "context.goals.whole": True}
    with pytest.raises(ValueError, match="PointMaze_UMaze-v3 gives no whole observations"):
        runs.train(tiny("iql", ""), umaze, settings=settings, folder=tmp_path / "refused", progress=False)
    run = runs.train(tiny("iql", ""), replace(umaze, env=None), settings=settings, folder=tmp_path / "run",
                     progress=False)
    assert run.data.goal_dims == (0, 1, 2, 3) and run.data.context_dim == 4
    obs = torch.from_numpy(umaze.obs[:1]).expand(2, -1)
    goal = obs.clone()
    goal[1, 3] += 1  # the velocity, which is no part of a position
    one, other = act(run, obs, goal)
    assert not torch.equal(one, other)
    with pytest.raises(ValueError, match="a roadmap is of positions"):
        with_settings(presets.PRESETS["far-gcbc"], {"context.goals.whole": True})
    with pytest.raises(ValueError, match="leave out whole or at_rest"):
        HindsightConfig(whole=True, at_rest=True)


# -- the environment


def test_an_environment_may_be_named(hopper: Episodes, tmp_path: Path) -> None:
    nameless = save_npz(replace(hopper, env=None), tmp_path / "a.npz")
    run = runs.train(tiny("iql", nameless, steps=1), env="Hopper-v5", folder=tmp_path / "run", progress=False)
    named, there = environment_factory(str(run.data.env)), environment_factory(str(hopper.env))
    assert named == there
    assert gentraj("evaluate", tmp_path / "run", "--episodes", 1, "--no-baselines") == 0


def test_a_planner_of_data_that_name_no_environment_gets_its_horizon_from_the_one_named(umaze: Episodes) -> None:
    config = PlannerRun.resolve(PlannerRunConfig(env_id="pointmaze-umaze"), replace(umaze, env=None))[0]
    assert (config.horizon, config.stride) == (32, 5)
    data = runs.DataFacts.of(replace(umaze, env=None), config.context, config.env_id)
    assert json.loads(str(data.env))["id"] == "PointMaze_UMaze-v3"


@pytest.mark.parametrize(("env", "message"), [
    ("Hoper-v5", "unknown environment 'Hoper-v5'; did you mean Hopper-v5"),
    ("Walker2d-v5", "the data have observations of width 11 and actions of 3, but Walker2d-v5 has 17 and 6")])
def test_a_wrong_environment_is_refused_before_training(env: str, message: str, hopper_file: Path, tmp_path: Path,
                                                        capsys: pytest.CaptureFixture) -> None:
    words = "--dataset", hopper_file, "--env-id", env, "--run-dir", tmp_path / "run"
    assert gentraj("train", "iql", *words) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
