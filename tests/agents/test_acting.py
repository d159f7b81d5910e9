"""What goes into `act` comes out of it, and the seeds of `reset` determine what is done."""

from typing import Any

import numpy as np
import pytest
import torch

from gentraj.trajectory import Agent


class Remembering(Agent):
    """Acts by the sum of the observation, the goal's and the seed."""

    def _reset(self, seeds_B: list[int], mask_B: torch.Tensor) -> None:
        if len(getattr(self, "seed_B", ())) != len(seeds_B):
            self.seed_B = torch.zeros(len(seeds_B), dtype=torch.long)
        self.seed_B[mask_B] = torch.tensor(seeds_B)[mask_B]

    def _act(self, obs_BO: torch.Tensor, goal_BG: torch.Tensor | None) -> torch.Tensor:
        act_B = obs_BO.sum(1)
        return (act_B if goal_BG is None else act_B + goal_BG.sum(1))[:, None]


def seeds_of(agent: Remembering, batch: int) -> list[int]:
    agent.act(np.zeros((batch, 2)))
    return agent.seed_B.tolist()


@pytest.mark.parametrize("made", [np.asarray, torch.tensor, list])
def test_what_goes_in_comes_out(made: Any) -> None:
    agent = Remembering()
    for obs, goal, expected in (([1.0, 2.0], [4.0], [7.0]), ([[1.0, 2.0], [3.0, 4.0]], [[4.0], [5.0]], [[7.0], [12.0]]),
                                ([1.0, 2.0], None, [3.0])):
        act = agent.act(made(obs), None if goal is None else made(goal))
        assert isinstance(act, torch.Tensor if made is torch.tensor else np.ndarray) and act.tolist() == expected


def test_views_of_arrays_and_whole_numbers_are_observations() -> None:
    obs = np.arange(6).reshape(3, 2)
    assert Remembering().act(obs[::-1]).ravel().tolist() == [9, 5, 1]


@pytest.mark.parametrize(("obs", "kind", "message"), [
    ("here", TypeError, "'here'"), (None, TypeError, "None"), ({"observation": [0.0]}, TypeError, "dict"),
    ([[1.0], [1.0, 2.0]], TypeError, "array or a tensor"), (np.zeros((1, 2, 3)), ValueError, r"\(1, 2, 3\)"),
    (0.5, ValueError, r"shape \(\)"), (torch.zeros(1, 2, 3), ValueError, r"\(1, 2, 3\)")])
def test_what_is_no_observation_is_refused_in_a_line(obs: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message) as error:
        Remembering().act(obs)
    assert "\n" not in str(error.value)


def test_a_seed_is_that_of_one_environment_and_leads_to_one_for_each_of_several() -> None:
    agent = Remembering()
    agent.reset(seed=7)
    assert seeds_of(agent, 1) == [7]
    agent.reset(seed=7)
    three = seeds_of(agent, 3)
    agent.reset(seed=7)
    assert len(set(three)) == 3 and seeds_of(agent, 3) == three and seeds_of(agent, 4)[:3] == three


def test_episodes_without_a_seed_differ_and_follow_from_the_last_seed() -> None:
    agents = [Remembering(), Remembering(), Remembering()]
    fresh = [seeds_of(agent, 2) for agent in agents]
    agents[0].reset()
    assert len({*map(tuple, [*fresh, seeds_of(agents[0], 2)])}) == 4
    for agent in agents:
        agent.reset(seed=3)
        agent.reset()
    one, other, _ = (seeds_of(agent, 2) for agent in agents)
    agents[0].reset()
    assert one == other != seeds_of(agents[0], 2)


def test_a_mask_says_which_environments_begin_anew() -> None:
    agent = Remembering()
    agent.reset(seed=[1, 2])
    agent.reset(seed=[3, 4], mask_B=[False, True])
    assert seeds_of(agent, 2) == [1, 4]


@pytest.mark.parametrize("given", [{"seed": [0, 1]}, {"mask_B": [True, True]}, {"seed": 0, "mask_B": [True, True]}])
def test_another_number_of_observations_than_was_reset_is_refused(given: dict[str, Any]) -> None:
    agent = Remembering()
    agent.reset(**given)
    for batch in (1, 3):
        with pytest.raises(ValueError, match=f"{batch} observations .* reset for 2"):
            agent.act(np.zeros((batch, 2)))
    assert agent.act(np.zeros((2, 2))).shape == (2, 1)


@pytest.mark.parametrize(("given", "kind"), [
    ({"seed": -1}, ValueError), ({"seed": [0, -1]}, ValueError), ({"seed": 0.5}, TypeError), ({"seed": "a"}, TypeError),
    ({"seed": [0, 1], "mask_B": [True]}, ValueError)])
def test_what_is_no_seed_is_refused(given: dict[str, Any], kind: Any) -> None:
    with pytest.raises(kind, match="seed"):
        Remembering().reset(**given)
