"""Vector environments with stable-baselines3's interface behave as its DummyVecEnv, and its agents train in them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from gentraj.data import ContextConfig, Episodes
from gentraj.envs.worlds.imagined import ImaginedConfig, ObservationFormat, WorldModelEnv, WorldModelVectorEnv
from gentraj.worlds.facts import WorldFacts
from gentraj.worlds.model import WorldModel, WorldModelConfig

stable_baselines3 = pytest.importorskip("stable_baselines3")
from stable_baselines3.common.vec_env import DummyVecEnv  # noqa: E402

from gentraj.envs.sb3_vector import SB3Vector  # noqa: E402

SPACE = Box(-1, 1, (1,), np.float32)


def near(achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
    return np.float32(np.linalg.norm(achieved - desired, axis=-1) < 0.5)


def imagined(num_envs: int = 3, goals: bool = False, **settings: Any) -> WorldModelVectorEnv:
    """Makes environments of an untrained world model."""
    rng, end = np.random.default_rng(0), np.ones(50, bool)
    extras = {"goal": rng.normal(size=(100, 1))} if goals else {}
    data = Episodes(rng.normal(size=(100, 3)), rng.uniform(-1, 1, (50, 1)), np.zeros(50), end, ~end, np.ones(50, int),
                    extras=extras)
    facts = WorldFacts.fit(data, ContextConfig(("goal",) if goals else ()), 1)
    torch.manual_seed(0)
    world = WorldModel(3, 1, WorldModelConfig(model=None, members=2, width=8, depth=1), facts)
    obs_format = ObservationFormat((0,), (), near) if goals else ObservationFormat()
    return WorldModelVectorEnv(world, SPACE, num_envs, ImaginedConfig(**settings), obs_format=obs_format)


class WithInfo(gymnasium.Wrapper):
    """Adds entries to the info of a reset and of every third step."""

    def reset(self, **kwargs):
        obs, _ = self.env.reset(**kwargs)
        return obs, {"length": self.env.length}

    def step(self, action):
        *happened, info = self.env.step(action)
        extra = {"third": self.env.count, "of": {"length": self.env.length}} if self.env.count % 3 == 0 else {}
        return *happened, info | extra


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_it_is_as_stable_baselines_own(counter, mode: AutoresetMode) -> None:
    make = [lambda: WithInfo(counter())] * 4
    ours, theirs = SB3Vector(SyncVectorEnv(make, autoreset_mode=mode)), DummyVecEnv(make)
    assert ours.seed(5) == theirs.seed(5) == [5, 6, 7, 8]
    assert (ours.reset() == theirs.reset()).all() and ours.reset_infos == theirs.reset_infos
    rng, ended, kinds = np.random.default_rng(0), 0, set()
    for _ in range(40):
        act = rng.uniform(-1, 1, (4, 1)).astype(np.float32)
        (obs, reward, done, infos), expected = ours.step(act), theirs.step(act)
        assert (obs == expected[0]).all() and (reward == expected[1]).all() and (done == expected[2]).all()
        assert reward.dtype == np.float32 and done.dtype == bool
        assert all(map(same, infos, expected[3])) and all(map(same, ours.reset_infos, theirs.reset_infos))
        ended += done.sum()
        kinds |= {infos[i]["TimeLimit.truncated"] for i in np.flatnonzero(done)}
        assert (obs[done, 0] == 0).all()
    assert ended > 15 and kinds == {True, False}
    ours.close()


def test_last_observations_are_not_overwritten(counter) -> None:
    envs, kept = SB3Vector(SyncVectorEnv([counter] * 2, copy=False)), []
    envs.seed(0)
    envs.reset()
    for _ in range(20):
        infos = envs.step(np.zeros((2, 1), np.float32))[3]
        kept += [info["terminal_observation"] for info in infos if "terminal_observation" in info]
    assert len(kept) > 3 and all(count == length for count, length in kept)


def test_an_environment_that_starts_anew_by_itself_is_refused(counter) -> None:
    with pytest.raises(ValueError, match="make it with autoreset_mode NEXT_STEP or DISABLED"):
        SB3Vector(SyncVectorEnv([counter], autoreset_mode=AutoresetMode.SAME_STEP))


@pytest.mark.parametrize("goals", [False, True])
def test_a_world_models_episodes_end_and_begin_in_one_step(goals: bool) -> None:
    envs = SB3Vector(imagined(goals=goals, max_episode_steps=4, max_uncertainty=1e9, margin=1e9))
    starts = envs.envs.episodes.starts_NO  # type: ignore[attr-defined]
    flat = lambda obs: obs["observation"] if goals else obs  # noqa: E731
    envs.seed(0)
    envs.reset()
    for _ in range(12):
        obs, _, done, infos = envs.step(np.zeros((3, 1), np.float32))
        assert ((flat(obs)[:, None] == starts).all(-1).any(1) == done).all()
        for i in range(3):
            assert ("terminal_observation" in infos[i]) == done[i]
            assert ("truncated_by" in infos[i]) == infos[i]["TimeLimit.truncated"]
            assert not done[i] or (flat(infos[i]["terminal_observation"]) != flat(obs)[i]).any()


def test_an_achieved_goal_that_the_data_joined_with_the_observation_is_apart_from_it_again() -> None:
    """As in an AntMaze, which does not observe where the ant is."""
    world = imagined(goals=True).episodes.world
    obs_format = ObservationFormat((0,), ("achieved_goal", "observation"))
    many = WorldModelVectorEnv(world, SPACE, 2, obs_format=obs_format)
    one = WorldModelEnv(WorldModelVectorEnv(world, SPACE, obs_format=obs_format))
    obs, _ = many.reset(seed=0)
    whole_BO = np.concatenate([obs["achieved_goal"], obs["observation"]], 1)
    assert np.array_equal(whole_BO, many.episodes.obs_BO) and obs in many.observation_space
    assert np.array_equal(one.reset(seed=0)[0]["observation"], obs["observation"][0])
    assert one.observation_space == many.single_observation_space


def test_hindsight_replay_asks_the_environment_for_its_rewards() -> None:
    """Replayed goals are often those that an episode has reached, with the rewards for reaching them."""
    envs = SB3Vector(imagined(4, True, max_episode_steps=5))
    model = stable_baselines3.SAC("MultiInputPolicy", envs, replay_buffer_class=stable_baselines3.HerReplayBuffer,
                                  learning_starts=64, seed=0, device="cpu", policy_kwargs={"net_arch": [16]})
    batch = model.learn(128).replay_buffer.sample(256)
    seen = [batch.next_observations[key].numpy() for key in ("achieved_goal", "desired_goal")]
    assert np.array_equal(batch.rewards.numpy()[:, 0], near(*seen, {})) and 64 < batch.rewards.sum() < 256
