"""An entry of an action that never varies in the data stays as it is, whatever acts: nothing was learned of others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from gentraj.agents.policies.expo import ExpoConfig
from gentraj.config import from_json, to_json
from gentraj.data import ContextConfig, Episodes
from gentraj.envs.making import EnvironmentFactory
from gentraj.families import FAMILIES
from gentraj.runs.kinds.policy_run import PolicyRun
from gentraj.runs.kinds.presets import PRESETS
from gentraj.runs.kinds.run import DataFacts, Run, copy_of, of_kind
from gentraj.runs.learn import finetuning
from gentraj.runs.learn.finetuning import FinetuneConfig, Player
from gentraj.runs.learn.training import prepare
from gentraj.trajectory import Condition

SPACE = Box(-np.ones(3, np.float32), np.ones(3, np.float32))


def data() -> Episodes:
    rng, end = np.random.default_rng(0), np.arange(400) % 20 == 19
    act = np.column_stack([rng.uniform(-1, 1, 400), np.full(400, 0.7), np.full(400, 3.0)])
    return Episodes(rng.normal(size=(420, 2)).cumsum(0), act, rng.normal(size=400), np.zeros(400, bool), end,
                    np.full(20, 20))


def untrained(monkeypatch: pytest.MonkeyPatch, preset: str, **changes: Any) -> Run:
    """A run whose weights are random, so that nothing but its data can hold an action."""
    monkeypatch.setattr("gentraj.runs.kinds.datasets.load_episodes", lambda name: data())
    return prepare(replace(PRESETS[preset], dataset="held.npz", **changes))[0].ready(None)


@pytest.mark.parametrize("preset", ["veteran", "veteran+", "world-ensemble", "iql"])
def test_what_never_varies_stays_whatever_acts(monkeypatch: pytest.MonkeyPatch, preset: str) -> None:
    run = untrained(monkeypatch, preset)
    config: Any = run.config
    if preset == "world-ensemble":
        run.acting = replace(config.control, horizon=3, samples=8)
    act_BA = run.agent(SPACE).act(torch.from_numpy(data().obs[:6]))
    assert act_BA[:, 1:].tolist() == torch.tensor([[0.7, 1.0]]).expand(6, 2).tolist()  # 3.0 lies outside of the space
    assert len(act_BA[:, 0].unique()) > 1


def test_neither_does_exploration_move_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fine-tuning would attribute what came of it to the other entries."""
    run = of_kind(untrained(monkeypatch, "bc-flow", policy=ExpoConfig()), PolicyRun)
    monkeypatch.setattr(EnvironmentFactory, "spec_json", "")
    monkeypatch.setattr(finetuning, "environment_factory", lambda env: EnvironmentFactory(env, {}, 20))
    monkeypatch.setattr(Run, "action_space", lambda self, env=None: SPACE)
    agent = Player(run, "Own-v0", FinetuneConfig(noise=0.5), Path(), False).exploring()
    agent.reset([*range(6)])
    act_BA = agent.act(torch.from_numpy(data().obs[:6]))
    assert act_BA[:, 1:].tolist() == torch.tensor([[0.7, 1.0]]).expand(6, 2).tolist()
    assert len(act_BA[:, 0].unique()) == 6


def test_the_facts_name_what_never_varies() -> None:
    facts = DataFacts.of(data(), ContextConfig())
    assert facts.constant_actions == (None, pytest.approx(0.7), 3.0) and from_json(DataFacts, to_json(facts)) == facts
    varying = DataFacts.of(replace(data(), act=data().act + np.random.default_rng(1).normal(size=(400, 3))),
                           ContextConfig())
    assert varying.constant_actions == () and varying.allowed(SPACE) is SPACE


@pytest.mark.parametrize("family", ["diffusion", "gan", "latent", "gaussian", "mip"])
def test_an_observation_that_never_varies_stays_in_plans(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    episodes = data()
    episodes = replace(episodes, obs=np.column_stack([episodes.obs, np.full(len(episodes.obs), 0.1, np.float32)]))
    monkeypatch.setattr("gentraj.runs.kinds.datasets.load_episodes", lambda name: episodes)
    config: Any = replace(PRESETS["diffuser"], dataset="held.npz", model=FAMILIES[family], horizon=8)
    run: Any = copy_of(prepare(config)[0])  # with weights that are read, as those of a checkpoint
    start = Condition.empty(run.model.spec).with_obs(0, torch.from_numpy(episodes.obs[0]))
    obs_BNHO, act_BNHA = run.model.spec.split(run.model.sample(start, 4, seed=0))
    assert (obs_BNHO[..., 2] == obs_BNHO[0, 0, 0, 2]).all() and len(obs_BNHO[..., 1].unique()) > 4
    assert (act_BNHA[..., 2] == 3.0).all() and len(act_BNHA[..., 0].unique()) > 4
