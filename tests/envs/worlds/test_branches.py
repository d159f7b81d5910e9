"""A branch is truncated, or terminates, where its world model is not trusted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gentraj.data import Episodes
from gentraj.envs.worlds import branches
from gentraj.envs.worlds.branches import Starts
from gentraj.envs.worlds.imagined import BOUNDS, NOT_FINITE, UNCERTAINTY, ImaginedConfig, ImaginedEpisodes
from gentraj.trajectory import TrajectorySpec
from gentraj.worlds.model import Imagined

GOOD, UNCERTAIN, OUTSIDE, NAN, END, UNCERTAIN_END = range(6)


class Scripted:
    """A world model in which the action determines what happens."""

    spec, calibration = TrajectorySpec(1, 1, 2), SimpleNamespace(largest=2.0)
    facts = SimpleNamespace(low_O=torch.zeros(1), high_O=torch.ones(1), starts_NS=torch.zeros(1, 1), goal_dim=0)

    def imagine(self, obs_BO, act_BTA, goal, *, seeds, temperature, past_BPD) -> Imagined:
        what_BT = act_BTA[..., 0]

        def choose(codes: list[int], yes: float, no: float) -> torch.Tensor:
            return torch.where(torch.isin(what_BT, torch.tensor(codes)), yes, no)

        obs = choose([OUTSIDE], 1.2, 0.5) + choose([NAN], torch.nan, 0.0)
        return Imagined(obs[..., None], torch.full_like(what_BT, 3), choose([END, UNCERTAIN_END], 0.9, 0.1),
                        choose([UNCERTAIN, UNCERTAIN_END], 2.1, 1.9))


def follow(episodes: ImaginedEpisodes, start: Starts) -> branches.Branches:
    return branches._branch(episodes, start, range(len(start.obs_BO)), None)


@pytest.mark.parametrize(("script", "steps", "why", "ended"), [
    ([0, 0, 0, 0], 4, "", False), ([0, 0, UNCERTAIN, 0], 2, UNCERTAINTY, False), ([OUTSIDE, 0, 0, 0], 0, BOUNDS, False),
    ([0, NAN, 0, 0], 1, NOT_FINITE, False), ([0, END, 0, 0], 2, "", True),
    ([0, UNCERTAIN_END, 0, 0], 1, UNCERTAINTY, False)])
def test_a_branch_is_truncated_before_an_untrusted_step(script: list[int], steps: int, why: str, ended: bool) -> None:
    episodes = ImaginedEpisodes(Scripted(), 2, ImaginedConfig(4, max_uncertainty=1.0))  # pyright: ignore
    act_BKA = np.array([[0, 0, 0, 0], script], np.float32)[..., None]
    start = Starts(np.full((2, 1), 0.3, np.float32), np.zeros((2, 0), np.float32), np.array([3, 4]), act_BKA)
    made = follow(episodes, start)
    assert made.steps_B.tolist() == [3, steps] and made.why_B.tolist() == ["", why]
    assert made.terminated_B.tolist() == [False, ended]
    counts = made.counts()
    assert (counts["steps"], counts["terminated"], counts["branches kept"]) == (3 + steps, ended, 1 + (steps > 0))
    assert counts["untrusted"] == ({why: {"branches": 1, "steps": 4 - steps}} if why else {})
    like = Episodes(np.zeros((2, 1)), np.zeros((1, 1)), [0], [True], [False], [1])
    e = made.episodes(like)
    assert e.lengths.tolist() == [3, *([steps] if steps else [])] and (e.reward == 3).all()
    assert e.truncated[2] and (not steps or (e.terminated[-1], e.truncated[-1]) == (ended, not ended))


@pytest.mark.parametrize(("script", "steps", "why", "rewards"), [
    ([0, 0, UNCERTAIN, 0], 3, UNCERTAINTY, [3, 3, -2]), ([OUTSIDE, 0, 0, 0], 1, BOUNDS, [-2]),
    ([0, NAN, 0, 0], 2, NOT_FINITE, [3, -2]), ([0, UNCERTAIN_END, 0, 0], 2, UNCERTAINTY, [3, -2]),
    ([0, END, 0, 0], 2, "", [3, 3])])
def test_a_branch_may_terminate_with_an_untrusted_step(script: list[int], steps: int, why: str,
                                                       rewards: list[float]) -> None:
    config = ImaginedConfig(4, max_uncertainty=1.0, termination_cost=2.0)
    start = Starts(np.full((1, 1), 0.3, np.float32), np.zeros((1, 0), np.float32), np.array([4]),
                   np.array([script], np.float32)[..., None])
    made = follow(ImaginedEpisodes(Scripted(), 1, config), start)  # pyright: ignore
    assert (made.steps_B[0], made.why_B[0], made.terminated_B[0]) == (steps, why, True)
    e = made.episodes(Episodes(np.zeros((2, 1)), np.zeros((1, 1)), [0], [True], [False], [1]))
    assert e.reward.tolist() == rewards and e.terminated.tolist() == [False] * (steps - 1) + [True]
    before, last = e.obs[-2:]
    assert not why or (last == before).all()


def test_starts_beyond_the_models_data_are_dropped() -> None:
    episodes = ImaginedEpisodes(Scripted(), 2, ImaginedConfig(4, max_uncertainty=1.0))  # pyright: ignore
    start = Starts(np.array([[0.3], [5]], np.float32), np.zeros((2, 0), np.float32), np.array([4, 4]),
                   np.zeros((2, 4, 1), np.float32))
    made = follow(episodes, start)
    assert made.steps_B.tolist() == [4, 0] and made.why_B.tolist() == ["", BOUNDS]
