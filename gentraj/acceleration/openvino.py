"""Programs of OpenVINO, which run the body of a network on a CPU without a compiler installed."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ..networks.embedding import FactoredNetwork
from .gradients import Passes, Program, passes
from .rewriting import rewritten

_CONVERTED = WeakKeyDictionary[FactoredNetwork, Any]()  # OpenVINO's models of networks


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


def _check(x: Tensor) -> None:
    """Raises ImportError where OpenVINO is not installed, and ValueError for a network that is not on the CPU."""
    if find_spec("openvino") is None:
        raise ImportError("OpenVINO is not installed; pip install 'gentraj[openvino]'")
    if not x.is_cpu:
        raise ValueError(f"OpenVINO computes on the CPU, and the network is on {x.device}; take compile")


def openvino_program(network: FactoredNetwork, features_RHF: Tensor, projection_RM: Tensor, *,
                     precision: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A program for inputs of these shapes, computed in `precision`, f32 or bf16, with as many threads as torch has.

    Raises ImportError where OpenVINO is not installed, and ValueError for a network that is not on the CPU.
    """
    _check(features_RHF)
    import openvino

    if network not in _CONVERTED:  # one conversion serves any number of rows
        rows = [[-1, *features_RHF.shape[1:]], [-1, *projection_RM.shape[1:]]]
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            inputs = (features_RHF, projection_RM.expand(len(features_RHF), -1))
            # Without torch's own check, which imports 90 MiB of modules: `accelerate` compares the outputs.
            traced = torch.jit.trace(_Body(network), inputs, strict=False, check_trace=False)
            _CONVERTED[network] = openvino.convert_model(traced, example_input=inputs, input=rows)
    model = _CONVERTED[network].clone()
    model.reshape({0: list(features_RHF.shape), 1: list(projection_RM.shape)})
    run = _compiled(model, (features_RHF, projection_RM), precision)
    return lambda features_RHF, projection_RM: run(features_RHF, projection_RM)[0]


def openvino_gradient(network: FactoredNetwork, features_RHF: Tensor, projection_RM: Tensor, *,
                      precision: str) -> Passes:
    """A program as `openvino_program` returns it that is differentiable with respect to the features.

    Raises ValueError also for a network with an operation whose derivative OpenVINO does not know.
    """
    _check(features_RHF)
    try:
        return passes(rewritten(network).requires_grad_(False), features_RHF, projection_RM,
                      partial(_converted, precision=precision), network)
    except Exception as error:
        reason = str(error).strip().splitlines()[-1:]
        raise ValueError(f"OpenVINO has no program of the gradient of {type(network).__name__}: "
                         f"{type(error).__name__} {' '.join(reason)}") from error


def _converted(graph: GraphModule, inputs: Sequence[Tensor], precision: str) -> Program:
    """The program of a graph of torch's core operations."""
    from openvino import PartialShape
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    shapes = [PartialShape(list(x.shape)) for x in inputs]
    decoder = TorchFXPythonDecoder(graph, graph, input_shapes=shapes, input_types=[x.dtype for x in inputs])
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))  # calls the decoder's methods
    for given, shape in zip(model.inputs, shapes, strict=True):
        given.get_node().set_partial_shape(shape)
    model.validate_nodes_and_infer_types()
    return _compiled(model, inputs, precision)


def _compiled(model: Any, inputs: Sequence[Tensor], precision: str) -> Program:
    """The compiled program of OpenVINO's model for inputs of these shapes."""
    from openvino import Tensor as View

    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = _core().compile_model(model, "CPU", settings).create_infer_request()
    places = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs]
    for i, place in enumerate(places):  # the program reads in place: OpenVINO's own handling of inputs is slow
        request.set_input_tensor(i, View(place.detach().numpy(), shared_memory=True))
    outputs = [torch.from_numpy(request.get_output_tensor(i).data) for i in range(len(model.outputs))]
    in_use = threading.Lock()  # copies of a model share its programs, and may run in other threads

    @torch.no_grad()
    def run(*given: Tensor) -> list[Tensor]:
        with in_use:
            for place, x in zip(places, given, strict=True):
                place.copy_(x)
            request.infer(share_outputs=True)
            return [output.clone() for output in outputs]

    return run
