"""Networks that are compiled while they are trained, by torch.compile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ..config import ConfigError
from ..networks.embedding import TrajectoryNetwork
from ..networks.mlp import EnsembleMLP

BACKEND = "inductor"  # needs a C++ compiler on a CPU, and Triton on a GPU


@contextmanager
def compiled(components: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Compiles the networks that the components train, while the `with` block runs.

    Names, weights and checkpoints stay as they are. Moving averages, by which models sample, are not compiled, as they
    are called with batches of many sizes. Raises `ConfigError` where no compiler works for `device`.
    """
    _check_compiler(device)
    networks = [module for component in components for module in component.modules()
                if isinstance(module, TrajectoryNetwork | EnsembleMLP)
                and any(p.requires_grad for p in module.parameters())]
    for network in networks:
        network.compile(backend=BACKEND, dynamic=False)  # a graph for each shape: which one runs depends on no other
    try:
        yield
    finally:
        for network in networks:
            network._compiled_call_impl = None  # the inverse of `compile`, which torch lacks


def _check_compiler(device: torch.device) -> None:
    try:
        torch.compile(torch.sin, backend=BACKEND, dynamic=False)(torch.ones(1, device=device))
    except Exception as error:  # whatever the compiler that is missing leads to
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"training.compile is set, and torch.compile does not work here: {reason[0]}; install a "
                          "compiler (g++ or clang for a CPU, Triton for a GPU), or leave the setting out") from error
