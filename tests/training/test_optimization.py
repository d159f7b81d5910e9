"""One optimiser step: clipped, and never on a number that is not finite."""

import pytest
import torch
from torch import nn
from torch.optim import SGD

from gentraj.training.optimization import NonFinite, apply_gradients


@pytest.mark.parametrize("length", [0.1, 5.0])
def test_a_step_is_no_longer_than_the_bound_and_the_norm_is_what_it_was(length: float) -> None:
    w = nn.Parameter(torch.zeros(2))
    norm = apply_gradients(length * (torch.tensor([0.6, 0.8]) * w).sum(), SGD([w], lr=1.0), max_norm=1.0)
    assert norm.item() == pytest.approx(length)
    torch.testing.assert_close(w.detach(), -min(length, 1.0) * torch.tensor([0.6, 0.8]))


def test_gradients_of_the_step_before_are_forgotten() -> None:
    w = nn.Parameter(torch.zeros(1))
    optimizer = SGD([w], lr=1.0)
    for _ in range(3):
        apply_gradients(w.sum(), optimizer, max_norm=10.0)
    assert w.item() == -3


@pytest.mark.parametrize(("function", "message"), [
    (lambda w: (w * torch.inf).sum(), "the loss is (nan|inf)"),
    (lambda w: w.sqrt().sum(), "the gradient norm is inf")])  # the loss is 0, its slope is not finite
def test_a_number_that_is_not_finite_stops_before_the_step(function, message: str) -> None:
    """FAULTS 28."""
    w = nn.Parameter(torch.zeros(2))
    with pytest.raises(NonFinite, match=message):
        apply_gradients(function(w), SGD([w], lr=1.0), max_norm=1.0)
    assert torch.equal(w.detach(), torch.zeros(2))
