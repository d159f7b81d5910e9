"""A bound on the memory of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook


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
