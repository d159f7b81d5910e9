"""The simulated device keeps CUDA's rules, as far as they matter here."""

from collections.abc import Callable

import pytest
import torch
from simulated_device import counted
from torch import Tensor

DEVICE = torch.device("cuda")
X = torch.arange(12.0).view(3, 4)


@pytest.mark.parametrize("wrong", [
    lambda x: x + X, lambda x: torch.nn.functional.linear(x, X), lambda x: torch.cat([x, X]), lambda x: x.numpy(),
    lambda x: X[x.long()[:, 0]], lambda x: torch.randn(3, device=DEVICE, generator=torch.Generator()),
    lambda x: x.cumsum(0), lambda x: x.kthvalue(1)])
def test_what_raises_on_a_gpu(wrong: Callable[[Tensor], object]) -> None:
    with pytest.raises((RuntimeError, TypeError)):
        wrong(X.to(DEVICE))


WAITS = [lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: x.cpu(), lambda x: x.tolist(),
         lambda x: X.to(DEVICE), lambda x: X.to(DEVICE, non_blocking=True), lambda x: x[x > 1], lambda x: x[[0, 1]],
         lambda x: x[torch.tensor([0])], lambda x: torch.tensor([1.0], device=DEVICE)]
WAITS_NOT = [lambda x: X.pin_memory().to(DEVICE, non_blocking=True), lambda x: x.softmax(1) @ x.T * torch.tensor(2),
             lambda x: x.masked_fill(x > 1, 0.0), lambda x: torch.where(x > 1, x, 0), lambda x: x[1:, 0],
             lambda x: torch.func.jvp(torch.sin, (x,), (x,))]


@pytest.mark.parametrize(("work", "is_waited_for"), [*((work, True) for work in WAITS),
                                                     *((work, False) for work in WAITS_NOT)])
def test_what_waits_for_a_gpu(work: Callable[[Tensor], object], is_waited_for: bool) -> None:
    x = X.to(DEVICE)
    with counted() as waits:
        work(x)
    assert bool(waits) == is_waited_for, f"waits:\n{waits}"


def test_gradients_are_those_of_the_cpu() -> None:
    found = []
    for device in (torch.device("cpu"), DEVICE):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv1d(3, 8, 3), torch.nn.GroupNorm(2, 8), torch.nn.Mish()).to(device)
        network(X.to(device).view(1, 3, 4)).square().sum().backward()
        found.append([p.grad.cpu() for p in network.parameters() if p.grad is not None])
    torch.testing.assert_close(*found)
