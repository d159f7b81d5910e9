"""`MIP`: both of its steps have closed forms, and its samples at temperature 0 have no noise."""

import re
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from gentraj.families import ACTION_MODELS
from gentraj.models.conditioning import ConditionMix
from gentraj.models.mip import MIP, MIPConfig
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import RowNoise, generator
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, Condition, SamplingOptions, TrajectorySpec

CELL = TrajectorySpec(obs_dim=1, act_dim=1, horizon=1)  # a policy's window: one state and one action
SCALES = Normalizer(torch.tensor([0.0, 0.5]), torch.tensor([1.0, 2.0]))
STATES = torch.linspace(-1, 1, 64)[:, None]
WITHOUT_NOISE = SamplingOptions(temperature=0.0)


def trained(act_of: object, steps: int, time: float = 0.5) -> MIP:
    """A model of normalised actions `act_of(states, generator)`, of states that are uniform in [-1, 1]."""
    torch.manual_seed(0)
    config = MIPConfig(ResidualMLPConfig(32, 1, 0), time=time, learning_rate=1e-2, ema=0.98)
    model = MIP(CELL, config, SCALES, conditioning=ConditionMix(start=0, goal=0, observations=1))
    optimizers = model.optimizers()
    for step in range(steps):
        rng = generator(step)
        s = 2 * torch.rand(256, 1, generator=rng) - 1
        x = SCALES.unnormalize(torch.cat([s, act_of(s, rng)], 1)[:, None])  # type: ignore[operator]
        optimizers["network"].param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        model.update(TrainingStep(Batch(x, torch.ones_like(x, dtype=torch.bool)), optimizers, rng))
    return model


def actions(model: MIP, options: SamplingOptions = WITHOUT_NOISE) -> Tensor:
    """(64,) sampled actions in these states, normalised, with the seeds 0 .. 63."""
    x = model.sample(Condition.empty(CELL, 64).with_obs(0, STATES), seed=range(64), options=options)
    return SCALES.normalize(x)[:, 0, 0, 1]


def test_for_linear_gaussian_data_both_steps_are_the_conditional_means() -> None:
    """a ~ N(m(s), r^2): E[a | t a + (1 - t) z = y] = m + k (y - t m), k = t r^2 / (t^2 r^2 + (1 - t)^2).

    So without noise the policy is m, a sample deviates from it by k (1 - t) z, and the ood score is known, too.
    """
    t, r = 0.5, 0.5
    k = t * r**2 / (t**2 * r**2 + (1 - t) ** 2)
    model = trained(lambda s, rng: 0.8 * s - 0.3 + r * torch.randn(s.shape, generator=rng), 200)
    mean, z = 0.8 * STATES[:, 0] - 0.3, RowNoise(range(64)).normal(1, 2)[:, 0, 1]
    assert (actions(model) - mean).square().mean().sqrt() < 0.03
    assert (actions(model, SamplingOptions()) - mean - k * (1 - t) * z).square().mean().sqrt() < 0.04
    x = torch.stack([STATES[:, 0], mean + torch.linspace(-0.8, 0.8, 64)], 1)[:, None]
    score = model.ood_score(SCALES.unnormalize(x), Condition.empty(CELL, 64).with_obs(0, STATES), list(range(64)))
    error = (k * t - 1) * torch.linspace(-0.8, 0.8, 64) + k * (1 - t) * z
    torch.testing.assert_close(2 * score[:, 0], error**2, rtol=0.2, atol=0.04)  # the mean over state and action


def test_the_second_step_moves_the_mean_of_two_modes_towards_the_likelier_one() -> None:
    """a is 1 with probability p, else -1: D(y, t) = tanh(t y / (1 - t)^2 + log(p / (1 - p)) / 2), y = t (2 p - 1)."""
    t, p = 0.5, 0.7
    model = trained(lambda s, rng: torch.where(torch.rand(s.shape, generator=rng) < p, 1.0, -1.0), 200)
    y = torch.tensor(t * (2 * p - 1))
    refined = (t * y / (1 - t) ** 2 + torch.tensor(p / (1 - p)).log() / 2).tanh()
    assert abs(actions(model).mean() - refined) < 0.05 and refined - (2 * p - 1) > 0.25


class Off(nn.Module):
    """Misses the action by 1 in one of the two steps, if the action is as `interpolate` has it."""

    def __init__(self, second: bool):
        super().__init__()
        self.second = second

    def forward(self, x: Tensor, interpolated: Tensor, known: Tensor, t_R: Tensor, context: None) -> Tensor:
        return ((t_R[0] > 0) == self.second) * torch.ones_like(x)


def test_the_second_step_counts_as_much_more_as_it_errs_less() -> None:
    """By (t / (1 - t))^2, as in the authors' code. The weights add up to 2, so that clipping is as for two errors."""
    losses, model = [], MIP(CELL, MIPConfig(), SCALES, conditioning=ConditionMix(start=0, goal=0, observations=1))
    for second in (False, True):
        model.network = Off(second)
        x = SCALES.unnormalize(torch.zeros(64, 1, 2))
        step = TrainingStep(Batch(x, torch.ones_like(x, dtype=torch.bool)), {}, generator(0))
        losses.append(float(model.loss(model.microbatch(step), step.batch)))
    assert losses[1] == pytest.approx(81 * losses[0]) and sum(losses) == pytest.approx(2)


def test_a_sample_takes_two_calls_and_without_noise_no_seed() -> None:
    model = trained(lambda s, rng: s, 1)
    assert torch.equal(actions(model), SCALES.normalize(model.sample(
        Condition.empty(CELL, 64).with_obs(0, STATES), seed=7, options=WITHOUT_NOISE))[:, 0, 0, 1])
    assert model.network_calls == 4 and model.sampling() == "two calls of a MIP"


@pytest.mark.parametrize("time", [0.0, 1.0])
def test_a_second_step_without_noise_or_without_signal_is_refused(time: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"MIPConfig.time is {time}; ")):
        MIPConfig(time=time)
    assert cast(MIPConfig, ACTION_MODELS["mip"]).time == 0.9
