"""Normalisation of each dimension; a normaliser belongs to a model and is saved with its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from torch import Tensor, nn

from .config import OneOf
from .device import constant

if TYPE_CHECKING:
    from .trajectory import Batch

CHUNK = 8192  # rows converted to float64 at a time, so that fitting copies no dataset


class Normalizer(nn.Module):
    """Computes z_D = (x_D - shift_D) / scale_D. A constant dimension has scale 1 and thus maps to 0.

    Shifts and scales have torch's default dtype, as the weights of networks do. Raises ValueError for shifts that are
    not finite, for scales that are not finite and positive in that dtype, and for other shapes than (D,) each.
    """

    shift_D: Tensor
    scale_D: Tensor
    constant_D: Tensor | None
    """The dimensions that `unnormalize` gives their constant, whatever a model makes of them; None if there are none.
    They are no part of the saved state."""

    def __init__(self, shift_D: Tensor, scale_D: Tensor):
        super().__init__()
        shift_D, scale_D = (x.to(torch.get_default_dtype()) for x in (shift_D, scale_D))  # that of networks
        if not (torch.isfinite(shift_D).all() and torch.isfinite(scale_D).all() and (scale_D > 0).all()):
            raise ValueError(f"a normaliser needs finite shifts and positive scales; got {shift_D} and {scale_D}")
        if shift_D.ndim != 1 or shift_D.shape != scale_D.shape:
            raise ValueError(f"the shifts of a normaliser have shape {tuple(shift_D.shape)} and its scales "
                             f"{tuple(scale_D.shape)}; one of each for each dimension, (D,), is expected")
        self.register_buffer("shift_D", shift_D)
        self.register_buffer("scale_D", scale_D)
        self.register_buffer("constant_D", None, persistent=False)

    @classmethod
    def identity(cls, dim: int) -> Normalizer:
        """A normaliser that changes nothing, into which saved statistics can be loaded."""
        return cls(torch.zeros(dim), torch.ones(dim))

    def holding(self, constant_D: Sequence[bool]) -> Normalizer:
        """The same normaliser, which holds these dimensions at their constant."""
        self.constant_D = torch.tensor(constant_D).to(self.shift_D.device) if any(constant_D) else None
        return self

    def require(self, dim: int) -> Normalizer:
        """Returns the normaliser. Raises ValueError unless it is for `dim` dimensions."""
        if len(self.shift_D) != dim:
            raise ValueError(f"the normaliser is for {len(self.shift_D)} dimensions; a timestep of these trajectories "
                             f"has {dim}, first those of the observation and then those of the action")
        return self

    @classmethod
    def fit(cls, kind: str, arrays: Sequence[np.ndarray]) -> Normalizer:
        """Fits a normaliser to arrays of shape (rows, width), whose widths are concatenated.

        `kind` is "limits", which maps [min, max] to [-1, 1], or "gaussian", which gives mean 0 and standard deviation
        1. For example, `fit("limits", [obs, act])` gives D = O + A. Raises ValueError for another kind, for arrays
        without rows, and for numbers that are not finite.
        """
        if kind not in STATISTICS:
            raise ValueError(f"unknown normaliser '{kind}'; known: {', '.join(STATISTICS)}")
        parts = [np.asarray(a) for a in arrays]
        if not parts or any(part.ndim != 2 or not len(part) for part in parts):
            raise ValueError(f"a normaliser was to be fitted to arrays of shapes {[part.shape for part in parts]}; "
                             "one or more of shape (rows, width), with at least one row, are expected")
        shift, scale = (np.concatenate(p) for p in zip(*map(STATISTICS[kind], parts), strict=True))
        unfit = np.flatnonzero(~np.isfinite(shift + scale))
        if len(unfit):
            raise ValueError(f"a normaliser was to be fitted to data of {len(shift)} entries, of which the entries "
                             f"{unfit.tolist()} have numbers that are NaN, infinite or too large; give finite data")
        # A dimension counts as constant if float32 cannot resolve its spread: dividing would only magnify rounding. A
        # spread above 1 is divided all the same, so that the rounding of numbers such as Unix times is below 1, too.
        constant = (scale <= np.abs(shift) * 1e-6 + np.finfo(np.float32).tiny) & (scale < 1)
        return cls(torch.from_numpy(shift), torch.from_numpy(np.where(constant, 1.0, scale)))

    def normalize(self, x: Tensor, dims: Sequence[int] | None = None) -> Tensor:
        """Normalises x of shape (..., D), or (..., len(dims)) if x holds only the entries `dims`.

        The result has the dtype of the normaliser, as networks take it, also where x is float64 or holds integers.
        """
        shift_D, scale_D = self.shift_D, self.scale_D
        if dims is not None:
            which = constant(tuple(dims), shift_D.device, torch.long)
            shift_D, scale_D = shift_D[which], scale_D[which]
        return ((x - shift_D) / scale_D).to(shift_D.dtype)

    def normalize_windows(self, batch: Batch) -> Tensor:
        """Normalises the windows (B, H, D) of a batch, with 0 in place of padding."""
        return torch.where(batch.mask_BHD, self.normalize(batch.x_BHD), 0)

    def unnormalize(self, z: Tensor) -> Tensor:
        """Inverts `normalize` for z of shape (..., D)."""
        x = z * self.scale_D + self.shift_D
        if self.constant_D is None:
            return x
        return torch.where(self.constant_D, self.shift_D, x)

    def unnormalize_spread(self, sigma: Tensor) -> Tensor:
        """Inverts `normalize` for standard deviations of shape (..., D); that of a constant is 0."""
        spread = sigma * self.scale_D
        if self.constant_D is None:
            return spread
        return torch.where(self.constant_D, 0, spread)


def _limits(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = x.min(0).astype(np.float64), x.max(0).astype(np.float64)
    return (high + low) / 2, (high - low) / 2


def _gaussian(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = x.mean(0, dtype=np.float64)
    square = sum(((x[i : i + CHUNK] - mean) ** 2).sum(0) for i in range(0, len(x), CHUNK))
    return mean, np.sqrt(square / len(x))


STATISTICS = {"limits": _limits, "gaussian": _gaussian}

NormalizerName = Annotated[str, OneOf(STATISTICS)]
