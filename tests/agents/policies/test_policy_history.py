"""A policy with a history sees in its environments what it saw in the windows of the data that it learnt from."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_policies import EVERY, NO_CONTEXT, bandit, small

from gentraj.agents.policies import ACTORS, POLICIES
from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.bc import BCConfig
from gentraj.agents.policies.policy import Policy
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.policies.student import StudentActor, StudentConfig
from gentraj.agents.wrappers import NoisyAgent
from gentraj.data import Episodes, Windows
from gentraj.families import GAUSSIAN
from gentraj.networks import ResidualMLPConfig
from gentraj.testing import check_policy
from gentraj.trajectory import TrajectorySpec

MEMORIES = [(2, 0), (1, 3), (4, 2)]  # observations and actions
TINY = BCConfig(GAUSSIAN.with_network(ResidualMLPConfig(width=8, depth=1, frequencies=0)))


def episodes_of(lengths: list[int]) -> Episodes:
    rng, S, ends = np.random.default_rng(0), sum(lengths), np.zeros(sum(lengths), bool)
    return Episodes(rng.normal(size=(S + len(lengths), 2)), rng.normal(size=(S, 2)), np.ones(S), ends, ends,
                    np.array(lengths))


def made(config: Any, episodes: Episodes, history: int, past_actions: int) -> Any:
    spec = TrajectorySpec(episodes.obs_dim, episodes.act_dim, 1, history=history, past_actions=past_actions)
    scales = StateActionScales.fit(episodes, NO_CONTEXT, config.observations, config.rewards, spec)
    return POLICIES.made_of(config)(config, scales)


def seen_in_windows(policy: Policy, episodes: Episodes) -> torch.Tensor:
    """(S, `seen_dim`) what the policy sees in each step of the data."""
    windows = Windows(episodes, policy.spec).gather(np.arange(episodes.num_steps))
    return policy.spec.seen(policy.spec.split(windows.x_BHD)[0][:, 0], windows.past_BPD)


def seen_by_agent(actor: Actor, episodes: Episodes, environments: int) -> torch.Tensor:
    """(S, `seen_dim`) what an agent decides by where it is taken along the episodes, several at a time."""
    seen, steps = torch.zeros(episodes.num_steps, actor.spec.seen_dim), np.zeros(environments, int)
    waiting = list(range(len(episodes)))[::-1]
    now = [-1] * environments
    decided: list[torch.Tensor] = []

    def decide(obs_BO: torch.Tensor, *_: Any) -> torch.Tensor:
        decided.append(obs_BO)
        return torch.zeros(len(obs_BO), 1, episodes.act_dim)

    actor.decide = decide  # type: ignore[method-assign]
    while waiting or max(now) >= 0:
        over_B = np.array([e < 0 or step == episodes.lengths[e] for e, step in zip(now, steps, strict=True)])
        for i in np.flatnonzero(over_B):
            now[i], steps[i] = (waiting.pop() if waiting else -1), 0
        if max(now) < 0:
            break
        if over_B.any():
            actor.reset(list(range(environments)), torch.from_numpy(over_B))
        first = episodes.starts[now] + steps
        actor.act(torch.from_numpy(episodes.obs[first + np.array(now)]))
        for i in np.flatnonzero(np.array(now) >= 0):
            seen[first[i]] = decided[-1][i]
        actor.took(torch.from_numpy(episodes.act[first]))
        steps += 1
    return seen


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(1, 4), st.integers(0, 3), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_an_agent_sees_what_the_windows_of_its_episode_hold(lengths: list[int], history: int, past_actions: int,
                                                            environments: int) -> None:
    """Also where only some of its environments begin anew."""
    episodes = episodes_of(lengths)
    policy = made(TINY, episodes, history, past_actions)
    ends = np.full(episodes.act_dim, np.inf, np.float32)
    expected = seen_in_windows(policy, episodes)
    assert torch.equal(seen_by_agent(Actor(policy, -ends, ends), episodes, environments), expected)
    first = episodes.starts
    if history > 1:  # the first observation is repeated
        assert torch.equal(expected[first].unflatten(1, (-1, 1))[:, : history * episodes.obs_dim, 0],
                           torch.from_numpy(episodes.obs[first + np.arange(len(first))]).repeat(1, history))
    assert not expected[first][:, history * episodes.obs_dim :].any()


def test_the_next_state_of_an_n_step_transition_is_that_of_the_later_window() -> None:
    episodes = episodes_of([6, 4])
    policy = Policy(TINY, made(TINY, episodes, 3, 2).scales, n_step=3)
    windows = Windows(episodes, policy.spec).gather(np.arange(10))
    t = policy.transition(windows, 0.9)
    inside = [0, 1, 2, 6]  # whose next state is the state of a later step of the same episode
    assert torch.equal(t.next_BS[inside], t.state_BS[[i + 3 for i in inside]])
    assert torch.equal(t.next_BS[3, : episodes.obs_dim], t.next_BS[5, : episodes.obs_dim])  # the last observation


@pytest.mark.parametrize(("name", "memory"), [(name, MEMORIES[i % len(MEMORIES)]) for i, name in enumerate(EVERY)])
def test_every_policy_keeps_its_contract_with_a_history(name: str, memory: tuple[int, int]) -> None:
    check_policy(made(small(name, chunk=2, execute=1 + len(name) % 2), bandit(64), *memory))


def test_a_student_acts_by_the_same_history_as_any_policy() -> None:
    episodes = bandit(64)
    policy = made(StudentConfig(width=8, depth=1), episodes, 3, 2)
    bounds = np.ones(1, np.float32)
    fast, slow = StudentActor(policy, -bounds, bounds), Actor(policy, -bounds, bounds)
    for obs_BO in torch.randn(5, 4, 2):
        torch.testing.assert_close(fast.act(obs_BO), slow.act(obs_BO))
    assert ACTORS[type(policy)] is StudentActor


def test_an_agent_remembers_the_actions_that_were_carried_out() -> None:
    """Not those that it chose where noise was added."""
    policy = made(StudentConfig(width=8, depth=1), bandit(64), 1, 1)
    bounds = np.ones(1, np.float32)
    student = StudentActor(policy, -bounds, bounds)
    noisy = NoisyAgent(student, -bounds, bounds, 0.5)
    noisy.reset([0, 1])
    obs_BO = torch.zeros(2, 2)
    act_BA = noisy.act(obs_BO)
    assert torch.equal(student.observations.seen(obs_BO)[:, 2:], act_BA)


def test_a_policy_refuses_observations_without_their_history() -> None:
    policy = made(TINY, bandit(64), 3, 0)
    with pytest.raises(ValueError, match="a policy that sees 6 numbers"):
        policy.scales.state(torch.zeros(1, 2), None)
    with pytest.raises(ValueError, match="history is 0; a whole number from 1"):
        replace(policy.spec, history=0)
