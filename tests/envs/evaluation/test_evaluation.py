"""The scores of evaluation.json are well defined, and its baselines run on the same starts."""

import json
from dataclasses import replace

import gymnasium
import numpy as np
import pytest

from gentraj.data import Episodes
from gentraj.envs.evaluation import scoring
from gentraj.envs.evaluation.rollout import Rollout, RolloutSettings, rollout
from gentraj.envs.evaluation.scores import DataReturns, score_behaviour
from gentraj.envs.evaluation.scoring import (
    EvaluationConfig,
    _play_tasks,
    bootstrap_interval,
    punctuality,
    score_agent,
    summarize,
)
from gentraj.envs.evaluation.stepping import EnvironmentFault
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import RandomAgent, WaypointController

KEYS = {"env_id", "episodes", "seeds", "return_mean", "return_iqm", "return_ci95", "reward_mean", "success_rate",
        "first_hit_median", "time_at_goal_mean", "score_d4rl", "score_minari", "latency_ms_p50", "latency_ms_p99",
        "network_calls_per_decision", "returns", "successes", "controller", "random", "clipped_actions",
        "clamped_observations", "failures"}


def played(returns, first_hit):
    returns, first_hit = np.array(returns, float), np.array(first_hit, float)
    return Rollout("PointMaze_UMaze-v3", list(range(len(returns))), returns, np.isfinite(first_hit), first_hit,
                   returns.astype(int), np.full(len(returns), 300), np.array([1.0]), None)


def test_the_result_has_the_documented_keys_and_is_json():
    config = EvaluationConfig(episodes=2, num_envs=2, seed=4)
    result, recorded = score_agent(RandomAgent([-1, -1], [1, 1]), "pointmaze-umaze", config, progress=False)
    assert recorded.lengths.tolist() == [300, 300] and recorded.returns.mean() == result["return_mean"]
    assert result["seeds"] == [4]
    assert set(result) == KEYS and json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["random"]["return_mean"] == result["return_mean"]  # the same seeds on the same starts
    assert result["controller"]["success_rate"] == 1 and result["network_calls_per_decision"] is None


def test_statistics_against_hand_calculation():
    scores = summarize(played([0, 100, 200, 300], [np.inf, 7, 5, 6]), environment_factory("pointmaze-umaze"))
    assert (scores["return_mean"], scores["return_iqm"], scores["success_rate"]) == (150, 150, 0.75)
    assert (scores["first_hit_median"], scores["time_at_goal_mean"]) == (6.5, 150)
    assert scores["score_minari"] == pytest.approx(100 * (150 - 11.1) / (212.8 - 11.1))
    outlier = summarize(played([0, 1, 1, 1000], [np.inf, np.inf, np.inf, 1]), environment_factory("pointmaze-umaze"))
    assert outlier["return_iqm"] == 1 and outlier["first_hit_median"] is None


def test_a_deadline_holds_for_one_environment(monkeypatch):
    config = EvaluationConfig(episodes=2, baselines=False, deadline_ms=1e6)
    seen = []

    def play(agent, factory, episodes, seed, settings, **options):
        seen.append(settings)
        return rollout(agent, factory, episodes, seed, settings, **options)

    monkeypatch.setattr(scoring, "rollout", play)
    result, _ = score_agent(RandomAgent([-1], [1]), "Pendulum-v1", config, progress=False)
    assert (result["deadline"]["acts"], result["deadline"]["misses"]) == (400, 0)
    late = punctuality(np.array([5.0, 1.0, 5.1, 3.0]), 5.0)
    assert (late["misses"], late["miss_rate"], late["act_ms_p50"], late["act_ms_worst"]) == (1, 0.25, 4.0, 5.1)
    assert (seen[0].num_envs, seen[0].batch_invariant, seen[0].period) == (1, False, 1000)
    for wrong in (0, np.nan):
        with pytest.raises(ValueError, match="deadline_ms"):
            EvaluationConfig(deadline_ms=wrong)


class Reaching(gymnasium.Env):
    """A goal that is reached in the second of three steps; the rewards of the steps and the last info are given."""

    observation_space = gymnasium.spaces.Dict(dict.fromkeys(
        ("observation", "desired_goal"), gymnasium.spaces.Box(-1, 1, (1,), np.float32)))
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    seen = dict.fromkeys(("observation", "desired_goal"), np.zeros(1, np.float32))

    def __init__(self, rewards, last_info):
        self.rewards, self.last_info = rewards, last_info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = -1
        return self.seen, {}

    def step(self, action):
        self.at += 1
        return self.seen, self.rewards[self.at], False, self.at == 2, self.last_info if self.at == 2 else {}


@pytest.mark.parametrize(("rewards", "last_info", "success", "at_goal"), [
    ((0.0, 1.0, 1.0), {}, True, 2), ((0.0, 0.0, 0.0), {}, False, 0), ((-0.1, 1.0, -0.1), {}, True, 1),
    ((-1.0, 0.0, 0.0), {}, None, None), ((0.5, 0.6, 0.6), {"is_success": False}, False, 0),
    ((0.5, 0.6, 0.6), {"is_success": True}, True, 1), ((-1.0, 0.0, 0.0), {"success": True}, True, 1)])
def test_rewards_tell_a_success_only_where_they_are_positive_and_no_info_does(rewards, last_info, success, at_goal):
    """With rewards of -1 and 0 the goal was reached in no episode, and with an info at the end only in each one."""
    played = rollout(RandomAgent([-1], [1]), lambda: Reaching(rewards, last_info), 2, progress=False)
    scores = summarize(played, environment_factory("Pendulum-v1"))
    assert (scores["success_rate"], scores["time_at_goal_mean"]) == (success, at_goal)


def test_the_interval_holds_the_mean_of_a_normal_sample_95_times_in_100():
    rng = np.random.default_rng(0)
    bounds = [bootstrap_interval(rng.normal(3, 1, 50)) for _ in range(200)]
    assert 0.88 < np.mean([low < 3 < high for low, high in bounds]) < 0.99
    assert bootstrap_interval(np.array([5.0])) == [5, 5]


@pytest.mark.parametrize(("env", "overrides", "protocol", "d4rl", "minari"), [
    ("pointmaze-umaze", {}, "random-goal", None, 100.0),
    ("pointmaze-umaze", {}, "d4rl-single-goal", 100 * (212.8 - 23.85) / (161.86 - 23.85), None),
    ("pointmaze-umaze", {"max_episode_steps": 50}, "random-goal", None, None),
    ("PointMaze_UMazeDense-v3", {}, "random-goal", None, None)])
def test_each_score_exists_for_its_own_protocol_only(env, overrides, protocol, d4rl, minari):
    scores = summarize(played([212.8], [1]), environment_factory(env, overrides, protocol=protocol))
    assert scores["score_d4rl"] == (d4rl and pytest.approx(d4rl))
    assert scores["score_minari"] == (minari and pytest.approx(minari))


def test_the_single_goal_protocol_is_that_of_d4rl():
    env = environment_factory("pointmaze-umaze", protocol="d4rl-single-goal")()
    centre, starts = np.array([-1.0, 1.0]), []
    for seed in range(200):
        obs, info = env.reset(seed=seed)
        assert (obs["desired_goal"] == centre).all() and (obs["observation"][:2] == obs["achieved_goal"]).all()
        assert info["success"] == (np.linalg.norm(obs["achieved_goal"] - centre) <= 0.5)
        starts.append(obs["observation"])
    starts = np.array(starts)
    offset = starts[:, :2] - np.round(starts[:, :2])
    assert np.abs(offset).max() <= 0.1 and np.abs(starts[:, 2:]).std() < 0.1 < np.abs(starts[:, 2:]).max()
    assert len(np.unique(np.round(starts[:, :2]), axis=0)) == 7  # every free cell, the goal's too
    base = env.unwrapped
    for distance, reward in ((0.48, 1.0), (0.52, 0.0)):
        base.point_env.set_state(centre + np.array([distance, 0]), np.zeros(2))
        _, given, terminated, _, info = env.step(np.zeros(2, np.float32))
        assert (given, info["success"], terminated) == (reward, bool(reward), False)


@pytest.mark.parametrize("broken", [0, 2])
def test_the_protocol_of_ogbench_plays_five_tasks_equally_often_and_one_that_fails_costs_its_own_episodes(
        broken, monkeypatch):
    def play(agent, factory, episodes, seed, settings, *, watch, **options):
        task = factory.kwargs["task_id"]
        if task == broken:
            raise EnvironmentFault("broken (no episode finished)")
        for episode in range(episodes):
            watch(episode, (task, seed))
        return played([1] * episodes, [1] * (episodes - 1) + [1 if task > 3 else np.inf])

    factory, seen = environment_factory("ogbench/cube-single", protocol="ogbench"), []
    config = EvaluationConfig(episodes=2, seed=7, protocol="ogbench", baselines=False)
    monkeypatch.setattr(scoring, "rollout", play)
    whole = _play_tasks(RandomAgent([-1], [1]), factory, config, RolloutSettings(),
                        watch=lambda episode, task: seen.append((episode, task)))
    assert seen == [(n, (1 + n // 2, 7)) for n in range(10) if 1 + n // 2 != broken]
    scores = summarize(whole, factory)
    rates = [scores[f"success_rate_task{number}"] for number in range(1, 6)]
    assert rates == ([None] * 5 if broken else [0.5, 0.5, 0.5, 1, 1])
    assert len(whole.returns) == len(seen) and scores["failures"] == ["broken (no episode finished)"] * 2 * (broken > 0)
    with pytest.raises(ValueError, match="Hopper-v5: the protocol ogbench needs one of"):
        environment_factory("hopper", protocol="ogbench")


@pytest.mark.slow
def test_the_replanning_controller_scores_what_was_measured():
    factory = environment_factory("pointmaze-large", protocol="d4rl-single-goal")
    played = rollout(WaypointController(factory.maze), factory, 15, settings=RolloutSettings(num_envs=15),
                     progress=False)
    assert summarize(played, factory)["score_d4rl"] == pytest.approx(204, rel=0.12)


# -- locomotion, and what the data's own episodes earned


@pytest.mark.parametrize(("overrides", "is_defined"), [
    ({"exclude_current_positions_from_observation": False}, True), ({"render_mode": "rgb_array"}, True),
    ({"ctrl_cost_weight": 0.1}, False), ({"terminate_when_unhealthy": False}, False)])
def test_a_return_is_normalised_where_rewards_and_ends_are_the_tasks(overrides, is_defined):
    scores = summarize(played([3234.3], [1]), environment_factory("Hopper-v5", overrides))
    assert scores["score_d4rl"] == (100 if is_defined else None)
    short = environment_factory("Hopper-v5", {"max_episode_steps": 100})
    assert summarize(played([1.0], [1]), short)["score_d4rl"] is None


# 10 fell, 20 met the time limit
WHOLE = DataReturns(episodes=30, mean=1000.0, longest=1000, truncated=20, truncated_last=20, steps=20_000)


def test_the_behaviour_of_several_datasets_is_the_mean_over_their_episodes():
    hopper = environment_factory("Hopper-v5")
    other = replace(WHOLE, episodes=10, mean=200.0, steps=12_000)
    scores, why = score_behaviour([WHOLE, other], hopper.spec_json, hopper)
    assert not why and scores == {"episodes": 40, "return_mean": 800, "reward_mean": 1.0, "score_minari": None,
                                  "score_d4rl": pytest.approx(100 * (800 + 20.272305) / (3234.3 + 20.272305))}


@pytest.mark.parametrize(("changes", "env", "why"), [
    ({"truncated": 22}, "Hopper-v5", ""),  # the end of a recording truncates an episode or two
    ({"truncated": 24}, "Hopper-v5", ": 4 of 30 were truncated sooner"),
    # all by a shorter limit
    ({"longest": 100}, "Hopper-v5", "20 of 30 were truncated sooner, and the longest has 100"),
    ({"longest": 2000}, "Hopper-v5", "which have 1000 steps: the longest has 2000"),
    ({}, '{"id": "Hopper-v5", "additional_wrappers": [{"name": "NormalizeReward"}]}', "wrappers NormalizeReward,"),
    ({}, "Walker2d-v5", "the data are not of Hopper-v5 as it is here; they come from Walker2d-v5"),
    ({}, None, "if it is Hopper-v5, name it as that of the training")])
def test_behaviour_is_scored_where_the_datas_episodes_are_the_environments(changes, env, why):
    scores, message = score_behaviour([replace(WHOLE, **changes)], env, environment_factory("Hopper-v5"))
    assert (scores is None or scores["return_mean"] is None) == bool(why)
    assert why in message and bool(message) == bool(why)
    assert not ("longest" in message and changes.get("longest") == 2000 and "sooner" in message)


@pytest.mark.parametrize(("env", "changes", "reward"), [
    ("Hopper-v5", {"longest": 100}, 1.5), ("Hopper-v5", {"longest": 2000}, 1.5),
    ("Hopper-v5", {"longest": 100, "steps": 0}, None),  # a run of before the steps were counted
    ("pointmaze-umaze", {"longest": 2000}, None),  # one goal after the other, none of which the robot stays at
])
def test_data_that_are_no_whole_episodes_are_compared_by_the_reward_of_a_step(env, changes, reward):
    factory = environment_factory(env)
    scores, why = score_behaviour([replace(WHOLE, **changes)], factory.spec_json, factory)
    assert "not whole episodes" in why and (scores and scores["reward_mean"]) == reward
    assert summarize(played([600.0, 300.0], [4, 3]), factory)["reward_mean"] == 1.5  # of 300 steps each


def test_the_datas_returns_are_counted_by_hand():
    step = np.arange(9)
    e = Episodes(np.zeros((12, 1)), np.zeros((9, 1)), step, step == 1, np.isin(step, (4, 8)), np.array([2, 3, 4]))
    assert DataReturns.of(e) == DataReturns(episodes=3, mean=(1 + 9 + 26) / 3, longest=4, truncated=2, truncated_last=1,
                                            steps=9)
