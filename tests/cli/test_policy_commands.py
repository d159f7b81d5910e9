"""The commands with a policy: what they score, draw and sample, and what they say of what it cannot."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.spaces import Box
from small import changed, edit, gentraj

from gentraj import runs
from gentraj.agents.policies.bc import BCConfig
from gentraj.agents.policies.policy import Policy
from gentraj.agents.policies.scales import StateActionScales
from gentraj.cli import using
from gentraj.data import Episodes
from gentraj.families import ACTION_MODELS
from gentraj.runs import PolicyRunConfig
from gentraj.runs.judge.saved_scores import yardstick_returns
from gentraj.runs.kinds import presets
from gentraj.runs.kinds.presets import model_config, with_components


def test_a_policy_is_scored_beside_its_data_and_a_random_agent(hopper: Episodes, hopper_run: Path, tmp_path: Path,
                                                               capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "scores.json"
    assert gentraj("evaluate", hopper_run, "--episodes", 2, "--out", out) == 0
    scores, table = json.loads(out.read_text()), capsys.readouterr().out
    mean = hopper.returns.mean()
    score = 100 * (mean + 20.272305) / (3234.3 + 20.272305)
    assert scores["behaviour"] == {"episodes": 12, "return_mean": pytest.approx(mean),
                                   "reward_mean": pytest.approx(hopper.reward.mean(dtype=float)),
                                   "score_d4rl": pytest.approx(score), "score_minari": None}
    assert scores["score_d4rl"] == pytest.approx(100 * (scores["return_mean"] + 20.272305) / (3234.3 + 20.272305))
    assert scores["random"]["score_d4rl"] is not None and scores["controller"] is scores["success_rate"] is None
    assert (scores["agent"], scores["step"], scores["sampling"]) == ("BC, gaussian", 4, "one call of a Gaussian")
    assert table.splitlines()[1].split("  ")[-1].strip() == "random" and "behaviour" in table
    assert "controller" not in table and "success_rate" not in table and table.startswith("Hopper-v5, 2 episodes")


def test_data_that_are_no_whole_episodes_are_compared_by_the_reward_of_a_step(hopper_run: Path, tmp_path: Path,
                                                                               capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    shutil.copytree(hopper_run, run)
    edit(run, lambda config: config["data"]["returns"][0].update(mean=30.0, episodes=4, longest=5000, steps=240))
    assert gentraj("evaluate", run, "--episodes", 2) == 0
    out, err = capsys.readouterr()
    assert "not whole episodes" in err and "reward of a step" in err
    columns, *rows = (line[30:].split() for line in out.splitlines()[1:])
    reward = next(row for row in rows if "0.5" in row)
    assert columns.index("behaviour") - len(columns) == reward.index("0.5") - len(reward)
    assert "behaviour" not in yardstick_returns(json.loads((run / "evaluation.json").read_text()))


def test_episodes_that_do_not_finish_cost_themselves_only(hopper_run: Path, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch,
                                                          capsys: pytest.CaptureFixture) -> None:
    """FAULTS 35: evaluation.json says how many of how many episodes were scored, and why."""
    command = "evaluate", hopper_run, "--episodes", 4, "--num-envs", 2, "--no-baselines"
    assert gentraj(*command, "--out", tmp_path / "all.json") == 0
    real, begun = HopperEnv.reset, []

    def reset(self, **settings):
        begun.append(settings["seed"])
        self.step = (lambda action: sys.exit("no licence")) if len(begun) == 2 else partial(HopperEnv.step, self)
        return real(self, **settings)

    monkeypatch.setattr(HopperEnv, "reset", reset)
    assert gentraj(*command, "--out", tmp_path / "some.json") == 1
    whole, part = (json.loads((tmp_path / name).read_text()) for name in ("all.json", "some.json"))
    returns = whole["returns"]
    assert (whole["episodes"], whole["failures"], part["episodes"]) == (4, [], 3)
    assert part["returns"] == [returns[0], *returns[2:]]
    assert part["failures"] == [f"Hopper-v5, environment 1 (seed {begun[1]}), step 1: SystemExit: no licence"]
    printed = capsys.readouterr()
    assert "Hopper-v5, 3 of 4 episodes" in printed.out and "actions at a bound" in printed.out
    assert "gentraj: error: 1 of 4 episodes did not finish, and the scores are those of the others" in printed.err
    assert part["failures"][0] in printed.err


def test_a_report_of_a_policy_has_what_there_is_to_draw(hopper_run: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gentraj.envs.rendering.render_frame", lambda _: np.ones((8, 8, 3), np.uint8))  # seconds
    folder = shutil.copytree(hopper_run, tmp_path / "run")
    assert gentraj("evaluate", folder, "--episodes", 1) == 0
    assert gentraj("report", folder) == 0
    page = (folder / "report.html").read_text()
    for title in ("Loss", "Scores", "An episode", "behaviour", "BC, gaussian"):
        assert title in page
    assert "Denoising" not in page and "Samples" not in page and page.count("data:image/png;base64,") >= 2


@pytest.mark.filterwarnings("ignore:samples far outside the data")
def test_a_generator_of_actions_is_sampled_in_a_state(hopper_run: Path, tmp_path: Path) -> None:
    assert gentraj("sample", hopper_run, "--start", *[0.5] * 11, "--num", 3, "--out", tmp_path / "a.npz") == 0
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        obs, chunk = file["obs"], file["act"]
    assert (obs.shape, chunk.shape) == ((3, 1, 11), (3, 1, 3)) and (obs == 0.5).all()
    assert np.ptp(chunk, axis=0).min() > 0 and np.abs(chunk).max() <= 1


@pytest.mark.filterwarnings("ignore:samples far outside the data")
@pytest.mark.parametrize(("words", "message"), [
    (("sample", "RUN", "--start", *"00000000000", "--out", "a.npz"), "without a trajectory model"),
    (("measure", "RUN"), "a planner is expected"),
    (("train", "fql", "--model", "gan", "--dataset", "x"), "--policy.model.kind is 'gan'; known: "),
    (("train", "iql", "--model", "latent", "--dataset", "x"), "unknown model for this preset 'latent'")])
def test_what_a_policy_cannot_do_is_refused_in_one_line(words: tuple[str, ...], message: str, hopper_run: Path,
                                                        monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                        capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(hopper_run, "RUN")
    iql: Any = presets.PRESETS["iql"]
    without_model = Policy(iql.policy, StateActionScales.blank(11, 3, 0))
    bare = changed(runs.load(hopper_run), policy=without_model, folder=Path("RUN"))
    monkeypatch.setattr(using, "load_trained", lambda *_, **__: bare)
    assert gentraj(*words) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and message in err


def test_settings_of_a_planner_are_no_options_of_a_policy(hopper_run: Path, capsys: pytest.CaptureFixture) -> None:
    assert gentraj("evaluate", hopper_run, "--help") == 0
    printed = capsys.readouterr().out
    assert "--acting.temperature " in printed and "--acting.replan " not in printed
    run = runs.load(hopper_run)
    with pytest.raises(ValueError, match=r"given to a policy \(BC, gaussian\), which plans no"):
        run.agent(Box(-1, 1, (3,)), guide=lambda x: x.sum((1, 2)))


def test_a_family_and_a_network_are_those_of_the_generator() -> None:
    config = with_components(presets.PRESETS["iql"], "flow", None)
    assert model_config(config) == ACTION_MODELS["flow"]
    other: Any = model_config(with_components(PolicyRunConfig(policy=BCConfig()), None, "dit"))
    assert type(other.network).__name__ == "DiTConfig"
    assert with_components(config, None, "residualmlp") == config  # its own settings stay
