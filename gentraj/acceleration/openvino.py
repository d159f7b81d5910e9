"""Programs of OpenVINO, which run the body of a network on a CPU without a compiler installed."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.embedding import FactoredNetwork
from ..networks.temporal_unet import ConvTranspose

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
        even_odd_RC1H = F.conv2d(h_RC1H, self.weight, self.bias, padding=(0, 1)).chunk(2, dim=1)
        return torch.stack(even_odd_RC1H, -1).flatten(-2)


class GroupMoments(nn.Module):
    """Normalisation of groups by their mean and variance, each written as a mean."""

    def __init__(self, norm: nn.GroupNorm):
        super().__init__()
        self.norm = norm

    def forward(self, h_RC1H: Tensor) -> Tensor:
        h_RGX = h_RC1H.reshape(h_RC1H.shape[0], self.norm.num_groups, -1)
        centred_RGX = h_RGX - h_RGX.mean(-1, keepdim=True)
        variance_RG1 = (centred_RGX * centred_RGX).mean(-1, keepdim=True)
        z_RC1H = (centred_RGX / (variance_RG1 + self.norm.eps).sqrt()).view_as(h_RC1H)
        return z_RC1H * self.norm.weight[:, None, None] + self.norm.bias[:, None, None]
