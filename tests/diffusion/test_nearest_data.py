"""Projection onto the nearest data: a curve in the plane, a line, and a guide that leaves the data."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from guided import Exact
from oracle import GAUSSIAN
from torch import Tensor

from gentraj.diffusion.guidance import NearestData
from gentraj.diffusion.paths import PATHS
from gentraj.normalize import Normalizer
from gentraj.trajectory import Batch, Condition, TrajectorySpec

PLANE = TrajectorySpec(obs_dim=2, act_dim=0, horizon=1)


def circle(angles: Tensor) -> Tensor:
    return torch.stack([angles.cos(), angles.sin()], -1)[:, None]


def to_circle(x: Tensor) -> Tensor:
    return (x.norm(dim=-1) - 1).abs().max()


def projected(x: Tensor, plugin: NearestData) -> Tensor:
    model = Exact(GAUSSIAN, PATHS["flow"](), spec=PLANE, normalizer=Normalizer(torch.zeros(2), torch.ones(2)))
    return plugin.wrap(lambda x, t: x, model.sampling(Condition.empty(PLANE, len(x))))(x, torch.tensor([0.5]))


def test_what_left_the_data_comes_back_to_them() -> None:
    data = circle(torch.linspace(0, 2 * torch.pi, 200))
    off_circle = torch.linspace(0.6, 1.6, 50)[:, None, None] * circle(torch.linspace(0, 6, 50))
    assert to_circle(off_circle) > 0.39
    assert to_circle(projected(off_circle, NearestData(data, neighbours=6, rank=1))) < 0.01
    half = projected(off_circle, NearestData(data, neighbours=6, rank=1, weight=0.5))
    torch.testing.assert_close(to_circle(half), to_circle(off_circle) / 2, rtol=0.03, atol=0)


def test_what_lies_in_the_subspace_of_its_neighbours_stays() -> None:
    """A point may move within the subspace, as the projection is onto it and not onto a window."""
    data = torch.stack([torch.linspace(-1, 1, 21), 2 * torch.linspace(-1, 1, 21)], -1)[:, None]
    on_line = torch.tensor([0.123, 0.246]).view(1, 1, 2)
    plugin = NearestData(data, neighbours=4, rank=1)
    torch.testing.assert_close(projected(on_line, plugin), on_line)
    torch.testing.assert_close(projected(on_line + torch.tensor([0.2, -0.1]), plugin), on_line)  # orthogonal to it
    assert torch.equal(projected(data[:1], NearestData(data, neighbours=1, rank=0)), data[:1])


def test_padded_windows_are_no_neighbours() -> None:
    data = circle(torch.linspace(0, 6, 30))
    junk = torch.cat([data, torch.full((30, 1, 2), 0.2)])
    real = torch.arange(60)[:, None, None].expand(60, 1, 2) < 30
    x = torch.full((3, 1, 2), 0.2)
    plugin = NearestData(Batch(junk, real), neighbours=4, rank=1)
    assert torch.equal(projected(x, plugin), projected(x, NearestData(data, neighbours=4, rank=1)))
    with pytest.raises(ValueError, match="30 whole windows; 31 neighbours need at least as many"):
        projected(x, replace(plugin, neighbours=31))


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(30, 2, 2\); finite windows of shape \(W, 1, 2\)"):
        projected(torch.zeros(1, 1, 2), NearestData(torch.zeros(30, 2, 2)))
    with pytest.raises(ValueError, match=r"NearestData.rank is 4; a whole number from 0 to 3"):
        NearestData(torch.zeros(30, 1, 2), neighbours=4, rank=4)


def test_a_gradient_goes_through_the_projection() -> None:
    """So that a guide may come after it: along the subspace the derivative is 1, across it 0."""
    data = torch.stack([torch.linspace(-1, 1, 21), torch.zeros(21)], -1)[:, None]
    x = torch.tensor([0.1, 0.3]).view(1, 1, 2).requires_grad_()
    slope, = torch.autograd.grad(projected(x, NearestData(data, neighbours=4, rank=1)).sum(), x)
    torch.testing.assert_close(slope.flatten(), torch.tensor([1.0, 0.0]))
