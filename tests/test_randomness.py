"""Noise as a pure function of integers."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gentraj.randomness import OneStream, RowNoise, as_noise, fold, for_choosing, for_recording, generator, unfold


def test_any_key_changes_the_seed() -> None:
    seeds = {fold(*keys) for keys in [(0,), (1,), (0, 0), (0, 1), (1, 0), (-1,), (2**62,)]}
    assert len(seeds) == 7


def test_many_seeds_of_one_are_all_different_and_begin_as_fewer_do() -> None:
    """Whatever the keys, and none is what `fold` makes of some."""
    keys = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (-1,), (2**32,), (2**62,)]
    some = [unfold(100, *of) for of in keys]
    assert len({*(one for seeds in some for one in seeds), *(fold(*of) for of in keys)}) == 101 * len(keys)
    assert all(0 <= one < 2**63 for seeds in some for one in seeds)
    assert unfold(7, 1) == some[2][:7] and unfold(0, 1) == []


@given(st.sets(st.integers(0, 2**62), min_size=1, max_size=5))
def test_episodes_that_report_that_choose_and_that_are_recorded_are_never_the_same(seeds: set[int]) -> None:
    """Those of any seeds, and of rounds of choosing too, each of which has a seed of its own."""
    roots = [*seeds, *map(for_choosing, seeds), *map(for_recording, seeds),
             *(fold(for_choosing(seed), number) for seed in seeds for number in range(3))]
    assert len({fold(root, i) for root in roots for i in range(20)}) == 20 * len(roots) == 120 * len(seeds)


def seeds_of(seeds: Any, rows: int) -> Any:
    noise = as_noise(seeds, rows)
    assert isinstance(noise, RowNoise) and len(noise) == rows
    return noise.seeds


def test_a_seed_is_one_for_all_rows_or_one_each() -> None:
    assert seeds_of(3, 4) == seeds_of(np.int64(3), 4) == unfold(4, 3) and seeds_of((5, 6), 2) == [5, 6]
    with pytest.raises(ValueError, match="2 seeds were given for 3 samples; give one for each, or a single integer"):
        as_noise([5, 6], 3)


@pytest.mark.parametrize("two", [np.arange(5, 7, dtype=np.int32), list(torch.tensor([5, 6])), range(5, 7)],
                         ids=lambda two: type(two).__name__)
def test_integers_of_numpy_and_torch_are_the_seeds_that_they_equal(two: Any) -> None:
    """`fold` of a NumPy integer of 32 bits overflowed, and of a tensor it raised."""
    assert seeds_of(two, 2) == [5, 6] and all(type(one) is int for one in seeds_of(two, 2))
    assert seeds_of(np.int32(3), 4) == seeds_of(torch.tensor(3), 4) == unfold(4, 3)


@pytest.mark.parametrize("seed", [[1, 2.5], torch.ones(2), "12"], ids=str)
def test_seeds_that_are_no_integers_are_refused(seed: Any) -> None:
    with pytest.raises(TypeError, match=r"the seed is .*; an integer, or one for each, is expected"):
        as_noise(seed, 2)


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    many, one = RowNoise([1, 2, 3]), RowNoise([2])
    for _ in range(2):
        assert torch.equal(many.normal(4, 5)[1], one.normal(4, 5)[0])


def test_whoever_is_given_noise_begins_it_anew() -> None:
    noise = RowNoise([1, 2])
    first = noise.normal(4)
    assert torch.equal(as_noise(noise, 2).normal(4), first) and not torch.equal(noise.normal(4), first)
    with pytest.raises(ValueError, match="noise of 2 rows was given for 3 samples"):
        as_noise(noise, 3)


def test_noise_of_some_rows_of_several_and_of_other_keys_is_that_of_their_seeds() -> None:
    noise = RowNoise([1, 2])
    assert noise[1:].seeds == noise[[1]].seeds == [2] and noise.padded(2).seeds[:2] == [1, 2]
    assert noise.derived(lambda seed: [seed, 0]).seeds == [1, 0, 2, 0]
    for made, seeds in ((noise.several(3), unfold(3, 1) + unfold(3, 2)), (noise.anew(7), [fold(1, 7), fold(2, 7)])):
        assert torch.equal(made.normal(4), RowNoise(seeds).normal(4))


def test_a_scale_of_0_draws_nothing() -> None:
    drawn = RowNoise([1, 2])
    assert torch.equal(drawn.scaled(0.0, 3), torch.zeros(2, 3))
    assert torch.equal(drawn.scaled(2.0, 3), 2 * RowNoise([1, 2]).normal(3))


def test_in_one_stream_rows_draw_from_one_generator_in_order() -> None:
    noise = OneStream(3, generator(7))
    first, second = noise.normal(4), noise.normal(2, 3)
    again = generator(7)
    assert torch.equal(first, torch.randn(3, 4, generator=again))
    assert torch.equal(second, torch.randn(3, 2, 3, generator=again))
    assert torch.equal(noise[:1].anew(8).normal(5), torch.randn(1, 5, generator=again))
    rows = OneStream(3, generator(8), repeats=2)  # the last row of the batch has one of its two
    assert torch.equal(rows.normal(5), torch.randn(2, 2, 5, generator=generator(8)).flatten(0, 1)[:3])


def test_without_a_seed_noise_differs_from_call_to_call_and_negative_seeds_are_refused() -> None:
    one, other = (as_noise(None, 2).normal(3) for _ in range(2))
    assert len({*map(tuple, torch.cat([one, other]).tolist())}) == 4
    for seeds in (-1, [0, -3]):
        with pytest.raises(ValueError, match="0 or more is expected"):
            as_noise(seeds, 2)
