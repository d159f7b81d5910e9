"""EXPO: which candidate is taken, what its critics learn, and that it acts as its prior does until it proves better."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from einops import rearrange
from test_policies import bandit, chain, make, narrow, train
from torch import Tensor, nn

from gentraj.agents.policies.bc import BC, BCConfig
from gentraj.agents.policies.expo import CriticsConfig, Expo, ExpoConfig, lower_bound
from gentraj.data import Windows
from gentraj.families import FLOW, GAN
from gentraj.randomness import generator
from gentraj.training.step import TrainingStep, Trial
from gentraj.trajectory import Batch

STATES, SEEDS = torch.randn(50, 2, generator=generator(3)), [*range(50)]


@cache
def prior() -> BC:
    """A flow that draws both actions of the bandit equally often. Leave it as it is."""
    policy = make(narrow(BCConfig(FLOW)), data := bandit())
    train(policy, data, 150)
    return policy.eval()


def expo(base: Any = None, **changes: Any) -> Expo:
    """A learner on this policy, by default on the flow, with small networks, which acts by what is newest."""
    base = prior() if base is None else base
    changes = {"by": "newest"} | changes
    config = narrow(ExpoConfig(frozen=base.config, chunk=base.execute, execute=base.execute, **changes))
    policy = make(replace(config, frozen=base.config), bandit(200))
    policy.freeze(base)
    return policy.eval()


class Known(nn.Module):
    """Values that are known: how near an action is to `best`, and for each member something of its own."""

    unit = torch.ones(())

    def __init__(self, best: float, own_E: Tensor):
        super().__init__()
        self.best, self.own_E = best, own_E

    def forward(self, pair_RF: Tensor, members_M: Tensor | None = None) -> Tensor:
        own_M = self.own_E if members_M is None else self.own_E[members_M]
        action_R = pair_RF[:, 2]
        return -(action_R - self.best) ** 2 + own_M[:, None] * (1 + action_R)


def knowing(best: float, own: float = 0.0, **changes: Any) -> Any:
    """A learner whose two critics are known and differ by 2 * own * (1 + a)."""
    policy: Any = expo(critic=CriticsConfig(members=2), **changes)
    policy.q = Known(best, own * torch.tensor([-1.0, 1.0]))
    return policy


# -- the choice


def test_the_candidate_that_is_known_to_be_best_is_taken() -> None:
    policy = knowing(best=0.2, edit=replace(ExpoConfig().edit, bound=0.1))
    act_BNX = policy.propose(STATES, SEEDS)
    act_BCX = torch.cat([act_BNX, policy.edits(STATES, act_BNX)], 1)
    nearest_B = (act_BCX[..., 0] - 0.2).abs().argmin(1)
    expected = act_BCX[torch.arange(50), nearest_B]
    assert torch.equal(policy.sample_actions(STATES, SEEDS)[:, 0], expected) and len(nearest_B.unique()) > 4


def test_the_prior_s_own_action_wins_ties() -> None:
    policy = knowing(best=0.0)
    policy.q.forward = lambda pair_RF, members_M=None: torch.ones(2, len(pair_RF))
    assert torch.equal(policy.sample_actions(STATES, SEEDS)[:, 0], policy.propose(STATES, SEEDS)[:, 0])


def test_a_bound_is_the_mean_less_the_standard_deviations_of_how_much_better_an_action_is() -> None:
    q_MBC = torch.randn(5, 7, 3, generator=generator(1))
    d_MBC = q_MBC - q_MBC[..., :1]
    bound_BC = lower_bound(q_MBC, 1.7)
    torch.testing.assert_close(bound_BC, d_MBC.mean(0) - 1.7 * d_MBC.std(0))
    assert (bound_BC[:, 0] == 0).all()
    torch.testing.assert_close(lower_bound(q_MBC + torch.randn(5, 7, 1), 1.7), bound_BC)  # values of states drop out


@pytest.mark.parametrize(("caution", "takes"), [(0.0, 1.0), (1.0, 0.0)])
def test_what_the_critics_disagree_about_is_not_done_with_caution(caution: float, takes: float) -> None:
    """One member gains by a larger action what the other loses, and more than both know that it gains."""
    policy = knowing(best=0.9, own=3.0, caution=caution)
    changed_B = policy.sample_actions(STATES, SEEDS)[:, 0] != policy.propose(STATES, SEEDS)[:, 0]
    assert changed_B.float().mean() == pytest.approx(takes, abs=0.35 * takes)


def test_edits_stay_within_their_bound_and_the_range_of_actions() -> None:
    policy = expo()
    with torch.no_grad():
        policy.edits.network[-1].bias.fill_(100.0)
    act_BNX = torch.linspace(-1, 1, 50)[:, None, None]
    torch.testing.assert_close(policy.edits(STATES, act_BNX), (act_BNX + policy.config.edit.bound).clamp(max=1))


# -- learning


def test_it_takes_the_better_of_two_actions_of_which_the_prior_draws_each_half_the_time() -> None:
    policy = expo(delay=1)
    train(policy.train(), bandit(), 150)
    right = [(one.sample_actions(STATES, SEEDS)[:, 0, 0].sign() == STATES[:, 0].sign()).float().mean()
             for one in (policy.frozen, policy.eval())]
    assert right[0] < 0.7 and right[1] > 0.9


def test_edits_go_beyond_what_the_prior_proposes_where_that_is_better() -> None:
    """The larger the action, the better it is; the prior acts by about 0.6 or -0.6."""
    policy = expo(edit=replace(ExpoConfig().edit, bound=0.2), delay=1)
    data = bandit()
    train(policy.train(), replace(data, reward=data.act[:, 0]), 150)
    act_B = policy.eval().sample_actions(STATES, SEEDS)[:, 0, 0]
    best_B = policy.propose(STATES, SEEDS)[..., 0].amax(1)
    assert ((act_B - best_B - 0.2).abs() < 0.05).float().mean() > 0.7


def batch_of(policy: Expo, number: int = 40) -> Batch:
    return Windows(bandit(200), policy.spec).gather(torch.arange(number).numpy())


def gradients(policy: Expo, batch: Batch) -> dict[str, Any]:
    """The gradients of the critics' weights in one step, by name, (E, ...)."""
    policy.update(TrainingStep(batch, policy.optimizers(), generator(0)))
    return {name: parameter.grad for name, parameter in policy.q.named_parameters()}


def test_an_episode_is_held_out_from_one_critic_which_it_does_not_change() -> None:
    base = expo(critic=CriticsConfig(members=4))
    batch = batch_of(base)
    assert batch.reward_BH is not None and batch.episode_B is not None
    other = replace(batch, reward_BH=batch.reward_BH + 50 * (batch.episode_B % 4 == 1)[:, None])
    unclipped = CriticsConfig(members=4, max_grad_norm=1e9)
    one, another = (gradients(expo(critic=unclipped), each) for each in (batch, other))
    for name in one:
        changed_E = (one[name] != another[name]).flatten(1).any(1)
        assert changed_E.tolist() == [True, False, True, True], name


def test_the_doubt_is_the_held_out_error_in_standard_deviations_of_the_critics() -> None:
    policy = expo(critic=CriticsConfig(members=4))
    policy.error.fill_(9.0)
    policy.spread.fill_(0.25)
    assert policy.doubt == 6
    policy.error.fill_(1e-6)  # errors below the spread leave the spread as it is
    assert policy.doubt == 1
    q_EB = policy.q(torch.cat([(t := policy.transition(batch := batch_of(policy), 0.99)).state_BS, t.chunk_BX], -1))
    error_EB = ((q_EB - t.reward_B) / policy.q.unit).square()  # each episode has one step
    held_B = error_EB[t.episode_B % 4, torch.arange(40)]
    metrics = policy.update(TrainingStep(batch, policy.optimizers(), generator(0)))
    torch.testing.assert_close(metrics["held_out_loss"], held_B.mean().detach())


def test_the_value_of_the_next_state_is_the_least_of_two_critics_of_the_best_candidate() -> None:
    """With values that are known, the loss of the critics is that of their targets."""
    config = ExpoConfig(frozen=prior().config, critic=CriticsConfig(members=2, discount=0.5))
    policy: Any = make(narrow(config), chain())
    policy.freeze(prior())
    policy.target = Known(0.2, torch.tensor([0.0, 0.3]))
    batch = replace(Windows(chain(), policy.spec).gather(torch.tensor([0]).numpy()),
                    proposals_B2Y=torch.tensor([[[0.0] * 4, [0.9, 0.1, -0.9, 0.5]]]))
    t = policy.transition(batch, policy.config.critic.discount)
    act_CX = torch.cat([batch.proposals_B2Y[:, 1].reshape(4, 1),
                        policy.edits(t.next_BS, batch.proposals_B2Y[:, 1].reshape(1, 4, 1))[0]])[:, 0]
    best = act_CX[((-(act_CX - 0.2) ** 2 + 0.15 * (1 + act_CX))
                   - (0.3 * (1 + act_CX) - 0.3 * 1.9).abs() / 2**0.5).argmax()]
    target = t.reward_B + t.discount_B * (-(best - 0.2) ** 2)
    q_EB = policy.q(torch.cat([t.state_BS, t.chunk_BX], -1))
    expected = ((q_EB - target) / policy.q.unit).square()[1]  # episode 0 is held out from the first
    metrics = policy.update(Trial(batch, policy.optimizers(), generator(0)))
    torch.testing.assert_close(metrics["critic_loss"], expected.mean().detach())


def test_no_update_samples_the_prior_where_proposals_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = expo(delay=1)
    batch = batch_of(policy)
    t = policy.transition(batch, 0.99)
    both = torch.stack([policy.propose(t.state_BS, 0), policy.propose(t.next_BS, 1)], 1)
    monkeypatch.setattr(policy.frozen, "sample_actions", None)
    metrics = policy.update(TrainingStep(replace(batch, proposals_B2Y=rearrange(both, "b s n x -> b s (n x)")),
                                         policy.optimizers(), generator(0)))
    assert torch.isfinite(metrics["bound"])


# -- never below its prior


@pytest.mark.parametrize("model", [FLOW, GAN])
def test_with_broken_critics_it_acts_as_its_prior_bit_for_bit(model: Any) -> None:
    base = make(narrow(BCConfig(model, chunk=4, execute=2)), bandit(50)).eval()
    policy = expo(base, by="best")
    with torch.no_grad():
        for parameter in policy.q.parameters():
            parameter.normal_(0, 1e6)
    expected = base.sample_actions(STATES, SEEDS)[:, :2]
    assert torch.equal(policy.sample_actions(STATES, SEEDS), expected)
    newest = policy.with_config(replace(policy.config, by="newest"))
    assert not torch.equal(newest.sample_actions(STATES, SEEDS), expected)


def test_what_was_accepted_acts_until_something_else_is() -> None:
    policy: Any = expo(by="best", delay=1)
    acts = []
    for accepted in (True, False, True):
        train(policy.train(), bandit(), 5)
        if accepted:
            policy.accept(13.5, 12.5, 14.5)
        newest = policy.eval().with_config(replace(policy.config, by="newest")).sample_actions(STATES, SEEDS)
        acts.append(policy.sample_actions(STATES, SEEDS))
        assert torch.equal(acts[-1], newest) == accepted
    assert torch.equal(acts[0], acts[1]) and not torch.equal(acts[1], acts[2])
    assert policy.accepted.done == policy.updates.done == 15 and policy.standing.tolist() == [13.5, 12.5, 14.5]
    again = make(policy.config, bandit(200))
    again.load_state_dict(policy.state_dict())
    assert torch.equal(again.eval().sample_actions(STATES, SEEDS), acts[2])


@pytest.mark.parametrize(("changes", "message"), [
    ({"chunk": 2}, "chunk is 2, and that of the prior is 1"),
    ({"drawn": 11}, "drawn is 11, and the ensemble has 10 members"),
    ({"observations": "none"}, "observations")])
def test_settings_that_do_not_fit_are_refused(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExpoConfig(**changes)
