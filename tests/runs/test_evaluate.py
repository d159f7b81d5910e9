"""`evaluate` scores a run, the folder of one, and any agent, in one form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gentraj
from gentraj.envs import RandomAgent, environment_factory

SHORT = environment_factory("PointMaze_UMaze-v3", {"max_episode_steps": 30}).spec_json


class Still:
    def act(self, obs_BO: np.ndarray) -> np.ndarray:
        return np.zeros((len(obs_BO), 1))


def still(obs_BO: np.ndarray) -> np.ndarray:
    return np.zeros(len(obs_BO))


@pytest.mark.parametrize(("agent", "name"), [(Still(), "Still"), (still, "still"), (RandomAgent(-1, 1), "RandomAgent")])
def test_an_agent_of_one_s_own_has_scores_episodes_and_a_table(agent: Any, name: str, tmp_path: Path) -> None:
    scores = gentraj.evaluate(agent, "tests/Follow-v0", 3, seed=5, out=tmp_path / "scores.json", progress=False)
    assert scores.recorded.returns == pytest.approx(scores["returns"], rel=1e-5)
    assert json.loads((tmp_path / "scores.json").read_text()) == scores
    head, columns, *rows = str(scores).splitlines()
    assert head == "tests/Follow-v0, 3 episodes" and columns.split() == [name, "random"]
    assert any(row.startswith("return (mean") and row.split()[-2] == f"{scores['return_mean']:.4g}" for row in rows)


def test_the_factory_of_an_environment_stands_for_it_with_its_time_limit() -> None:
    factory = environment_factory("tests/Follow-v0", max_episode_steps=2)
    scores = gentraj.evaluate(still, factory, 3, baselines=False, progress=False)
    assert scores["env_id"] == "tests/Follow-v0" and scores.recorded.lengths.tolist() == [2, 2, 2]


def test_an_interval_without_width_is_not_taken_for_certainty() -> None:
    """Who stands still for 30 steps of UMaze never reaches the goal; episodes of Follow-v0 return other sums."""
    at_rest = gentraj.evaluate(lambda obs_BO, goal_BG: np.zeros((len(obs_BO), 2)), SHORT, 10, baselines=False,
                               progress=False)
    follows = gentraj.evaluate(still, "tests/Follow-v0", 10, baselines=False, progress=False)
    assert "no width" in str(at_rest) and "no width" not in str(follows)


def test_a_run_is_scored_as_its_folder_is_and_keeps_its_scores(small_run: Path, tmp_path: Path) -> None:
    run = gentraj.load(small_run)
    options: dict[str, Any] = {"seed": 3, "baselines": False, "progress": False}
    given = [run.evaluate(SHORT, 2, out=tmp_path / "a.json", **options),
             gentraj.evaluate(small_run, SHORT, 2, out=str(tmp_path / "b.json"), **options)]
    assert given[0]["returns"] == given[1]["returns"] and given[0].recorded == given[1].recorded
    assert given[0]["agent"] == run.summary and f"{run.summary:>18}" in str(given[0])
    run.folder = tmp_path
    scores = run.evaluate(SHORT, 1, **options)
    assert json.loads((tmp_path / "evaluation.json").read_text())["returns"] == scores["returns"]


@pytest.mark.parametrize(("options", "expected"), [
    ({"env": None}, "give env="), ({"sede": 3}, "did you mean 'seed'"), ({"env_id": "Pendulum-v1"}, "'env'"),
    ({"episodes": 0}, "episodes"), ({"acting": gentraj.Acting()}, "acting= says how a run acts")])
def test_what_an_agent_cannot_be_scored_by_is_named(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        gentraj.evaluate(still, **{"env": "tests/Follow-v0", "progress": False} | options)
