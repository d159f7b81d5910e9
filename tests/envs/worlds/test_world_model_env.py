"""World models as Gymnasium environments: single and vector environments agree, and goals are those of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from small import DATASET
from tiny_world import FREE, ID, many, one, predict, pushes, train

from gentraj import runs
from gentraj.data import Episodes
from gentraj.envs.worlds.imagined import WorldModelVectorEnv
from gentraj.runs.kinds import environment as world_env


def rolled(env: WorldModelVectorEnv, seed: int | list[int], acts: np.ndarray) -> list[np.ndarray]:
    """Returns observations, rewards and flags, (steps, B, ...) each; the first row is the reset."""
    obs, zeros = env.reset(seed=seed)[0], np.zeros(env.num_envs)
    rows = [(obs, zeros, zeros > 0, zeros > 0), *(env.step(act)[:4] for act in acts)]
    flat = [(np.concatenate(list(obs.values()), 1) if isinstance(obs, dict) else obs, *rest) for obs, *rest in rows]
    return [np.stack(part) for part in zip(*flat, strict=True)]


# -- Gymnasium


@pytest.mark.filterwarnings("ignore:.*A Box observation space (min|max)imum value is -?infinity",
                            "ignore:.*we recommend using a symmetric and normalized space")
def test_gymnasium_finds_nothing_wrong(walking: Path) -> None:
    env = gymnasium.make(ID, run=walking, **FREE)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_the_real_environment_gives_action_space_and_time_limit_where_the_data_name_it(hopping: Path) -> None:
    env, real = one(hopping), gymnasium.make("Hopper-v5")
    assert env.action_space == real.action_space and env.observation_space.shape == real.observation_space.shape
    assert env.episodes.config.max_episode_steps == real.spec.max_episode_steps == 1000  # type: ignore[union-attr]
    assert many(hopping, max_episode_steps=7).episodes.config.max_episode_steps == 7
    real.close()


# -- one and many


def test_environment_i_is_the_single_one_with_seed_plus_i(walking: Path) -> None:
    """They agree in every step, through the ends and starts of episodes."""
    seed, settings = 5, {"max_episode_steps": 6, **FREE}
    env, single = many(walking, **settings), world_env.make(walking, **settings)
    acts = pushes(20, 4, 2)
    obs, reward, terminated, truncated = rolled(env, seed, acts)
    flat = lambda x: np.concatenate(list(x.values()))  # noqa: E731
    lengths = []
    for i in range(4):
        assert np.array_equal(flat(single.reset(seed=seed + i)[0]), obs[0, i])
        ended, steps = False, 0
        for t, act in enumerate(acts[:, i], 1):
            step = (single.reset()[0], 0.0, False, False) if ended else single.step(act)[:4]
            assert np.array_equal(flat(step[0]), obs[t, i])
            assert step[1:] == (reward[t, i], terminated[t, i], truncated[t, i])
            steps = 0 if ended else steps + 1
            ended = step[2] or step[3]
            lengths += [steps] if ended else []
    assert max(lengths) == 6  # they are not all over at once


def test_a_mask_resets_some_and_leaves_the_others(walking: Path) -> None:
    env = many(walking, **FREE)
    env.reset(seed=0)
    before = env.step(pushes(1, 4, 2)[0])[0]
    after = env.reset(options={"reset_mask": np.array([True, False, False, True])})[0]
    moved = (before["observation"] != after["observation"]).any(1)
    assert moved.tolist() == [True, False, False, True]
    for wrong in ({"seed": [1, 2]}, {"options": {"reset_mask": [True]}}):
        with pytest.raises(ValueError, match="were given for 4 environments"):
            env.reset(**wrong)  # type: ignore[arg-type]
    assert env.episodes.elapsed_B.tolist() == [0, 1, 1, 0]


def test_a_step_is_a_prediction_of_the_world_model(hopping: Path) -> None:
    """It equals `imagine`, in environment units; at temperature 0 the seed does not matter."""
    env = one(hopping, temperature=0.0, **FREE)
    start, _ = env.reset(seed=0)
    act = pushes(1, 1, 3)[0]
    obs, reward, *_, info = env.step(act[0])
    made = runs.load(hopping).world_model.imagine(torch.from_numpy(start)[None], torch.from_numpy(act)[:, None],
                                                  seeds=[0], temperature=0.0)
    assert np.array_equal(obs, made.obs_BTO[0, 0].numpy())
    assert (reward, info["uncertainty"]) == (made.reward_BT.item(), made.uncertainty_BT.item())


# -- goals


@pytest.mark.parametrize("num_envs", [0, 3], ids=["one", "many"])
def test_goals_are_those_of_the_data(num_envs: int, walks: Episodes, walking: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    env: Any = many(walking, num_envs, **FREE) if num_envs else one(walking, **FREE)
    predict(monkeypatch, env, end_BT=0.0)
    goals, shape = {row.tobytes() for row in walks.extras["goal"]}, env.action_space.shape
    obs, _ = env.reset(seed=0)
    seen = [obs] + [env.step(np.zeros(shape, np.float32))[0] for _ in range(4)]
    for each in seen:
        assert each in env.observation_space and set(each) == {"observation", "achieved_goal", "desired_goal"}
        assert np.array_equal(each["achieved_goal"], each["observation"][..., [0, 1]])
        assert np.array_equal(each["desired_goal"], obs["desired_goal"])  # it stays for the episode
    assert {row.tobytes() for row in np.atleast_2d(obs["desired_goal"])} <= goals


def test_rewards_may_be_those_of_the_environments_compute_reward(umaze: Episodes, tmp_path: Path) -> None:
    """The reward is 1 for a goal within 0.45 of the predicted position."""
    env = many(train(Path(DATASET), tmp_path / "run"), 64, own_rewards=True, temperature=0.0, **FREE)
    env.reset(seed=0)
    away_B2 = np.random.default_rng(0).uniform(-0.5, 0.5, (64, 2))
    env.episodes.place(env.episodes.obs_BO, env.episodes.obs_BO[:, :2] + away_B2)
    obs, reward, *_ = env.step(np.zeros((64, 2), np.float32))
    apart = np.linalg.norm(obs["achieved_goal"] - obs["desired_goal"], axis=1)
    assert np.array_equal(reward, apart <= 0.45) and 0 < reward.sum() < 64
    assert np.array_equal(env.compute_reward(obs["achieved_goal"], obs["desired_goal"], {}), reward)
