"""Classifier-free guidance: a closed form, and equality with the model with its context and without."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from guided import COMBINATIONS, SIZE, SPEC, exact, moments, off, tiny
from oracle import GAUSSIAN, normals

from gentraj.diffusion.guidance import ClassifierFree
from gentraj.trajectory import Condition


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


def test_weight_one_is_bit_equal_to_the_condition_and_zero_to_none() -> None:
    model, condition = tiny(), with_context(3)
    none = replace(condition, context_BC=None)
    conditional, unconditional = model.sample(condition, seed=0), model.sample(none, seed=0)
    assert not torch.equal(conditional, unconditional)
    assert torch.equal(model.sample(condition, guide=ClassifierFree(1.0), seed=0), conditional)
    assert torch.equal(model.sample(condition, guide=ClassifierFree(0.0), seed=0), unconditional)
    assert torch.equal(model.sample(condition, guide=ClassifierFree(3.0, interval=(0.0, 0.0)), seed=0), conditional)


@pytest.mark.parametrize("weight", [-1.0, 0.0, 2.0])
def test_a_model_that_never_missed_its_context_is_not_compared_with_itself_without_one(weight: float) -> None:
    """Its network never saw the input that stands for no context."""
    model, condition = tiny(), with_context(3)
    model.context_dropout = 0.0
    assert torch.equal(model.sample(condition, guide=ClassifierFree(1.0), seed=0), model.sample(condition, seed=0))
    with pytest.raises(ValueError, match="the guide needs the model without a context, which a context_dropout of"):
        model.sample(condition, guide=ClassifierFree(weight), seed=0)


def test_guidance_towards_no_context_is_refused() -> None:
    with pytest.raises(ValueError, match=r"give Condition.context_BC, shape \(B, C\)"):
        tiny().sample(Condition.empty(SPEC), guide=ClassifierFree(2.0), seed=0)
