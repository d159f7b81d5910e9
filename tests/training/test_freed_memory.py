"""Freed memory is used again by the next step, without the system handing out its pages anew."""

import ctypes
import resource

import pytest
import torch

from gentraj.training.memory import freed_memory_kept

glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")


@glibc
def test_a_step_like_the_one_before_asks_the_system_for_no_pages() -> None:
    def step() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        x = torch.ones(2**20)  # 4 MiB, 1024 pages
        for _ in range(3):
            x = x + 1
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with freed_memory_kept():
        step()
        assert min(step() for _ in range(5)) < 100
