"""How exact guides are: what a move is worth, and the weights of modes."""

from __future__ import annotations

import math

import pytest
import torch
from guided import NORMALIZER, SIZE, SPEC, TARGET, exact, guided, quadratic
from oracle import DOUBLE, GAUSSIAN, Mixture, normals, rotation, stream
from torch import Tensor

from gentraj.diffusion.guidance import Guided
from gentraj.diffusion.paths import sampling_times
from gentraj.trajectory import Condition

TURN = rotation(SIZE, 7)
MODES = Mixture(torch.full((2,), 0.5, dtype=DOUBLE), torch.stack([-TURN[0], TURN[0]]),
                torch.eye(SIZE, dtype=DOUBLE).expand(2, -1, -1), torch.full((2, SIZE), 0.05**2, dtype=DOUBLE))
RATIO = 19.0  # how much likelier `prefers` makes the second mode than the first: 0.95 of the samples


def stiff(rank: int, stiffness: float) -> Tensor:
    return stiffness * TURN[:, :rank] @ TURN[:, :rank].T


def prefers(x_RHD: Tensor) -> Tensor:
    """Minus the squared distance from the second mode, scaled to RATIO at the first; the modes are narrow."""
    return -math.log(RATIO) / 4 * (NORMALIZER.normalize(x_RHD).flatten(1) @ TURN[0] - 1).square()


def sampled(target: Mixture, guide: Guided | None, rows: int, path: str = "vp-cosine", sampler: str = "ddim",
            grid: str = "uniform", steps: int = 20) -> Tensor:
    """Samples (rows, SIZE) in normalised units."""
    model, normal = exact(target, path), stream(rows, SPEC.horizon, SPEC.dim, seed=3)
    times = sampling_times(model.path, steps, grid).double()
    start = model.path.sigma(times[:1]) * normal()
    return guided(model, [guide] if guide else [], sampler, start, times, normal).flatten(1)


def posterior_precision(t: float) -> Tensor:
    path, at = exact(GAUSSIAN, "vp-cosine").path, torch.tensor([t], dtype=DOUBLE)
    return torch.linalg.inv(GAUSSIAN.covariance) + (path.alpha(at) / path.sigma(at)) ** 2 * torch.eye(SIZE)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("stiffness", [1.0, 1e4])
@pytest.mark.parametrize("rank", [1, 4, SIZE])
def test_a_move_is_the_best_one_along_sigma_times_the_gradient(rank: int, stiffness: float, t: float) -> None:
    """For a quadratic guide; where it is quadratic along one direction, there is no better move at all."""
    model, x, at = exact(GAUSSIAN, "vp-cosine"), normals(6, SPEC.horizon, SPEC.dim), torch.tensor([t], dtype=DOUBLE)
    sampling, precision = model.sampling(Condition.empty(SPEC, len(x))), stiff(rank, stiffness)
    denoise = sampling.unconditional()
    x0, form = denoise(x, at).flatten(1), precision + posterior_precision(t)
    move = Guided(quadratic(precision)).wrap(denoise, sampling)(x, at).flatten(1) - x0
    gradient = (TARGET - x0) @ precision
    step = gradient @ torch.linalg.inv(posterior_precision(t))
    size = (gradient * step).sum(1) / torch.einsum("ri,ij,rj->r", step, form, step)
    torch.testing.assert_close(move, size[:, None] * step, rtol=1e-4, atol=1e-6)
    if rank == 1:
        torch.testing.assert_close(move, torch.linalg.solve(form, gradient.T).T, rtol=1e-4, atol=1e-6)


def chosen(candidates: int, rows: int = 1000) -> float:
    """The share of the second mode among unguided samples, each chosen from its candidates by exp(guide)."""
    x = sampled(MODES, None, candidates * rows).view(rows, candidates, SIZE)
    score = prefers(NORMALIZER.unnormalize(x.view(-1, SPEC.horizon, SPEC.dim))).view(rows, candidates)
    best = torch.multinomial(score.softmax(1), 1, generator=torch.Generator().manual_seed(0))
    return second(x[torch.arange(rows), best[:, 0]])


def second(x: Tensor) -> float:
    return float(MODES.shares(x)[1])


def test_an_energy_tilts_the_weights_of_modes_too_little_and_a_choice_among_candidates_does_not() -> None:
    """With n of K candidates in the second mode, it is chosen with probability n RATIO / (n RATIO + K - n)."""
    right = RATIO / (RATIO + 1)
    assert 0.75 < second(sampled(MODES, Guided(prefers), 1000)) < 0.88 < right
    for K in (4, 32):
        expected = sum(math.comb(K, n) / 2**K * n * RATIO / (n * RATIO + K - n) for n in range(K + 1))
        assert chosen(K) == pytest.approx(expected, abs=4.5 * math.sqrt(expected * (1 - expected) / 1000))
    assert expected == pytest.approx(right, abs=0.005)
