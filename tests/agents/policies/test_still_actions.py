"""An action that never varies in the data stays where it is: no value was learned of any other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_policies import bandit, make, small, train

from gentraj.agents.policies import ACTORS, POLICIES
from gentraj.agents.policies.actor import Actor
from gentraj.data import Episodes, Windows

HELD = (0.25, 3.0)  # what the second and the third action are in all of the data
LOW, HIGH = np.array([-1, -1, -5], np.float32), np.array([1, 1, 3], np.float32)


def data() -> Episodes:
    episodes = bandit(200)
    return replace(episodes, act=np.column_stack([episodes.act, np.tile(HELD, (len(episodes.act), 1))]))


@pytest.mark.parametrize("kind", POLICIES.configs)
def test_what_never_varies_stays_in_every_policy(kind: type) -> None:
    policy = make(small(kind), episodes := data())
    train(policy, episodes, 3)
    actor = ACTORS.get(type(policy), Actor)(policy, LOW, HIGH)
    actor.reset(None, [*range(20)])
    act_BA = actor.act(torch.from_numpy(episodes.obs[:20]))
    torch.testing.assert_close(act_BA[:, 1:], torch.tensor(HELD).expand(20, 2), rtol=0, atol=1e-5)
    act_BA[:, 0] = 0
    assert not actor.limits.clips(act_BA.numpy()).any()  # though 3 is the bound of the space
    assert policy.double().varies_A.tolist() == [True, False, False]


def test_what_is_played_beside_it_changes_no_transition() -> None:
    """Exploration while a policy is fine-tuned moves all actions, also those that it cannot move itself."""
    policy = make(small(next(iter(POLICIES.configs))), episodes := data())
    played = replace(episodes, act=episodes.act + np.array([0.0, 0.1, -0.1], np.float32))
    of_data, of_played = (policy.transition(Windows(each, policy.spec).gather(np.arange(9)), 0.9).chunk_BX
                          for each in (episodes, played))
    assert torch.equal(of_data, of_played) and not of_data.view(9, -1, 3)[..., 1:].any()
