"""Constraints that make no sense, or contradict each other or what is known, are refused by name."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_constraints import SPEC, random

from gentraj.constraints import Acceleration, Blocks, Box, Circle, Constraint, Constraints, Projection, Speed
from gentraj.trajectory import Condition, TrajectorySpec

INF = float("inf")


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Box(1.0, 0.0, (0,)), "low must be at most high"),
    (lambda: Box((0.0, 0.0), 1.0, (0,)), r"Box.low is \(0.0, 0.0\)"), (lambda: Box(np.nan, 1.0, (0,)), "low is nan"),
    (lambda: Box(0.0, 1.0, ()), r"dims are \(\)"), (lambda: Speed(1.0, (0, 0), dt=0.1), r"dims are \(0, 0\)"),
    (lambda: Circle((0.0,), -1.0, (0,)), "radius is -1.0"),
    (lambda: Acceleration(1.0, (0,), dt=0.0), "Acceleration.dt is 0.0"),
    (lambda: Blocks(((0.0, 0.0),), ((1.0,),), (0, 1)), r"Blocks.high has shape \(1, 1\)"),
    (lambda: Blocks(-INF, INF, (0,)), "no free space")])
def test_settings_that_make_no_sense_are_refused(make: Callable[[], Constraint], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("constraints", "message"), [
    ({"arena": Box(0, 1, (4,))}, r"arena: .*\(4,\).* 0..3"),
    ({"arena": Box(-1, 0.25, (0,))}, r"arena cannot.*timestep 5 is known to be 0\.5 .* by 0\.25"),
    ({"pillar": Circle((0.4, 0.0), 0.3, (0, 1))}, "pillar cannot.*timestep 5 is known to be 0.5 0"),
    ({"speed": Speed(0.4, (0, 1), dt=0.1)}, "speed cannot.*timesteps 0 and 5 .* takes 0.5, more than 0.4"),
    ({"bend": Acceleration(1.0, (2,), dt=0.1)}, r"bend cannot.*timesteps 0 to 2 .* 0, 0\.1, 0 .* by 4"),
    ({"mine": Projection(lambda x: x[:, 1:])}, r"returned \(1, 5, 4\) for \(1, 6, 4\)")])
def test_a_contradiction_is_refused_by_name(constraints: dict[str, Constraint], message: str) -> None:
    goal = torch.tensor([[0.5, 0.0, 0.0]])
    with pytest.raises(ValueError, match=message):
        condition = Condition.empty(SPEC).with_obs(0, torch.zeros(3)).with_obs(-1, goal)
        condition = condition.with_obs(1, [0.1], dims=(2,)).with_obs(2, [0.0], dims=(2,))
        Constraints(SPEC, constraints).project(random(0, 1), condition)


@pytest.mark.parametrize(("shape", "condition", "message"), [
    ((6, 4), None, r"shape \(6, 4\) .*\(R, 6, 4\)"), ((3, 6, 4), Condition.empty(SPEC, 2), r"\(3, 6, 4\) and 2 "),
    ((3, 6, 4), Condition.empty(TrajectorySpec(2, 2, 6), 3), "obs_dim=2")])
def test_other_trajectories_than_those_of_the_spec_are_refused(shape: tuple[int, ...], condition: Condition | None,
                                                               message: str) -> None:
    """A single trajectory (H, D) came back with another axis, and another layout of the same shape was projected."""
    with pytest.raises(ValueError, match=message):
        Constraints(SPEC, [Box(-1.0, 1.0, (0,))]).project(torch.zeros(shape), condition)
