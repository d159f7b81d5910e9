"""A world model's run as Gymnasium environments: why each episode ends, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_world import FREE, many, one, predict, pushes

from gentraj.envs.worlds.imagined import BOUNDS, NOT_FINITE, TIME_LIMIT, UNCERTAINTY
from gentraj.runs.kinds import environment as world_env

# -- why an episode ends


@pytest.mark.parametrize(("settings", "predicted", "why"), [
    ({"margin": 0.1, "max_uncertainty": 1e9}, {"obs_BTO": 1e6}, BOUNDS),
    ({"max_uncertainty": 1e-6, "margin": 1e9}, {}, UNCERTAINTY),
    ({"margin": 1e9, "max_uncertainty": 1e9, "max_episode_steps": 1}, {}, TIME_LIMIT)])
def test_an_episode_may_end_where_the_model_is_not_trusted(settings: dict[str, float], predicted: dict[str, float],
                                                           why: str, hopping: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reward is then the cost alone; the time limit still truncates."""
    ending, truncating = (world_env.make(hopping, termination_cost=cost, **settings) for cost in (5.0, None))
    seen = []
    for each in (ending, truncating):
        predict(monkeypatch, each, end_BT=0.0, reward_BT=1.0, **predicted)
        each.reset(seed=0)
        seen.append(each.step(pushes(1, 1, 3)[0, 0])[1:])
    (reward, terminated, truncated, info), (full_reward, _, is_truncated, _) = seen
    trusted = why == TIME_LIMIT
    assert (terminated, truncated, info["truncated_by"]) == (not trusted, trusted, why) and is_truncated
    assert reward == pytest.approx(full_reward if trusted else -5)


def test_a_predicted_end_terminates(hopping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = world_env.make(hopping, max_uncertainty=1e-6, max_episode_steps=1)
    predict(monkeypatch, env, end_BT=0.6)
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(pushes(1, 1, 3)[0, 0])
    assert (terminated, truncated) == (True, False) and "truncated_by" not in info


@pytest.mark.parametrize(("field", "value"), [("obs_BTO", np.nan), ("reward_BT", np.inf)])
def test_numbers_that_are_not_finite_truncate(field: str, value: float, hopping: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """The episode is truncated in the state before; the others go on."""
    env = many(hopping, 2, **FREE)
    predict(monkeypatch, env, end_BT=0.0)
    predict(monkeypatch, env, slice(0, 1), **{field: value})
    before, _ = env.reset(seed=0)
    obs, reward, terminated, truncated, info = env.step(pushes(1, 2, 3)[0])
    assert np.isfinite(obs).all() and np.isfinite(reward).all() and np.array_equal(obs[0], before[0])
    assert reward[0] == 0 and not terminated.any() and truncated.tolist() == [True, False]
    assert info["truncated_by"].tolist() == [NOT_FINITE, ""] and not np.array_equal(obs[1], before[1])
    obs, reward, *_ = env.step(pushes(1, 2, 3)[0])
    assert np.isfinite(obs).all() and reward[0] == 0


# -- what is refused


@pytest.mark.parametrize("make", [one, many])
@pytest.mark.parametrize("spoilt", ["narrow", "nan"])
def test_a_wrong_action_is_refused(make: Any, spoilt: str, hopping: Path) -> None:
    env: Any = make(hopping)
    env.reset(seed=0)
    act = np.zeros(env.action_space.shape, np.float32)
    wrong = {"narrow": act[..., 1:], "nan": act + np.nan}[spoilt]
    before = env.episodes.obs_BO.copy()
    with pytest.raises(ValueError, match=r"actions of shape .* finite ones of shape"):
        env.step(wrong)
    assert np.array_equal(env.episodes.obs_BO, before) and (env.episodes.elapsed_B == 0).all()
