"""A policy with a deadline makes its next chunk while this one runs. A simulated clock tells how long that takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_policy_history import episodes_of, made
from torch import Tensor

from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.bc import BC, BCConfig
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.realtime.background import Deadline, SimulatedTime
from gentraj.agents.realtime.policy import RealTimeActor
from gentraj.data import ContextConfig, Episodes, Windows
from gentraj.diffusion import LatentDiffusionConfig
from gentraj.distillation import STUDENTS
from gentraj.families import ACTION_MODELS, FAMILIES, GAUSSIAN
from gentraj.models.conditioning import ConditionMix
from gentraj.networks import PerceptronConfig, ResidualMLPConfig
from gentraj.randomness import Seeds, as_noise, generator
from gentraj.testing import check_policy
from gentraj.training.step import TrainingStep
from gentraj.trajectory import DEFAULT_OPTIONS, Agent, SamplingOptions, TrajectorySpec

TINY = ResidualMLPConfig(8, 1, 0)
PERIOD = 1.0
LEAP = 10.0  # the largest difference between two first actions of chunks; within a chunk, actions differ by 1


def scales() -> StateActionScales:
    made = StateActionScales.blank(2, 1, 0)
    made.act.scale_D.fill_(100.0)
    return made


class Ramps(BC):
    """A policy whose chunks start at random, or at the last known action, and rise by 1 in each step."""

    def sample_after(self, first_BLA: Tensor | None, state_BS: Tensor, seeds: Seeds,
                     options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        rise_K = torch.arange(float(self.chunk)) / 100
        ramp_BKA = (as_noise(seeds, len(state_BS)).normal(1).tanh() * LEAP / 200 + rise_K)[..., None]
        if first_BLA is None:
            return ramp_BKA
        L = first_BLA.shape[1]
        after_BKA = first_BLA[:, -1:] + (rise_K[1:, None] if self.chunk > L else rise_K[:0, None])[: self.chunk - L]
        return torch.cat([first_BLA, after_BKA], 1)


class Slow(Actor):
    """An actor whose chunks take a given time each, and the last one ever after; it keeps what it was asked."""

    def take(self, time: SimulatedTime, seconds: Sequence[float]) -> None:
        self.time, self.seconds = time, [*seconds]
        self.known: list[int] = []

    def chunk(self, obs_BO: Tensor, goal_BG: Tensor | None, seeds: Sequence[int],
              first_BLA: Tensor | None = None) -> Tensor:
        self.time.now += self.seconds[0]
        del self.seconds[: len(self.seconds) > 1]
        self.known.append(0 if first_BLA is None else first_BLA.shape[1])
        return super().chunk(obs_BO, goal_BG, seeds, first_BLA)


class Played:
    """A policy of ramps whose chunks take so many seconds, one each, in control periods of one second."""

    def __init__(self, *seconds: float, warm: bool = True, fallback: Agent | None = None, chunk: int = 16,
                 execute: int = 6, max_delay: int = 8):
        self.time = SimulatedTime()
        policy = Ramps(BCConfig(ACTION_MODELS["gaussian"].with_network(TINY), chunk=chunk, execute=execute,
                                max_delay=max_delay), scales())
        self.actor = Slow(policy, np.full(1, -99, np.float32), np.full(1, 99, np.float32))
        self.actor.take(self.time, seconds)
        self.agent: Any = RealTimeActor(self.actor, Deadline(PERIOD, fallback, self.time, self.time))
        if warm:
            self.agent.warm_up(torch.zeros(1, 2), None)
        self.agent.reset([3])
        self.actor.known.clear()

    def act(self) -> float:
        """One action, in time."""
        start = self.time.now
        act_BA = self.agent.act(torch.zeros(1, 2))
        assert self.time.now <= start + PERIOD + 1e-9
        self.agent.rest(start + PERIOD - self.time.now)
        self.time.now = start + PERIOD
        return float(act_BA)

    def play(self, steps: int) -> np.ndarray:
        return np.array([self.act() for _ in range(steps)])

    @property
    def acted(self) -> dict[str, int]:
        return self.agent.timing()["acted_by"]


class Seven(Agent):
    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        return torch.full((1, 1), 7.0)


def jumps(acts: np.ndarray) -> np.ndarray:
    """Steps of the action that are not a rise by 1."""
    step = np.diff(acts)
    return step[~np.isclose(step, 1, atol=1e-3)]


def test_with_time_for_a_chunk_it_acts_as_the_policy_does() -> None:
    played = Played(0.9)
    plain = Actor(played.agent.policy, np.full(1, -99, np.float32), np.full(1, 99, np.float32))
    plain.reset([3])
    expected = [float(plain.act(torch.zeros(1, 2))) for _ in range(40)]
    assert played.play(40).tolist() == expected and played.acted == {"the chunk": 40}


def test_it_sees_what_the_policy_remembers() -> None:
    policy = made(BCConfig(GAUSSIAN.with_network(TINY), chunk=4, execute=2), episodes_of([9, 9]), 3, 2)
    plain = Actor(policy, np.full(2, -9, np.float32), np.full(2, 9, np.float32))
    time = SimulatedTime()
    agent = RealTimeActor(Actor(policy, plain.low_A.numpy(), plain.high_A.numpy()), Deadline(1.0, None, time, time))
    for seed in (1, 2):
        for each in (plain, agent):
            each.reset([seed])
        for obs_BO in torch.randn(9, 1, 2, generator=generator(seed)):
            assert torch.equal(plain.act(obs_BO), agent.act(obs_BO))


@pytest.mark.parametrize("delay", range(1, 9))
def test_a_late_chunk_continues_what_is_carried_out_meanwhile(delay: int) -> None:
    """So there is no jump at all, as here a chunk continues what it knows, and where it knows nothing there are some.
    Nothing that was promised is skipped: the actions go on for `delay` steps after a chunk is begun, and no longer."""
    played = Played(delay + 0.5, chunk=18, max_delay=9)
    acts = played.play(60)
    started = acts[delay:]
    assert (acts[:delay] == 0).all() and not len(jumps(started))
    assert {*played.actor.known[1:]} <= {delay, delay + 1} and played.acted["the chunk"] == len(started)
    naive = Played(delay + 0.5, chunk=18, max_delay=0)
    assert len(jumps(naive.play(60)[delay:])) >= 4 and {*naive.actor.known} == {0}


def test_what_is_promised_is_carried_out_even_where_the_next_chunk_comes_early() -> None:
    played = Played(*[3.5] * 8, 0.1)
    acts = played.play(20)
    assert played.agent.timing()["chunks"]["3 steps"] >= 1 and not len(jumps(acts[3:]))


def test_a_slow_first_call_is_forgotten() -> None:
    for warm in (True, False):
        played = Played(100.0, 0.1, warm=warm)
        played.play(150)
        assert played.agent.timing()["chunk_ms"] == pytest.approx(100)
        before = played.agent.timing()["chunks"].get("0 steps", 0)
        played.play(60)
        assert played.agent.timing()["chunks"]["0 steps"] - before == 10


def test_one_slow_act_delays_no_chunk() -> None:
    played = Played(0.1)
    played.agent.background.acting.append(100.0)
    played.play(30)
    assert played.agent.timing()["chunks"] == {"0 steps": 5}


def test_one_slow_chunk_does_not_delay_the_others_for_good() -> None:
    played = Played(*[0.1] * 9, 7.0, 0.1)
    played.play(6 * 45)
    assert played.agent.timing()["chunk_ms"] == pytest.approx(100)


@pytest.mark.parametrize("fallback", [None, Seven()])
def test_without_a_chunk_in_time_the_old_one_goes_on_and_then_the_last_action_holds(fallback: Agent | None) -> None:
    played = Played(*[0.5] * 8, 1e9, fallback=fallback)
    acts = played.play(40)
    assert not len(jumps(acts[:16])) and (acts[16:] == (7 if fallback else acts[15])).all()
    assert played.acted == {"the chunk": 6, "the previous chunk": 10,
                            "the fallback" if fallback else "the last action": 24}


def test_before_the_first_chunk_the_fallback_acts_and_the_chunk_joins_in_by_its_time() -> None:
    played = Played(2.5, fallback=Seven())
    acts = played.play(6)
    assert (acts[:2] == 7).all() and not len(jumps(acts[2:]))
    assert played.agent.timing()["chunks"] == {"2 steps": 1}


def test_single_actions_that_take_too_long_are_carried_out_late() -> None:
    played = Played(1.5, chunk=1, execute=1, max_delay=0)
    acts = played.play(20)
    assert len(set(acts[2:])) == 12 and played.acted["the last action"] >= 18


def test_an_error_in_the_background_is_raised_by_act_and_an_episode_that_ended_is_forgotten() -> None:
    played = Played(2.5)
    played.play(9)
    real = played.actor.chunk

    def broken(*given: Any) -> Tensor:
        real(*given)
        raise ArithmeticError("of a chunk")

    played.actor.chunk = broken
    with pytest.raises(ArithmeticError):
        played.play(9)
    played.act()
    played.agent.reset([4])  # nobody needs the chunk that was begun any more
    played.actor.chunk = real
    assert played.act() == 0
    played.agent.reset([4, 5])
    with pytest.raises(ValueError, match="2 observations were given to an agent with a deadline"):
        played.agent.act(torch.zeros(2, 2))


# -- training


def walk() -> Episodes:
    """Actions that go on: a' = a + noise; observations do not tell them."""
    rng = np.random.default_rng(0)
    act = np.cumsum(rng.normal(size=(4, 60, 1)), 1).reshape(-1, 1) / 10
    return Episodes(rng.normal(size=(244, 2)), act, np.zeros(240), np.zeros(240, bool), np.arange(240) % 60 == 59,
                    np.full(4, 60))


def every_model() -> dict[str, Any]:
    models: dict[str, Any] = {name: config.with_network(TINY) for name, config in ACTION_MODELS.items()}
    latent: Any = FAMILIES["latent"]
    assert isinstance(latent, LatentDiffusionConfig)
    students = {name: config(teacher=models["diffusion"]) for name, (config, _) in STUDENTS.items()}
    return models | students | {"latent": latent.with_network(TINY)}


@pytest.mark.parametrize("name", every_model())
def test_every_model_learns_and_continues_known_actions(name: str) -> None:
    episodes = walk()
    torch.manual_seed(0)
    config = BCConfig(every_model()[name], chunk=8, execute=4, max_delay=4, batch_size=16)
    policy = BC(config, StateActionScales.fit(episodes, ContextConfig()))
    optimizers = policy.optimizers()
    windows = Windows(episodes, policy.spec)
    metrics = policy.update(TrainingStep(windows.batch(0, 0, policy.batch_size), optimizers, generator(0, 1)))
    assert all(value.isfinite() for value in metrics.values())
    actor = Actor(policy, np.full(1, -9, np.float32), np.full(1, 9, np.float32))
    first_BLA = torch.tensor(episodes.act[:12]).float().view(3, 4, 1)
    obs_BO = torch.tensor(episodes.obs[:3]).float()
    with torch.no_grad():
        same = actor.chunk(obs_BO, None, [1, 2, 3], first_BLA)
        torch.testing.assert_close(same[:, :4], first_BLA)
        other = actor.chunk(obs_BO, None, [1, 2, 3], -first_BLA)
        assert not torch.equal(same[:, 4:], other[:, 4:])  # what follows depends on what is known
    check_policy(policy)


def test_the_number_of_known_actions_is_drawn_from_0_to_the_largest() -> None:
    spec, real = TrajectorySpec(2, 1, 8), torch.ones(4000, 8, 3, dtype=torch.bool)
    mix = ConditionMix(start=0, goal=0, observations=1)
    known = replace(mix, first_actions=3).sample(spec, real, generator(0))
    number_B = known[..., 2].sum(1)
    assert known[..., :2].all() and known[..., 2].int().diff(dim=1).le(0).all()
    torch.testing.assert_close(number_B.bincount() / 4000, torch.full((4,), 0.25), atol=0.03, rtol=0)
    g, h = generator(0), generator(0)
    mix.sample(spec, real, g)
    replace(mix, first_actions=0).sample(spec, real, h)
    assert torch.equal(torch.rand(2, generator=g), torch.rand(2, generator=h))


def test_a_delay_that_cannot_be_learnt_is_refused() -> None:
    with pytest.raises(ValueError, match="max_delay is 8; a number below chunk, 8"):
        BCConfig(chunk=8, max_delay=8)
    fixed: Any = ACTION_MODELS["diffusion"].with_network(PerceptronConfig(fixed_mask=True))
    with pytest.raises(ValueError, match="fixed_mask"):
        BCConfig(fixed, chunk=8, max_delay=2)
    assert BCConfig(fixed, chunk=8).max_delay == 0 and DEFAULT_OPTIONS.temperature == 1
