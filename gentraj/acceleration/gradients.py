"""Gradients as programs: the pass through a network and the pass back are traced to graphs that a backend compiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..networks.embedding import FactoredNetwork

Program = Callable[..., list[Tensor]]
Compile = Callable[[GraphModule, Sequence[Tensor]], Program]  # a graph and its inputs -> a program of such inputs


class Passes(NamedTuple):
    """The two programs of a differentiable network, and the network itself for higher derivatives.

    `forward` maps features and projection to the prediction and what `backward` needs of them; `backward` maps these
    and the gradient of the prediction to the gradient of the features.
    """

    network: FactoredNetwork
    forward: Program
    backward: Program

    def __call__(self, features_RHF: Tensor, projection_RM: Tensor) -> Tensor:
        return _Differentiable.apply(features_RHF, projection_RM, self)


class _Differentiable(torch.autograd.Function):
    """The body of a network whose first derivative is a program; a derivative of that is taken from the network."""

    @staticmethod
    def forward(ctx: Any, features_RHF: Tensor, projection_RM: Tensor, passes: Passes) -> Tensor:
        prediction, *ctx.kept = passes.forward(features_RHF, projection_RM)
        ctx.passes = passes
        ctx.save_for_backward(features_RHF, projection_RM)
        return prediction

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        if not torch.is_grad_enabled():
            return *ctx.passes.backward(*ctx.kept, *gradients), None, None
        features_RHF, projection_RM = ctx.saved_tensors
        prediction = ctx.passes.network.body(features_RHF, projection_RM)
        return *torch.autograd.grad(prediction, features_RHF, gradients, create_graph=True), None, None


@torch.enable_grad()
def passes(network: FactoredNetwork, features_RHF: Tensor, projection_RM: Tensor, compile_graph: Compile,
           original: FactoredNetwork) -> Passes:
    """Traces the two passes of `network` for inputs of these shapes, and compiles them.

    `original` computes the same and is differentiated where more than a first derivative is needed.
    """
    # Their import takes a second and 90 MiB, which only gradients are worth.
    from functorch.compile import min_cut_rematerialization_partition
    from torch._decomp import get_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx

    def joint(primals_1: Tensor, primals_2: Tensor, tangents_1: Tensor) -> list[Tensor]:  # named as functorch expects
        prediction = network.body(primals_1, primals_2)
        return [prediction, *torch.autograd.grad(prediction, primals_1, tangents_1)]

    features, projection = features_RHF.detach().requires_grad_(), projection_RM.detach()
    like = network.body(features, projection).detach()
    rules: dict[Any, Callable[..., Any]] = get_decompositions(TORCHS_OWN) | DECOMPOSITIONS
    trace = make_fx(joint, decomposition_table=rules, tracing_mode="fake", _allow_non_fake_inputs=True)
    forward, backward = min_cut_rematerialization_partition(trace(features, projection, like), None, num_fwd_outputs=1)
    return Passes(original, *(compile_graph(graph, _inputs(graph)) for graph in (forward, backward)))


def _inputs(graph: GraphModule) -> list[Tensor]:
    """Tensors of the shapes that the graph takes."""
    fakes = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    return [torch.empty(tuple(fake.shape), dtype=fake.dtype) for fake in fakes]


def _convolution_backward(gradient: Tensor, h: Tensor, weight: Tensor, bias_sizes: Any, stride: list[int],
                          padding: list[int], dilation: list[int], transposed: bool, output_padding: list[int],
                          groups: int, wanted: list[bool]) -> tuple[Tensor, None, None]:
    """The gradient of a convolution's input: a convolution with the kernel reversed, or a transposed convolution."""
    if transposed or any(wanted[1:]):
        raise NotImplementedError("only ordinary convolutions with constant weights have a program of their gradient")
    sizes = zip(h.shape[2:], gradient.shape[2:], weight.shape[2:], stride, padding, strict=True)
    if all(s == 1 for s in stride):
        reversed_by = [k - 1 - p for _, _, k, _, p in sizes]
        kernel = weight.transpose(0, 1).flip([-1, -2])
        return torch.ops.aten.convolution(gradient, kernel, None, stride, reversed_by, dilation, False, [0, 0],
                                          groups), None, None
    left = [size - ((out - 1) * s - 2 * p + k) for size, out, k, s, p in sizes]
    return torch.ops.aten.convolution(gradient, weight, None, stride, padding, dilation, True, left,
                                      groups), None, None


def _mish_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """Mish is x (2 / (1 + s^2) - 1) with s = sigmoid(-x)."""
    s = (-x).sigmoid()
    d = 1 + s * s
    return gradient * (2 / d - 1 + 4 * x * s * s * (1 - s) / (d * d))


def _var_mean(x: Tensor, dim: list[int], *, correction: float, keepdim: bool) -> tuple[Tensor, Tensor]:
    if correction or not keepdim:
        raise NotImplementedError("only the moments of a layer normalisation have a program")
    mean = x.mean(dim, keepdim=True)
    return ((x - mean) * (x - mean)).mean(dim, keepdim=True), mean


def _select_backward(gradient: Tensor, sizes: list[int], dim: int, index: int) -> Tensor:
    return _slice_backward(gradient.unsqueeze(dim), sizes, dim, index, index + 1, 1)


def _slice_backward(gradient: Tensor, sizes: list[int], dim: int, start: int, end: int, step: int) -> Tensor:
    """The gradient with zeros before and after it."""
    if step != 1:
        raise NotImplementedError(f"a slice has step {step}; only step 1 has a program of its gradient")
    parts = [gradient]
    if start > 0:
        parts.insert(0, gradient.new_zeros([*sizes[:dim], start, *sizes[dim + 1 :]]))
    if end < sizes[dim]:
        parts.append(gradient.new_zeros([*sizes[:dim], sizes[dim] - end, *sizes[dim + 1 :]]))
    return torch.cat(parts, dim) if len(parts) > 1 else gradient


# Operations that OpenVINO does not know, and how they are made of others: by torch's rules, or by these.
TORCHS_OWN: list[Any] = [torch.ops.aten.native_layer_norm, torch.ops.aten.native_layer_norm_backward,
                         torch.ops.aten.silu_backward]
DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.convolution_backward.default: _convolution_backward,
    torch.ops.aten.mish_backward.default: _mish_backward,
    torch.ops.aten.var_mean.correction: _var_mean,
    torch.ops.aten.select_backward.default: _select_backward,
    torch.ops.aten.slice_backward.default: _slice_backward,
}
