"""Composition: several contexts of a model, or several models, as one denoiser."""

from __future__ import annotations

import math
import zlib
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor

from ..config import require
from ..device import device_of
from ..models.plugin import Denoise, Denoising, Plugin
from ..normalize import Normalizer
from ..randomness import generator, row_seeds
from ..trajectory import DEFAULT_OPTIONS, Condition, SamplingOptions, TrajectoryModel, TrajectorySpec, calls_of
from .paths import NoisePath
from .posterior import product_mean, with_gradient

Interval = tuple[float, float]  # of t, both ends in it
CHOICE = zlib.crc32(b"mixture")  # 1, 2, .. are what is drawn again


class FromModel(Plugin):
    """Puts together a model's own denoisers, so it has to be the first plug-in."""


@dataclass(frozen=True)
class ClassifierFree(FromModel):
    """Classifier-free guidance (Ho & Salimans 2022, equation 6): (1 - weight) * without context + weight * with it.

    It draws from p(x)^(1 - weight) p(x | context)^weight, as far as that has the sum of their noisy scores: weight 0
    drops the context, 1 is the plain condition, more exaggerates it. Outside of `interval`, in t, it is the plain
    condition (Kynkaanniemi et al. 2024, equation 6). Raises ValueError for a condition without context.
    """

    weight: float
    interval: Interval = (0.0, 1.0)

    def __post_init__(self) -> None:
        require(self, weight=(-1e6, 1e6))
        check_interval(self)

    def wrap(self, denoise: Denoise, sampling: Denoising) -> Denoise:
        if sampling.condition.context_BC is None:
            raise ValueError("ClassifierFree needs a context to exaggerate; give Condition.context_BC, shape (B, C)")
        guided = combination([sampling.denoiser(None), denoise], [1 - self.weight, self.weight])
        return within(self.interval, guided, denoise)


@dataclass(frozen=True, eq=False)
class Contexts(FromModel):
    """Several contexts of one model at once (Liu et al. 2022, equation 11): x0 + sum of weight_i (x0 under c_i - x0).

    `contexts` are (context (C,), weight) pairs, the same for all trajectories; x0 is without context. Raises ValueError
    for a condition that has a context of its own.
    """

    contexts: Sequence[tuple[Tensor, float]]

    def __post_init__(self) -> None:
        if not self.contexts or not all(c.ndim == 1 and math.isfinite(w) for c, w in self.contexts):
            given = [(tuple(c.shape), w) for c, w in self.contexts]
            raise ValueError(f"Contexts are {given} (shape, weight); one (C,) or more with finite weights are "
                             "expected")

    def wrap(self, denoise: Denoise, sampling: Denoising) -> Denoise:
        condition = sampling.condition
        if condition.context_BC is not None:
            raise ValueError("Condition.context_BC is given beside Contexts; give that context as one of these")
        rows = [c.to(condition.values_BHD).expand(condition.batch, -1) for c, _ in self.contexts]
        weights = [w for _, w in self.contexts]
        return combination([denoise, *map(sampling.denoiser, rows)], [1 - math.fsum(weights), *weights])


class Denoiser(Protocol):
    """What a product needs of a model, `Diffusion` being one: a denoiser that holds the known entries."""

    spec: TrajectorySpec
    path: NoisePath
    normalizer: Normalizer

    def denoise(self, values: Tensor, mask: Tensor, context: Tensor | None = None) -> Denoise: ...


@dataclass(frozen=True, eq=False)
class Product(FromModel):
    """Draws from p(x)^own * prod p_i(x)^weight_i, p_i being `others`; a negative weight draws away from a model.

    With W the sum of all weights, each model is told that there is W times the noise: of x = alpha x0 + sigma eps each
    then counts the share 1 / W, not all of it (as in the sum of scores of Liu et al. 2022), and x0' is the mean of what
    they denoise, weighted by `weights` and by the precision of each as a Gaussian, d x0 / dx, which takes at most
    `iterations` backward passes through each model. Exact for Gaussians with iterations enough; with 0, or a negative
    weight, the precisions count as equal. Exact for all where sigma goes to 0. It wants continuous time: with
    discrete levels the noise is the next one that the path has.

    The models may differ in path. Raises ValueError where they differ in spec or normaliser, for W <= 0, and unless
    there are as many weights as others.
    """

    others: Sequence[Denoiser]
    weights: Sequence[float]
    own: float = 1.0
    iterations: int = 4

    def __post_init__(self) -> None:
        require(self, own=(-1e6, 1e6), iterations=(0, math.inf))
        if not self.others or len(self.others) != len(self.weights):
            raise ValueError(f"Product has {len(self.others)} models and {len(self.weights)} weights; give one each")
        if not 0 < self.total < math.inf:
            raise ValueError(f"the weights of Product add up to {self.total:g}; more than 0 is expected")

    @property
    def total(self) -> float:
        return math.fsum([self.own, *self.weights])

    def wrap(self, denoise: Denoise, sampling: Denoising) -> Denoise:
        condition, path = sampling.condition, sampling.path
        values = sampling.normalizer.normalize(condition.values_BHD)
        parts = [_noisier(denoise, path, path, self.total)]
        for i, model in enumerate(self.others):
            _check_same(f"model {i} of Product", model, sampling)
            other = model.denoise(values, condition.mask_BHD, condition.context_BC)
            parts.append(_noisier(other, model.path, path, self.total))
        weights = [self.own, *self.weights]
        if self.iterations == 0 or min(weights) <= 0:
            return combination(parts, [w / self.total for w in weights])

        def product(x: Tensor, t: Tensor) -> Tensor:
            with torch.enable_grad():
                x = with_gradient(x)
                means = [part(x, t) for part in parts]
            return product_mean(x, means, weights, self.iterations)

        return product


class Mixture:
    """Draws each row from one of `models`, chosen by the row's seed with probability proportional to its weight.

    That is exact, whatever the models are: paths, normalisers and kinds may differ. It samples and does not train. A
    guide tilts each model by itself, and the weights stay. Raises ValueError for models of different specs, and unless
    there is one weight each, none negative and not all 0.
    """

    def __init__(self, models: Sequence[TrajectoryModel], weights: Sequence[float]):
        if len(models) != len(weights) or not all(0 <= w < math.inf for w in weights) or not sum(weights) > 0:
            raise ValueError(f"a mixture of {len(models)} models has the weights {list(weights)}; give one each, at "
                             "least 0 and not all 0")
        for i, model in enumerate(models):
            if model.spec != models[0].spec:
                raise ValueError(f"model {i} of the mixture is of {model.spec}; {models[0].spec} is expected")
        self.models, self.weights, self.spec = list(models), list(weights), models[0].spec

    @property
    def device(self) -> torch.device:
        return device_of(self.models[0])

    @property
    def network_calls(self) -> int:
        return calls_of(self.models)

    def sample(self, condition: Condition, num_samples: int = 1, *, guide: Any = None,
               seed: int | Sequence[int] = 0, options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        """(B, N, H, D) in environment units, as `TrajectoryModel.sample`; `guide` is whatever all the models take."""
        rows = condition.repeat(num_samples)
        seeds = row_seeds(seed, rows.batch)
        chosen = [self._choice(s) for s in seeds]
        x_RHD = torch.empty_like(rows.values_BHD, device=self.device)
        for i, model in enumerate(self.models):
            if mine := [r for r, choice in enumerate(chosen) if choice == i]:
                x_RHD[mine] = model.sample(rows[torch.tensor(mine)], guide=guide, options=options,
                                           seed=[seeds[r] for r in mine])[:, 0].to(x_RHD)
        return x_RHD.unflatten(0, (condition.batch, num_samples))

    def _choice(self, seed: int) -> int:
        """The row's model; drawn from another stream than its noise, which has the seed itself."""
        u = float(torch.rand((), generator=generator(seed, CHOICE), dtype=torch.float64))
        return bisect(list(accumulate(self.weights))[:-1], u * sum(self.weights))


def combination(parts: Sequence[Denoise], weights: Sequence[float]) -> Denoise:
    """The weighted sum of what they denoise; a part of weight 0 is not asked, a single one of weight 1 is itself."""
    used = [(part, w) for part, w in zip(parts, weights, strict=True) if w != 0]
    if len(used) == 1 and used[0][1] == 1:
        return used[0][0]
    return lambda x, t: torch.stack([w * part(x, t) for part, w in used]).sum(0)


def within(interval: Interval, inside: Denoise, outside: Denoise) -> Denoise:
    """`inside` at times in the interval, `outside` at others."""
    if interval == (0, 1):
        return inside

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        chosen_R = (t >= interval[0]) & (t <= interval[1])
        if chosen_R.all():
            return inside(x, t)
        return torch.where(chosen_R[:, None, None], inside(x, t), outside(x, t)) if chosen_R.any() else outside(x, t)

    return denoise


def check_interval(plugin: Any) -> None:
    low, high = plugin.interval
    if not 0 <= low <= high <= 1:
        raise ValueError(f"{type(plugin).__name__}.interval is {plugin.interval}; two rising times from 0 to 1 are "
                         "expected")


def _noisier(denoise: Denoise, own: NoisePath, path: NoisePath, factor: float) -> Denoise:
    """A denoiser of the path `own`, asked on `path`, where sigma^2 is taken to be `factor` times what it is."""
    if own is path and factor == 1:
        return denoise

    def asked(x: Tensor, t: Tensor) -> Tensor:
        s = own.snap(own.time_of(path.log_snr(t) - math.log(factor)))
        signal = torch.where(path.alpha(t) > 0, own.alpha(s) / path.alpha(t), math.inf)
        most = own.sigma(s) / path.sigma(t) / min(1, math.sqrt(factor))  # less than `signal` where `own` ends before
        return denoise(torch.minimum(signal, most)[:, None, None] * x, s)

    return asked


def _check_same(name: str, model: Denoiser, sampling: Denoising) -> None:
    if model.spec != sampling.condition.spec:
        raise ValueError(f"{name} is of {model.spec}; {sampling.condition.spec} is expected")
    ours, theirs = sampling.normalizer, model.normalizer
    if not (torch.allclose(ours.shift_D, theirs.shift_D) and torch.allclose(ours.scale_D, theirs.scale_D)):
        raise ValueError(f"{name} normalises by other shifts or scales, so its noise is another one; build both models "
                         "with one Normalizer")
