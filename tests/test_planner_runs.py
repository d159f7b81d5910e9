"""Planners for returns: their critic is trained, saved and asked as the other parts are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from agents.plan_critic import PlanCritic
from agents.planner import Planner, PlannerConfig
from gentraj import presets, runs
from gentraj.networks import ResidualMLPConfig
from gentraj.runs import RunConfig
from gentraj.training import TrainingConfig


@pytest.mark.parametrize("name", ["veteran", "veteran+", "diffuser"])
def test_a_planner_for_returns_is_trained_loaded_and_acts(name: str, hopper_file: Path, tmp_path: Path) -> None:
    config = presets.PRESETS[name]
    assert isinstance(config, RunConfig)
    config = replace(config, dataset=str(hopper_file), model=config.model.with_network(ResidualMLPConfig(16, 1)),
                     training=TrainingConfig(steps=2))
    made = runs.train(config, tmp_path / "run", progress=False)
    loaded = runs.load(tmp_path / "run")
    obs, space = torch.zeros(3, 11), Box(-np.ones(3, np.float32), np.ones(3, np.float32))
    acts = []
    for run in (made, loaded):
        assert isinstance(run.parts["critic"], PlanCritic)
        agent = run.agent(space)
        assert isinstance(agent, Planner) and agent.critic is run.parts["critic"]
        agent.reset(None, [1, 2, 3])
        acts.append(agent.act(obs))
    assert torch.equal(*acts) and acts[0].shape == (3, 3) and not torch.equal(acts[0][0], acts[0][1])


@pytest.mark.parametrize("key", ["select", "guidance"])
def test_a_planner_that_asks_a_critic_has_to_train_one(key: str) -> None:
    with pytest.raises(ValueError, match=f"planner.{key} is 'value'.*set valued too"):
        RunConfig(planner=PlannerConfig("fixed", **{key: "value"}))  # type: ignore[arg-type]
