"""Metrics of sets of trajectories: in standard deviations, whatever the units, and better for a better model."""

import pytest
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


def test_copies_of_training_trajectories_are_not_novel() -> None:
    train, held_out = trajectories(300), trajectories(50, seed=1)
    copied = measure(held_out, train[:40], train, seed=0)
    assert copied["novelty"] == 0 < copied["novelty_of_real"]
    new = measure(held_out, trajectories(40, seed=2), train, seed=0)
    assert new["novelty"] == pytest.approx(new["novelty_of_real"], rel=0.1)


def test_a_better_model_has_better_numbers() -> None:
    real, good = trajectories(300), trajectories(300, seed=1)
    poor = torch.cat([good[:150], good[:150] + torch.tensor([1.0, 0.0, 0.0])])
    collapsed = good[:10].repeat(30, 1, 1)
    best, worse, least = (measure(real, fake, seed=0) for fake in (good, poor, collapsed))
    for name in ("sliced_wasserstein", "mmd", "frechet_distance", "two_sample_accuracy"):
        assert best[name] < worse[name], name
    assert best["precision"] > worse["precision"]
    assert best["coverage"] > worse["coverage"] > least["coverage"]
    assert least["recall"] == 0


@pytest.mark.parametrize(("change", "message"), [
    ({"fake_RHD": torch.zeros(9, 5, 3)}, r"the fake trajectories have shape \(9, 5, 3\)"),
    ({"train_RHD": torch.zeros(9, 6, 2)}, r"the train trajectories have shape \(9, 6, 2\)"),
    ({"real_RHD": torch.zeros(9, 6)}, r"the real trajectories have shape \(9, 6\)"),
    ({"train_RHD": torch.zeros(0, 6, 3)}, "the train trajectories have shape"),
    ({"fake_RHD": torch.zeros(5, 6, 3)}, "fake has 5 rows; at least 6 are needed"),
    ({"real_RHD": torch.full((9, 6, 3), torch.nan)}, "real holds 162 values that are NaN"),
    ({"train_RHD": torch.full((9, 6, 3), torch.inf)}, "train holds 162 values that are NaN"),
])
def test_measure_refuses_in_one_line(change: dict[str, Tensor], message: str) -> None:
    sets = {"real_RHD": trajectories(9), "fake_RHD": trajectories(9), "train_RHD": trajectories(9), **change}
    with pytest.raises(ValueError, match=message) as caught:
        measure(sets["real_RHD"], sets["fake_RHD"], sets["train_RHD"], seed=0)
    assert "\n" not in str(caught.value)
