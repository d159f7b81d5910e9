"""Noise as a pure function of integers."""

from typing import Any

import numpy as np
import pytest
import torch

from gentraj.randomness import OneStream, RowNoise, Tape, fold, generator, row_seeds, unfold


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


def test_a_seed_is_one_for_all_rows_or_one_each() -> None:
    assert row_seeds(3, 4) == row_seeds(np.int64(3), 4) == unfold(4, 3) and row_seeds((5, 6), 2) == [5, 6]
    with pytest.raises(ValueError, match="2 seeds were given for 3 samples; give one for each, or a single integer"):
        row_seeds([5, 6], 3)


@pytest.mark.parametrize("two", [np.arange(5, 7, dtype=np.int32), list(torch.tensor([5, 6])), range(5, 7)],
                         ids=lambda two: type(two).__name__)
def test_integers_of_numpy_and_torch_are_the_seeds_that_they_equal(two: Any) -> None:
    """`fold` of a NumPy integer of 32 bits overflowed, and of a tensor it raised."""
    assert row_seeds(two, 2) == [5, 6] and all(type(one) is int for one in row_seeds(two, 2))
    assert row_seeds(np.int32(3), 4) == row_seeds(torch.tensor(3), 4) == unfold(4, 3)


@pytest.mark.parametrize("seed", [[1, 2.5], torch.ones(2), "12"], ids=str)
def test_seeds_that_are_no_integers_are_refused(seed: Any) -> None:
    with pytest.raises(TypeError, match=r"the seed is .*; an integer, or one for each of the 2 samples, is expected"):
        row_seeds(seed, 2)


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    many, one = RowNoise([1, 2, 3]), RowNoise([2])
    for _ in range(2):
        assert torch.equal(many.normal(4, 5)[1], one.normal(4, 5)[0])


def noise(*seeds: int) -> list[torch.Tensor]:
    stream = RowNoise(seeds)
    return [stream.normal(4, 5), stream.normal(2), RowNoise([9]).normal(3)]


def test_what_a_tape_kept_it_gives_again_to_other_seeds() -> None:
    with Tape() as kept:
        first = noise(1, 2)
    assert all(torch.equal(a, b) for a, b in zip(noise(1, 2), first, strict=True))  # keeping changes nothing
    assert kept.noise_M.shape == (2 * 4 * 5 + 2 * 2 + 3,) and Tape().noise_M.shape == (0,)
    with Tape(kept.noise_M) as given:
        assert all(torch.equal(a, b) for a, b in zip(noise(7, 8), first, strict=True))
        assert given.used == len(kept.noise_M)
    assert not torch.equal(noise(7, 8)[0], first[0])


def test_a_scale_of_0_draws_nothing_but_for_a_tape() -> None:
    drawn = RowNoise([1, 2])
    assert torch.equal(drawn.scaled(0.0, 3), torch.zeros(2, 3))
    assert torch.equal(drawn.scaled(2.0, 3), 2 * RowNoise([1, 2]).normal(3))
    with Tape() as kept:
        RowNoise([1, 2]).scaled(0.0, 3)
    assert kept.noise_M.shape == (6,)


def test_a_tape_inside_another_leaves_it_as_it_was_also_after_an_error() -> None:
    with Tape() as outer:
        with pytest.raises(ValueError, match="10 numbers of noise were given; more are needed"), Tape(torch.zeros(10)):
            noise(1)
        one = RowNoise([1]).normal(2)
    assert torch.equal(outer.noise_M, one[0])


def test_in_one_stream_rows_draw_from_one_generator_in_order() -> None:
    with OneStream(generator(7)):
        noise = RowNoise([1, 1, 2])
        first, second = noise.normal(4), noise.normal(2, 3)
    again = generator(7)
    assert torch.equal(first, torch.randn(3, 4, generator=again))
    assert torch.equal(second, torch.randn(3, 2, 3, generator=again))
    assert torch.equal(noise.normal(5), RowNoise([1, 1, 2]).normal(5))  # outside, each row has its own again
