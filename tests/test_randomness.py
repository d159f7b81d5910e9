"""Noise as a pure function of integers."""

import torch

from gentraj.randomness import RowNoise, fold, generator


def test_any_key_changes_the_seed() -> None:
    seeds = {fold(*keys) for keys in [(0,), (1,), (0, 0), (0, 1), (1, 0), (-1,), (2**62,)]}
    assert len(seeds) == 7


def test_global_seeds_change_nothing() -> None:
    torch.manual_seed(1)
    first = torch.randn(3, generator=generator(5, 6))
    torch.manual_seed(2)
    assert torch.equal(first, torch.randn(3, generator=generator(5, 6)))


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    many, one = RowNoise([1, 2, 3]), RowNoise([2])
    for _ in range(2):
        assert torch.equal(many.normal(4, 5)[1], one.normal(4, 5)[0])
