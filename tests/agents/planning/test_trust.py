"""Trust: what speaks against a plan, by the model's scores and by the recorded positions."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from planners import reference
from torch import Tensor

from gentraj.agents.planning.trust import Recorded, Trust
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.trajectory import Batch, TrajectorySpec

SPEC = TrajectorySpec(obs_dim=4, act_dim=0, horizon=8, stride=4)



def windows(path_NG: Tensor, horizon: int = 8) -> Batch:
    """All windows of a recorded walk."""
    x_WHG = path_NG.unfold(0, horizon, 1).transpose(1, 2)
    return Batch(x_WHG, torch.ones_like(x_WHG, dtype=torch.bool))


def line(start: tuple[float, float], end: tuple[float, float], count: int) -> Tensor:
    """Positions from start to end, which is left out."""
    return torch.lerp(torch.tensor(start).float(), torch.tensor(end).float(), torch.arange(count)[:, None] / count)


# Up, right, down, and back again, half a unit a step: nothing was recorded between the two arms of the U.
ARMS = torch.cat([line((0, 0), (0, 10), 20), line((0, 10), (4, 10), 8), line((4, 10), (4, 0), 20)])
U = torch.cat([ARMS, ARMS.flip(0), ARMS])
ACROSS = line((0, 5), (4, 5), 7)
ALONG = line((0, 2), (0, 6), 7)


def plan(*path: Tensor) -> Tensor:
    """Plans (R, 8, 2) that end at (9, 9), after their arrival at timestep 7."""
    return torch.stack([torch.cat([one, torch.tensor([[9.0, 9.0]])]) for one in path])


def far(x_RHD: Tensor, arrival: int = 6, **recorded: Any) -> list[float]:
    return Recorded((0, 1), windows(U), 0.98, **recorded).ratio(x_RHD, torch.full((len(x_RHD),), arrival)).tolist()


def test_a_plan_across_the_middle_of_a_u_is_not_trusted_and_one_along_it_is() -> None:
    across, along, early = far(plan(ACROSS, ALONG, ALONG + 0.2))
    assert across > 2 and along <= 1 and early <= 1
    assert far(plan(ACROSS), arrival=0)[0] <= 1  # what follows the arrival does not count


def test_a_leap_across_the_middle_is_not_trusted() -> None:
    """All timesteps are recorded positions, but not the line between two of them."""
    assert far(plan(torch.cat([line((0, 4), (0, 5), 3), line((4, 5), (4, 6), 4)])))[0] > 2


def test_a_goal_off_the_data_may_be_approached_and_left_as_far_as_it_lies() -> None:
    """Such a plan is judged by the farther one of its ends, which are given."""
    beside = line((0, 2), (-2, 2), 7)
    assert far(plan(beside, beside.flip(0))) == pytest.approx([1, 1])
    assert far(plan(torch.cat([line((0, 2), (-4, 2), 4), line((-4, 2), (-2, 2), 3)])))[0] == pytest.approx(2, rel=0.4)


def test_more_recorded_positions_close_the_hole() -> None:
    assert far(plan(ACROSS), more_MG=line((0, 5), (4, 5), 9))[0] <= 1


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (1e3, 0.0), (1.0, 1e3)])
def test_distances_depend_on_neither_units_nor_origin(scale: float, shift: float) -> None:
    x_RHD, arrival = plan(ACROSS, ALONG), torch.tensor([6, 6])
    expected, ratio = (Recorded((0, 1), windows(a * U + b), 0.98).ratio(a * x_RHD + b, arrival)
                       for a, b in ((1.0, 0.0), (scale, shift)))
    torch.testing.assert_close(ratio, expected, rtol=0.02, atol=0.02)


def test_the_larger_number_counts_and_distances_only_where_there_are_goals() -> None:
    """The score is 2 for plans and 1 for data, whose thresholds are 1 after any number of timesteps."""
    known: Any = type("Known", (), {"spec": replace(SPEC, obs_dim=2), "ood_score": lambda self, x, start, seeds: (
        torch.full(x.shape[:2], 1.0 + (len(x) < 9)))})()
    x_RHD, arrival = plan(ACROSS, ALONG), torch.tensor([6, 6])
    ratios = [Trust(known, windows(U), 0.98, goal_dims=dims).ratio(x_RHD, arrival, range(2))
              for dims in ((), (0, 1))]
    assert ratios[0].tolist() == pytest.approx([2, 2], rel=0.01)
    torch.testing.assert_close(ratios[1], torch.tensor([far(x_RHD)[0], ratios[0][1].item()]))


def test_trust_knows_the_contexts_of_data_and_of_plans() -> None:
    """The score is the distance to the context here, so that data and plans score 0 only with their own."""
    known: Any = type("Known", (), {"spec": SPEC, "ood_score": lambda self, x, start, seeds: (
        1 + (x[..., 0] - start.context_BC).abs())})()
    data = reference()
    data = replace(data, x_BHD=data.x_BHD[..., :1].mean(1, keepdim=True).expand_as(data.x_BHD))
    contexts, arrival = data.x_BHD[:, 0, :1], torch.full((64,), 5)
    trust = Trust(known, replace(data, context_BC=contexts), 0.5)
    assert trust.ratio(data.x_BHD, arrival, range(64), contexts).tolist() == pytest.approx([1.0] * 64)
    assert (trust.ratio(data.x_BHD, arrival, range(64), contexts + 1) > 1.5).all()


def test_padding_does_not_calibrate_trust() -> None:
    model = Diffusion(SPEC, DiffusionConfig(network=ResidualMLPConfig(8, 1, 0)), Normalizer.identity(4))
    data = reference()
    data.mask_BHD[:32, 5:] = False
    spoiled = Batch(data.x_BHD.clone(), data.mask_BHD)
    spoiled.x_BHD[:32, 5:] = 1e3
    for arrival in (2, 7):  # before the padding, too, where a network's errors depend on all timesteps
        arrivals = torch.full((32,), arrival)
        mine, theirs = (Trust(model, batch, 0.9).ratio(data.x_BHD[32:], arrivals, range(32))
                        for batch in (data, spoiled))
        assert torch.equal(mine, theirs)
