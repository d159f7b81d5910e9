"""A world model with a history: however its steps are asked for, it remembers the same of each episode."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from test_world_model import TINY, asked, linear
from test_world_runs import tiny

from gentraj import runs
from gentraj.agents.mpc import WorldModelSimulator
from gentraj.data import ContextConfig, Windows
from gentraj.envs.worlds.branches import from_data
from gentraj.envs.worlds.imagined import ImaginedConfig, ImaginedEpisodes
from gentraj.randomness import generator
from gentraj.runs.kinds.environment import make_vec
from gentraj.runs.kinds.run import of_kind
from gentraj.runs.kinds.world_run import WorldModelRun
from gentraj.training.step import TrainingStep
from gentraj.trajectory import TrajectorySpec
from gentraj.worlds.facts import WorldFacts
from gentraj.worlds.model import WorldModel, WorldModelConfig

LENGTHS = [9, 40, 2, 30]
MEMORY = TrajectorySpec(3, 2, 1, history=3, past_actions=1)


@pytest.fixture(scope="module")
def world() -> WorldModel:
    e, config = linear(LENGTHS), WorldModelConfig(model=None, chunk=1, **TINY)
    made = WorldModel(3, 2, config, WorldFacts.fit(e, ContextConfig(), 1, MEMORY), MEMORY)
    windows, optimizers = Windows(e, made.spec), made.optimizers()
    for step in range(3):
        made.update(TrainingStep(windows.batch(step, 0, 32), optimizers, generator(0, step)))
    return made.eval()


def test_many_steps_of_one_call_are_those_of_many_calls_and_of_episodes(world: WorldModel) -> None:
    obs_BO, act_BTA = asked(4, 5)
    together = world.imagine(obs_BO, act_BTA, seeds=range(4), temperature=0.0)
    past_BPD = world.spec.beginning(obs_BO)
    episodes = ImaginedEpisodes(world, 4, ImaginedConfig(temperature=0.0, margin=1e9))
    episodes.place(obs_BO.numpy(), np.zeros((4, 0)))
    now_BO = obs_BO
    for t in range(5):
        made = world.imagine(now_BO, act_BTA[:, t : t + 1], seeds=range(4), temperature=0.0, past_BPD=past_BPD)
        past_BPD = torch.cat([past_BPD, world.spec.join(now_BO, act_BTA[:, t])[:, None]], 1)[:, 1:]
        now_BO = made.obs_BTO[:, 0]
        episodes.step(act_BTA[:, t].numpy(), np.ones(4, bool))
        torch.testing.assert_close(now_BO, together.obs_BTO[:, t])
        torch.testing.assert_close(torch.from_numpy(episodes.obs_BO), now_BO)
        assert episodes.past_BPD is not None
        torch.testing.assert_close(torch.from_numpy(episodes.past_BPD), past_BPD)
    other = world.imagine(obs_BO, act_BTA[:, :1], seeds=range(4), temperature=0.0, past_BPD=past_BPD)
    assert not torch.allclose(other.obs_BTO, together.obs_BTO[:, :1])  # what it remembers matters
    with pytest.raises(ValueError, match=r"shape \(4, 1, 5\), were given; \(4, 2, 5\)"):
        world.imagine(obs_BO, act_BTA, seeds=range(4), past_BPD=past_BPD[:, 1:])


def test_a_simulator_is_given_what_an_agent_sees(world: WorldModel) -> None:
    obs_BO, act_BTA = asked(4, 5)
    past_BPD = torch.randn(4, 2, 5)
    seen_BW = world.spec.seen(obs_BO, past_BPD)
    found_BO, found_BPD = world.spec.past_of(seen_BW)
    assert torch.equal(found_BO, obs_BO) and torch.equal(world.spec.seen(found_BO, found_BPD), seen_BW)
    made = world.imagine(obs_BO, act_BTA, seeds=[0] * 4, temperature=0.0, past_BPD=past_BPD)
    alive_BT = torch.cat([torch.ones(4, 1), (1 - made.end_BT).cumprod(1)[:, :-1]], 1)
    expected = (made.reward_BT * alive_BT).sum(1, keepdim=True)
    torch.testing.assert_close(WorldModelSimulator(world)(seen_BW, act_BTA[:, None]), expected)


def test_episodes_and_branches_start_after_the_steps_of_the_data(world: WorldModel) -> None:
    e = linear(LENGTHS)
    rows = {tuple(row): i for i, row in enumerate(e.obs.tolist())}
    starts = from_data(e, 3, None, MEMORY)(range(50))
    anywhere = ImaginedEpisodes(world, 1, ImaginedConfig(starts="anywhere"))
    for obs_BO, past_BPD in ((starts.obs_BO, starts.past_BPD), (anywhere.starts_NO, anywhere.pasts_NPD)):
        assert past_BPD is not None and past_BPD.shape[1:] == (2, 5)
        for obs_O, past_PD in zip(obs_BO.tolist(), past_BPD, strict=True):
            row = rows[tuple(obs_O)]
            first = max(i for i in np.cumsum([0, *(e.lengths + 1)])[:-1] if i <= row)
            assert np.array_equal(past_PD[:, :3], e.obs[[max(row - 2, first), max(row - 1, first)]])


def test_a_run_remembers_in_its_environment_and_in_its_control(hopper_file: Path, tmp_path: Path) -> None:
    config = replace(tiny(hopper_file, model=None), history=2, past_actions=2)
    run = of_kind(runs.train(config, folder=tmp_path, progress=False), WorldModelRun)
    loaded = of_kind(runs.load(tmp_path), WorldModelRun)
    assert loaded.world_model.spec == run.world_model.spec and loaded.world_model.spec.past == 2
    envs = make_vec(loaded, 3)
    obs, _ = envs.reset(seed=0)
    agent = loaded.agent(Box(-1, 1, (3,)))
    agent.reset([0, 1, 2])
    for _ in range(3):
        obs, *_ = envs.step(agent.act(torch.as_tensor(obs)).numpy())
    assert np.isfinite(obs).all()
