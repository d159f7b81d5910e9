"""What a training uses of the machine: threads, freed memory and a compiler."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..config import ConfigError
from ..networks.discriminator import Discriminator
from ..networks.embedding import TrajectoryNetwork
from ..networks.mlp import EnsembleMLP

BACKEND = "inductor"  # needs a C++ compiler on a CPU, and Triton on a GPU
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 2**28  # of freed memory
UNMAPPED_BYTES = 2**24  # the largest block that is not mapped for itself
GLIBC_BYTES = 2**17  # glibc's own value of both


@contextmanager
def cpu_resources(threads: int) -> Iterator[None]:
    """Sets the number of CPU threads, and keeps freed memory, within the block; 0 threads are the default of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with freed_memory_kept():
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Lets the process keep freed memory, up to 256 MiB, within the block, and returns it to the system at the end.

    The system would give it back page by page, which takes 3 to 10 % of the time of a training step on a CPU. This
    changes nothing where the C library is not glibc.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    libc.mallopt(M_MMAP_THRESHOLD, UNMAPPED_BYTES)
    try:
        yield
    finally:
        libc.mallopt(M_TRIM_THRESHOLD, GLIBC_BYTES)
        libc.mallopt(M_MMAP_THRESHOLD, GLIBC_BYTES)
        libc.malloc_trim(0)


def compile_networks(module: nn.Module, device: torch.device) -> None:
    """Compiles the networks in a module that are trained, one program for each shape of their inputs.

    Discriminators are left out: penalties differentiate their gradients, which compiled networks do not support. So are
    moving averages, which are called with batches of many sizes. Raises `ConfigError` where no compiler works for
    `device`.
    """
    try:
        torch.compile(torch.sin, backend=BACKEND, dynamic=False)(torch.ones(1, device=device))
    except Exception as error:  # whatever the compiler that is missing leads to
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"training.compile is set, and torch.compile does not work here: {reason}; install a "
                          "compiler (g++ or clang for a CPU, Triton for a GPU), or leave the setting out") from error
    for network in module.modules():
        is_compiled = isinstance(network, TrajectoryNetwork | EnsembleMLP) and not isinstance(network, Discriminator)
        if is_compiled and any(p.requires_grad for p in network.parameters()):
            network.compile(backend=BACKEND, dynamic=False)
