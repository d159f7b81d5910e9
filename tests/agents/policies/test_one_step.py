"""Policies that act by one call: the mathematics of their losses, and which networks their gradients reach."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_policies import bandit, chain, make, small, trained
from torch import Tensor, nn

from gentraj.agents.policies import POLICIES
from gentraj.agents.policies.drol import DROLConfig
from gentraj.agents.policies.fql import FQLConfig
from gentraj.agents.policies.gfp import GFPConfig
from gentraj.agents.policies.meanflow_ql import MeanFlowQLConfig
from gentraj.agents.policies.one_step import OneStep
from gentraj.agents.policies.policy import Transition
from gentraj.agents.policies.td3bc import TD3BCConfig
from gentraj.data import Windows
from gentraj.randomness import RowNoise, generator
from gentraj.trajectory import SamplingOptions

ACTORS = [config for config, policy in POLICIES.values() if issubclass(policy, OneStep)]


def made(kind: type, **changes: Any) -> tuple[Any, Transition]:
    """A small policy for `bandit`, whose states have two entries and whose actions have one, and a batch of it."""
    data = bandit(64)
    policy: Any = make(small(kind, **changes), data)
    return policy, policy.transition(Windows(data, policy.spec).batch(0, 0, 32), 0.9)


class Critic(nn.Module):
    """Q(s, a) = s_0 + a_0, under the critic and under its target."""

    def target_value(self, state_BS: Tensor, chunk_BX: Tensor) -> Tensor:
        return state_BS[:, 0] + chunk_BX[:, 0]

    def relative(self, state_BS: Tensor, chunk_BX: Tensor, generator: object = None) -> Tensor:
        return self.target_value(state_BS, chunk_BX)


class Student(nn.Module):
    """Acts by `function` of the noise and the time."""

    def __init__(self, function: Any):
        super().__init__()
        self.function = function

    def forward(self, x_RHD: Tensor, known_RHD: Tensor, mask_RHD: Tensor, t_R: Tensor) -> Tensor:
        return torch.cat([x_RHD[..., :2], self.function(x_RHD[..., 2:], t_R[:, None, None])], -1)


def transition(policy: Any, state: list[float], act: list[float]) -> Transition:
    B = len(act)
    one_B = torch.ones(B)
    return Transition(torch.stack([torch.tensor(state), torch.zeros(B)], 1), torch.tensor(act)[:, None],
                      torch.ones(B, 1, dtype=torch.bool), one_B, torch.zeros(B, 2), one_B, one_B.bool(),
                      torch.zeros(B, dtype=torch.long))


# -- GFP


def test_the_flow_imitates_an_action_with_its_probability_against_the_student_s() -> None:
    policy, _ = made(GFPConfig, temperature=0.5)
    policy.critic, policy.student = Critic(), Student(lambda z, t: z)
    t = transition(policy, [1.0, 3.0], [0.5, -0.5])
    guidance_B = policy.guidance(t, torch.tensor([-0.5, 3.0])[:, None, None])
    own_B, data_B = torch.tensor([1 - 0.5, 3 + 1.0]), torch.tensor([1 + 0.5, 3 - 0.5])  # an action of 3 is clamped to 1
    T = 0.5 * (0.5 + 4) / 2  # the temperature times the mean size of the student's values
    expected_B = (data_B / T).exp() / ((data_B / T).exp() + (own_B / T).exp())
    torch.testing.assert_close(guidance_B, expected_B)
    assert guidance_B[0] > 0.5 > guidance_B[1]


def test_the_flow_of_gfp_leaves_out_what_is_worth_less() -> None:
    """Of the actions 0.6 and -0.6 it draws the one that is worth more, and FQL's draws both."""
    policy: Any = trained(GFPConfig)
    state = policy.state(2 * torch.randn(200, 2, generator=generator(9)), None)
    act_B = policy.candidates(policy.model, state, 1, list(range(200))).flatten()
    assert (act_B.sign() == state[:, 0].sign()).float().mean() > 0.85


# -- DROL


def test_the_candidate_nearest_to_the_data_s_action_learns() -> None:
    policy, _ = made(DROLConfig, alpha=2.0)
    policy.critic, policy.student = Critic(), Student(lambda z, t: z)
    t = transition(policy, [0.0, 0.0, 0.0], [0.5, -0.5, 1.0])
    z_BNKA = torch.tensor([[-0.5, 0.4, 0.9], [0.6, 0.1, -2.0], [3.0, 0.7, -1.0]])[..., None, None]
    z_BKA = policy.nearest(t, z_BNKA)
    # -2 and 3 count as -1 and 1: |-0.5 - -1| < |-0.5 - 0.1|, and 1 is the action itself
    assert z_BKA.flatten().tolist() == pytest.approx([0.4, -2.0, 3.0])
    loss, distance = policy.student_loss(t, z_BKA)
    assert distance.item() == pytest.approx((0.1**2 + 1.5**2 + 2**2) / 3, rel=1e-5)
    assert loss.item() == pytest.approx(2 * distance.item() - (0.4 - 1 + 1) / 3, rel=1e-5)


def test_what_follows_the_end_of_an_episode_has_no_distance() -> None:
    data = chain()
    policy: Any = make(small(DROLConfig, chunk=2), data)
    last = Windows(data, policy.spec).gather(np.array([2]))  # the last step of an episode: one action
    t = policy.transition(last, 0.5)
    assert policy.real(t).tolist() == [[True, False]]
    policy.critic, policy.student = Critic(), Student(lambda z, t: z)
    near, far = torch.tensor([[0.1], [0.9]]), torch.tensor([[-0.5], [0.0]])
    assert torch.equal(policy.nearest(t, torch.stack([far, near])[None])[0], near)
    assert policy.student_loss(t, near[None])[1].item() == pytest.approx(0.01)


def test_the_noise_of_drol_is_uniform_in_a_ball() -> None:
    policy: Any = make(small(DROLConfig, chunk=3), chain())
    assert policy.noise_dim == 3 + 2
    z_BX = policy.latent(RowNoise(range(4000)).normal(5)).flatten(1)
    share = (z_BX.norm(dim=1) / 3**0.5) ** 3  # the volume of the ball that is nearer to 0
    assert share.max() <= 1 and share.mean().item() == pytest.approx(1 / 2, abs=0.02)
    assert share.var().item() == pytest.approx(1 / 12, abs=0.005) and z_BX.mean(0).abs().max() < 0.05
    torch.testing.assert_close(z_BX.T @ z_BX / 4000, 3 / 5 * torch.eye(3), rtol=0, atol=0.05)


# -- MeanFlowQL


M, S = 0.3, 0.5  # the mean and the deviation of normally distributed actions


def spread(t: Tensor) -> Tensor:
    return (((1 - t) * S) ** 2 + t**2).sqrt()


def at_start(z: Tensor, t: Tensor) -> Tensor:
    """The action a that the flow leads to from z at t: z keeps its distance to the mean in deviations."""
    return M + S * (z - (1 - t) * M) / spread(t)


def velocity(z: Tensor, t: Tensor) -> Tensor:
    """E[noise - a | z, t] of the normal distribution of a."""
    gain = (t - (1 - t) * S**2) / spread(t) ** 2
    return -M + gain * (z - (1 - t) * M)


def mean_flow(z: Tensor, t: Tensor) -> Tensor:
    """z - u(z, 0, t) with the average velocity u of this flow."""
    return z - (z - at_start(z, t)) / t


def test_the_student_of_meanflow_ql_is_where_the_average_velocity_of_the_closed_form_leads() -> None:
    """With the velocity of the flow in the place of noise - a, the closed form has no error, and others have one."""
    policy, _ = made(MeanFlowQLConfig)
    time_B, z_B = torch.linspace(0.05, 1, 20), torch.linspace(-2, 2, 20)
    # an action and noise on whose line, at this time, z has the velocity of the flow
    v_B = velocity(z_B, time_B)
    t = transition(policy, [0.0] * 20, (z_B - time_B * v_B).tolist())
    noise_BKA = (z_B + (1 - time_B) * v_B)[:, None, None]
    policy.student = Student(mean_flow)
    assert policy.mean_flow_loss(t, noise_BKA, time_B).item() < 1e-6
    for wrong in (lambda z, t: z - velocity(z, t), lambda z, t: at_start(z, t), lambda z, t: 1.1 * mean_flow(z, t)):
        policy.student = Student(wrong)
        assert policy.mean_flow_loss(t, noise_BKA, time_B).item() > 1e-3
    at_the_end = mean_flow(noise_BKA, torch.ones(1))
    torch.testing.assert_close(at_the_end, M + S * noise_BKA)  # one call makes the data's distribution of noise


def test_actions_beyond_the_bounds_cost_how_far_they_are_beyond() -> None:
    policy, _ = made(MeanFlowQLConfig, bound=3.0)
    policy.critic, policy.student = Critic(), Student(lambda z, t: z)
    t = transition(policy, [0.0, 0.0], [0.0, 0.0])
    loss = policy.value_loss(t, torch.tensor([1.5, -0.5])[:, None, None])
    assert loss.item() == pytest.approx((3 * 0.5 - 1 + 0.5) / 2)


def test_a_mean_flow_without_a_critic_draws_the_data_s_actions_in_one_call() -> None:
    """0.6 and -0.6 are equally frequent whatever the state, and a unimodal student would act by 0 too."""
    policy, data = make(small(MeanFlowQLConfig, alpha=1e5, candidates=1), bandit()), bandit()
    windows, optimizers = Windows(data, policy.spec), policy.optimizers()
    for step in range(400):
        policy.update(windows.batch(step, 0, 128), optimizers, generator(step))
    act_B = policy.sample_actions(torch.zeros(400, 2), list(range(400))).flatten()
    assert act_B.mean().abs() < 0.25 and (act_B.abs() > 0.3).float().mean() > 0.6


def test_the_best_candidate_acts() -> None:
    policy, _ = made(MeanFlowQLConfig, candidates=3)
    seeds, state = [5, 6], torch.zeros(2, 2)
    best = policy.sample_actions(state, seeds)
    single: Any = make(small(MeanFlowQLConfig, candidates=1), bandit(64))
    assert not torch.equal(best, single.sample_actions(state, seeds))
    z_RKA = torch.randn(6, 1, 1, generator=generator(3))
    act_RKA = policy.one_step(policy.student_ema, torch.zeros(6, 2), z_RKA).view(2, 3).clamp(-1, 1)
    value_BN = policy.critic.target_value(torch.zeros(6, 2), act_RKA.view(6, 1)).view(2, 3)
    assert torch.equal(policy.best(state, z_RKA).flatten(), act_RKA[[0, 1], value_BN.argmax(1)])


# -- all of them


@pytest.mark.parametrize("kind", ACTORS)
def test_the_losses_of_a_student_reach_the_student_and_nothing_else(kind: type) -> None:
    policy, t = made(kind)
    z_BKA = torch.randn(32, 1, 1, generator=generator(1))
    if kind is MeanFlowQLConfig:
        loss = policy.mean_flow_loss(t, z_BKA, torch.linspace(0.1, 1, 32)) + policy.value_loss(t, z_BKA)
    elif kind is DROLConfig:
        loss, _ = policy.student_loss(t, z_BKA)
    else:
        loss, _ = policy.distillation_loss(t, z_BKA, 1.0)
    loss.backward()
    reached = {name for name, p in policy.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached and all(name.startswith("student.") for name in reached)
    assert all(p.requires_grad for p in policy.critic.q.parameters())


@pytest.mark.parametrize("kind", ACTORS)
def test_a_decision_is_one_call_and_a_sampler_is_refused(kind: type) -> None:
    policy, _ = made(kind)
    policy.sample_actions(torch.zeros(3, 2), [1, 2, 3])
    assert policy.network_calls == 1 and policy.sampling() == "one call of the student"
    with pytest.raises(ValueError, match="one call of its student, which has no sampler"):
        policy.sample_actions(torch.zeros(1, 2), [1], SamplingOptions(sampler="heun"))


@pytest.mark.parametrize("kind", [FQLConfig, DROLConfig, MeanFlowQLConfig])
def test_the_temperature_of_a_policy_and_of_the_options_multiply(kind: type) -> None:
    policy, _ = made(kind)
    half, _ = made(kind, temperature=0.5)
    half.load_state_dict(policy.state_dict())
    state_BS, seeds = torch.linspace(-1, 1, 32).view(16, 2), list(range(16))
    expected = [policy.sample_actions(state_BS, seeds, SamplingOptions(temperature=each)) for each in (0.25, 0.5)]
    assert not torch.equal(*expected)
    assert torch.equal(half.sample_actions(state_BS, seeds, SamplingOptions(temperature=0.5)), expected[0])
    assert torch.equal(half.sample_actions(state_BS, seeds), expected[1])


@pytest.mark.parametrize(("kind", "setting"), [
    (GFPConfig, {"alpha": -1}), (GFPConfig, {"temperature": 0}), (DROLConfig, {"alpha": -1}),
    (DROLConfig, {"candidates": 0}), (FQLConfig, {"temperature": -1}),
    (MeanFlowQLConfig, {"alpha": -1}), (MeanFlowQLConfig, {"bound": -1}),
    (MeanFlowQLConfig, {"candidates": 0})])
def test_settings_have_bounds(kind: type, setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        kind(**setting)


@pytest.mark.parametrize("kind", [*ACTORS, TD3BCConfig])
def test_a_random_member_of_the_critic_is_drawn_by_the_generator_of_the_training(kind: type) -> None:
    config, data = small(kind), bandit(64)
    policy: Any = make(replace(config, critic=replace(config.critic, members=2, gradient="random")), data)
    before = torch.get_rng_state()
    policy.update(Windows(data, policy.spec).batch(0, 0, 32), policy.optimizers(), generator(0))
    assert torch.equal(torch.get_rng_state(), before)
