"""An environment that misbehaves, and an agent made for another one, are named in one line.

39 (autoreset and early ends) is tests/envs/evaluation/test_rollout.py.
"""

from contextlib import closing

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.evaluation.vector import EnvironmentFault, VectorEnvironment
from gentraj.envs.recording.baselines import RandomAgent
from gentraj.trajectory import Agent, TrajectorySpec


class Faulty(gymnasium.Env):
    """Well behaved but for what `break_step(step, result)` makes of its steps."""

    observation_space = Box(-10, 10, (3,), np.float64)
    action_space = Box(-1, 1, (2,), np.float32)

    def __init__(self, break_step=lambda step, result: result):
        self.break_step, self.step_number = break_step, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_number = 0
        return np.zeros(3), {}

    def step(self, action):
        self.step_number += 1
        return self.break_step(self.step_number, (np.zeros(3), 0.0, False, self.step_number == 6, {}))


WRONG_STEPS = {
    "observation": (lambda r: (np.array([0, np.nan, 0]), *r[1:]), "observation is .*nan"),
    "reward": (lambda r: (r[0], float("nan"), *r[2:]), "reward is nan"),
    "huge reward": (lambda r: (r[0], 1e39, *r[2:]), r"reward is 1e\+39, .* a finite number within float32 is expected"),
    "shape": (lambda r: (np.zeros(4), *r[1:]), r"observation has shape \(4,\); \(3,\) is expected"),
    "half": (lambda r: (*r[:2], 0.5, *r[3:]), "terminated is 0.5; True or False is expected"),
    "old gym": (lambda r: (r[0], r[1], False, {}), "step returned 4 values; observation, reward, .* old gym"),
}


@pytest.mark.parametrize("fault", WRONG_STEPS)
def test_what_an_environment_does_wrong_is_named_with_its_id_and_step(fault):
    wrong, message = WRONG_STEPS[fault]
    make = lambda: Faulty(lambda step, result: wrong(result) if step == 4 else result)  # noqa: E731
    with pytest.raises(EnvironmentFault, match=rf"Faulty, environment 0 \(seed \d+\), step 4: .*{message}") as error:
        rollout(RandomAgent([-1, -1], [1, 1]), make, 3, settings=RolloutSettings(num_envs=3), progress=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("returned", "what"), [
    (np.zeros(2), "a ndarray"), ((np.zeros(2), 0, {}), "3 values")])
def test_a_reset_that_returns_no_observation_and_info_is_named(returned, what):
    """An observation of two numbers, as the old gym returned it, was taken for an observation and an info."""
    class Old(Faulty):
        observation_space = Box(-10, 10, (2,), np.float64)

        def reset(self, *, seed=None, options=None):
            return returned

    with pytest.raises(EnvironmentFault, match=f"step 0: reset returned {what}; observation and info are .* old gym"):
        rollout(RandomAgent([-1, -1], [1, 1]), Old, 2, settings=RolloutSettings(num_envs=2), progress=False)


def test_a_success_of_none_is_not_told():
    told = lambda step, result: (*result[:4], {"success": None, "is_success": step == 2})  # noqa: E731
    played = rollout(RandomAgent([-1, -1], [1, 1]), lambda: Faulty(told), 2,
                     settings=RolloutSettings(num_envs=2), progress=False)
    assert (played.first_hit == 2).all()


class GoalFaulty(Faulty):
    """Its goal is lost at step 4."""

    observation_space = Dict(dict.fromkeys(("observation", "achieved_goal", "desired_goal"), Faulty.observation_space))

    def reset(self, *, seed=None, options=None):
        return dict.fromkeys(self.observation_space.spaces, super().reset(seed=seed)[0]), {}

    def step(self, action):
        obs, *rest = super().step(action)
        goal = obs + (np.nan if self.step_number == 4 else 0)
        return {"observation": obs, "achieved_goal": obs, "desired_goal": goal}, *rest


def test_a_goal_that_is_no_number_never_reaches_the_agent():
    with pytest.raises(EnvironmentFault, match=r"GoalFaulty, environment 0 .*step 4: goal is \[nan.*finite"):
        rollout(RandomAgent([-1, -1], [1, 1]), GoalFaulty, 2, settings=RolloutSettings(num_envs=2), progress=False)


class Fixed(Agent):
    def __init__(self, act, spec=None):
        self.fixed, self.spec = torch.tensor(act), spec

    def _act(self, obs_BO, goal_BG):
        return self.fixed.expand(len(obs_BO), -1)


@pytest.mark.parametrize(("act", "kind", "message"), [
    ([0.0, float("nan")], EnvironmentFault, "step 0: the agent's action is .*nan.*finite"),
    ([0.0, 1.001], EnvironmentFault, "step 0: the agent's action is .*1.001.*clip it in the agent"),
    ([0.0], ValueError, r"shape \(2, 1\); Faulty needs \(2, 2\)")])
def test_an_action_that_the_environment_cannot_take_never_reaches_it(act, kind, message):
    with pytest.raises(kind, match=message):
        rollout(Fixed(act), Faulty, 2, progress=False)


@pytest.mark.parametrize(("obs_dim", "act_dim"), [(4, 2), (3, 1)])
def test_an_agent_made_for_another_environment_is_refused_with_both_layouts(obs_dim, act_dim):
    agent = Fixed([0.0, 0.0], TrajectorySpec(obs_dim, act_dim, 8))
    both = f"obs_dim {obs_dim} and act_dim {act_dim}, but Faulty has obs_dim 3 and act_dim 2"
    with pytest.raises(ValueError, match=both):
        rollout(agent, Faulty, 1, progress=False)


@pytest.mark.parametrize(("observation", "action", "message"), [
    (Box(0, 255, (8, 8, 3), np.uint8), None, "observation space .* not supported; flatten"),
    (Dict(pixels=Box(0, 255, (8, 8), np.uint8)), None, "observation space .* not supported.*obs_keys"),
    (None, Discrete(4), "action space .* not supported; only a 1-D Box .* vectors of real numbers"),
    (Box(-1, 1, (0,)), None, r"observation space Box.*\(0,\).* not supported")])
def test_spaces_that_are_not_flat_are_refused_before_any_step(observation, action, message):
    env = Faulty()
    env.observation_space = env.observation_space if observation is None else observation
    env.action_space = action or env.action_space
    with pytest.raises(ValueError, match=message):
        VectorEnvironment(lambda: env, 1)


class Narrow(Faulty):
    """Seeded by 32 bits with a sign, as a library in C may be."""

    def reset(self, *, seed=None, options=None):
        np.array([1], np.int32)[0] = seed
        return super().reset(seed=seed)


class Unseeded(Faulty):
    """Of the old gym."""

    def reset(self):
        return super().reset()


@pytest.mark.parametrize("kind", [Narrow, Unseeded])
def test_an_error_about_a_seed_names_the_cure(kind):
    with pytest.raises(EnvironmentFault, match=r"seed.*reset\(seed=\.\.\., options=\.\.\.\).*wrap"), closing(
            VectorEnvironment(kind, 1)) as envs:
        envs.reset(np.ones(1, bool), [2**40])


class Legacy(Faulty):
    """Seeded as dm_control is by shimmy, with numpy's RandomState."""

    def reset(self, *, seed=None, options=None):
        super().reset()
        return np.random.RandomState(seed).uniform(size=3), {}


@pytest.mark.parametrize("workers", [False, True])
def test_an_environment_that_takes_seeds_of_32_bits_begins_with_the_last_32_of_larger_ones(workers):
    seeds = [7, 2**32 - 1, 2**32 + 7, 2**62 + 5]
    with closing(VectorEnvironment(Legacy, len(seeds), workers=workers)) as envs:
        envs.reset(np.ones(len(seeds), bool), seeds)
        begun = [np.random.RandomState(seed % 2**32).uniform(size=3).astype(np.float32) for seed in seeds]
        assert np.array_equal(envs.obs_BO, begun)


def test_an_environment_that_fails_at_a_large_seed_for_another_reason_is_begun_once():
    class Failing(Faulty):
        begun = 0

        def reset(self, *, seed=None, options=None):
            type(self).begun += 1
            raise ValueError("no such level")

    with pytest.raises(EnvironmentFault, match="no such level"), closing(VectorEnvironment(Failing, 1)) as envs:
        envs.reset(np.ones(1, bool), [2**40])
    assert Failing.begun == 1
