"""`accelerate`: a copy of a model, an agent or a run whose networks run in another backend."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..networks.embedding import FactoredNetwork
from ..progress import say
from .openvino import openvino_gradient, openvino_program

Body = Callable[[Tensor, Tensor], Tensor]  # features (R, H, F), projection (R, M) or (1, M) -> prediction (R, H, D)
Make = Callable[[FactoredNetwork, Tensor, Tensor], Body]
Example = tuple[Tensor, Tensor]  # inputs of a body
Target = TypeVar("Target")
BackendName = Literal["auto", "eager", "compile", "openvino", "openvino-bf16"]
"""The name of a backend; "auto" is the fastest of those that this machine has and that are as accurate as PyTorch."""
MAKING = threading.RLock()  # held by the thread that makes a program
CALLS = 5  # calls of each backend that are timed, after one that is not


def own_body(network: FactoredNetwork, features_RHF: Tensor, projection_RM: Tensor) -> Body:
    """The body as it is, which PyTorch runs."""
    return network.body


class Backend(NamedTuple):
    """A way to run the body of a network."""

    program: Make
    """Makes a program for inputs of the given shapes; raises ImportError where the backend is not installed."""
    tolerance: float
    """The largest error of an output, relative to the largest output or to 1 if that is below 1."""
    gradient: Make = own_body
    """Makes a program that is differentiable with respect to the features; raises as `program` does."""


def compiled(network: FactoredNetwork, features_RHF: Tensor, projection_RM: Tensor) -> Body:
    """torch.compile with inductor, which needs a C++ compiler; on a GPU the program is one CUDA graph."""
    return torch.compile(network.body, dynamic=False, mode="reduce-overhead")


BACKENDS: dict[str, Backend] = {
    "eager": Backend(own_body, 0.0),
    "compile": Backend(compiled, 1e-4),
    "openvino": Backend(partial(openvino_program, precision="f32"), 1e-4, partial(openvino_gradient, precision="f32")),
    "openvino-bf16": Backend(partial(openvino_program, precision="bf16"), 0.1,
                             partial(openvino_gradient, precision="bf16")),
}
"""The backends by their names: how each makes a program, and the largest error that its outputs may have."""
AUTOMATIC = ("eager", "openvino")  # what is as accurate as eager and ready within seconds


def accelerate(target: Target, backend: BackendName = "auto") -> Target:
    """Returns a copy of a model, an agent or a run whose networks run in `backend` when they sample or act, also if
    another backend has run them so far.

    auto: the faster of eager and openvino, measured for each number of rows when it first comes. compile:
    torch.compile, which takes a minute or more for each number of rows. openvino: OpenVINO on a CPU in float32, an
    extra (`pip install 'gentraj[openvino]'`). openvino-bf16: the same in bfloat16, on a CPU that has it.

    A program is made when a number of rows, as `program_rows` rounds it, first comes, and anew when weights have
    changed since, as by a training. Its first output is compared with the eager network's: an error above the
    tolerance in `BACKENDS` raises ValueError. OpenVINO also computes the first derivative with respect to the
    trajectory, as guides need it; other derivatives, and those of networks for which it has no such program, are
    eager. Accelerate a network that a guide calls by itself. The outputs for different numbers of rows may differ
    in their last bits. Raises ValueError for an unknown backend and where nothing can be accelerated, and ImportError
    for a backend that is not installed.
    """
    if backend not in (*BACKENDS, "auto"):
        raise ValueError(f"unknown backend '{backend}'; known: auto, {', '.join(BACKENDS)}")
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
    """What has run the networks of a model, an agent or a run so far, such as "eager" or "auto (openvino)"."""
    found = [network.body for network in _networks(target)]
    names = {name for body in found if isinstance(body, Accelerated) for name in body.names}
    asked = next((body.backend for body in found if isinstance(body, Accelerated)), "eager")
    return asked if asked != "auto" else f"auto ({', '.join(sorted(names)) or 'nothing yet'})"


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


@dataclass(eq=False)
class Accelerated:
    """The body of a network, run by a program for each number of rows."""

    network: FactoredNetwork
    backend: str

    def __post_init__(self) -> None:
        self.eager, self.programs = self.network.body, dict[tuple[int, ...], Body]()
        self.names = set[str]()  # of the backends of the programs
        self.original = copy.copy(self.network)  # its own body stays
        self.weights = [*self.network.parameters(), *self.network.buffers()]
        self.version = self._version()

    def _version(self) -> int:
        """A number that grows with each change of a weight."""
        return sum(weight._version for weight in self.weights)

    def _forget_former_weights(self) -> None:
        """Drops the programs if a weight has changed, as they hold the weights that they were made with."""
        if (version := self._version()) != self.version:
            with MAKING:
                self.original = copy.copy(self.original)  # conversions are kept for each network object
                self.programs, self.version = {}, version

    def __call__(self, features_RHF: Tensor, projection_RM: Tensor) -> Tensor:
        differentiable = torch.is_grad_enabled() and features_RHF.requires_grad
        if torch.is_grad_enabled() and projection_RM.requires_grad:
            return self.eager(features_RHF, projection_RM)
        self._forget_former_weights()
        rows = len(features_RHF)
        more = program_rows(rows) - rows
        if more:
            features_RHF = torch.cat([features_RHF, features_RHF[:1].expand(more, -1, -1)])
            if len(projection_RM) > 1:
                projection_RM = torch.cat([projection_RM, projection_RM[:1].expand(more, -1)])
        key = (differentiable, *features_RHF.shape, *projection_RM.shape)
        if key not in self.programs:
            with MAKING:
                if key not in self.programs:  # another thread may have made it meanwhile
                    example = features_RHF.detach().contiguous(), projection_RM.detach().contiguous()
                    self.programs[key] = self._program(example, differentiable)
        return self.programs[key](features_RHF, projection_RM)[:rows]

    @torch.no_grad()
    def _program(self, example: Example, differentiable: bool) -> Body:
        """The program of the backend, or the fastest one, for inputs of these shapes.

        A differentiable one that cannot be made is the network's own body.
        """
        if not differentiable and self.backend != "auto":
            self.names.add(self.backend)
            return self._checked(self.backend, example, differentiable)
        fastest, found, seconds = "eager", self.eager, float("inf")
        for name in AUTOMATIC if self.backend == "auto" else (self.backend,):
            try:
                program = self._checked(name, example, differentiable)
            except (ImportError, ValueError) as error:
                say(f"{name} is left out: {error}")
                continue
            took = _seconds(program, example, differentiable)
            if took < seconds:
                fastest, found, seconds = name, program, took
        self.names.add(fastest)
        return found

    def _checked(self, name: str, example: Example, differentiable: bool) -> Body:
        backend = BACKENDS[name]
        program = (backend.gradient if differentiable else backend.program)(self.original, *example)
        wanted = _outputs(self.eager, example, differentiable)
        for output, expected in zip(_outputs(program, example, differentiable), wanted, strict=True):
            error = (output - expected).abs().max().item()
            if not error <= backend.tolerance * max(1.0, expected.abs().max().item()):
                raise ValueError(f"the outputs of {name} differ by {error:.2g} from the network's, above its tolerance "
                                 f"of {backend.tolerance:g}; take another backend")
        return program


def _outputs(program: Body, example: Example, differentiable: bool) -> tuple[Tensor, ...]:
    """The prediction and, of a differentiable program, the gradient of its sum."""
    if not differentiable:
        return (program(*example),)
    with torch.enable_grad():
        features_RHF = example[0].clone().requires_grad_()
        prediction = program(features_RHF, example[1])
        return prediction.detach(), *torch.autograd.grad(prediction.sum(), features_RHF)


def _seconds(program: Body, example: Example, differentiable: bool) -> float:
    """The median time of a call."""
    times = []
    for _ in range(CALLS + 1):
        start = time.perf_counter()
        _outputs(program, example, differentiable)[-1].sum().item()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[CALLS // 2]


def program_rows(rows: int) -> int:
    """The number of rows of the program that computes `rows` rows: the next one of three binary digits and zeros.

    At most a quarter of the rows is added, and there are four programs for each doubling of the rows.
    """
    quantum = max(1, 2 ** ((rows - 1).bit_length() - 3))
    return -(-rows // quantum) * quantum
