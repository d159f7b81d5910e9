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

_CONVERTED = WeakKeyDictionary[FactoredNetwork, Any]()  # OpenVINO's models of networks


class _Body(nn.Module):
    """A module whose forward is the body of a network, as OpenVINO converts modules."""

    def __init__(self, network: FactoredNetwork):
        super().__init__()
        self.network = network

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
            # Without torch's own check, which imports 90 MiB of modules: `accelerate` compares the outputs.
            traced = torch.jit.trace(_Body(network), inputs, strict=False, check_trace=False)
            _CONVERTED[network] = openvino.convert_model(traced, example_input=inputs, input=rows)
    model = _CONVERTED[network].clone()
    model.reshape({0: list(features_RHF.shape), 1: list(projection_RM.shape)})
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = _core().compile_model(model, "CPU", settings).create_infer_request()

    def program(features_RHF: Tensor, projection_RM: Tensor) -> Tensor:
        inputs = [features_RHF.detach().contiguous().numpy(), projection_RM.detach().contiguous().numpy()]
        return torch.from_numpy(request.infer(inputs, share_inputs=True)[0])

    return program
