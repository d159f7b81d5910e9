"""Every sampler converges at the order that it declares here to the closed form of a Gaussian."""

from typing import NamedTuple

import pytest
import torch
from oracle import DOUBLE, gaussian, moments
from torch import Tensor

from gentraj.diffusion.paths import PATHS, NoisePath
from gentraj.diffusion.samplers import SAMPLERS, Sampler

SPECTRA = {"well": torch.logspace(-1, 0, 6, dtype=DOUBLE), "ill": torch.logspace(-4, 0, 9, dtype=DOUBLE)}


class Order(NamedTuple):
    """Least and most of log2(error at `steps` / error at 2 `steps`)."""

    steps: int
    least: float
    most: float


# For those that draw no noise this is the order for the probability-flow ODE, for the others the weak order.
ORDERS = {
    "ddpm": Order(128, 0.9, 1.1),
    "ddim": Order(128, 0.9, 1.1),
    "euler": Order(128, 0.9, 1.1),
    "heun": Order(128, 1.8, 2.2),
    "euler-maruyama": Order(128, 0.9, 1.1),
    "dpmpp-2m": Order(512, 1.8, 2.2),  # on flow and vp-cosine log(N) / N^2: the first steps are long in the log SNR
    "dpmpp-2m-sde": Order(256, 1.8, 2.2),
    "unipc": Order(256, 1.8, 3.2),  # its corrector adds an order
}


def error(sampler: Sampler, path: NoisePath, steps: int) -> Tensor:
    """(2,) relative error of the standard deviations that come from the exact marginal at t = 1, per spectrum."""
    times = (1 - torch.arange(steps + 1, dtype=DOUBLE) / steps) ** 4  # smooth where sigma grows as the root of t
    variances = torch.cat([*SPECTRA.values()])
    target = gaussian(torch.zeros_like(variances), torch.eye(len(variances), dtype=DOUBLE), variances)
    at_start = (path.alpha(times[:1]) ** 2 * variances + path.sigma(times[:1]) ** 2).sqrt()
    found = moments(sampler, target, path, times, at_start)[1]
    errors = ((found / variances).sqrt() - 1).split([len(v) for v in SPECTRA.values()])
    return torch.stack([e.square().mean().sqrt() for e in errors])


def measured(sampler: str, path: str) -> tuple[Tensor, Tensor]:
    """(2,) order, and (2,) error at the finer steps, per spectrum."""
    steps = ORDERS[sampler].steps
    coarse, fine = (error(SAMPLERS[sampler], PATHS[path](), n) for n in (steps, 2 * steps))
    return (coarse / fine).log2(), fine


@pytest.mark.parametrize(("path", "sampler"), [
    (path, sampler) for i, path in enumerate(PATHS) for j, sampler in enumerate(ORDERS) if (i + j) % 2])
def test_the_error_falls_at_the_order_of_the_method(path: str, sampler: str) -> None:
    orders, fine = measured(sampler, path)
    for spectrum, order in zip(SPECTRA, orders.tolist(), strict=True):
        within = ORDERS[sampler].least <= order <= ORDERS[sampler].most
        assert within, f"{sampler} on {path}, {spectrum}-conditioned: {order:.2f}"
    assert fine.max() < 0.05
