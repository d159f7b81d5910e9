"""`ConditionalGAN` as a `TrajectoryModel`: what it returns, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from contract import CONDITIONS, SPEC, batch
from tiny_gan import JUDGE, make, train

from gentraj.gan import GANConfig
from gentraj.gan.objectives import OBJECTIVES
from gentraj.trajectory import Condition


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


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_penalties_are_the_objectives_own_unless_given(objective: str) -> None:
    assert make(objective=objective).penalties == OBJECTIVES[objective].penalties
    assert make(objective=objective, penalties={}).penalties == {}


@pytest.mark.parametrize("wrong", [{"ema": 1.5}, {"best_of": 0}, {"objective": "nothing"}, {"penalties": {"r1": -1.0}},
                                   {"adversarial_interval": 2, "energy_score": 0}])
def test_settings_out_of_range_are_refused_by_name(wrong: dict) -> None:
    with pytest.raises(ValueError, match=rf"GANConfig\.{next(iter(wrong))} is "):
        GANConfig(**wrong)
