"""Metrics of single trajectories: answers by hand, in environment units."""

import pytest
import torch
from torch import Tensor

from gentraj.constraints import Box, Constraints
from gentraj.metrics import smoothness, violations
from gentraj.trajectory import TrajectorySpec

SPEC = TrajectorySpec(obs_dim=2, act_dim=1, horizon=5, stride=3)


def motion(acceleration: float, spec: TrajectorySpec) -> Tensor:
    """One trajectory with 7 + 2 t + acceleration t^2 / 2 in every entry, t in environment steps."""
    t = torch.arange(spec.horizon) * spec.stride
    return (7 + 2 * t + acceleration * t**2 / 2)[None, :, None].repeat(1, 1, spec.dim)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_smoothness_is_the_acceleration_per_environment_step_squared(stride: int) -> None:
    spec = TrajectorySpec(obs_dim=2, act_dim=1, horizon=5, stride=stride)
    x = torch.cat([motion(0.0, spec), motion(-0.5, spec)])
    torch.testing.assert_close(smoothness(x, spec), torch.tensor([0.0, 0.5]).double())


def test_smoothness_is_a_root_mean_square_over_the_entries_asked_for() -> None:
    x = torch.zeros(1, 5, 3)
    x[0, 2, 0], x[0, :, 2] = 9.0, motion(4.0, SPEC)[0, :, 0]  # second differences 9, -18, 9 over stride^2 = 9
    torch.testing.assert_close(smoothness(x, SPEC, (0,)), torch.tensor([2.0**0.5]).double())
    torch.testing.assert_close(smoothness(x, SPEC, (0, 2)), torch.tensor([(2 / 2 + 16 / 2) ** 0.5]).double())


def test_smoothness_needs_three_rows_of_the_spec() -> None:
    short = TrajectorySpec(2, 1, horizon=2)
    for x, spec in ((torch.zeros(4, 2, 3), short), (torch.zeros(4, 5, 2), SPEC), (torch.zeros(5, 3), SPEC)):
        with pytest.raises(ValueError, match="trajectories of shape"):
            smoothness(x, spec)


def test_violations_are_a_share_and_the_worst() -> None:
    constraints = Constraints(SPEC, [Box(-1.0, 1.0, (0,)), Box(-2.0, 2.0, (2,))])
    x = torch.zeros(2, 2, 5, 3)
    assert violations(x, constraints) == (0, 0)
    x[0, 0, 3, 0], x[0, 0, 2, 2], x[1, 1, 0, 2] = -1.25, 2.125, 2.5
    assert violations(x, constraints) == (0.5, 0.5)


@pytest.mark.parametrize("x", [torch.zeros(0, 5, 3), torch.full((1, 5, 3), torch.nan)])
def test_violations_of_nothing_and_of_nan_are_refused(x: Tensor) -> None:
    with pytest.raises(ValueError, match="at least one trajectory and finite values are expected"):
        violations(x, Constraints(SPEC, [Box(-1.0, 1.0, (0,))]))
