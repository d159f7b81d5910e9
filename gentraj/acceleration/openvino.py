"""Programs of OpenVINO, which run the body of a network on a CPU without a compiler installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..networks.embedding import FactoredNetwork
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


def openvino_program(network: FactoredNetwork, features_RHF: Tensor, projection_RM: Tensor, *,
                     precision: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A program for inputs of these shapes, computed in `precision`, f32 or bf16, with as many threads as torch has.

    Raises ImportError where OpenVINO is not installed, and ValueError for a network that is not on the CPU.
    """
    if find_spec("openvino") is None:
        raise ImportError("OpenVINO is not installed; pip install 'gentraj[openvino]'")
    if not features_RHF.is_cpu:
        raise ValueError(f"OpenVINO computes on the CPU, and the network is on {features_RHF.device}; take compile")
    import openvino

    if network not in _CONVERTED:  # one conversion serves any number of rows
        rows = [[-1, *features_RHF.shape[1:]], [-1, *projection_RM.shape[1:]]]
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            inputs = (features_RHF, projection_RM.expand(len(features_RHF), -1))
            _CONVERTED[network] = openvino.convert_model(_Body(network), example_input=inputs, input=rows)
    model = _CONVERTED[network].clone()
    model.reshape({0: list(features_RHF.shape), 1: list(projection_RM.shape)})
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = _core().compile_model(model, "CPU", settings).create_infer_request()

    inputs = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (features_RHF, projection_RM)]
    for i, x in enumerate(inputs):  # the program reads and writes in place: OpenVINO's own handling of inputs is slow
        request.set_input_tensor(i, openvino.Tensor(x.numpy(), shared_memory=True))
    output_RHD = torch.from_numpy(request.get_output_tensor(0).data)

    def program(features_RHF: Tensor, projection_RM: Tensor) -> Tensor:
        for x, given in zip(inputs, (features_RHF, projection_RM), strict=True):
            x.copy_(given)
        request.infer(share_outputs=True)
        return output_RHD.clone()

    return program
