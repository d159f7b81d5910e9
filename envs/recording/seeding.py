"""Others' code that draws from global streams of random numbers, made a function of a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the streams of Python, numpy and torch (on the CPU) begin at the seed; then they are as they were."""
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
