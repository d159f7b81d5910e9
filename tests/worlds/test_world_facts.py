"""What a world model knows of its data: where episodes start, and what never varies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_world_model import TINY, linear, taught

from gentraj.data import ContextConfig
from gentraj.worlds.facts import FEWEST_STARTS as FEW
from gentraj.worlds.facts import STARTS, WorldFacts
from gentraj.worlds.model import WorldModelConfig


@pytest.mark.parametrize("lengths", [[3] * FEW, [3] * (FEW - 1), [1] * (STARTS + FEW)], ids=["many", "few", "more"])
def test_starts_are_where_the_data_go_on(lengths: list[int]) -> None:
    """Firsts of episodes where there are enough, of all of them; anywhere is where an action was taken."""
    e = linear(lengths)
    facts = WorldFacts.fit(e, ContextConfig(), 1)
    last = e.starts + np.arange(len(e)) + e.lengths
    firsts, lasts = ({row.tobytes() for row in e.obs[rows]} for rows in (e.starts + np.arange(len(e)), last))
    rows = lambda x_NS: {row.tobytes() for row in x_NS.numpy()}  # noqa: E731
    assert not rows(facts.anywhere_NS) & lasts
    if len(e) < FEW:
        assert torch.equal(facts.starts_NS, facts.anywhere_NS)
    else:
        assert rows(facts.starts_NS) <= firsts and len(rows(facts.starts_NS)) == min(len(e), STARTS)


def test_an_action_that_never_varies_in_the_data_has_no_effect() -> None:
    """As nothing was learned of other values than its own."""
    e = linear([9, 40, 2, 30])
    e = replace(e, act=np.stack([e.act[:, 0], np.full(e.num_steps, 0.25)], 1))
    world = taught(e, WorldModelConfig(model=None, **TINY))
    obs_BO, act_BTA = torch.from_numpy(e.obs[:4]), torch.from_numpy(e.act[:4, None])
    made, moved = (world.imagine(obs_BO, act_BTA + torch.tensor([0.0, by]), seeds=range(4)) for by in (0, 0.9))
    assert torch.equal(made.obs_BTO, moved.obs_BTO)
    other = world.imagine(obs_BO, act_BTA + torch.tensor([0.5, 0.0]), seeds=range(4))
    assert not torch.equal(made.obs_BTO, other.obs_BTO)
    low_A, high_A = world.facts.act_limits
    assert (low_A[1], high_A[1]) == (-0.75, 1.25)
    torch.testing.assert_close(torch.stack([low_A[0], high_A[0]]), torch.tensor([e.act[:, 0].min(), e.act[:, 0].max()]))


@pytest.mark.parametrize("lengths", [[2, 3] * 40, [2, 3] * 40 + [9]], ids=["shorter", "one as long"])
def test_the_scales_of_a_chunk_are_those_of_the_steps_that_the_data_have(lengths: list[int]) -> None:
    """Far from 0, as padding is 0, and with hardly any episode as long as a chunk."""
    e, K = linear(lengths), 5
    e = replace(e, obs=e.obs + 100)
    facts = WorldFacts.fit(e, ContextConfig(), K)
    scale_KY, shift_KY = facts.happened.scale_D.view(K, 4), facts.happened.shift_D.view(K, 4)
    for k in range(K):
        rows = [np.append(one.obs[t + k + 1] - one.obs[t], one.reward[t + k])
                for one in e for t in range(one.num_steps - k)]
        if rows:  # a sample of the windows is taken
            np.testing.assert_allclose(scale_KY[k], np.std(rows, 0), rtol=0.1)
            np.testing.assert_allclose(shift_KY[k], np.mean(rows, 0), atol=0.1)
        else:
            assert not shift_KY[k].any() and (scale_KY[k] == 1).all()
