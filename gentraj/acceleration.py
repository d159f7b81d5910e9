"""Faster networks for sampling and acting, by compilers that are measured and checked on the user's machine.

    fast = gentraj.accelerate(run, "openvino")
    agent = fast.agent(space)

Models, agents and samplers know nothing of it: the `body` of each of their networks is replaced.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .networks.embedding import FactoredNetwork
from .networks.temporal_unet import ConvTranspose

__all__ = ["BACKENDS", "BackendName", "accelerate", "backend_of"]

Body = Callable[[Tensor, Tensor], Tensor]  # features (R, H, F), projection (R, M) or (1, M) -> prediction (R, H, D)
_CONVERTED = WeakKeyDictionary[FactoredNetwork, Any]()  # OpenVINO's models of networks


def openvino_program(network: FactoredNetwork, features_RHF: Tensor, projection_RM: Tensor, *, precision: str) -> Body:
    """A program for inputs of these shapes, computed in `precision`, f32 or bf16, with as many threads as torch has.

    Raises ImportError where OpenVINO is not installed, and ValueError for a network that is not on the CPU.
    """
    if find_spec("openvino") is None:
        raise ImportError("OpenVINO is not installed; pip install 'gentraj[openvino]'")
    if not features_RHF.is_cpu:
        raise ValueError(f"OpenVINO computes on the CPU, and the network is on {features_RHF.device}; take compile")
    if network not in _CONVERTED:  # one conversion serves any number of rows
        _CONVERTED[network] = _converted(network, features_RHF, projection_RM)
    model = _CONVERTED[network].clone()
    model.reshape({0: list(features_RHF.shape), 1: list(projection_RM.shape)})
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = _core().compile_model(model, "CPU", settings).create_infer_request()
    return _in_place(request, features_RHF, projection_RM)


class _Body(nn.Module):
    """A module whose forward is the body of a network, as OpenVINO converts modules."""

    def __init__(self, network: FactoredNetwork):
        super().__init__()
        self.network = rewritten(network)

    def forward(self, features_RHF: Tensor, projection_RM: Tensor) -> Tensor:
        return self.network.body(features_RHF, projection_RM)


@cache
def _core() -> Any:
    """OpenVINO's core, which is kept to the end of the process.

    It gives the main thread a stack for signal handlers and frees it when it is destroyed, and the next signal would
    then end the process.
    """
    import openvino

    return openvino.Core()


def _converted(network: FactoredNetwork, features_RHF: Tensor, projection_RM: Tensor) -> Any:
    """OpenVINO's model of the body of a network, for any number of rows."""
    import openvino

    rows = [[-1, *features_RHF.shape[1:]], [-1, *projection_RM.shape[1:]]]
    inputs = (features_RHF, projection_RM.expand(len(features_RHF), -1))
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        # Without torch's own check, which imports 90 MiB of modules: `accelerate` compares the outputs.
        traced = torch.jit.trace(_Body(network), inputs, strict=False, check_trace=False)
        return openvino.convert_model(traced, example_input=inputs, input=rows)


def _in_place(request: Any, *inputs: Tensor) -> Body:
    """Calls of a request whose inputs are copied to where it reads them: OpenVINO's own handling of inputs is slow."""
    from openvino import Tensor as View

    places = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs]
    for i, place in enumerate(places):
        request.set_input_tensor(i, View(place.numpy(), shared_memory=True))
    output = torch.from_numpy(request.get_output_tensor(0).data)
    in_use = threading.Lock()  # copies of a model share its programs, and may run in other threads

    @torch.no_grad()
    def run(features_RHF: Tensor, projection_RM: Tensor) -> Tensor:
        with in_use:
            places[0].copy_(features_RHF)
            places[1].copy_(projection_RM)
            request.infer(share_outputs=True)
            return output.clone()

    return run


def rewritten(network: FactoredNetwork) -> FactoredNetwork:
    """A copy of the network in which some modules are replaced by others that compute the same, with the same weights.

    OpenVINO takes most of a call of a U-Net with one row for its transposed convolutions, and most of a call with many
    rows in bfloat16 for the normalisation of groups.
    """
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, module in parent.named_children():
            if isinstance(module, ConvTranspose):
                setattr(parent, name, SubPixelConv(module))
            elif isinstance(module, nn.GroupNorm):
                setattr(parent, name, GroupMoments(module))
    return network


class SubPixelConv(nn.Module):
    """A transposed convolution of kernel 4, stride 2 and padding 1 as a convolution of kernel 3 (Shi et al. 2016).

    y[2t] = w[1] x[t] + w[3] x[t-1] and y[2t+1] = w[2] x[t] + w[0] x[t+1] are two outputs of one convolution at t.
    """

    def __init__(self, transposed: ConvTranspose):
        super().__init__()
        w = transposed.weight.detach().transpose(0, 1).unbind(-1)
        even = torch.stack([w[3], w[1], 0 * w[1]], -1)
        odd = torch.stack([0 * w[2], w[2], w[0]], -1)
        self.weight = nn.Parameter(torch.cat([even, odd])[:, :, None], requires_grad=False)
        self.bias = None if transposed.bias is None else nn.Parameter(transposed.bias.detach().repeat(2), False)

    def forward(self, h_RC1H: Tensor) -> Tensor:
        even_odd = F.conv2d(h_RC1H, self.weight, self.bias, padding=(0, 1))
        return rearrange(even_odd, "r (two c) 1 h -> r c 1 (h two)", two=2)


class GroupMoments(nn.Module):
    """Normalisation of groups by their mean and variance, each written as a mean."""

    def __init__(self, norm: nn.GroupNorm):
        super().__init__()
        self.norm = norm

    def forward(self, h_RC1H: Tensor) -> Tensor:
        h_RGX = rearrange(h_RC1H, "r (g c) 1 h -> r g (c h)", g=self.norm.num_groups)
        centred_RGX = h_RGX - h_RGX.mean(-1, keepdim=True)
        variance_RG1 = (centred_RGX * centred_RGX).mean(-1, keepdim=True)
        z_RC1H = (centred_RGX / (variance_RG1 + self.norm.eps).sqrt()).view_as(h_RC1H)
        return z_RC1H * self.norm.weight[:, None, None] + self.norm.bias[:, None, None]


@runtime_checkable
class HasModules(Protocol):
    """A model, or a run: what says which modules it is made of."""

    def modules(self) -> Iterator[nn.Module]:
        """Its modules, each once, as those of an `nn.Module`."""
        ...


Target = TypeVar("Target", bound=HasModules)
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
    """Returns a copy of a model or a run whose networks run in `backend` when they sample, also if another backend has
    run them so far. Agents are made of the copy.

    compile: torch.compile, which takes a minute or more for each number of rows. openvino: OpenVINO on a CPU in
    float32, an extra (`pip install 'gentraj[openvino]'`). openvino-bf16: the same in bfloat16, on a CPU that has it.

    A program is made when a number of rows, as `program_rows` rounds it, first comes, and anew when weights have
    changed since, as by a training. Its first output is compared with the eager network's: an error above the
    tolerance in `BACKENDS` raises ValueError. Calls that are differentiated, as by guides, are eager. The outputs for
    different numbers of rows may differ in their last bits. Raises ValueError for an unknown backend, for an agent and
    where nothing can be accelerated, and ImportError for a backend that is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend '{backend}'; known: {', '.join(BACKENDS)}")
    if not isinstance(target, HasModules):
        raise ValueError(f"a {type(target).__name__} was given, and a model or a run is accelerated; make the agent of "
                         "it, as by gentraj.accelerate(run).agent(action_space)")
    if backend == "eager" and backend_of(target) == "eager":
        return target
    fast = copy.deepcopy(target)
    networks = _networks(fast)
    if not networks:
        raise ValueError(f"{type(target).__name__} has no network of trajectories to accelerate, derived from "
                         "FactoredNetwork; give a model or a run with one, or leave accelerate out")
    for network in networks:
        vars(network).pop("body", None)  # that of an earlier call: the network's own body is a method
        if backend != "eager":
            network.body = Accelerated(network, backend)
    return fast


def backend_of(target: HasModules) -> str:
    """What runs the networks of a model or a run, such as "eager"."""
    bodies = (network.body for network in _networks(target))
    return next((body.backend for body in bodies if isinstance(body, Accelerated)), "eager")


def _networks(target: HasModules) -> list[FactoredNetwork]:
    return [module for module in target.modules() if isinstance(module, FactoredNetwork)]


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
