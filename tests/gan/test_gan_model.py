"""`ConditionalGAN` as a `TrajectoryModel`: what it returns, and what it refuses."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from contract import CONDITIONS, SPEC, batch
from tiny_gan import CONTEXT, JUDGE, VARIANTS, make, train
from torch import Tensor

from gentraj.gan import ConditionalGAN, GANConfig
from gentraj.gan.objectives import OBJECTIVES
from gentraj.trajectory import Condition, SamplingOptions, TrajectorySpec

every_variant = pytest.mark.parametrize("variant", VARIANTS)


def test_the_temperature_scales_the_noise() -> None:
    model, condition = make(moved=True), Condition.empty(SPEC, 2)
    cold = model.sample(condition, 3, options=SamplingOptions(temperature=0.0))
    again = model.sample(condition, 3, seed=9, options=SamplingOptions(temperature=0.0))
    assert torch.equal(cold[:, 0], cold[:, 1]) and torch.equal(cold, again)
    assert not torch.equal(model.sample(condition, options=SamplingOptions(temperature=0.5)), model.sample(condition))


def test_a_context_is_refused_without_and_used_with() -> None:
    conditioned = replace(Condition.empty(SPEC, 2), context_BC=torch.ones(2, 2))
    for call in (lambda m: m.sample(conditioned), lambda m: m.ood_score(torch.zeros(2, 8, 5), conditioned, [0, 1]),
                 lambda m: train(m, range(1), replace(batch(), context_BC=torch.ones(16, 2)))):
        with pytest.raises(ValueError, match=r"to a model that was trained without one"):
            call(make())
    model = make(CONTEXT, moved=True)
    other = replace(conditioned, context_BC=torch.tensor([[1.0, -2.0], [4.0, 0.0]]))
    samples = [model.sample(c)[1] for c in (Condition.empty(SPEC, 2), conditioned, other)]
    judged = [model.ood_score(samples[0].expand(2, -1, -1), c, [0, 1])[1] for c in (conditioned, other)]
    assert not any(torch.equal(a, b) for a, b in ((samples[0], samples[1]), (samples[1], samples[2]), judged))
    with pytest.raises(ValueError, match=r"a context of width \(3,\) was given; 2 finite numbers"):
        model.sample(replace(conditioned, context_BC=torch.zeros(2, 3)))


def test_the_ood_score_is_the_softplus_of_how_far_a_logit_is_below_the_real_one() -> None:
    model, condition = make(moved=True), CONDITIONS["goal"](Condition.empty(SPEC, 3))
    x = torch.where(condition.mask_BHD, condition.values_BHD, batch((8,) * 3).x_BHD)
    values = torch.where(condition.mask_BHD, model.normalizer.normalize(condition.values_BHD), 0)
    _, logit = model.discriminator(model.normalizer.normalize(x), values, condition.mask_BHD, torch.zeros(1))
    for real_logit in (0.0, 5.0):
        model.real_logit.fill_(real_logit)
        found = model.ood_score(x, condition, range(3))
        assert found.shape == (3, 8) and (found >= 0).all()
        torch.testing.assert_close(found, torch.log1p((real_logit - logit).exp()), rtol=1e-4, atol=1e-5)
    alone = model.ood_score(x[1:2], condition[1:2], [1])
    torch.testing.assert_close(alone, found[1:2])


def test_without_patches_no_row_can_be_judged() -> None:
    model = make(discriminator=replace(JUDGE, patches=False))
    train(model, range(1), batch())
    with pytest.raises(ValueError, match="judges whole trajectories only, not single timesteps; train one with "):
        model.ood_score(torch.zeros(1, 8, 5), Condition.empty(SPEC), [0])


@every_variant
def test_sampling_and_judging_change_nothing(variant: str) -> None:
    """Nor does a training model that was asked in between train otherwise."""
    model = make(**VARIANTS[variant])
    before = copy.deepcopy(model.state_dict())
    x = model.sample(Condition.empty(SPEC), 20, guide=lambda x: x.sum((1, 2)))[0]
    if model.config.discriminator.patches:
        model.ood_score(x, Condition.empty(SPEC, 20), range(20))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_penalties_are_the_objectives_own_unless_given(objective: str) -> None:
    assert GANConfig(objective=objective).weights == dict(OBJECTIVES[objective].penalties)
    assert GANConfig(objective=objective, penalties={}).weights == {}
    assert GANConfig(objective=objective, penalties={"r1": 3.0}).weights == {"r1": 3.0}


@pytest.mark.parametrize("wrong", [{"ema": 1.5}, {"discriminator_steps": 0}, {"best_of": 0}, {"search_steps": -1},
                                   {"search_rate": -0.1}, {"discriminator_noise": -1.0}, {"energy_score": -1.0},
                                   {"objective": "nothing"}, {"adversarial_interval": 0},
                                   {"adversarial_interval": 2, "energy_score": 0}])
def test_settings_out_of_range_are_refused_by_name(wrong: dict) -> None:
    with pytest.raises(ValueError, match=rf"GANConfig\.{next(iter(wrong))} is "):
        GANConfig(**wrong)


@pytest.mark.parametrize(("call", "message"), [
    (lambda m: m.sample(Condition.empty(SPEC),
                        options=SamplingOptions(sampler="ddim")), "sampler was given, and a GAN samples in one call"),
    (lambda m: ConditionalGAN(TrajectorySpec(3, 2, 9), m.config, m.normalizer), "horizon 9 cannot be halved 1 times"),
])
def test_what_cannot_be_done_is_refused_in_one_line(call: Callable[[ConditionalGAN], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        call(make())
    assert "\n" not in str(raised.value)
