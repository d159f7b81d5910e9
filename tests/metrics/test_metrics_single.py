"""Metrics of single trajectories: answers by hand, in environment units."""

import pytest
import torch
from torch import Tensor

from gentraj.constraints import Box, Constraints
from gentraj.metrics import violations
from gentraj.trajectory import TrajectorySpec

SPEC = TrajectorySpec(obs_dim=2, act_dim=1, horizon=5, stride=3)


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
