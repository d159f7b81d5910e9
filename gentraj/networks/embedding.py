"""What all networks of trajectories share: the rows of a call, features of their inputs, and an embedding of noise
level and context."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from annotated_types import Interval
from einops import rearrange
from torch import Tensor, nn

from ..config import settings
from ..device import constant, to_device

# In a multiple of so many rows, what is computed of one does not depend on those beside it, bit for bit. For fewer of
# them, or an odd remainder, torch takes other CPU kernels, which round differently. Measured with torch 2.13 and strict
# products (`gentraj/__init__.py`): multiples of 16 are bit-equal with 1 and 2 threads; with more threads the kernel of
# a row depends on how the rows are divided among the threads.
MIN_ROWS = 16
MAX_ROWS = 1024  # more rows take several calls, which bounds memory


@settings
class NetworkConfig:
    """Base class of the settings of a network of trajectories, which `NETWORKS` lists."""


def padded(x_RX: Tensor, multiple: int = MIN_ROWS) -> Tensor:
    """Repeats the first row up to a multiple of so many rows."""
    missing = -len(x_RX) % multiple
    if not missing:
        return x_RX
    return torch.cat([x_RX, x_RX[:1].expand(missing, *x_RX.shape[1:])])


Frequencies = Annotated[int, Interval(ge=0, le=16)]
Predict = Callable[[Tensor, Tensor], Tensor]  # (x_RHD, t (R,), or (1,) on the CPU) -> prediction (R, H, D)
MAX_PROJECTIONS = 1 << 14  # the most rows of projections that are kept for the steps of a plan
TIME_SCALE = 1000.0  # DDPM's number of noise levels, for which the frequencies of the embedding are meant


def fourier(z: Tensor, frequencies: int) -> Tensor:
    """Fourier features (Tancik et al. 2020): z, and sin and cos of pi 2^k z for k = 0 .. F - 1.

    Maps (..., D), entries in about [-1, 1], to (..., D (1 + 2 F)). They let a network resolve edges as sharp as walls.
    """
    if frequencies == 0:
        return z
    frequency_F1 = constant(tuple(math.pi * 2**k for k in range(frequencies)), z.device, z.dtype)[:, None]
    angle = (frequency_F1 * z[..., None, :]).flatten(-2)
    return torch.cat([z, angle.sin(), angle.cos()], dim=-1)


def width(dim: int, frequencies: int) -> int:
    """The number of features that `fourier` returns for `dim` entries."""
    return dim * (1 + 2 * frequencies)


class SinusoidalEmbedding(nn.Module):
    """The position encoding of `scale * t + shift` (Vaswani et al. 2017, section 3.5): (R,) -> (R, dim)."""

    frequency: Tensor

    def __init__(self, dim: int, scale: float = TIME_SCALE, shift: float = 0.0):
        super().__init__()
        self.dim = dim
        self.scale = scale
        self.shift = shift
        half = (dim + 1) // 2
        frequency = torch.exp(-math.log(10_000) * torch.arange(half) / max(half - 1, 1))
        self.register_buffer("frequency", frequency, persistent=False)

    def forward(self, t_R: Tensor) -> Tensor:
        angle = (self.scale * t_R[:, None] + self.shift) * self.frequency
        return torch.cat([angle.sin(), angle.cos()], dim=-1)[:, : self.dim]


class TrajectoryNetwork(nn.Module):
    """The base class of networks that map noisy trajectory, known entries, noise level and context to a prediction.

    Every network is called as `(x_RHD, known_RHD, mask_RHD, t_R, context_RC=None)` and returns (R, H, D). `known_RHD`
    has the known values, and 0 or a guess at unknown entries; `mask_RHD` is true at known entries; `t_R` is in [0, 1].
    `t_R` may have shape (1,), and the context (1, C), for all rows. A context of None adds nothing to the embedding. No
    row of the output depends on another row of the inputs.
    """

    def __init__(self, dim: int, context_dim: int, embed: int, frequencies: int, *, time_scale: float = TIME_SCALE,
                 time_shift: float = 0.0, activation: type[nn.Module] = nn.Mish):
        super().__init__()
        self.frequencies, self.num_noisy = frequencies, width(dim, frequencies)  # the features of x come first
        self.num_features = 2 * self.num_noisy + dim
        self.time = nn.Sequential(SinusoidalEmbedding(embed, time_scale, time_shift), nn.Linear(embed, 4 * embed),
                                  activation(), nn.Linear(4 * embed, embed))
        self.context = nn.Linear(context_dim, embed) if context_dim else None

    def features(self, x_RHD: Tensor, known_RHF: Tensor) -> Tensor:
        """The features (R, H, num_features) of x, then those of `known_features`."""
        return torch.cat([fourier(x_RHD, self.frequencies), known_RHF], dim=-1)

    def known_features(self, known_RHD: Tensor, mask_RHD: Tensor) -> Tensor:
        """The features (R, H, num_features - num_noisy) of the known values, then the mask: they do not depend on x."""
        return torch.cat([fourier(known_RHD, self.frequencies), mask_RHD.to(known_RHD.dtype)], dim=-1)

    def embedding(self, t_R: Tensor, context_RC: Tensor | None) -> Tensor:
        """The embedding (R, embed) of noise level and context; (1, embed) for one noise level and no context."""
        embedding = self.time(t_R)
        if self.context is not None and context_RC is not None:
            embedding = embedding + self.context(context_RC)
        return embedding


class FactoredNetwork(TrajectoryNetwork):
    """A network of trajectories that computes what does not depend on x apart from the rest.

    A subclass implements `body`, and `projection` if it needs more of noise level and context than their embedding. A
    sampler calls the body in every step, and the projections of all its steps are computed at once before the first.
    """

    def projection(self, t_R: Tensor, context_RC: Tensor | None) -> Tensor:
        """What noise level and context contribute: (R, M), or (1, M) for one noise level and no context."""
        return self.embedding(t_R, context_RC)

    def body(self, features_RHF: Tensor, projection_RM: Tensor) -> Tensor:
        """The prediction (R, H, D) from the features of x and of the known entries, and a projection."""
        raise NotImplementedError

    def forward(self, x_RHD: Tensor, known_RHD: Tensor, mask_RHD: Tensor, t_R: Tensor,
                context_RC: Tensor | None = None) -> Tensor:
        features_RHF = self.features(x_RHD, self.known_features(known_RHD, mask_RHD))
        return self.body(features_RHF, self.projection(t_R, context_RC))

    def conditioned(self, known_RHD: Tensor, mask_RHD: Tensor, context_RC: Tensor | None,
                    times_S: Tensor | None) -> Predict:
        """The network as a function of (x, t). What does not depend on x is computed at once, for all `times_S`."""
        known_RHF, projections_RM = self.known_features(known_RHD, mask_RHD), dict[float, Tensor]()
        rows = 1
        if context_RC is not None:
            rows = len(context_RC)
        if times_S is not None and len(times_S) * rows <= MAX_PROJECTIONS:
            contexts = context_RC
            if contexts is not None:
                contexts = contexts.repeat(len(times_S), 1)
            t_R = to_device(times_S, known_RHD.device).repeat_interleave(rows)
            projections = self.projection(t_R, contexts).split(rows)
            projections_RM = dict(zip(times_S.tolist(), projections, strict=True))

        def predict(x_RHD: Tensor, t_R: Tensor) -> Tensor:
            projected_RM = None
            if len(t_R) == 1:
                projected_RM = projections_RM.get(t_R.item())
            if projected_RM is None:
                projected_RM = self.projection(to_device(t_R, x_RHD.device), context_RC)
            return self.body(self.features(x_RHD, known_RHF), projected_RM)

        return predict


@runtime_checkable
class SupportsConditioned(Protocol):
    """A network with a way of its own to be conditioned for a whole plan."""

    def conditioned(self, known_RHD: Tensor, mask_RHD: Tensor, context_RC: Tensor | None,
                    times_S: Tensor | None) -> Predict: ...


def conditioned(network: nn.Module, known_RHD: Tensor, mask_RHD: Tensor, context_RC: Tensor | None,
                times_S: Tensor | None) -> Predict:
    """Any network as a function of (x, t), mostly called at `times_S`; see `FactoredNetwork.conditioned`."""
    if isinstance(network, SupportsConditioned):
        return network.conditioned(known_RHD, mask_RHD, context_RC, times_S)
    return lambda x_RHD, t_R: network(x_RHD, known_RHD, mask_RHD, to_device(t_R, x_RHD.device), context_RC)


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2): (R, H, width) -> (R, H, width)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, h_RHW: Tensor) -> Tensor:
        qkv = rearrange(self.qkv(h_RHW), "r h (three n w) -> three r n h w", three=3, n=self.heads)
        return self.out(rearrange(F.scaled_dot_product_attention(*qkv), "r n h w -> r h (n w)"))
