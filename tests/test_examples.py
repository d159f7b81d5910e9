"""The examples run and keep what their texts promise."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import runpy
import sys
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from small import DATASET
from small import config as small_config

import gentraj
from gentraj.cli import main
from gentraj.config import with_settings
from gentraj.data import load_episodes
from gentraj.training import TrainingConfig

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path):
    """Imports an example, and removes the policies and presets that it registers after the test."""
    from gentraj.agents.policies import POLICIES
    from gentraj.runs.kinds.presets import PRESETS

    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    for table in (POLICIES, PRESETS):
        before = dict(table)
        request.addfinalizer(lambda table=table, before=before: (table.clear(), table.update(before)))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("example", ["add_a_policy"], indirect=True)
def test_a_policy_of_ones_own_is_trained_and_scored_by_the_command(example, capsys: pytest.CaptureFixture) -> None:
    assert example.demo("run", "100") == 0
    scores = json.loads(Path("run/evaluation.json").read_text())
    assert scores["agent"] == "AWR" and scores["return_mean"] > scores["behaviour"]["return_mean"]


@pytest.mark.parametrize("example", ["plan_on_your_own"], indirect=True)
def test_planning_in_an_environment_of_ones_own(example, capsys: pytest.CaptureFixture) -> None:
    assert example.main("run", 4, 1).read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.startswith("the data earn -4")
    assert main(["report", "run"]) == 0  # its class takes no render_mode
    assert "River-v0 cannot be rendered" in Path("run/report.html").read_text()


@pytest.mark.parametrize("example", ["draw_plans"], indirect=True)
def test_a_film_of_plans_shows_the_maze_and_the_way_to_the_goals(example, small_run: Path) -> None:
    with Image.open(example.main(str(small_run), "plans.gif", "2", "20")) as film:
        assert film.n_frames == 3 and film.size == (600, 600)


class Message:
    """As of std_msgs.msg.Float64MultiArray, whose data are an array of Python."""

    def __init__(self, data: list[float]):
        self.data = array("d", data)


class RosNode:
    """What a node of rclpy is told, kept."""

    def __init__(self, name: str):
        self.published: dict[str, list[Message]] = {}
        self.heard, self.timers = {}, {}

    def create_publisher(self, kind: type, topic: str, depth: int) -> SimpleNamespace:
        return SimpleNamespace(publish=self.published.setdefault(topic, []).append)

    def create_subscription(self, kind: type, topic: str, callback: Callable, depth: int) -> None:
        self.heard[topic] = callback

    def create_timer(self, period: float, callback: Callable) -> None:
        self.timers[period] = callback


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the parts of ROS 2 that the example imports."""
    parts = {"rclpy": {}, "rclpy.node": {"Node": RosNode},
             "std_msgs": {}, "std_msgs.msg": {"Float64MultiArray": Message}}
    for name, names in parts.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**names))


@pytest.mark.parametrize("deadline", [None, 10.0])
@pytest.mark.parametrize("example", ["act_in_ros2"], indirect=True)
def test_a_ros_node_answers_each_observation_once_with_the_action_of_the_agent(ros, example, small_run: Path,
                                                                               deadline: float | None) -> None:
    node = example.Acting(str(small_run), 0.1, deadline)
    tick, actions = node.timers[0.1], node.published["action"]
    node.heard["observation"](Message([1.0, 1.0, 0.0, 0.0]))
    tick()
    assert actions == []  # there is no goal yet
    node.heard["goal"](Message([2.0, 1.5]))
    tick()
    tick()
    run = gentraj.load(small_run)
    agent = run.agent(run.action_space())
    agent.reset([0])
    expected_1A = agent.act(torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.tensor([[2.0, 1.5]]))
    assert [list(action.data) for action in actions] == expected_1A.tolist()


@pytest.mark.parametrize("example", ["act_by_onnx"], indirect=True)
def test_a_loop_of_ones_own_is_told_what_is_far_from_the_data_and_acts_by_no_nan(
        example, hopper: gentraj.Episodes, hopper_run: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("onnxruntime")
    assert main(["export", str(hopper_run), "--out", "hopper.onnx"]) == 0
    controller = example.Controller("hopper.onnx")
    for obs in hopper.obs[:20]:
        assert controller.act(obs).shape == (3,) and not controller.far
    wrong = hopper.obs[0].copy()
    wrong[3] += 1000
    with pytest.warns(UserWarning, match=r"obs\[3\]") as warned:
        for _ in range(2):
            controller.act(wrong)
    assert len(warned) == 1 and controller.far
    wrong[3] = float("nan")
    with pytest.raises(ValueError, match="nan"):
        controller.act(wrong)
    example.main("hopper.onnx", "Hopper-v5", 1)
    assert capsys.readouterr().out.splitlines()[-1].startswith("episode 0: return ")


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of width 64 in the presets that examples train for long."""
    for name, settings in {
            "td3bc": {"policy.critic.width": 64, "policy.model.network.width": 64, "policy.batch_size": 64},
            "world-ensemble": {"world.width": 64}}.items():
        monkeypatch.setitem(gentraj.PRESETS, name, with_settings(gentraj.PRESETS[name], settings, name))


@pytest.mark.parametrize("example", ["mpc_in_a_world_model"], indirect=True)
def test_mpc_in_a_world_model_holds_a_pole(example, narrow, capsys: pytest.CaptureFixture) -> None:
    scores = example.demo("run", "300", "2")
    assert scores["return_mean"] > 3 * scores["random"]["return_mean"]
    assert f"MPC earns {scores['return_mean']:.1f}, random actions" in capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("stable_baselines3") is None, reason="needs stable-baselines3")
@pytest.mark.parametrize("example", ["train_in_a_world_model"], indirect=True)
def test_sac_trained_in_a_world_model_holds_a_pole(example, narrow, capsys: pytest.CaptureFixture) -> None:
    earned, behaviour = example.demo("run", "300")
    assert earned > 2 * behaviour
    assert f"the data's behaviour {behaviour:.1f}" in capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("stable_baselines3") is None, reason="needs stable-baselines3")
@pytest.mark.parametrize("example", ["train_in_a_world_model"], indirect=True)
def test_sac_trains_with_hindsight_on_data_with_goals(example, umaze) -> None:
    preset = gentraj.PRESETS["world-ensemble"]
    config = replace(preset, dataset=DATASET, world=replace(preset.world, width=16), training=TrainingConfig(20))
    run = gentraj.train(config, folder="run", progress=False)
    agent = example.learn_by_hindsight(run, 400, max_episode_steps=5)
    assert type(agent.model.replay_buffer).__name__ == "HerReplayBuffer" and agent.model._n_updates > 0
    assert agent.act(torch.zeros(1, 4), torch.ones(1, 2)).shape == (1, 2)
    with pytest.raises(ValueError, match="steps is 192; give more than 192"):
        example.learn_by_hindsight(run, 192, max_episode_steps=5)


@pytest.mark.parametrize("example", ["augment_a_small_dataset"], indirect=True)
def test_an_agent_learns_from_a_small_dataset_and_from_synthetic_steps(example, narrow,
                                                                       capsys: pytest.CaptureFixture) -> None:
    """Random actions let the pole fall in 5 steps; agents trained on them hold it for longer."""
    small, both = example.demo("run", "500", "250")
    assert min(small, both) > 15
    given, made = load_episodes("run-data.npz").num_steps, load_episodes("examples/run-v0").num_steps
    assert 450 < made - given < 600
    assert f"of the small data {small:.1f}, of both {both:.1f}" in capsys.readouterr().out


def test_the_notebook_of_first_steps_runs(umaze, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture) -> None:
    """Its cells one after the other, with small networks and less of everything that takes time."""
    notebook = json.loads((EXAMPLES / "first_steps.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert notebook["nbformat"] == 4 and not [cell for cell in cells if cell["outputs"] or cell["execution_count"]]
    code = "\n".join("".join(cell["source"]) for cell in cells)
    assert code.startswith("%pip install ") and code.count("\n%") == 0
    for large, little in ((r"^%.*", ""), (r"steps=3_000", "steps=2"), (r"episodes=20", "episodes=1")):
        code, count = re.subn(large, little, code)
        assert count == 1, large
    (tmp_path / "cells.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setitem(gentraj.PRESETS, "pointmaze-umaze", small_config())
    monkeypatch.setattr("gentraj.runs.show.report.drawn", lambda *_: [])  # a report's figures have tests of their own
    names = runpy.run_path("cells.py")
    said = capsys.readouterr().out
    assert f"planner     {names['scores']['return_mean']:7.1f}" in said and "report.html" in said
    assert len(names["axes"].lines) == 32 + 2
    names["plt"].close("all")
