"""Metrics of sets of trajectories: in standard deviations, whatever the units, and better for a better model."""

import torch
from torch import Tensor

from gentraj.metrics import features, fit_scale, measure


def trajectories(rows: int, seed: int = 0) -> Tensor:
    """A position of spread 1, a velocity of spread 1000 and a constant."""
    x = torch.randn(rows, 6, 3, generator=torch.Generator().manual_seed(seed))
    return x * torch.tensor([1.0, 1000.0, 0.0]) + torch.tensor([5.0, 0.0, 2.0])


def test_distances_of_features_are_root_mean_squares_in_standard_deviations() -> None:
    real = trajectories(200)
    scale = fit_scale(real)
    assert torch.equal(fit_scale(real.flip(0)).scale_D[2], torch.tensor(1.0))  # constant: environment units
    moved = real + 3 * scale.scale_D
    got = (features(moved, scale) - features(real, scale)).norm(dim=1)
    torch.testing.assert_close(got, torch.full((200,), 3.0, dtype=torch.float64), rtol=1e-5, atol=0)


def test_a_better_model_has_better_numbers() -> None:
    real, good = trajectories(300), trajectories(300, seed=1)
    poor = torch.cat([good[:150], good[:150] + torch.tensor([1.0, 0.0, 0.0])])
    collapsed = good[:10].repeat(30, 1, 1)
    best, worse, least = (measure(real, fake, seed=0) for fake in (good, poor, collapsed))
    for name in ("sliced_wasserstein", "frechet_distance", "two_sample_accuracy"):
        assert best[name] < worse[name], name
    assert best["precision"] > worse["precision"]
    assert best["coverage"] > worse["coverage"] > least["coverage"]
    assert least["recall"] == 0
