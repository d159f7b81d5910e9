"""The straight way between known entries: closed forms and laws."""

import torch
from contract import CONDITIONS, SPEC
from hypothesis import given
from hypothesis import strategies as st

from gentraj.models.conditioning import interpolate
from gentraj.trajectory import Condition


def test_a_column_is_linear_between_two_known_rows_and_constant_outside() -> None:
    values, known = torch.zeros(1, 6, 2), torch.zeros(1, 6, 2, dtype=torch.bool)
    values[0, 1, 0], values[0, 4, 0] = 2.0, 8.0
    known[0, 1, 0] = known[0, 4, 0] = True
    straight = interpolate(values, known)
    torch.testing.assert_close(straight[0, :, 0], torch.tensor([2.0, 2.0, 4.0, 6.0, 8.0, 8.0]))
    assert not straight[0, :, 1].any()


@given(st.integers(0, 2**32), st.floats(0.0, 1.0), st.sampled_from([1, 2, 7]))
def test_it_goes_through_what_is_known_and_never_beyond_it(seed: int, share: float, horizon: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    values, known = torch.randn(5, horizon, 3, generator=rng), torch.rand(5, horizon, 3, generator=rng) < share
    straight = interpolate(values, known)
    torch.testing.assert_close(straight[known], values[known])
    some = known.any(1, keepdim=True).expand_as(known)
    high = torch.where(known, values, -torch.inf).amax(1, keepdim=True).expand_as(known)
    low = torch.where(known, values, torch.inf).amin(1, keepdim=True).expand_as(known)
    assert (straight <= high + 1e-5)[some].all() and (straight >= low - 1e-5)[some].all()
    assert not straight[~some].any()


def test_what_is_not_known_changes_nothing() -> None:
    for kind in CONDITIONS.values():
        condition = kind(Condition.empty(SPEC, 2))
        noise = torch.where(condition.mask_BHD, condition.values_BHD, torch.randn(condition.values_BHD.shape))
        assert torch.equal(interpolate(noise, condition.mask_BHD),
                           interpolate(condition.values_BHD, condition.mask_BHD))
