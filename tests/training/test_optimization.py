"""One optimiser step: clipped, and never on a number that is not finite; and moving averages of weights."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gentraj.training import optimization
from gentraj.training.optimization import (
    LearningConfig,
    MovingAverage,
    NonFinite,
    StepNumbers,
    adamw,
    apply_gradients,
)
from gentraj.training.state import optimizer_tensors


@pytest.mark.parametrize("max_norm", [1.0, 1e-6])
@pytest.mark.parametrize("length", [0.1, 0.9999985, 0.9999995, 1.0, 5.0])  # torch's bound is 1 - 1e-6
def test_a_step_is_no_longer_than_the_bound_as_torch_clips_it_and_the_norm_is_what_it_was(
        length: float, max_norm: float) -> None:
    w, torchs = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    gradient = length * max_norm * torch.tensor([0.6, 0.8])
    norm = apply_gradients((gradient * w).sum(), SGD([w], lr=1.0), max_norm)
    torchs.grad = gradient.clone()
    assert torch.equal(norm, torch.nn.utils.clip_grad_norm_([torchs], max_norm))
    assert torch.equal(w.detach(), -torchs.grad) and norm.item() == pytest.approx(length * max_norm)
    assert w.norm() <= 1.000001 * max_norm


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


def test_an_average_is_torchs_and_goes_on_after_loading_as_if_it_had_not_been_saved() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ours, theirs = MovingAverage(network, 0.9), AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for step in range(4):
        with torch.no_grad():
            for p in network.parameters():
                p.add_(torch.randn_like(p))
        network(torch.randn(8, 3))  # moves the buffers
        ours.update_parameters(network)
        theirs.update_parameters(network)
        if step == 1:
            saved, ours = ours.state_dict(), MovingAverage(network, 0.9)
            ours.load_state_dict(saved)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(mine, other)
               for mine, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets tensors on the CPU be treated as those that have to be waited for."""
    monkeypatch.setattr(optimization, "waits_to_read", lambda tensor: True)


@pytest.mark.parametrize("factor", [torch.inf, torch.nan])
def test_a_number_that_is_checked_later_moves_no_weight_and_is_named(factor: float, accelerator: None) -> None:
    network = nn.Linear(2, 1)
    optimizer = adamw(network, LearningConfig(learning_rate=0.1))
    apply_gradients(network(torch.ones(1, 2)).sum(), optimizer, 1.0)
    before = {name: t.clone() for name, t in [*network.state_dict().items(), *optimizer_tensors(optimizer).items()]}
    unread = list[tuple[str, Tensor]]()
    apply_gradients(network(torch.ones(1, 2)).sum() * factor, optimizer, 1.0, unread=unread)
    after = {**network.state_dict(), **optimizer_tensors(optimizer)}
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(NonFinite, match=r"the loss is (nan|-?inf)"):
        StepNumbers(unread, {}).metrics()


def test_steps_that_are_checked_later_are_the_same_steps(accelerator: None) -> None:
    torch.manual_seed(0)
    one = nn.Linear(3, 1)
    two = deepcopy(one)
    for network, unread in ((one, None), (two, [])):
        optimizer = adamw(network, LearningConfig(max_grad_norm=0.5))
        for step in range(3):
            apply_gradients((network(torch.ones(1, 3)) * step).sum(), optimizer, 0.5, unread=unread)
    assert torch.equal(one.weight, two.weight)
