"""Q-learning over chunks: the targets of the critic, and the best of several chunks of every family of models."""

from __future__ import annotations

import pytest
import torch
from test_policies import bandit, chain, make, small, train
from torch import Tensor

from gentraj.data import Windows
from gentraj.families import ACTION_MODELS
from gentraj.randomness import generator
from gentraj.testing import check_policy
from gentraj.trajectory import DEFAULT_OPTIONS


def test_a_chunk_is_valued_by_the_target_of_the_next_chunk_that_the_critic_prefers() -> None:
    """Chunks of two actions in episodes of three and two steps, of which the first terminates."""
    policy = make(small("qc", chunk=2, execute=2, backup=3), chain())
    with torch.no_grad():
        for weight in policy.critic.target.module.parameters():
            weight.normal_(generator=generator(1))
    t = policy.transition(Windows(chain(), policy.spec).batch(0, 0, 32), 0.5)
    act_BNKA, targets = torch.rand(32, 3, 2, 1, generator=generator(2)) * 2 - 1, list[Tensor]()
    policy.next_actions = lambda *_: act_BNKA
    policy.critic.loss = lambda t, target_B: (targets.append(target_B), {})
    policy.critic_loss(t, generator(0))

    def value(network: torch.nn.Module) -> Tensor:
        """(B, N) the mean over the two members."""
        return torch.stack([network(torch.cat([t.next_BS, act_BNKA[:, n].flatten(1)], 1)).mean(0) for n in range(3)], 1)

    own_BN, target_BN = value(policy.critic.q), value(policy.critic.target)
    best_B1 = own_BN.argmax(1, keepdim=True)
    assert not torch.equal(best_B1, target_BN.argmax(1, keepdim=True))
    torch.testing.assert_close(targets[0], t.reward_B + t.discount_B * target_BN.gather(1, best_B1)[:, 0])
    assert set(t.discount_B.tolist()) == {0.25, 0.5, 0} and set(t.discount_B[t.whole_B].tolist()) == {0.25, 0}


@pytest.mark.parametrize("family", ACTION_MODELS)
def test_every_family_imitates_alone_and_acts_by_the_best_of_its_chunks(family: str) -> None:
    policy, data = make(small("qc", model=ACTION_MODELS[family], chunk=2, execute=2), bandit(100)), bandit(100)
    check_policy(policy)
    state_BS = torch.randn(4, 2, generator=generator(1))
    act_BKA = policy.sample_actions(state_BS, [1, 2, 3, 4])
    candidates_BNKA = policy.sample(state_BS, 32, [1, 2, 3, 4], DEFAULT_OPTIONS)
    value_BN = torch.stack([policy.critic.target_value(state_BS, candidates_BNKA[:, n].flatten(1)) for n in range(32)],
                           1)
    assert (value_BN.amax(1) > value_BN.amin(1)).all()
    torch.testing.assert_close(policy.critic.target_value(state_BS, act_BKA.flatten(1)), value_BN.amax(1))
    same = make(policy.config, data)
    same.critic.relative = None  # no value is asked for
    train(same, data, 1)
