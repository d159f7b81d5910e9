"""Updates that are compiled by torch.compile: whole, or else the networks in them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.optim import Optimizer

from ..config import ConfigError
from ..networks.discriminator import Discriminator
from ..networks.embedding import TrajectoryNetwork
from ..networks.mlp import EnsembleMLP
from ..trajectory import Batch
from .recording import NotRecordable, RecordedUpdate, Update

BACKEND = "inductor"  # needs a C++ compiler on a CPU, and Triton on a GPU


@contextmanager
def compiled(updates: Mapping[str, tuple[Update, nn.Module]], device: torch.device) -> Iterator[dict[str, Update]]:
    """Compiles updates of modules, by the names of the components. The result is for use within the `with` block.

    An update is compiled as a whole, with losses, gradients and optimisers. Where its operations depend on numbers that
    it computes, only its networks are compiled, and a warning says so. Names, weights and checkpoints stay as they are.
    Moving averages, by which models sample, are not compiled, as they are called with batches of many sizes. Raises
    `ConfigError` where no compiler works for `device`.
    """
    _check_compiler(device)
    with ExitStack() as stack:
        yield {name: _Compiled(name, update, module, stack) for name, (update, module) in updates.items()}


class _Compiled:
    """An update as one graph or, once that has turned out to be impossible, with compiled networks."""

    def __init__(self, name: str, update: Update, module: nn.Module, stack: ExitStack):
        self.name, self.plain, self.module, self.stack = name, update, module, stack
        self.update: Update = RecordedUpdate(update, module, compile_graph)

    def __call__(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        try:
            return self.update(batch, optimizers, generator)
        except NotRecordable as error:
            warnings.warn(f"component '{self.name}': {error}; only its networks are compiled", stacklevel=2)
            self.stack.enter_context(compiled_networks(self.module))
            self.update = self.plain
            return self.update(batch, optimizers, generator)


def compile_graph(graph: fx.GraphModule) -> Callable[..., Any]:
    """Compiles a graph whose inputs always have the same shapes, so that nothing is checked when it is called.

    The first call compiles, and raises `ConfigError` where that fails.
    """
    options: Any = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
    program = torch.compile(graph, backend=BACKEND, dynamic=False, options=options)

    def run(*inputs: Tensor) -> Any:
        try:
            return program(*inputs)
        except Exception as error:  # whatever a fault of the compiler leads to
            raise ConfigError(f"training.compile is set, and torch.compile fails on an update: {_reason(error)}; leave "
                              "the setting out, or training.bf16") from error

    return run


@contextmanager
def compiled_networks(trained: nn.Module) -> Iterator[None]:
    """Compiles the networks in a module that is trained, while the `with` block runs.

    Discriminators are left out: penalties differentiate their gradients, which compiled networks do not support.
    """
    networks = [module for module in trained.modules() if isinstance(module, TrajectoryNetwork | EnsembleMLP)
                and not isinstance(module, Discriminator) and any(p.requires_grad for p in module.parameters())]
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
        raise ConfigError(f"training.compile is set, and torch.compile does not work here: {_reason(error)}; install a "
                          "compiler (g++ or clang for a CPU, Triton for a GPU), or leave the setting out") from error


def _reason(error: Exception) -> str:
    """The first line of an error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
