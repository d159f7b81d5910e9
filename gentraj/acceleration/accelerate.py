"""`accelerate`: a copy of a model, an agent or a run whose networks run in another backend."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..networks.embedding import FactoredNetwork
from .openvino import Body, openvino_program

Target = TypeVar("Target")
BackendName = Literal["eager", "compile", "openvino", "openvino-bf16"]
"""The name of a backend."""
MAKING = threading.RLock()  # held by the thread that makes a program


class Backend(NamedTuple):
    """A way to run the body of a network."""

    program: Callable[[FactoredNetwork, Tensor, Tensor], Body]
    """Makes a program for inputs of the given shapes; raises ImportError where the backend is not installed."""
    tolerance: float
    """The largest error of an output, relative to the largest output or to 1 if that is below 1."""


def own_body(network: FactoredNetwork, features_RHF: Tensor, projection_RM: Tensor) -> Body:
    """The body as it is, which PyTorch runs."""
    return network.body


def compiled(network: FactoredNetwork, features_RHF: Tensor, projection_RM: Tensor) -> Body:
    """torch.compile with inductor, which needs a C++ compiler; on a GPU the program is one CUDA graph."""
    return torch.compile(network.body, dynamic=False, mode="reduce-overhead")


BACKENDS: dict[str, Backend] = {
    "eager": Backend(own_body, 0.0),
    "compile": Backend(compiled, 1e-4),
    "openvino": Backend(partial(openvino_program, precision="f32"), 1e-4),
    "openvino-bf16": Backend(partial(openvino_program, precision="bf16"), 0.1),
}
"""The backends by their names: how each makes a program, and the largest error that its outputs may have."""


def accelerate(target: Target, backend: BackendName = "openvino") -> Target:
    """Returns a copy of a model, an agent or a run whose networks run in `backend` when they sample or act, also if
    another backend has run them so far.

    compile: torch.compile, which takes a minute or more for each number of rows. openvino: OpenVINO on a CPU in
    float32, an extra (`pip install 'gentraj[openvino]'`). openvino-bf16: the same in bfloat16, on a CPU that has it.

    A program is made when a number of rows, as `program_rows` rounds it, first comes, and anew when weights have
    changed since, as by a training. Its first output is compared with the eager network's: an error above the
    tolerance in `BACKENDS` raises ValueError. Calls that are differentiated, as by guides, are eager. The outputs for
    different numbers of rows may differ in their last bits. Raises ValueError for an unknown backend and where nothing
    can be accelerated, and ImportError for a backend that is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend '{backend}'; known: {', '.join(BACKENDS)}")
    if backend == "eager" and backend_of(target) == "eager":
        return target
    fast = copy.deepcopy(target)
    networks = list(_networks(fast))
    if not networks:
        raise ValueError(f"{type(target).__name__} has no network of trajectories to accelerate, derived from "
                         "FactoredNetwork; give a model, an agent or a run with one, or leave accelerate out")
    for network in dict.fromkeys(networks):  # an agent may have a network twice
        vars(network).pop("body", None)  # that of an earlier call: the network's own body is a method
        if backend != "eager":
            network.body = Accelerated(network, backend)
    return fast


def backend_of(target: object) -> str:
    """What runs the networks of a model, an agent or a run, such as "eager"."""
    bodies = (network.body for network in _networks(target))
    return next((body.backend for body in bodies if isinstance(body, Accelerated)), "eager")


def _networks(target: object) -> Iterator[FactoredNetwork]:
    """The networks of a module, or of the modules, agents and samplers that an agent or a run has, also in lists."""
    if isinstance(target, nn.Module):
        yield from (module for module in target.modules() if isinstance(module, FactoredNetwork))
        return
    for value in getattr(target, "__dict__", {}).values():
        members = tuple(value.values()) if isinstance(value, Mapping) else value
        for each in members if isinstance(members, list | tuple) else (members,):
            if isinstance(each, nn.Module) or hasattr(each, "act") or hasattr(each, "sample"):
                yield from _networks(each)


class Accelerated:
    """The body of a network, run by a program for each number of rows."""

    def __init__(self, network: FactoredNetwork, backend: str):
        self.backend = backend
        self.eager: Body = network.body
        self.original = copy.copy(network)  # its own body stays
        self.weights = [*network.parameters(), *network.buffers()]
        self.version = self._version()
        self.programs = dict[tuple[int, ...], Body]()

    def __call__(self, features_RHF: Tensor, projection_RM: Tensor) -> Tensor:
        if torch.is_grad_enabled() and (features_RHF.requires_grad or projection_RM.requires_grad):
            return self.eager(features_RHF, projection_RM)
        self._forget_former_weights()
        rows = len(features_RHF)
        more = program_rows(rows) - rows
        if more:
            features_RHF = torch.cat([features_RHF, features_RHF[:1].expand(more, -1, -1)])
            if len(projection_RM) > 1:
                projection_RM = torch.cat([projection_RM, projection_RM[:1].expand(more, -1)])
        key = (*features_RHF.shape, *projection_RM.shape)
        if key not in self.programs:
            with MAKING, torch.no_grad():
                if key not in self.programs:  # another thread may have made it meanwhile
                    self.programs[key] = self._checked(features_RHF.contiguous(), projection_RM.contiguous())
        return self.programs[key](features_RHF, projection_RM)[:rows]

    def _version(self) -> int:
        """A number that grows with each change of a weight."""
        return sum(weight._version for weight in self.weights)

    def _forget_former_weights(self) -> None:
        """Drops the programs if a weight has changed, as they hold the weights that they were made with."""
        version = self._version()
        if version != self.version:
            with MAKING:
                self.original = copy.copy(self.original)  # conversions are kept for each network object
                self.programs = {}
                self.version = version

    def _checked(self, features_RHF: Tensor, projection_RM: Tensor) -> Body:
        """The program for inputs of these shapes. Raises ValueError where its output is not that of the network."""
        backend = BACKENDS[self.backend]
        program = backend.program(self.original, features_RHF, projection_RM)
        expected = self.eager(features_RHF, projection_RM)
        error = (program(features_RHF, projection_RM) - expected).abs().max().item()
        if not error <= backend.tolerance * max(1.0, expected.abs().max().item()):
            raise ValueError(f"the outputs of {self.backend} differ by {error:.2g} from the network's, above its "
                             f"tolerance of {backend.tolerance:g}; take another backend")
        return program


def program_rows(rows: int) -> int:
    """The number of rows of the program that computes `rows` rows: the next one of three binary digits and zeros.

    At most a quarter of the rows is added, and there are four programs for each doubling of the rows.
    """
    quantum = max(1, 2 ** ((rows - 1).bit_length() - 3))
    return -(-rows // quantum) * quantum
