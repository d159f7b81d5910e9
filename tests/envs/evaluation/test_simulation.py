"""The simulator's returns of action sequences are those of the environment, until the end of the episode."""

import numpy as np
import pytest
import torch

from gentraj.envs.evaluation.replay import REWARDS, CannotReplay, Simulator
from gentraj.envs.making import environment_factory

MAKE = {"PointMaze": "pointmaze-umaze", **{name: f"{name}-v5" for name in ("HalfCheetah", "Hopper", "Walker2d")},
        "Hopper-v4": "Hopper-v4"}


def earned(name: str, act_NTA: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, list[int]]:
    """Returns first observation, sums of rewards, goal and lengths of the environment itself, from one start."""
    env, returns, lengths, seen = environment_factory(MAKE[name])(), [], [], None
    for act_TA in act_NTA:
        seen, _ = env.reset(seed=3)
        total, length, over = 0.0, 0, False
        while length < len(act_TA) and not over:
            _, reward, over, _, _ = env.step(act_TA[length])
            total, length = total + float(reward), length + 1
        returns.append(total)
        lengths.append(length)
    if isinstance(seen, dict):
        return seen["observation"], np.array(returns), seen["desired_goal"], lengths
    return np.asarray(seen), np.array(returns), None, lengths


@pytest.mark.parametrize("name", [*REWARDS, "Hopper-v4"])
@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
def test_the_returns_of_action_sequences_are_those_of_the_environment(name: str) -> None:
    simulator = Simulator(environment_factory(MAKE[name]))
    space, steps = simulator.base.action_space, 30 if name in ("HalfCheetah", "PointMaze") else 150
    act_NTA = np.random.default_rng(0).uniform(space.low, space.high, (3, steps, len(space.low))).astype(np.float32)
    obs_O, returns, goal_G, lengths = earned(name, act_NTA)
    goal = None if goal_G is None else torch.tensor(goal_G)[None]
    got_BN = simulator(torch.tensor(obs_O)[None], torch.from_numpy(act_NTA)[None], goal)
    assert got_BN.shape == (1, 3) and got_BN.dtype == torch.float32
    if steps == 150:
        assert max(lengths) < steps  # all fell, and later rewards do not count
    np.testing.assert_allclose(got_BN[0], returns, rtol=1e-3, atol=1e-3)


def test_a_maze_rewards_being_at_the_goal() -> None:
    simulator = Simulator(environment_factory(MAKE["PointMaze"]))
    obs_BO, act_BNTA = torch.tensor([[1.0, 1.0, 0.0, 0.0]] * 2), torch.zeros(2, 1, 5, 2)
    goal_BG = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    assert simulator(obs_BO, act_BNTA, goal_BG).tolist() == [[5.0], [0.0]]
    with pytest.raises(ValueError, match="a maze rewards being at a goal, and no goal was given"):
        simulator(obs_BO, act_BNTA)


def test_an_environment_of_unknown_rewards_is_refused() -> None:
    with pytest.raises(CannotReplay, match="Ant-v5: its rewards cannot be computed from states; those of PointMaze"):
        Simulator(environment_factory("Ant-v5"))
    with pytest.raises(CannotReplay, match="rewards of the protocol d4rl-single-goal cannot be computed from states"):
        Simulator(environment_factory("pointmaze-umaze", protocol="d4rl-single-goal"))
