"""Contexts and models put together: closed forms, and equality where one of them is left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from guided import COMBINATIONS, SIZE, SPEC, exact, moments, off, tiny
from oracle import DOUBLE, GAUSSIAN, Mixture, gaussian, normals, rotation
from torch import Tensor

from gentraj.diffusion.composition import ClassifierFree, Contexts, Product
from gentraj.normalize import Normalizer
from gentraj.trajectory import Condition

DIRECT = torch.tensor([0.5, -1.0])


def with_context(rows: int) -> Condition:
    """Different starts and contexts."""
    condition = Condition.empty(SPEC, rows).with_obs(0, normals(rows, 2).float())
    return replace(condition, context_BC=normals(rows, 2, seed=3).float())


@pytest.mark.parametrize("weight", [-1.0, 0.5, 3.0])
@pytest.mark.parametrize(("path", "sampler", "grid", "steps"), COMBINATIONS[::3])
def test_classifier_free_guidance_of_two_gaussians(path: str, sampler: str, grid: str, steps: int,
                                                   weight: float) -> None:
    """With equal covariances p^(1 - w) q^w is Gaussian at every noise level, its mean on the line of their means."""
    other = replace(GAUSSIAN, means_KD=normals(1, SIZE, seed=4))
    found = moments(exact(GAUSSIAN, path, [other]), [ClassifierFree(weight)], sampler, grid, steps, context=0)
    assert off(found, torch.lerp(GAUSSIAN.mean, other.mean, weight), GAUSSIAN.covariance) < 0.03


def test_several_contexts_of_a_gaussian() -> None:
    others = [replace(GAUSSIAN, means_KD=normals(1, SIZE, seed=seed)) for seed in (4, 5)]
    contexts = Contexts([(torch.tensor([0.0]), 0.7), (torch.tensor([1.0]), 1.5)])
    found = moments(exact(GAUSSIAN, "flow", others), [contexts], "heun", "uniform", 40)
    mean = GAUSSIAN.mean + 0.7 * (others[0].mean - GAUSSIAN.mean) + 1.5 * (others[1].mean - GAUSSIAN.mean)
    assert off(found, mean, GAUSSIAN.covariance) < 0.03


def test_weight_one_is_bit_equal_to_the_condition_and_zero_to_none() -> None:
    model, condition = tiny(), with_context(3)
    none = replace(condition, context_BC=None)
    conditional, unconditional = model.sample(condition, seed=0), model.sample(none, seed=0)
    assert not torch.equal(conditional, unconditional)
    assert torch.equal(model.sample(condition, guide=ClassifierFree(1.0), seed=0), conditional)
    assert torch.equal(model.sample(condition, guide=ClassifierFree(0.0), seed=0), unconditional)
    assert torch.equal(model.sample(condition, guide=ClassifierFree(3.0, interval=(0.0, 0.0)), seed=0), conditional)
    same = replace(condition, context_BC=DIRECT.expand(3, 2))
    assert torch.equal(model.sample(none, guide=Contexts([(DIRECT, 1.0)]), seed=0), model.sample(same, seed=0))


@pytest.mark.parametrize("weight", [-1.0, 0.0, 2.0])
def test_a_model_that_never_missed_its_context_is_not_compared_with_itself_without_one(weight: float) -> None:
    """Its network never saw the input that stands for no context."""
    model, condition = tiny(), with_context(3)
    model.context_dropout = 0.0
    assert torch.equal(model.sample(condition, guide=ClassifierFree(1.0), seed=0), model.sample(condition, seed=0))
    none = replace(condition, context_BC=None)
    assert torch.isfinite(model.sample(none, guide=Contexts([(DIRECT, weight), (-DIRECT, 1 - weight)]), seed=0)).all()
    for given, guide in ((condition, ClassifierFree(weight)), (none, Contexts([(DIRECT, weight)]))):
        with pytest.raises(ValueError, match="the guide needs the model without a context, which a context_dropout of"):
            model.sample(given, guide=guide, seed=0)


def test_contexts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"give Condition.context_BC, shape \(B, C\)"):
        tiny().sample(Condition.empty(SPEC), guide=ClassifierFree(2.0), seed=0)
    with pytest.raises(ValueError, match="give that context as one of these"):
        tiny().sample(with_context(2), guide=Contexts([(DIRECT, 1.0)]), seed=0)
    with pytest.raises(ValueError, match=r"Contexts are .* finite weights are expected"):
        Contexts([(DIRECT[None], 1.0)])


WIDE = gaussian(normals(SIZE, seed=21), rotation(SIZE, 3), torch.logspace(-0.5, 1, SIZE, dtype=DOUBLE))
TURNED = gaussian(normals(SIZE, seed=22), rotation(SIZE, 4), torch.logspace(-1.5, 0, SIZE, dtype=DOUBLE))


def product(*parts: tuple[Mixture, float]) -> tuple[Tensor, Tensor]:
    precisions = [w * torch.linalg.inv(part.covariance) for part, w in parts]
    covariance = torch.linalg.inv(torch.stack(precisions).sum(0))
    return covariance @ sum(p @ part.mean for p, (part, _) in zip(precisions, parts, strict=True)), covariance


@pytest.mark.parametrize(("path", "others", "weights"), [
    ("vp-cosine", "vp-cosine", (1.0, 1.0)), ("flow", "edm", (0.4, 2.0))])
def test_a_product_of_two_gaussians(path: str, others: str, weights: tuple[float, float]) -> None:
    plugin = Product([exact(TURNED, others)], weights[1:], weights[0], iterations=12)
    found = moments(exact(GAUSSIAN, path), [plugin], "heun", "log-snr", 40)
    assert off(found, *product((GAUSSIAN, weights[0]), (TURNED, weights[1]))) < 0.03


def test_a_product_of_three_gaussians() -> None:
    plugin = Product([exact(TURNED, "flow"), exact(WIDE, "flow")], [1.0, 2.0], iterations=24)
    found = moments(exact(GAUSSIAN, "flow"), [plugin], "heun", "log-snr", 30)
    assert off(found, *product((GAUSSIAN, 1.0), (TURNED, 1.0), (WIDE, 2.0))) < 0.03


def test_a_product_of_equal_covariances_needs_no_precisions() -> None:
    other = replace(GAUSSIAN, means_KD=normals(1, SIZE, seed=4))
    for own, weight in ((1.0, 1.0), (1.0, -0.4)):
        plugin = Product([exact(other, "flow")], [weight], own, iterations=0)
        found = moments(exact(GAUSSIAN, "flow"), [plugin], "heun", "uniform", 40)
        assert off(found, *product((GAUSSIAN, own), (other, weight))) < 0.03


def test_products_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="add up to 0; a sum of more than 0 is expected"):
        Product([tiny()], [-1.0])
    with pytest.raises(ValueError, match="model 1 of Product is a int, which does not denoise trajectories; give"):
        Product([tiny(), 0], [1.0, 1.0])  # type: ignore[list-item]
    other = replace(exact(GAUSSIAN, "flow"), normalizer=Normalizer(torch.zeros(3), torch.ones(3)))
    with pytest.raises(ValueError, match="model 0 of Product normalises by other shifts or scales"):
        tiny().sample(with_context(2), guide=Product([other], [1.0]), seed=0)
