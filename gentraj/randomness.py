"""Randomness as a pure function of integers: the same keys give the same numbers, whatever was drawn before.

Noise is drawn on the CPU and then moved to the device, so a seed gives the same noise on every device.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property, partial
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CHOOSING_STREAM = 0x63686F6F7365  # the letters of "choose"
RECORDING_STREAM = 0x7265636F7264  # "record"


def fold(*keys: int) -> int:
    """Combines integers into one 63-bit seed; any change of any key gives an unrelated seed."""
    return int(_words(1, keys)[0])


def unfold(number: int, *keys: int) -> list[int]:
    """Returns `number` seeds that are unrelated to each other and to those of `fold`.

    The first seeds are the same for any larger `number`.
    """
    return _words(number, keys, spawn_key=(1,)).tolist()


def for_choosing(seed: int) -> int:
    """The seed of the episodes by which something is trained or chosen, such as a setting or a checkpoint.

    None of them is an episode of `seed` itself, which are for what is reported: what was chosen by some episodes has
    been lucky in them.
    """
    return fold(CHOOSING_STREAM, seed)


def for_recording(seed: int) -> int:
    """The seed of the episodes that are recorded as data, none of which is one of `seed` itself or of
    `for_choosing`."""
    return fold(RECORDING_STREAM, seed)


def _words(number: int, keys: Sequence[int], spawn_key: tuple[int, ...] = ()) -> np.ndarray:
    """Returns `number` words of 63 bits."""
    entropy = [len(keys)]
    for key in keys:
        entropy += [key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF]
    sequence = np.random.SeedSequence(np.array(entropy, np.uint32), spawn_key=spawn_key)  # a list takes twice as long
    return sequence.generate_state(number, np.uint64) >> np.uint64(1)


def generator(*keys: int) -> torch.Generator:
    """A CPU generator that is seeded by the keys, for example by (seed, step)."""
    return torch.Generator().manual_seed(fold(*keys))


class Noise:
    """The normal noise of R rows, which whatever samples is given. This base class has nothing but their number.

    A row of a subclass without seeds is as good as any other: it draws from what the rows share.
    """

    def __init__(self, rows: int):
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def normal(self, *shape: int) -> Tensor:
        """The next standard normal numbers (R, *shape), on the CPU."""
        raise NotImplementedError

    def scaled(self, scale: float, *shape: int) -> Tensor:
        """`scale * normal(*shape)`; for a scale of 0 nothing is drawn."""
        if scale == 0:
            return torch.zeros(len(self), *shape)
        return scale * self.normal(*shape)

    def __getitem__(self, rows: slice | Sequence[int]) -> Noise:
        """The noise of some of the rows, from its beginning."""
        if isinstance(rows, slice):
            rows = range(len(self))[rows]
        return self._of(len(rows))

    def derived(self, derive: Callable[[int], Sequence[int]]) -> Noise:
        """The noise of N rows for each row, one row after the other, whose seeds are made of the row's own."""
        return self._of(len(self) * len(derive(0)))

    def several(self, number: int) -> Noise:
        """The noise of `number` rows for each row, one row after the other."""
        return self.derived(partial(unfold, number))

    def anew(self, *keys: int) -> Noise:
        """Other noise of the same rows, which the keys tell apart."""
        return self.derived(lambda seed: [fold(seed, *keys)])

    def padded(self, number: int) -> Noise:
        """The noise of `number` more rows."""
        return self._of(len(self) + number)

    def _of(self, rows: int) -> Self:
        """The noise of another number of rows, from the same source."""
        other = copy(self)
        other.rows = rows
        return other


class RowNoise(Noise):
    """One stream of noise for each seed, so that a row's noise does not depend on the number of rows."""

    def __init__(self, seeds: Sequence[int]):
        super().__init__(len(seeds))
        self.seeds = seeds

    @cached_property
    def generators(self) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(int(s)) for s in self.seeds]

    def normal(self, *shape: int) -> Tensor:
        out = torch.empty(len(self), *shape)
        for row, g in zip(out, self.generators, strict=True):
            row.normal_(generator=g)
        return out

    def __getitem__(self, rows: slice | Sequence[int]) -> RowNoise:
        return self.of(self.seeds[rows] if isinstance(rows, slice) else [self.seeds[r] for r in rows])

    def derived(self, derive: Callable[[int], Sequence[int]]) -> RowNoise:
        return self.of([one for seed in self.seeds for one in derive(seed)])

    def padded(self, number: int) -> RowNoise:
        return self.of([*self.seeds, *[0] * number])

    def of(self, seeds: Sequence[int]) -> RowNoise:
        """The noise of other seeds."""
        return RowNoise(seeds)


class OneStream(Noise):
    """Rows that draw their noise from one generator, as a training step may.

    A stream for each row takes a millisecond for 256 rows, and a row of a training batch needs none of its own. With
    `repeats`, so many successive rows belong to one row of the batch, which is drawn as a whole.
    """

    def __init__(self, rows: int, source: torch.Generator, repeats: int = 1):
        super().__init__(rows)
        self.source, self.repeats = source, repeats

    def normal(self, *shape: int) -> Tensor:
        whole = -(-len(self) // self.repeats)
        return torch.randn(whole, self.repeats, *shape, generator=self.source).flatten(0, 1)[: len(self)]


class GivenNoise(Noise):
    """Noise (R, Z) that is given: each row is made from its own numbers, which have no others behind them.

    Of a draw (R, ..., D), the last entries of each dimension D are the numbers of the row, and those in front are 0, as
    the known entries of a window, whose noise has no effect. Further draws, and those of other keys, repeat the first.
    Raises ValueError where several rows are to be made from one.
    """

    def __init__(self, noise_RZ: Tensor):
        super().__init__(len(noise_RZ))
        self.noise_RZ = noise_RZ

    def normal(self, *shape: int) -> Tensor:
        noise = self.noise_RZ.unflatten(1, (*shape[:-1], -1))
        return F.pad(noise, [shape[-1] - noise.shape[-1], 0])

    def __getitem__(self, rows: slice | Sequence[int]) -> GivenNoise:
        return GivenNoise(self.noise_RZ[rows])

    def derived(self, derive: Callable[[int], Sequence[int]]) -> Noise:
        number = len(derive(0))
        if number != 1:
            raise ValueError(f"noise was given for {len(self)} rows, and a model samples {number} from each; let it "
                             "sample one candidate for each")
        return self

    def padded(self, number: int) -> GivenNoise:
        return GivenNoise(F.pad(self.noise_RZ, [0, 0, 0, number]))


Seeds = int | Sequence[int] | Noise  # what a sample depends on: one seed for all rows, one for each, or their noise


def as_seeds(seeds: int | Sequence[int]) -> int | list[int]:
    """A seed, or several, as integers of Python. They may be those of NumPy or torch, and arrays or tensors of them.

    Raises TypeError for what is no integer, and ValueError for negative ones.
    """
    given = np.asarray(seeds)
    if given.ndim > 1 or (given.size and given.dtype.kind not in "iu"):
        raise TypeError(f"the seed is {seeds!r}; an integer, or one for each, is expected")
    if given.size and given.min() < 0:
        raise ValueError(f"the seed is {seeds!r}; 0 or more is expected")
    return given.tolist()


def fresh_seed() -> int:
    """A seed from the system's entropy."""
    return int(np.random.default_rng().integers(2**62))


def as_noise(seeds: Seeds | None, rows: int, what: str = "samples") -> Noise:
    """The noise of so many rows, from its beginning: of seeds derived from a single one, of one for each, or as given.
    Without seeds they are drawn anew from the system's entropy.

    Raises ValueError, naming the rows as `what`, for any other number of seeds or rows, and as `as_seeds` does.
    """
    if isinstance(seeds, Noise):
        if len(seeds) != rows:
            raise ValueError(f"noise of {len(seeds)} rows was given for {rows} {what}; give noise for each")
        return seeds[:]
    if seeds is None:
        seeds = fresh_seed()
    given = as_seeds(seeds)
    if isinstance(given, int):
        return RowNoise(unfold(rows, given))
    if len(given) != rows:
        raise ValueError(f"{len(given)} seeds were given for {rows} {what}; give one for each, or a single integer")
    return RowNoise(given)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators of Python, numpy and torch (on the CPU) in the context, and restores them after, for
    libraries that draw from these."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=()):
        random.seed(seed)
        np.random.set_state(np.random.RandomState(seed & 0xFFFFFFFF).get_state())
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
