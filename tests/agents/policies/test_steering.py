"""Steering: what a frozen generator makes of noise is what it samples from that noise, and its weights stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_policies import SMALL, bandit, make, narrow, train

from gentraj.agents.policies import PRESETS
from gentraj.agents.policies.bc import BCConfig
from gentraj.agents.policies.policy import Policy
from gentraj.agents.policies.steering import Steered, SteeredConfig
from gentraj.data import Episodes, Windows
from gentraj.diffusion import LatentDiffusionConfig
from gentraj.diffusion.latent import VAEConfig
from gentraj.distillation import ConsistencyConfig, ReflowConfig
from gentraj.families import DIFFUSION, FLOW, GAN, GAUSSIAN
from gentraj.randomness import GivenNoise, RowNoise, as_noise, generator
from gentraj.runs.show.export import RecordedNoise
from gentraj.training.step import TrainingStep
from gentraj.trajectory import SamplingOptions

TEACHER = DIFFUSION.with_network(SMALL)
LATENT = LatentDiffusionConfig(VAEConfig(latent=3, width=8), replace(TEACHER, clip=4.0, steps=2))
GENERATORS: dict[str, Any] = {
    "gaussian": narrow(BCConfig(GAUSSIAN)), "diffusion": narrow(BCConfig(DIFFUSION)),
    "flow": narrow(BCConfig(FLOW, temperature=0.7)), "chunks": narrow(BCConfig(DIFFUSION, chunk=4, execute=2)),
    "gan": narrow(BCConfig(GAN)), "latent": BCConfig(LATENT, chunk=4), "reflow": BCConfig(ReflowConfig(TEACHER)),
    "consistency": BCConfig(ConsistencyConfig(TEACHER)),
    "fql": narrow(PRESETS["fql"][1])}
STATES = torch.randn(5, 2, generator=generator(3))
SEEDS = [*range(5)]


def steered(base: Policy, data: Episodes, **changes: Any) -> Steered:
    """A policy that steers this one, with small networks."""
    config = narrow(SteeredConfig(frozen=base.config, chunk=base.execute, execute=base.execute, **changes))
    policy = make(replace(config, frozen=base.config), data)
    policy.freeze(base)
    return policy


def test_given_noise_is_behind_what_is_known_and_for_all_rows_or_refused() -> None:
    noise = GivenNoise(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    for same in (noise, noise, noise.anew(7), noise.padded(1)[:2]):  # more draws are the same
        assert same.normal(2, 3).tolist() == [[[0, 0, 1], [0, 0, 2]], [[0, 0, 3], [0, 0, 4]]]
    assert noise.normal(2).tolist() == [[1, 2], [3, 4]] and noise[1:].normal(2).tolist() == [[3, 4]]
    for rows in (1, 3):
        with pytest.raises(ValueError, match=f"noise of 2 rows was given for {rows} samples"):
            as_noise(noise, rows)
    with pytest.raises(ValueError, match="given for 2 rows, and a model samples 3 from each"):
        noise.several(3)


@pytest.mark.parametrize("name", GENERATORS)
def test_before_training_it_acts_as_the_frozen_policy_does_from_the_same_noise(name: str) -> None:
    base = make(GENERATORS[name], data := bandit(50)).eval()
    policy = steered(base, data, temperature=1.0).eval()
    drawn_first: list[Any] = []
    expected = base.sample_actions(STATES, RecordedNoise(SEEDS, drawn_first))
    drawn = drawn_first[0]
    timesteps = drawn.shape[1] if drawn.ndim == 3 else 1
    w = drawn[..., -(base.noise_dim // timesteps) :].flatten(1)
    assert torch.equal(policy.generate(STATES, w), expected[:, : policy.chunk])
    z = RowNoise(SEEDS).normal(base.noise_dim)
    assert torch.equal(policy.sample_actions(STATES, SEEDS), policy.generate(STATES, policy.squash(z)))
    for one in (policy, base):
        still = one.sample_actions(STATES, SEEDS, SamplingOptions(temperature=0.0))[:, : policy.chunk]
        torch.testing.assert_close(still, policy.generate(STATES, 0 * z), rtol=0, atol=1e-6)
    assert policy.squash(100 * z).abs().max() <= policy.config.bound


@pytest.mark.parametrize("name", GENERATORS)
def test_its_training_leaves_every_bit_of_the_frozen_policy(name: str) -> None:
    policy = steered(make(GENERATORS[name], data := bandit(50)), data)
    frozen = {key: tensor.clone() for key, tensor in policy.frozen.state_dict().items()}
    before = policy.noise(STATES, torch.zeros(5, policy.frozen.noise_dim))
    metrics = train(policy, data, 3)
    assert all(torch.equal(tensor, frozen[key]) for key, tensor in policy.frozen.state_dict().items())
    assert not torch.equal(policy.noise(STATES, torch.zeros(5, policy.frozen.noise_dim)), before)
    assert metrics["deviation"] > 0 and all(p.grad is None for p in policy.frozen.parameters())


class Rising(torch.nn.Module):
    """Values (1, R) of states with noise that are linear in the noise, the last entry."""

    def forward(self, x_RX: torch.Tensor) -> torch.Tensor:
        return x_RX[None, :, -1]


@pytest.mark.parametrize(("bound", "moved"), [(50.0, 3.0), (2.0, 1.64)])
def test_a_value_that_is_linear_in_the_noise_moves_it_by_eta_deviations_as_far_as_the_box_goes(
        bound: float, moved: float, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = steered(make(GENERATORS["chunks"], data := bandit(50)), data, bound=bound, temperature=1.0)
    z = policy.normal(torch.zeros(4_000, 2), generator(1))
    deviation = policy.squash(z).std()
    optimizers = policy.optimizers()
    policy.noise_value = Rising()  # type: ignore[assignment]
    monkeypatch.setattr(policy, "distillation", lambda t, generator: (torch.zeros((), requires_grad=True), deviation))
    windows = Windows(data, policy.spec)
    for step in range(250):
        batch = windows.batch(step, 0, 64)
        optimizers["actor"].param_groups[0]["lr"] = 0.04 * (1 - step / 250)
        t = policy.transition(batch, 0.99)
        policy.update_actor(t, TrainingStep(batch, optimizers, generator(step)))
    w = policy.noise(torch.zeros(4_000, 2), z)
    assert w[:, -1].mean() / deviation == pytest.approx(moved, abs=0.1) and w[:, 0].mean().abs() < 0.1


def right(policy: Policy) -> float:
    """The fraction of decisions for the action with the sign of s_0, which is a half of the data's."""
    state_BS = torch.randn(200, 2, generator=generator(9))
    act_B = policy.eval().sample_actions(state_BS, [*range(200)])[:, 0, 0]
    return float((act_B.sign() == state_BS[:, 0].sign()).float().mean())


@pytest.mark.parametrize("name", ["gan", pytest.param("fql", marks=pytest.mark.slow)])
def test_it_finds_the_better_of_the_data_s_two_actions(name: str) -> None:
    config = GENERATORS[name]
    if config.critic is not None:
        config = replace(config, eta=0.0)  # it clones
    train(base := make(config, data := bandit()), data, 100)
    policy = steered(base, data)
    train(policy, data, 200)
    assert right(base) < 0.7 and right(policy) > 0.9


def test_settings_that_contradict_the_frozen_policy_are_refused() -> None:
    wrong: dict[str, dict[str, Any]] = {
        "that of the frozen policy is 1": {"chunk": 2}, "sees them as 'gaussian'": {"observations": "raw"},
        "candidates is above 1": {"frozen": PRESETS["idql"][1]}}
    for message, changes in wrong.items():
        with pytest.raises(ValueError, match=message):
            SteeredConfig(**changes)
