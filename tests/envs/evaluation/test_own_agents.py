"""A rollout plays with whatever acts, and says in a line what does not."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.recording.baselines import RandomAgent
from gentraj.trajectory import Agent


class Own:
    """Acts by 0.25, in the form that it was made with, and remembers how it was reset."""

    def __init__(self, form: Any):
        self.form, self.resets = form, list[int]()

    def reset(self, seed: list[int], mask_B: np.ndarray) -> None:
        self.resets += [s for s, begins in zip(seed, mask_B, strict=True) if begins]

    def act(self, obs_BO: np.ndarray) -> Any:
        assert isinstance(obs_BO, np.ndarray)
        return self.form(np.full((len(obs_BO), 1), 0.25))


class Derived(Agent):
    def __init__(self, form: Any):
        self.form = form

    def _act(self, obs_BO: torch.Tensor, goal_BG: torch.Tensor | None) -> Any:
        return self.form(np.full((len(obs_BO), 1), 0.25))


def played(agent: Any, env: Any) -> Any:
    return rollout(agent, env, 5, settings=RolloutSettings(num_envs=2), progress=False)


@pytest.mark.parametrize("form", [np.asarray, np.ravel, torch.from_numpy, lambda act: torch.from_numpy(act)[:, 0]])
def test_what_acts_may_return_arrays_or_tensors_of_one_axis_or_two(counter: Any, form: Any) -> None:
    own = Own(form)
    for agent in (own, own.act, Derived(form)):
        result = played(agent, counter)
        assert result.returns == pytest.approx(0.25 * result.lengths)
    assert sorted(own.resets) == sorted(result.seeds)


def test_an_action_space_or_its_bounds_make_the_same_random_agent(counter: Any) -> None:
    one, *others = (played(RandomAgent(*given), counter) for given in ((Box(-1, 1, (1,)),), (-1, 1), ([-1.0], [1.0])))
    assert np.ptp(one.returns) > 0
    assert all(np.array_equal(one.returns, other.returns) for other in others)


@pytest.mark.parametrize("given", [(1, -1), (-np.inf, 1), ([-1, -1], [1]), ([-1, -1], [1, 1, 1]), (-1,), (None, 1),
                                   ("low", "high"), (Discrete(3),), (Box(-np.inf, 1, (2,)),), ([[-1]], [[1]])])
def test_a_random_agent_of_no_finite_bounds_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=r"a random agent was given .*Box"):
        RandomAgent(*given)


class NeedsNothing:
    act = reset = staticmethod(lambda: None)


@pytest.mark.parametrize(("agent", "kind", "message"), [
    (Own, TypeError, "the class Own"), (5, TypeError, "the agent is 5"), (NeedsNothing(), TypeError, "reset"),
    (lambda obs: [["left"]] * len(obs), TypeError, "left"), (lambda obs: None, TypeError, "None"),
    (lambda obs: np.zeros((len(obs), 2)), ValueError, r"\(2, 2\)"), (lambda obs: 0.5, ValueError, r"shape \(\)")])
def test_what_does_not_act_is_refused_in_a_line(counter: Any, agent: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message) as error:
        played(agent, counter)
    assert "\n" not in str(error.value)


def test_episodes_are_a_number_and_their_environments_are_made_by_the_rollout(counter: Any) -> None:
    for given, message in (((counter(), 1), "several environments are made"), ((counter, "2"), "episodes is '2'"),
                           ((counter, 0), "episodes is 0")):
        with pytest.raises(ValueError, match=message):
            rollout(NeedsNothing.act, *given)


@pytest.mark.parametrize("obs", [(np.zeros(2), np.zeros(1)), {"observation": np.zeros(3)}, None, "left"])
def test_an_observation_is_an_array_of_numbers(obs: Any) -> None:
    """Those of an environment that observes a tuple or a dict are flattened first, as the message says."""
    with pytest.raises(TypeError, match="flatten" if isinstance(obs, tuple) else "observation"):
        RandomAgent(-1, 1).act(obs)
