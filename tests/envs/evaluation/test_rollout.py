"""A rollout's numbers are those of playing one episode after another by hand."""


import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Tuple
from gymnasium.spaces.utils import flatten

from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import RandomAgent, WaypointController
from gentraj.progress import say_once
from gentraj.randomness import fold
from gentraj.trajectory import Agent, Limits


class Queue(Agent):
    """An agent that plans five actions at once and executes them, as planners do: four times -0.1, then 1."""

    def __init__(self):
        self.network_calls, self.queues, self.seen = 0, {}, []

    def _reset(self, seeds_B, mask_B):
        self.queues.update({i: [] for i in mask_B.nonzero().ravel().tolist()})

    def _act(self, obs_BO, goal_BG):
        self.seen.append((obs_BO, goal_BG))
        if not all(self.queues[i] for i in range(len(obs_BO))):
            self.network_calls += 3
        for i in range(len(obs_BO)):
            self.queues[i] = self.queues[i] or [-0.1] * 4 + [1.0]
        return torch.tensor([[self.queues[i].pop(0)] for i in range(len(obs_BO))])


def lengths_of(counter, seeds):
    return [int(counter().reset(seed=seed)[0][1]) for seed in seeds]


@pytest.mark.parametrize("num_envs", [1, 3, 50])
def test_pointmaze_scores_equal_the_same_seeds_run_one_by_one(num_envs):
    """The scores are equal bit for bit, with a stochastic agent and random starts."""
    factory = environment_factory("pointmaze-umaze", {"max_episode_steps": 40})
    played = rollout(WaypointController(factory.maze, noise=0.5), factory, 7,
                     settings=RolloutSettings(num_envs=num_envs), seed=3, progress=False)
    env, agent = factory(), WaypointController(factory.maze, noise=0.5)
    for i in range(7):
        obs, _ = env.reset(seed=fold(3, i))
        agent.reset([fold(3, i)])
        total, first, truncated, step = 0.0, np.inf, False, 0
        while not truncated:
            act = agent.act(*(torch.tensor(obs[k][None], dtype=torch.float32) for k in ("observation", "desired_goal")))
            obs, reward, _, truncated, info = env.step(act[0].numpy())
            step, total = step + 1, total + reward
            first = min(first, step if info["success"] else np.inf)
        assert (played.returns[i], played.time_at_goal[i]) == (total, total)
        assert (played.first_hit[i], played.success[i], played.lengths[i]) == (first, first < np.inf, 40)


@pytest.mark.parametrize("num_envs", [1, 5])
def test_episodes_that_end_early_are_counted_once_and_queued_actions_are_dropped(counter, num_envs):
    played = rollout(Queue(), counter, 11, settings=RolloutSettings(num_envs=num_envs), progress=False)
    lengths = lengths_of(counter, [fold(0, i) for i in range(11)])
    assert played.lengths.tolist() == lengths and len(set(lengths)) > 2
    by_hand = [sum([-0.1, -0.1, -0.1, -0.1, 1.0][t % 5] for t in range(length)) for length in lengths]
    np.testing.assert_allclose(played.returns, by_hand, atol=1e-6)
    # An action above 0 is one: steps 5, 10, ...
    assert played.first_hit.tolist() == [5 if length >= 5 else np.inf for length in lengths]
    assert played.time_at_goal.tolist() == [length // 5 for length in lengths]
    assert played.success.tolist() == [length >= 5 for length in lengths]


def test_decisions_are_the_calls_that_used_a_network(counter):
    agent = Queue()
    played = rollout(agent, counter, 1, settings=RolloutSettings(num_envs=1), progress=False)
    decisions = -(-int(played.lengths[0]) // 5)
    assert (len(played.latency_ms), played.network_calls) == (decisions, 3 * decisions)
    assert (played.latency_ms > 0).all()
    played = rollout(RandomAgent([-1], [1]), counter, 1, settings=RolloutSettings(num_envs=1), progress=False)
    assert (len(played.latency_ms), played.network_calls) == (played.lengths[0], None)


def test_an_agent_that_plans_ahead_is_given_what_is_left_of_the_period(counter):
    class Ahead(Queue):
        def rest(self, seconds):
            rests.append(seconds)
            self.network_calls += 1

        def timing(self):
            return {}

    rests = []
    played = rollout(Ahead(), counter, 2, settings=RolloutSettings(num_envs=1, period=1e6), progress=False)
    assert len(rests) == len(played.act_ms) == played.lengths.sum() == len(played.latency_ms)
    np.testing.assert_allclose(rests, 1e6 - played.act_ms / 1000)
    assert played.network_calls == len(rests) + 3 * sum(-(-int(length) // 5) for length in played.lengths)
    rollout(Ahead(), counter, 2, settings=RolloutSettings(num_envs=1), progress=False)
    assert len(rests) == len(played.act_ms)  # without a period the environments wait for nobody


@pytest.mark.parametrize("high", [0.3, 0.7])
def test_actions_at_bounds_of_float64_are_inside_and_counted(counter, high):
    """Agents act in float32, where 0.3 is larger and 0.7 is smaller than in float64."""
    class Fine(counter):
        action_space = Box(-high, high, (1,), np.float64)

        def step(self, action):
            assert action in self.action_space
            return super().step(action)

    class Full(Queue):
        def _act(self, obs_BO, goal_BG):
            return torch.full((len(obs_BO), 1), high)

    played = rollout(Full(), Fine, 2, progress=False)
    assert played.share(played.clipped_steps) == 1 and played.returns == pytest.approx(high * played.lengths)


class Limited(Queue):
    """Sees its first four observations only, and says so."""

    limits = Limits(np.array([-1.0]), np.array([0.5]), np.array([-1.0, -np.inf]), np.array([3.0, np.inf]))

    def _act(self, obs_BO, goal_BG):
        return super()._act(obs_BO, goal_BG).clamp(-1.0, 0.5)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_clipped_actions_and_clamped_observations_are_counted_in_the_steps_that_count(counter, num_envs):
    played = rollout(Limited(), counter, 5, settings=RolloutSettings(num_envs=num_envs), progress=False)
    steps = played.lengths.sum()
    assert played.clipped_steps.tolist() == (played.lengths // 5).tolist()  # each fifth is 1
    assert played.clamped_steps.tolist() == np.maximum(played.lengths - 4, 0).tolist()
    assert played.share(played.clipped_steps) == (played.lengths // 5).sum() / steps
    unlimited = rollout(Queue(), counter, 5, settings=RolloutSettings(num_envs=num_envs), progress=False)
    assert unlimited.clipped_steps.tolist() == played.clipped_steps.tolist() and unlimited.clamped_steps is None


@pytest.mark.parametrize("num_envs", [1, 4])
def test_recorded_episodes_are_what_happened(counter, num_envs):
    recorded = rollout(Queue(), counter, 6,
                       settings=RolloutSettings(num_envs=num_envs), record=True, progress=False).recorded
    for i, episode in enumerate(recorded):
        (length,) = lengths_of(counter, [fold(0, i)])
        assert episode.obs.tolist() == [[t, length] for t in range(length + 1)]
        assert episode.act.ravel().tolist() == episode.reward.tolist() and len(episode.act) == length
        assert episode.terminated.tolist() == [False] * (length - 1) + [length % 2 == 0]
        assert episode.truncated.tolist() == [False] * (length - 1) + [length % 2 == 1]


def test_observations_are_joined_in_the_order_of_the_data():
    factory, agent = environment_factory("pointmaze-umaze", {"max_episode_steps": 2}), Queue()
    agent._act = lambda obs, goal: (agent.seen.append((obs, goal)), torch.zeros(len(obs), 2))[1]
    rollout(agent, factory, 1, settings=RolloutSettings(obs_keys=("achieved_goal", "observation")), progress=False)
    obs, _ = factory().reset(seed=fold(0, 0))
    seen_obs, seen_goal = agent.seen[0]
    assert seen_obs.dtype == seen_goal.dtype == torch.float32
    np.testing.assert_array_equal(seen_obs[0], np.hstack([obs["achieved_goal"], obs["observation"]]).astype("f4"))
    np.testing.assert_array_equal(seen_goal[0], obs["desired_goal"].astype("f4"))


class Parts(gymnasium.Env):
    """A dict observation of a number, a vector and a matrix; the reward is the action."""

    action_space = Box(-1, 1, (1,))
    spec = gymnasium.envs.registration.EnvSpec("Parts-v0", max_episode_steps=4)

    def __init__(self):
        self.observation_space = Dict({"speed": Box(-9, 9, ()), "grid": Box(-9, 9, (2, 2), np.float64),
                                       "arm": Box(-9, 9, (2,))})

    def seen(self):
        return self.observation_space.sample()

    def reset(self, *, seed=None, options=None):
        self.observation_space.seed(seed)
        self.left = 4
        return self.seen(), {}

    def step(self, action):
        self.left -= 1
        return self.seen(), float(action[0]), False, self.left == 0, {}


class TupleOfParts(Parts):
    """The same parts as a tuple."""

    def __init__(self):
        super().__init__()
        self.observation_space = Tuple([self.observation_space[key] for key in ("speed", "grid", "arm")])


@pytest.mark.parametrize(("kind", "keys", "widths"), [
    (Parts, ("arm", "grid", "speed"), "arm (2), grid (4), speed (1)"),
    (TupleOfParts, ("0", "1", "2"), "0 (1), 1 (4), 2 (2)")])
def test_a_dict_without_goals_and_a_tuple_are_flattened_as_gymnasium_does_and_a_line_says_so(kind, keys, widths,
                                                                                             capsys):
    say_once.cache_clear()
    played = rollout(RandomAgent([-1], [1]), kind, 2, record=True, progress=False)
    rollout(RandomAgent([-1], [1]), kind, 1, progress=False)
    assert capsys.readouterr().err.count(widths) == 1
    env = kind()
    for i, episode in enumerate(played.recorded):
        seen = [env.reset(seed=fold(0, i))[0], *(env.step(act)[0] for act in episode.act)]
        assert np.array_equal(episode.obs, np.array([flatten(env.observation_space, obs) for obs in seen], np.float32))
    assert played.recorded.obs_keys == keys
    named = ("arm_0", "arm_1", "grid_0", "grid_1", "grid_2", "grid_3", "speed")
    assert played.recorded.obs_names == (named if kind is Parts else ())
