"""The returns of agents in a world model, and how well they rank the agents."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from gentraj.envs.worlds.imagined import ImaginedConfig, ImaginedEpisodes
from gentraj.runs.judge.off_policy import Returns, compared, imagined_returns
from gentraj.trajectory import Agent, TrajectorySpec
from gentraj.worlds.model import Imagined, WorldModel

FREE: dict[str, Any] = {"max_uncertainty": 1e9, "margin": 1e9}


class Paying:
    """A world model whose reward is the action, which is added to the observation; `fall` episodes end above 0.9."""

    spec, calibration = TrajectorySpec(1, 1, 2), SimpleNamespace(largest=1.0)
    facts = SimpleNamespace(low_O=torch.zeros(1), high_O=torch.ones(1), starts_NS=torch.zeros(1, 1), goal_dim=0)

    def __init__(self, fall: int = 0):
        self.fall = fall

    def imagine(self, obs_BO, act_BTA, goal, *, seeds, temperature, past_BPD) -> Imagined:
        next_BTO = obs_BO[:, None] + act_BTA
        nothing_BT = torch.zeros(act_BTA.shape[:2])
        falling_B1 = torch.arange(len(obs_BO))[:, None] < self.fall
        return Imagined(next_BTO, act_BTA[..., 0], (falling_B1 & (next_BTO[..., 0] > 0.9)).float(), nothing_BT)


class Always(Agent):
    def __init__(self, act: float):
        self.act_ = act

    def _act(self, obs_BO: torch.Tensor, goal_BG: Any) -> torch.Tensor:
        return torch.full((len(obs_BO), 1), self.act_)


def episodes(fall: int = 0, **settings: Any) -> ImaginedEpisodes:
    return ImaginedEpisodes(cast(WorldModel, Paying(fall)), 3, ImaginedConfig(**settings))


def test_a_return_is_the_sum_of_rewards_to_the_time_limit() -> None:
    returns_B, truncated_B = imagined_returns(Always(0.25), episodes(max_episode_steps=8, **FREE))
    assert returns_B == pytest.approx([2.0] * 3) and not truncated_B.any()


def test_a_truncated_episode_counts_as_if_it_went_on() -> None:
    """The episode leaves the bounds, 0 to 1, in its third step of 0.5, whose reward is not trusted either."""
    cut = episodes(max_episode_steps=8, max_uncertainty=1e9, margin=0.0)
    returns_B, truncated_B = imagined_returns(Always(0.5), cut)
    assert returns_B == pytest.approx([4.0] * 3) and truncated_B.all() and (cut.elapsed_B == 3).all()


def test_after_truncation_episodes_end_at_the_rate_of_the_trusted_steps() -> None:
    """Two of three end in their second step, the third is truncated after it: 2 ends in 6 steps, 6 steps are left."""
    returns_B, truncated_B = imagined_returns(Always(0.5), episodes(2, max_episode_steps=8, max_uncertainty=1e9,
                                                                    margin=0.0))
    more = sum((1 - 2 / 6) ** k for k in range(6))
    assert returns_B == pytest.approx([1.0, 1.0, 1.0 + 0.5 * more]) and truncated_B.tolist() == [False, False, True]


def test_an_end_that_is_not_trusted_truncates() -> None:
    """The second step leaves the bounds, 0 to 1, whether or not it ends an episode; so no trusted step ends one."""
    returns_B, truncated_B = imagined_returns(Always(0.8), episodes(2, max_episode_steps=8, max_uncertainty=1e9,
                                                                    margin=0.0))
    assert truncated_B.all() and returns_B == pytest.approx([8 * 0.8] * 3)


def test_an_agent_without_a_trusted_step_is_refused() -> None:
    with pytest.raises(RuntimeError, match="trusts no step of this agent"):
        imagined_returns(Always(1.5), episodes(2, max_episode_steps=8, max_uncertainty=1e9, margin=0.0))


@pytest.mark.parametrize(("order", "rank"), [([0, 1, 2, 3], 1.0), ([3, 2, 1, 0], -1.0), ([0, 0, 0, 0], 0.0)])
def test_agreement_is_the_correlation_of_ranks(order: list[int], rank: float) -> None:
    true = [np.full(5, float(x) ** 3) for x in range(4)]
    found = compared({str(p): Returns(np.full(5, float(x)), true[p], np.zeros(5, bool)) for p, x in enumerate(order)})
    assert found["spearman"] == pytest.approx(rank)
    low, high = found["spearman_ci95"]
    assert low <= rank <= high and low >= -1 and high <= 1 + 1e-9
    off = np.mean([abs(x - t[0]) for x, t in zip(order, true, strict=True)])
    assert found["mean_absolute_error"] == pytest.approx(off)
