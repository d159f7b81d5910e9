"""The memory of a training: what a step frees is kept for the next step, and weights have a bound."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT, LARGEST = 2**28, 2**24  # bytes: freed memory that is kept, and the largest block that is not mapped for itself
DEFAULT = 2**17  # glibc's own value of both


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
    libc.mallopt(M_TRIM_THRESHOLD, KEPT)
    libc.mallopt(M_MMAP_THRESHOLD, LARGEST)
    try:
        yield
    finally:
        libc.mallopt(M_TRIM_THRESHOLD, DEFAULT)
        libc.mallopt(M_MMAP_THRESHOLD, DEFAULT)
        libc.malloc_trim(0)


@contextmanager
def bounded_parameters(most: int, holder: str) -> Iterator[None]:
    """Stops the block by a ValueError as soon as the modules built in it have more than `most` bytes of parameters.

    A parameter is counted before it is initialised: until then it takes no memory. `holder` is what could not hold
    them, for the message.
    """
    total = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal total
        total += parameter.nbytes
        if total > most:
            raise ValueError(too_many)

    too_many = f"the settings describe more weights than {holder} holds; the widths or depths of the networks are wrong"
    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch's allocator raises RuntimeError
        if isinstance(error, MemoryError) or "allocate" in str(error):
            raise ValueError(too_many) from error
        raise
    finally:
        hook.remove()
