"""A run: from any dataset, a folder that is all it needs, and a planner that acts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from gymnasium.spaces import Box
from small import gentraj

from gentraj import runs
from gentraj.agents.realtime.background import Deadline
from gentraj.agents.realtime.policy import RealTimeActor
from gentraj.config import from_json, to_json
from gentraj.data import ContextConfig, Episodes, concatenate, save_minari, save_npz
from gentraj.envs.evaluation.scores import DataReturns
from gentraj.envs.evaluation.scoring import EvaluationConfig, score_agent
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.pointmaze import record
from gentraj.families import FAMILIES, family
from gentraj.networks import TemporalUNetConfig
from gentraj.training import checkpoint
from gentraj.trajectory import Condition, SamplingOptions

L_MAP = [[1, 1, 1, 1, 1], [1, 0, 1, 1, 1], [1, 0, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]


def evaluated(folder: Path, *words: object) -> dict:
    """The scores of an episode, without yardsticks."""
    out = folder.with_name("scores.json")
    words = "--episodes", 1, "--no-baselines", "--out", out, *words
    assert gentraj("evaluate", folder, *words) == 0
    return json.loads(out.read_text())


def test_a_run_finds_its_data_from_any_folder_and_beside_itself(umaze: Episodes, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    save_npz(umaze, tmp_path / "here" / "own.npz")
    monkeypatch.chdir(tmp_path / "here")
    small.train(Path("run"), "own.npz")
    assert runs.RunFolder("run").read().run.dataset == str(tmp_path / "here" / "own.npz")
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(tmp_path / "here" / "run" / "step-00000006")
    assert gentraj("train", "--resume", "here/run") == 0
    for was, now, data in (("here", "there", "there/own.npz"), ("there/own.npz",) + 2 * ("there/run/own.npz",)):
        (tmp_path / was).rename(tmp_path / now)  # all of it together, then the data into the run
        shutil.rmtree(tmp_path / "there" / "run" / "step-00000006")
        assert gentraj("train", "--resume", "there/run") == 0
        assert runs.RunFolder(tmp_path / "there" / "run").read().run.dataset == str(tmp_path / data)


def test_a_folder_is_all_that_a_run_needs(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dataset may be gone and the folder elsewhere."""
    before = runs.load(small_run)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "nothing"))
    folder = shutil.copytree(small_run, tmp_path / "é elsewhere" / "run")
    after, unknown = runs.load(folder), Condition.empty(before.model.spec)
    assert torch.equal(before.model.sample(unknown, 2, seed=3), after.model.sample(unknown, 2, seed=3))
    assert evaluated(folder)["episodes"] == 1


def test_a_run_that_was_trained_before_entries_had_names_is_loaded(small_run: Path, tmp_path: Path) -> None:
    """Neither its settings nor its checkpoints say anything of them."""
    folder, names = shutil.copytree(small_run, tmp_path / "run"), ("obs_names", "act_names")

    def without(facts: dict) -> None:
        for name in names:
            facts.pop(name, None)

    small.edit(folder, lambda config: without(config["data"]))
    for path in folder.glob("step-*/meta.json"):
        body = json.loads(path.read_bytes())
        without(body["meta"]["data"])
        path.write_bytes(checkpoint.meta_json({key: value for key, value in body.items() if key != "sha256"}))
    old, new = runs.load(folder), runs.load(small_run)
    assert old.step == new.step and old.data == new.data


def test_a_new_run_overwrites_no_config_of_something_else(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match="is not that of a run, and would be overwritten"):
        runs.train(small.config(), folder=tmp_path, progress=False)
    assert (tmp_path / "config.json").read_text() == '{"mine": 1}'
    shutil.copy(small_run / "config.json", tmp_path)  # of a training that was killed before its first checkpoint
    assert runs.train(small.config(steps=1), folder=tmp_path, progress=False).step == 1


def test_scores_do_not_depend_on_how_many_environments_run_side_by_side(small_run: Path) -> None:
    """Exactly, with the real planner: network, trust and arrivals in batches of other sizes."""
    run, scores = runs.load(small_run), []
    env = json.dumps(json.loads(str(run.data.env)) | {"max_episode_steps": 50})
    planner = replace(run.config.planner, replan=10, steps=2)
    for num_envs in (1, 3):
        agent = run.agent(config=planner, env=env)
        config = EvaluationConfig(4, 1, num_envs, baselines=False)
        found, played = score_agent(agent, env, config, goal_dims=run.data.goal_dims, obs_keys=run.data.obs_keys,
                                    progress=False)
        costs = [key for key in found if "latency" in key or "calls" in key]
        scores.append(({key: value for key, value in found.items() if key not in costs}, played))
    assert scores[0] == scores[1]
    assert np.ptp(scores[0][1].act, axis=0).min() > 0


def test_goal_entries_may_be_named_where_the_data_name_none(umaze: Episodes) -> None:
    config, nameless = small.config(), replace(umaze, goal_dims=(), extras={}, obs_keys=())
    mix = replace(config.conditioning, goal_dims=(0, 1))
    resolved, context = runs.PlannerRun.resolve(replace(config, conditioning=mix), nameless)
    assert resolved.planner.goal_dims == resolved.conditioning.goal_dims == (0, 1)
    assert runs.PlannerRun.build(resolved, runs.DataFacts.of(nameless, context), nameless).arrival is not None


def test_resumed_in_python_it_is_the_uninterrupted_run(umaze: Episodes, tmp_path: Path, small_run: Path) -> None:
    """The command trains the same weights as the same settings in Python."""
    runs.train(small.config(steps=3), folder=tmp_path, progress=False)
    run = runs.train(small.config(steps=6), folder=tmp_path, resume=True, progress=False)
    other = runs.load(small_run)
    assert run.step == other.step == 6
    # The learning rate decays until the last step, so that 3 steps of 6 are not 3 steps of 3.
    assert run.config == replace(other.config, training=run.config.training)
    whole = runs.train(small.config(), folder=tmp_path / "whole", progress=False)
    for name, component in whole.components.items():
        for key, value in component.state_dict().items():
            assert torch.equal(value, other.components[name].state_dict()[key]), (name, key)


def test_what_a_run_remembers(small_run: Path, umaze: Episodes) -> None:
    run = runs.load(small_run)
    returns = DataReturns(episodes=1, mean=umaze.returns.mean(), longest=2000, truncated=1, truncated_last=1,
                          steps=2000)
    low, high = umaze.obs.min(0).tolist(), umaze.obs.max(0).tolist()
    assert run.data == runs.DataFacts(4, 2, 0, (0, 1), ("observation",), umaze.env, umaze.env, (returns,),
                                      obs_low=tuple(low), obs_high=tuple(high))
    assert (run.config.horizon, run.config.stride) == (32, 5)  # of the maze, none was given
    assert (run.config.conditioning.goal_dims, run.config.planner.goal_dims) == ((0, 1), (0, 1))
    assert run.reference.x_BHD.shape == (512, 32, 4)
    data = {row.tobytes() for row in umaze.obs}
    assert all(row.tobytes() in data for row in run.reference.x_BHD[:, 0].numpy())
    assert from_json(runs.PlannerRunConfig, to_json(run.config)) == run.config


def test_with_a_deadline_it_acts_in_time_and_says_how(small_run: Path, capsys: pytest.CaptureFixture) -> None:
    scores = evaluated(small_run, "--deadline-ms", 1e6, "--fallback", small_run, "--acting.candidates", 2)
    deadline = scores["deadline"]
    assert (deadline["ms"], deadline["acts"], deadline["misses"]) == (1e6, 300, 0)
    assert list(deadline["plans"]) == ["1 steps, 2 candidates"] and deadline["acted_by"] == {"the plan": 300}
    said = capsys.readouterr()
    assert "with a deadline, one environment runs at a time, without batch_invariant" in said.err
    assert "deadline of 1e+06 ms: 0 of 300 decisions missed it (0 %)" in said.out
    assert "plans of 1 steps, 2 candidates:" in said.out


def test_a_fallback_is_for_an_agent_with_a_deadline_that_sees_the_same(small_run: Path, hopper_run: Path,
                                                                       capsys: pytest.CaptureFixture) -> None:
    for words, message in (((small_run,), "a fallback is for a planner or a policy with a deadline"),
                           ((hopper_run, "--deadline-ms", 1e6), f"and {small_run} on observations of width 4 "
                                                              "and actions of width 2")):
        assert gentraj("evaluate", small_run, "--acting.candidates", 2, "--fallback", *words) == 2
        assert message in capsys.readouterr().err


def test_a_policy_with_a_deadline_acts_in_time_and_says_how(hopper_run: Path, capsys: pytest.CaptureFixture) -> None:
    scores = evaluated(hopper_run, "--deadline-ms", 1e6)
    deadline = scores["deadline"]
    assert deadline["misses"] == 0 and deadline["acted_by"] == {"the chunk": deadline["acts"]}
    assert "chunks with a delay of 0 steps:" in capsys.readouterr().out
    run = runs.load(hopper_run)
    agent = run.agent(run.action_space(), deadline=Deadline(1e-4, run.agent(run.action_space())))
    agent.reset([0])
    assert agent.act(run.reference.x_BHD[:1, 0, :11]).shape == (1, 3) and isinstance(agent, RealTimeActor)


# -- other data


def test_without_goals_and_environment_it_trains_and_samples(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rng = np.random.default_rng(0)
    e = Episodes(rng.normal(size=(202, 3)), rng.normal(size=(200, 2)), np.zeros(200), np.zeros(200, bool),
                 np.arange(200) % 100 == 99, np.array([100, 100]))
    data = save_npz(e, tmp_path / "plain.npz")
    assert gentraj("train", "pointmaze", "--dataset", data, "--run-dir", tmp_path / "run") == 2
    assert "these settings plan for goals" in capsys.readouterr().err
    small.train(tmp_path / "run", data, "--conditioning.goal", 0)
    run = runs.load(tmp_path / "run")
    assert set(run.components) == {"model", "inverse"} and run.config.planner.rest_dims == ()
    assert (run.config.horizon, run.config.stride) == (32, 1)
    assert gentraj("sample", tmp_path / "run", "--out", tmp_path / "a.npz") == 0
    capsys.readouterr()
    assert gentraj("evaluate", tmp_path / "run") == 2
    assert "give --env-id" in capsys.readouterr().err


def test_a_recording_cut_at_its_goals_is_trained_on_uncut(umaze: Episodes, tmp_path: Path) -> None:
    """Unless --no-stitch is given; separate episodes stay separate."""
    T = 20
    cut = [replace(umaze, obs=umaze.obs[a : a + T + 1], act=umaze.act[a : a + T], reward=umaze.reward[a : a + T],
                   terminated=np.zeros(T, bool), truncated=np.arange(T) == T - 1, lengths=np.array([T]),
                   extras={k: v[a : a + T + 1] for k, v in umaze.extras.items()}) for a in range(0, 1000, T)]
    rows = []
    for name, episodes, words in (("cut", cut, []), ("kept", cut, ["--no-stitch"]), ("apart", cut[::2], [])):
        path = save_npz(concatenate(episodes), tmp_path / f"{name}.npz")
        small.train(tmp_path / name, path, "--steps", 1, "--stride", 1, *words)
        rows.append(int(runs.load(tmp_path / name).reference.mask_BHD[..., 0].sum(1).max()))
    assert rows == [32, T + 1, T + 1]


def test_a_maze_that_no_preset_knows(tmp_path: Path) -> None:
    """Map, time limit and controller come from the dataset's own environment."""
    spec = environment_factory("PointMaze_UMaze-v3", {"maze_map": L_MAP}).spec_json
    save_minari(record(spec, 1_000, progress=False), "tests/l-shape-v0", description="")
    small.train(tmp_path / "run", "tests/l-shape-v0")
    out = tmp_path / "scores.json"
    assert gentraj("evaluate", tmp_path / "run", "--episodes", 3, "--out", out) == 0
    scores = json.loads(out.read_text())
    assert scores["controller"]["success_rate"] == 1 and scores["controller"]["return_mean"] > 150
    assert scores["score_minari"] is None  # that is of another map
    assert json.loads(str(runs.load(tmp_path / "run").data.env))["kwargs"]["maze_map"] == L_MAP


def test_a_run_with_contexts_is_conditioned_on_them(umaze: Episodes, tmp_path: Path) -> None:
    config = replace(small.config(), context=ContextConfig(("return", "goal")))
    run = runs.train(config, folder=tmp_path, progress=False)
    assert run.data.context_dim == 3
    plain = Condition.empty(run.model.spec)
    conditioned = replace(plain, context_BC=torch.tensor([[50.0, 1.0, -1.0]]))
    with_it, without = (run.model.sample(c, 2, seed=1) for c in (conditioned, plain))
    assert not torch.equal(with_it, without)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_plans_and_is_loaded_again(name: str, umaze: Episodes, tmp_path: Path) -> None:
    tiny = FAMILIES[name].with_network(TemporalUNetConfig(8, (1, 2)))
    assert family(tiny) == name
    run = runs.train(replace(small.config(steps=2), model=tiny), folder=tmp_path, progress=False)
    again = runs.load(tmp_path)
    start = Condition.empty(run.model.spec).with_obs(0, torch.from_numpy(umaze.obs[0]))
    assert torch.equal(*(of.model.sample(start, 2, options=SamplingOptions(steps=2), seed=0) for of in (run, again)))
    planner = again.agent(Box(-1, 1, (2,)))
    planner.reset([0])
    assert planner.act(torch.from_numpy(umaze.obs[:1]), torch.zeros(1, 2)).shape == (1, 2)
