"""`ConditionMix`: each kind marks what it says, only real entries, as often as it says."""

from typing import Any

import pytest
import torch

from gentraj.device import constant
from gentraj.models.conditioning import KINDS, ConditionMix, encode_context, encoded_width
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.trajectory import TrajectorySpec

SPEC = TrajectorySpec(obs_dim=3, act_dim=2, horizon=8)
NOTHING = dict.fromkeys(KINDS, 0.0)


def real(rows: list[int]) -> torch.Tensor:
    return (torch.arange(8) < torch.tensor(rows)[:, None])[..., None].expand(-1, -1, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_only_real_entries_are_known(kind: str) -> None:
    mask = real([1, 2, 5, 8] * 50)
    known = ConditionMix(**{**NOTHING, kind: 1.0}).sample(SPEC, mask, generator(0))
    assert not (known & ~mask).any()


def test_constants_that_are_equal_numbers_of_other_types_are_not_one() -> None:
    """Else the columns of a start would be the gaps between timesteps, whose numbers are equal."""
    for one, dtype in ((1, torch.long), (True, torch.bool), (1.0, torch.float32)):
        assert constant((one, one), torch.device("cpu"), dtype).dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_known_with_its_probability(kind: str) -> None:
    known = ConditionMix(**{**NOTHING, kind: 0.3}).sample(SPEC, real([8] * 4000), generator(0))
    share = known.flatten(1).any(1).float().mean().item()
    assert share == pytest.approx(0.3, abs=0.03)


def test_a_mix_without_chance_draws_nothing() -> None:
    """As that of a policy, whose model knows the state and no action."""
    g, untouched = generator(0), generator(0)
    known = ConditionMix(**{**NOTHING, "observations": 1.0}).sample(SPEC, real([8] * 3), g)
    assert known[..., : SPEC.obs_dim].all() and not known[..., SPEC.obs_dim :].any()
    assert torch.equal(g.get_state(), untouched.get_state())
    for kind in ("goal", "waypoint", "prefix"):  # at a random time
        ConditionMix(**{**NOTHING, kind: 1.0}).sample(SPEC, real([8] * 3), g)
        assert not torch.equal(g.get_state(), untouched.get_state())


def test_a_goal_is_its_entries_at_one_row_uniform_over_the_real_rows_after_the_first() -> None:
    mix = ConditionMix(**{**NOTHING, "goal": 1.0}, goal_dims=(0, 2))
    known = mix.sample(SPEC, real([5] * 8000), generator(0))
    assert (known.sum((1, 2)) == 2).all() and not known[..., [1, 3, 4]].any()
    share_H = known[..., 0].float().mean(0)
    torch.testing.assert_close(share_H, torch.tensor([0, 0.25, 0.25, 0.25, 0.25, 0, 0, 0]), atol=0.03, rtol=0)


def test_a_goal_at_the_end_is_the_last_real_row() -> None:
    mask = real([1, 2, 5, 8])
    known = ConditionMix(**{**NOTHING, "goal": 1.0}, goal_at="end").sample(SPEC, mask, generator(0))
    assert known.any(-1).nonzero().tolist() == [[1, 1], [2, 4], [3, 7]] and (known.sum((1, 2)) % 3 == 0).all()


def test_a_prefix_is_all_up_to_a_moment_that_is_uniform() -> None:
    """In half of them the last action is still to come: a history and the present."""
    known = ConditionMix(**{**NOTHING, "prefix": 1.0}).sample(SPEC, real([4] * 8000), generator(0))
    obs_BH, act_BH = known[..., 0], known[..., 3]
    assert torch.equal(known, torch.cat([obs_BH[..., None].expand(-1, -1, 3), act_BH[..., None].expand(-1, -1, 2)], 2))
    moment_BM = torch.stack([obs_BH, act_BH], 2).flatten(1)
    assert moment_BM[:, 0].all() and (moment_BM.int().diff(dim=1) <= 0).all()
    share = torch.bincount(moment_BM.sum(1), minlength=17).float() / 8000
    torch.testing.assert_close(share, torch.tensor([0, *[0.125] * 8, *[0] * 8]), atol=0.02, rtol=0)


@pytest.mark.parametrize(("kind", "rows", "entries"), [
    ("start", slice(1), slice(3)), ("actions", slice(None), slice(3, 5)), ("observations", slice(None), slice(3))])
def test_a_fixed_kind_is_just_its_entries(kind: str, rows: slice, entries: slice) -> None:
    known = ConditionMix(**{**NOTHING, kind: 1.0}).sample(SPEC, real([8] * 5), generator(0))
    expected = torch.zeros(5, 8, 5, dtype=torch.bool)
    expected[:, rows, entries] = True
    assert torch.equal(known, expected)


@pytest.mark.parametrize("dims", [(-1,), (SPEC.obs_dim,), (0, 99)])
def test_a_goal_is_made_of_entries_of_the_observation(dims: tuple[int, ...]) -> None:
    """A negative one, and one of the action, made an action known; others ended in an IndexError."""
    with pytest.raises(ValueError, match=r"goal_dims are .*; entries of an observation, 0 to .*, are expected"):
        ConditionMix(goal_dims=dims).sample(SPEC, torch.ones(2, SPEC.horizon, SPEC.dim, dtype=torch.bool), generator(0))


NORMALIZER = Normalizer(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))
CONTEXT = torch.tensor([[3.0, 10.0], [1.0, 2.0]])


def test_a_context_is_encoded_with_a_one_and_no_context_by_zeros() -> None:
    encoded = [[1.0, 2.0, 1.0], [0.0, 0.0, 1.0]]
    assert encode(CONTEXT, NORMALIZER).tolist() == encoded
    assert encode(CONTEXT, NORMALIZER, torch.tensor([True, False])).tolist() == [encoded[0], [0, 0, 0]]
    assert encode(None, NORMALIZER).tolist() == [[0, 0, 0]]
    assert encoded_width(NORMALIZER) == 3 and encoded_width(None) == 0 and encode_context(None, None) is None


def encode(*args: Any) -> torch.Tensor:
    encoded = encode_context(*args)
    assert encoded is not None
    return encoded


@pytest.mark.parametrize("context", [CONTEXT[:, :1], CONTEXT[0], CONTEXT[None]], ids=["narrow", "one", "three axes"])
def test_a_context_that_the_model_cannot_use_is_refused(context: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="2 numbers for each trajectory are expected"):
        encode_context(context, NORMALIZER)
    with pytest.raises(ValueError, match="trained without one"):
        encode_context(context, None)
