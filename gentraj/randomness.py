"""Randomness as a pure function of integers: the same keys give the same numbers, whatever was drawn before.

Noise is drawn on the CPU and then moved to the device, so a seed gives the same noise on every device.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .device import to_device


def fold(*keys: int) -> int:
    """Combines integers into one 63-bit seed; any change of any key gives an unrelated seed."""
    return int(_words(1, keys)[0])


def unfold(number: int, *keys: int) -> list[int]:
    """Returns `number` seeds that are unrelated to each other and to those of `fold`.

    The first seeds are the same for any larger `number`.
    """
    return _words(number, keys, spawn_key=(1,)).tolist()


def unfold_each(number: int, seeds: Sequence[int]) -> list[int]:
    """Returns `number` seeds for each of the given seeds, one after the other."""
    return [one for seed in seeds for one in unfold(number, seed)]


def row_seeds(seed: int | Sequence[int], rows: int, what: str = "samples") -> list[int]:
    """Returns one seed for each row: the given seeds, or seeds derived from a single one.

    Seeds may be integers of NumPy or torch, and arrays or tensors of them. Raises ValueError, naming the rows as
    `what`, for any other number of seeds, and TypeError for seeds that are not integers.
    """
    given = np.asarray(seed)
    if given.size and given.dtype.kind not in "iu":
        raise TypeError(f"the seed is {seed!r}; an integer, or one for each of the {rows} {what}, is expected")
    seeds = given.tolist()
    if isinstance(seeds, int):
        seeds = unfold(rows, seeds)
    if len(seeds) != rows:
        raise ValueError(f"{len(seeds)} seeds were given for {rows} {what}; give one for each, or a single integer")
    return seeds


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


class RowNoise:
    """One stream of normal noise for each row, so that a row's noise does not depend on the number of rows."""

    def __init__(self, seeds: Sequence[int], device: torch.device | None = None):
        self.seeds, self.device = seeds, device

    @cached_property
    def generators(self) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(int(s)) for s in self.seeds]

    def normal(self, *shape: int) -> Tensor:
        """The next standard normal numbers (R, *shape), or those of the active `Tape` or `OneStream`."""
        tape = _TAPE.get()
        if tape is None:
            noise = self._sample(*shape)
        else:
            noise = tape.pass_on(self._sample, len(self.seeds), *shape)
        return to_device(noise, self.device or noise.device)

    def scaled(self, scale: float, *shape: int) -> Tensor:
        """`scale * normal(*shape)`; for a scale of 0 nothing is drawn, unless a `Tape` or `OneStream` is active."""
        if scale == 0 and _TAPE.get() is None:
            return torch.zeros(len(self.seeds), *shape, device=self.device)
        return scale * self.normal(*shape)

    def _sample(self, *shape: int) -> Tensor:
        out = torch.empty(len(self.seeds), *shape)
        for row, g in zip(out, self.generators, strict=True):
            row.normal_(generator=g)
        return out


class Tape:
    """Records or replaces the noise that `RowNoise` draws, so that the noise of a decision can be an input of it.

    `with Tape() as tape:` records all noise in the order in which it is drawn. `with Tape(noise_M):` makes every
    `RowNoise` return the given numbers instead, and raises ValueError if they do not suffice.
    """

    def __init__(self, noise_M: Tensor | None = None):
        self.given_M = noise_M
        self.used = 0
        self.sampled = list[Tensor]()

    @property
    def noise_M(self) -> Tensor:
        """(M,) all recorded noise."""
        return torch.cat([torch.zeros(0), *(part.flatten() for part in self.sampled)])

    def pass_on(self, sample: Callable[..., Tensor], rows: int, *shape: int) -> Tensor:
        """The next numbers (rows, *shape) of the given noise, or those of `sample`, which are recorded."""
        if self.given_M is None:
            self.sampled.append(sample(*shape))
            return self.sampled[-1]
        start, self.used = self.used, self.used + rows * math.prod(shape)
        if self.used > len(self.given_M):
            raise ValueError(f"{len(self.given_M)} numbers of noise were given; more are needed")
        return self.given_M[start : self.used].view(rows, *shape)

    def __enter__(self) -> Tape:
        self.before = _TAPE.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _TAPE.reset(self.before)


class OneStream(Tape):
    """Lets all rows draw their noise from one generator, as a training step may: `with OneStream(generator):`.

    A stream for each row takes a millisecond for 256 rows, and a row of a training batch needs none of its own. With
    `repeats`, so many successive rows belong to one row of the batch, which is drawn as a whole.
    """

    def __init__(self, source: torch.Generator, repeats: int = 1):
        super().__init__()
        self.source, self.repeats = source, repeats

    def pass_on(self, sample: Callable[..., Tensor], rows: int, *shape: int) -> Tensor:
        whole = -(-rows // self.repeats)
        return torch.randn(whole, self.repeats, *shape, generator=self.source).flatten(0, 1)[:rows]


class GivenNoise(Tape):
    """Lets each of R rows be made from noise of its own: `with GivenNoise(noise_RZ):` samples from this noise.

    Of a draw (R, ..., D), the last entries of each dimension D are the numbers of the row, and those in front are 0, as
    the known entries of a window, whose noise has no effect. Further draws repeat the first. Raises ValueError for a
    draw of another number of rows.
    """

    def __init__(self, noise_RZ: Tensor):
        super().__init__()
        self.noise_RZ = noise_RZ

    def pass_on(self, sample: Callable[..., Tensor], rows: int, *shape: int) -> Tensor:
        if rows != len(self.noise_RZ):
            raise ValueError(f"noise was given for {len(self.noise_RZ)} rows, and a model samples {rows}; give noise "
                             "for each row that is sampled, and let a model sample one candidate for each")
        noise = self.noise_RZ.unflatten(1, (*shape[:-1], -1))
        return F.pad(noise, [shape[-1] - noise.shape[-1], 0])


_TAPE: ContextVar[Tape | None] = ContextVar("tape", default=None)


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
