"""Perceptrons over the whole window: plain, as the actors in the papers of offline learning, and residual."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import MultipleOf
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from ..config import settings
from .embedding import FactoredNetwork, Frequencies, NetworkConfig, SinusoidalEmbedding, fourier
from .mlp import ACTIVATIONS, INITIAL, ActivationName, InitialName


@settings
class PerceptronConfig(NetworkConfig):
    """Fully connected layers on a flattened window: a transition or a policy's action."""

    width: PositiveInt = 256
    """Number of units of each hidden layer."""
    depth: PositiveInt = 2
    """Number of hidden layers."""
    activation: ActivationName = "silu"
    """Activation. On a CPU Mish and GELU take about as long as the matrix products around them."""
    initial: InitialName = "uniform"
    """Distribution of the initial weights: uniform, as in torch (biases too); orthogonal with a gain of sqrt(2); or
    glorot, which is uniform by the numbers of inputs and outputs. Biases are 0 in the last two."""
    frequencies: Frequencies = 0
    """Number of Fourier frequencies of the inputs; 0 is none."""
    embedding: Annotated[NonNegativeInt, MultipleOf(2)] = 16
    """Number of features of the noise level; 0 gives the level itself to the network."""
    time_scale: NonNegativeFloat = 1000.0
    """Scale of the noise level t, which is embedded as time_scale * t + time_shift."""
    time_shift: float = 0.0
    """Shift of the noise level. With -1, and the number of levels as time_scale, levels are embedded as 0, 1, 2, .."""
    fixed_mask: bool = False
    """The same entries are known in every call, as in a policy: inputs are the known entries and the others as they are
    noised. Without it, any entries may be known: the mask and the known entries are further inputs."""


class Perceptron(FactoredNetwork):
    """A perceptron. What the first layer computes of noise level and context does not depend on x, and is apart."""

    def __init__(self, dim: int, horizon: int, context_dim: int, config: PerceptronConfig):
        super().__init__(dim, context_dim, config.width, config.frequencies)
        self.config, self.activation = config, ACTIVATIONS[config.activation]
        self.time = embedded(config)
        self.inputs = horizon * self.num_features
        if config.fixed_mask:
            self.inputs = horizon * self.num_noisy
        widths = [config.width] * config.depth
        self.first = nn.Linear(self.inputs + max(config.embedding, 1), config.width)
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.out = nn.Linear(config.width, horizon * dim)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                INITIAL[config.initial](layer.weight.data.mT, layer.bias.data)

    def known_features(self, known_RHD: Tensor, mask_RHD: Tensor) -> Tensor:
        if not self.config.fixed_mask:
            return super().known_features(known_RHD, mask_RHD)
        return torch.cat([known_RHD, mask_RHD.to(known_RHD.dtype)], -1)

    def features(self, x_RHD: Tensor, known_RHF: Tensor) -> Tensor:
        if not self.config.fixed_mask:
            return super().features(x_RHD, known_RHF)
        known_RHD, mask_RHD = known_RHF.chunk(2, -1)
        return fourier(torch.where(mask_RHD > 0, known_RHD, x_RHD), self.frequencies)

    def projection(self, t_R: Tensor, context_RC: Tensor | None) -> Tensor:
        projection_RW = F.linear(self.time(t_R), self.first.weight[:, self.inputs :])
        if context_RC is not None and self.context is not None:
            projection_RW = projection_RW + self.context(context_RC)
        return projection_RW

    def body(self, features_RHF: Tensor, projection_RM: Tensor) -> Tensor:
        h = F.linear(features_RHF.flatten(1), self.first.weight[:, : self.inputs], self.first.bias) + projection_RM
        for layer in self.hidden:
            h = layer(self.activation(h))
        return self.out(self.activation(h)).unflatten(1, (features_RHF.shape[1], -1))


class ScaledTime(nn.Module):
    """The noise level (R,), scaled and shifted, as one feature (R, 1)."""

    def __init__(self, scale: float, shift: float):
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, t_R: Tensor) -> Tensor:
        return (self.scale * t_R + self.shift)[:, None]


def embedded(config: PerceptronConfig) -> nn.Module:
    """The layers from a noise level (R,) to its features (R, E)."""
    size = config.embedding
    if not size:
        return ScaledTime(config.time_scale, config.time_shift)
    return nn.Sequential(SinusoidalEmbedding(size, config.time_scale, config.time_shift), nn.Linear(size, 2 * size),
                         nn.Mish(), nn.Linear(2 * size, size))


@settings
class ResidualMLPConfig(NetworkConfig):
    """Layer-normalised residual blocks on a flattened window: a transition, a policy's action or a short plan.

    IDQL: Hansen-Estruch et al. 2023, appendix E.
    """

    width: PositiveInt = 256
    """Number of hidden features."""
    depth: PositiveInt = 3
    """Number of blocks; each has a hidden layer of four times the width."""
    frequencies: Frequencies = 4
    """Number of Fourier frequencies of the inputs; 0 is none."""
    activation: Literal["silu", "mish"] = "silu"
    """Activation. On a CPU Mish takes about as long as the matrix products around it, and SiLU takes little time."""


class ResidualMLP(FactoredNetwork):
    """A residual perceptron. Unlike IDQL's it has no dropout, which would use the global random number generator."""

    def __init__(self, dim: int, horizon: int, context_dim: int, config: ResidualMLPConfig):
        activation = nn.SiLU if config.activation == "silu" else nn.Mish
        super().__init__(dim, context_dim, config.width, config.frequencies, activation=activation)
        self.first = nn.Linear(horizon * self.num_features, config.width)
        self.blocks = nn.ModuleList(Block(config.width, activation) for _ in range(config.depth))
        self.out = nn.Sequential(nn.LayerNorm(config.width), activation(), nn.Linear(config.width, horizon * dim))

    def body(self, features_RHF: Tensor, projection_RM: Tensor) -> Tensor:
        h = self.first(features_RHF.flatten(1)) + projection_RM
        for block in self.blocks:
            h = block(h)
        return self.out(h).unflatten(1, (features_RHF.shape[1], -1))


class Block(nn.Sequential):
    """A residual block: layer normalisation, then a perceptron."""

    def __init__(self, width: int, activation: type[nn.Module]):
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 4 * width), activation(), nn.Linear(4 * width, width))

    def forward(self, h_RW: Tensor) -> Tensor:
        return h_RW + super().forward(h_RW)
