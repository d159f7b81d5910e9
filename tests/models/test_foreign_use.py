"""What callers do with a model that its own code never does: other dtypes, modes, counts and numbers of their own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from contract import CONDITIONS, SPEC
from torch import Tensor

from gentraj.families import FAMILIES, MODELS, Model
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, Condition, SupportsLogProb, SupportsScore

every_family = pytest.mark.parametrize("name", FAMILIES)


def make(name: str, *, context: bool = False) -> Any:
    torch.manual_seed(0)
    config = FAMILIES[name].with_network(ResidualMLPConfig(16, 1, 1))
    own = Normalizer(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5])) if context else None
    model: Model = MODELS.made_of(config)(SPEC, config, Normalizer(torch.arange(5.0), torch.arange(1.0, 6.0)), own)
    return model


def windows(rows: int = 8) -> Tensor:
    return torch.randn(rows, 8, 5, generator=generator(0)) * torch.arange(1.0, 6.0)


def batch(x: Tensor, context: Tensor | None = None, weight: Tensor | None = None) -> Batch:
    return Batch(x, torch.ones_like(x, dtype=torch.bool), context, weight_B=weight)


def updated(model: Model, data: Batch, guide: Any = None) -> dict[str, Tensor]:
    return model.update(TrainingStep(data, model.optimizers(), generator(2)), guide=guide)


def started(rows: int = 2) -> Condition:
    return CONDITIONS["start"](Condition.empty(SPEC, rows))


@every_family
def test_numbers_of_float64_are_those_of_float32(name: str) -> None:
    """In data, contexts and conditions. Known entries keep all their digits."""
    x, context = windows(), torch.randn(8, 2, generator=generator(1))
    expected, metrics = (updated(make(name, context=True), batch(x.to(kind), context.to(kind)))
                         for kind in (torch.float32, torch.float64))
    for key, value in expected.items():
        torch.testing.assert_close(metrics[key].float(), value, rtol=1e-4, atol=1e-5)
    single = Condition(SPEC, x[:2], started().mask_BHD, context[:2])
    double = Condition(SPEC, x[:2].double() + 1e-12, single.mask_BHD, context[:2].double())
    model = make(name, context=True)
    found = model.sample(double, 2, seed=3)
    torch.testing.assert_close(found.float(), model.sample(single, 2, seed=3), rtol=1e-4, atol=1e-5)
    assert torch.equal(found[:, 0][double.mask_BHD], double.values_BHD[double.mask_BHD])
    model.ood_score(x[:2].double(), double, [0, 1])


@every_family
def test_what_padding_holds_changes_nothing(name: str) -> None:
    """NaN times a mask of 0 is NaN. A window that is padding as a whole is none."""
    x, lengths = windows(), torch.tensor([8, 8, 5, 2, 8, 8, 1, 0])
    real = (torch.arange(8) < lengths[:, None])[..., None].expand(-1, -1, 5)
    expected, found = (updated(make(name), Batch(torch.where(real, x, other), real)) for other in (0.0, torch.nan))
    for key, value in expected.items():
        assert torch.isfinite(value) and torch.equal(found[key], value), key


@every_family
def test_a_batch_of_another_layout_is_refused(name: str) -> None:
    """Weights of the shape (B, 1) weighted each window by all of them."""
    model, weight = make(name), torch.tensor([0.5, 1.5]).repeat(4)
    for wrong in (windows()[:, :4], windows()[..., :4]):
        with pytest.raises(ValueError, match=r"windows of shape \(8, .* were given; \(B, 8, 5\) is expected, as"):
            updated(model, batch(wrong))
    with pytest.raises(ValueError, match=r"weight_B has shape \(8, 1\); one weight for each of the 8 windows"):
        updated(model, batch(windows(), weight=weight[:, None]))
    updated(model, batch(windows(), weight=weight))


@pytest.mark.parametrize(("guide", "message"), [
    (lambda x: x[:, 1:, 1].mean(1, keepdim=True), r"returned shape \(\d, 1\)"),
    (lambda x: None, "returned None"), (lambda x: x[:, 1:, 1].mean(1).detach(), "no gradient to train by"),
], ids=["column", "none", "detached"])
@every_family
def test_a_guide_of_the_training_gives_one_score_each_with_a_gradient(name: str, guide: Any, message: str) -> None:
    """A column of scores times the weights of the windows was a square, whose mean ignored which is whose; a score
    without a gradient changed nothing."""
    model = make(name)
    with pytest.raises(ValueError, match=message):
        updated(model, batch(windows(), weight=torch.tensor([0.5, 1.5]).repeat(4)), guide)


def left(x: Tensor) -> Tensor:
    return -(x[..., 0] + 1).square().mean(1)


def shifting_left(x: Tensor) -> Tensor:
    x[..., 0] += 1
    return -x[..., 0].square().mean(1)


@every_family
def test_a_guide_that_works_in_place_changes_no_sample(name: str) -> None:
    model = make(name)
    expected = model.sample(started(), 2, guide=left, seed=0)
    assert torch.equal(model.sample(started(), 2, guide=shifting_left, seed=0), expected)


@every_family
def test_an_observer_that_works_in_place_changes_no_sample(name: str) -> None:
    model = make(name)
    expected = model.sample(started(), 2, seed=0)
    assert torch.equal(model.sample(started(), 2, observe=lambda x, t: x.zero_(), seed=0), expected)


@every_family
def test_samples_and_densities_are_the_same_in_inference_mode(name: str) -> None:
    """Also of conditions that are made there, and with guides, which need a gradient."""
    model, x, density = make(name), windows(2), isinstance(make(name), SupportsLogProb)
    plain, guided = model.sample(started(), 2, seed=0), model.sample(started(), 2, guide=left, seed=0)
    log_p = model.log_prob(x, started(), steps=2) if density else None
    with torch.inference_mode():
        assert torch.equal(model.sample(started(), 2, seed=0), plain)
        assert torch.equal(model.sample(started(), 2, guide=left, seed=0), guided)
        assert not density or torch.equal(model.log_prob(x, started(), steps=2), log_p)
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()


@every_family
def test_a_sample_that_is_not_finite_is_refused(name: str) -> None:
    """A known entry of 1e30 is finite, and its square is not; such a sample was returned as NaN."""
    far = Condition.empty(SPEC, 2).with_obs(0, torch.tensor([1e30, 0.0, 0.0]))
    with pytest.raises(ValueError, match=r"a sample is not finite in .* entries; its known entries or its context may"):
        make(name).sample(far, 2, seed=0)


@every_family
def test_a_normaliser_of_another_width_is_refused(name: str) -> None:
    """One of width 1 normalised all entries alike, and others failed in the first sample."""
    for width in (1, SPEC.obs_dim):
        with pytest.raises(ValueError, match=f"normaliser is for {width} dimensions; a timestep .* has 5, first those"):
            MODELS.made_of(FAMILIES[name])(SPEC, FAMILIES[name], Normalizer.identity(width))


@every_family
def test_what_known_entries_of_a_trajectory_hold_changes_no_score(name: str) -> None:
    """The condition has their values. NaN there passed the check for unknown entries, and made the score NaN."""
    model, known, x = make(name), started(4), windows(4)
    expected = model.ood_score(torch.where(known.mask_BHD, known.values_BHD, x), known, range(4))
    for other in (torch.nan, 1e3):
        elsewhere = torch.where(known.mask_BHD, other, x)
        assert torch.equal(model.ood_score(elsewhere, known, range(4)), expected)
        if isinstance(model, SupportsScore):
            score = model.score(elsewhere, known, 0.5)
            assert torch.equal(score, model.score(x, known, 0.5))
            assert (score[known.mask_BHD] == 0).all() and (score[~known.mask_BHD] != 0).all()


@pytest.mark.parametrize(("call", "message"), [
    (lambda m: m.ood_score(windows(2), started(), [0]), "1 seeds were given for 2 trajectories"),
    (lambda m: m.log_prob(windows(0)), r"shape \(0, 8, 5\)"),
    (lambda m: m.transport(windows(3), started()), r"have shape \(3, 8, 5\)")])
def test_what_a_diffusion_model_cannot_measure_is_refused(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(make("diffusion"))
