"""Composition: several contexts of one model, or several models, that sample as one.

p(x0 | x) is approximated by a Gaussian of mean x0 and covariance sigma^2 / alpha * d x0 / dx (Tweedie, second order).
The linear systems that follow from it are solved by conjugate gradients, for each row of a batch on its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.sampling import Denoise, Denoising, Plugin
from .denoiser import DenoisingModel
from .paths import NoisePath, over_rows

Covariance = Callable[[Tensor], Tensor]  # v_RHD -> the covariance times v_RHD
LEAST_CURVATURE = 0.1  # a convex guide may widen the posterior's variance ten times at most
CONVERGED = 1e-11  # a relative squared residual, about the precision of float32


def with_gradient(x: Tensor) -> Tensor:
    """Returns `x` itself if it requires a gradient, and otherwise a copy that does."""
    if x.requires_grad:
        return x
    return x.detach().requires_grad_()


def covariance(x: Tensor, x0: Tensor, gain: Tensor | float = 1.0) -> Covariance:
    """Products with gain * d x0 / dx, by one backward pass each, since it is symmetric. `x0` was computed from `x`."""
    return lambda v: gain * torch.autograd.grad(x0, x, v.to(x0), retain_graph=True)[0]


def proximal(gradient: Tensor, hessian: Callable[[Tensor], Tensor], sigma: Covariance, iterations: int) -> Tensor:
    """The move d that maximises gradient^T d + d^T Hessian d / 2 - d^T Sigma^-1 d / 2.

    It is d = Sigma w with (1 - Hessian Sigma) w = gradient, solved by conjugate gradients in the inner product of
    Sigma, in at least one iteration. A row stops in a direction where the objective is convex (Steihaug 1983); if that
    is the first direction, the row takes the explicit step Sigma gradient.
    """
    r, p = gradient, gradient
    Sp = sigma(r)
    move, power = torch.zeros_like(r), _dot(r, Sp)
    least = CONVERGED * _dot(r, r)
    for i in range(iterations):
        q = p - hessian(Sp)
        curvature, variance = _dot(Sp, q), _dot(Sp, p)
        concave = curvature > LEAST_CURVATURE * variance
        size = torch.where(concave, power / curvature, float(i == 0))
        size = torch.where((power > 0) & (variance > 0), size, 0)  # else Sigma is not positive along p
        move, r = move + size * Sp, r - size * q
        going = concave & (size > 0) & (_dot(r, r) > least)
        if i == iterations - 1 or not going.any():
            break
        Sr, before = sigma(r), power
        power = torch.where(going, _dot(r, Sr), 0)
        beta = torch.where(going, power / before, 0)
        p, Sp = r + beta * p, Sr + beta * Sp
    return move


def product_mean(x: Tensor, means: Sequence[Tensor], weights: Sequence[float], iterations: int) -> Tensor:
    """The mean m of prod N(mean_i, Sigma_i)^weight_i, where Sigma_i is d mean_i / dx times a factor common to all.

    Let u_i = weight_i Sigma_i^-1 (m - mean_i); the u_i add up to 0, and m = mean_i + Sigma_i u_i / weight_i for each i.
    To equate the expression for each i with that for i = 0 gives a linear system for the other u_i, which needs no
    inverse of a covariance. Returns the weighted mean of all the expressions. This is the weighted mean of the means
    before the first iteration, and also where all covariances are equal.
    """
    first, *sigmas = [covariance(x, mean) for mean in means]
    own, total = weights[0], math.fsum(weights)
    others_N111 = x.new_tensor(weights[1:])[:, None, None, None]
    r_NRHD = p = torch.stack([means[0] - mean for mean in means[1:]]).detach()
    move = -(others_N111 * p).sum(0) / total
    power = _dot(p, p)
    least = CONVERGED * power
    for _ in range(iterations):
        Sp_0, Sp = first(p.sum(0)), torch.stack([sigma(v) for sigma, v in zip(sigmas, p, strict=True)])
        q = Sp / others_N111 + Sp_0 / own
        curvature = _dot(p, q)
        size = torch.where((curvature > 0) & (power > least), power / curvature, 0)
        move, r_NRHD = move + size * (Sp.sum(0) - Sp_0) / total, r_NRHD - size * q
        before, power = power, torch.where(size > 0, _dot(r_NRHD, r_NRHD), 0)
        if not (power > least).any():
            break
        p = r_NRHD + torch.where(size > 0, power / before, 0) * p
    return means[0] + move


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product (R, 1, 1) of each row, over all axes but that of the rows, which is the third from the end."""
    axes = [axis for axis in range(-a.ndim, 0) if axis != -3]
    return (a * b).sum(axes, keepdim=True)[(0,) * (a.ndim - 3)]


Interval = tuple[float, float]  # times t, both ends included


class FromModel(Plugin):
    """A plug-in that combines a model's own denoisers. It has to be the first plug-in."""


@dataclass(frozen=True)
class ClassifierFree(FromModel):
    """Classifier-free guidance (Ho & Salimans 2022, equation 6): x0 = (1 - weight) x0(x) + weight x0(x, context).

    It samples from p(x)^(1 - weight) p(x | context)^weight, under the assumption that the noisy scores of this density
    are the weighted sum of the two scores. A weight of 0 ignores the context, 1 is the conditional model, and a larger
    weight exaggerates the context. At times t outside of `interval` the conditional model denoises (Kynkaanniemi et
    al. 2024, equation 6). Sampling raises ValueError for a condition without a context and, unless the weight is 1, for
    a model that was trained with a `context_dropout` of 0, which knows no p(x).
    """

    weight: float
    interval: Interval = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(f"ClassifierFree.weight is {self.weight}; a finite number is expected")
        check_interval("ClassifierFree", self.interval)

    def wrap(self, denoise: Denoise, sampling: Denoising) -> Denoise:
        """Guides the denoiser by the context. Raises ValueError for a condition without one."""
        if sampling.condition.context_BC is None:
            raise ValueError("ClassifierFree needs a context, and the condition has none; give Condition.context_BC, "
                             "shape (B, C)")
        if self.weight == 1:
            return denoise
        guided = combination([sampling.denoiser(None), denoise], [1 - self.weight, self.weight])
        return within(self.interval, guided, denoise)


@dataclass(frozen=True, eq=False)
class Contexts(FromModel):
    """Several contexts of one model at once (Liu et al. 2022, equation 11).

    It denoises to x0(x) + sum_i weight_i (x0(x, c_i) - x0(x)), where x0(x) is denoised without a context. `contexts` is
    a sequence of pairs (context c_i of shape (C,), weight_i), the same for all trajectories. Sampling raises ValueError
    for a condition that has a context of its own and, unless the weights add up to 1, for a model that was trained with
    a `context_dropout` of 0, which knows no x0(x).
    """

    contexts: Sequence[tuple[Tensor, float]]

    def __post_init__(self) -> None:
        if not self.contexts or not all(c.ndim == 1 and math.isfinite(w) for c, w in self.contexts):
            given = [(tuple(c.shape), w) for c, w in self.contexts]
            raise ValueError(f"Contexts are {given} (shape, weight); at least one context of shape (C,) and finite "
                             "weights are expected")

    def wrap(self, denoise: Denoise, sampling: Denoising) -> Denoise:
        """Combines the denoisers of all contexts. Raises ValueError for a condition that has a context too."""
        condition = sampling.condition
        if condition.context_BC is not None:
            raise ValueError("Condition.context_BC was given together with Contexts; give that context as one of these")
        contexts = [c.to(condition.values_BHD).expand(condition.batch, -1) for c, _ in self.contexts]
        weights = [w for _, w in self.contexts]
        without = 1 - math.fsum(weights)
        none = denoise
        if without:
            none = sampling.denoiser(None)
        return combination([none, *map(sampling.denoiser, contexts)], [without, *weights])


@dataclass(frozen=True, eq=False)
class Product(FromModel):
    """Samples from p(x)^own * prod p_i(x)^weight_i, where p_i are the models `others`.

    A model of negative weight repels the samples. Let W be the sum of all weights. Each model denoises as if the noise
    variance were W times as large, so that the observation x = alpha x0 + sigma eps counts once in the product and not
    once for each model (as it does in the sum of scores of Liu et al. 2022). The result x0' is the mean of the models'
    x0, weighted by `weights` and by the precision that d x0 / dx gives each model as a Gaussian. It takes at most
    `iterations` backward passes through each model. For Gaussians it is exact after enough iterations; with 0
    iterations, or a negative weight, the precisions are taken to be equal. For all models it becomes exact as sigma
    goes to 0. Use models of continuous time: a model with discrete levels denoises at its next noisier level.

    The models may have different noise paths. Raises ValueError if W <= 0, if the numbers of weights and of other
    models differ, and for a model that does not denoise trajectories, such as a GAN; sampling raises ValueError if the
    models differ in spec or normaliser.
    """

    others: Sequence[DenoisingModel]
    weights: Sequence[float]
    own: float = 1.0
    iterations: int = 4

    def __post_init__(self) -> None:
        if not self.others or len(self.others) != len(self.weights):
            raise ValueError(f"Product has {len(self.others)} models and {len(self.weights)} weights; give at least "
                             "one model, and one weight for each")
        for i, model in enumerate(self.others):
            if not hasattr(model, "denoise"):
                raise ValueError(f"model {i} of Product is a {type(model).__name__}, which does not denoise "
                                 "trajectories; give diffusion models")
        if not 0 < self.total < math.inf:
            raise ValueError(f"the weights of Product add up to {self.total:g}; a sum of more than 0 is expected")

    @property
    def total(self) -> float:
        """The sum of all weights, that of the own model included."""
        return math.fsum([self.own, *self.weights])

    def wrap(self, denoise: Denoise, sampling: Denoising) -> Denoise:
        condition, path = sampling.condition, sampling.path
        values = sampling.normalizer.normalize(condition.values_BHD)
        denoisers = [_noisier(denoise, path, path, self.total)]
        for i, model in enumerate(self.others):
            _check_same(f"model {i} of Product", model, sampling)
            other = model.denoise(values, condition.mask_BHD, condition.context_BC)
            denoisers.append(_noisier(other, model.path, path, self.total))
        weights = [self.own, *self.weights]
        if self.iterations == 0 or min(weights) <= 0:
            return combination(denoisers, [w / self.total for w in weights])

        def product(x: Tensor, t: Tensor) -> Tensor:
            with torch.enable_grad():
                x = with_gradient(x)
                means = [denoise(x, t) for denoise in denoisers]
            return product_mean(x, means, weights, self.iterations)

        return product


def combination(denoisers: Sequence[Denoise], weights: Sequence[float]) -> Denoise:
    """The weighted sum of several denoisers. A denoiser of weight 0 is not called."""
    used = [(denoise, w) for denoise, w in zip(denoisers, weights, strict=True) if w != 0]
    if len(used) == 1 and used[0][1] == 1:
        return used[0][0]
    return lambda x, t: torch.stack([w * denoise(x, t) for denoise, w in used]).sum(0)


def within(interval: Interval, inside: Denoise, outside: Denoise) -> Denoise:
    """Denoises with `inside` at times in the interval and with `outside` at all others."""
    if interval == (0, 1):
        return inside

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        chosen_R = (t >= interval[0]) & (t <= interval[1])
        if chosen_R.all():
            return inside(x, t)
        if not chosen_R.any():
            return outside(x, t)
        return torch.where(chosen_R[:, None, None], inside(x, t), outside(x, t))

    return denoise


def check_interval(plugin: str, interval: Interval) -> None:
    """Raises ValueError for times of a plug-in that are not two from 0 to 1, in this order."""
    low, high = interval
    if not 0 <= low <= high <= 1:
        raise ValueError(f"{plugin}.interval is {interval}; two times from 0 to 1, the smaller one first, are expected")


def _noisier(denoise: Denoise, own: NoisePath, path: NoisePath, factor: float) -> Denoise:
    """A denoiser of noise path `own` made to denoise on `path`, as if sigma^2 were `factor` times as large there."""
    if own is path and factor == 1:
        return denoise

    def noisier(x: Tensor, t: Tensor) -> Tensor:
        s = own.snap(own.time_of(path.log_snr(t) - math.log(factor)))
        scale = torch.where(path.alpha(t) > 0, own.alpha(s) / path.alpha(t), math.inf)
        limit = own.sigma(s) / path.sigma(t) / min(1, math.sqrt(factor))  # the smaller one where `own` ends sooner
        return denoise(over_rows(torch.minimum(scale, limit)) * x, s)

    return noisier


def _check_same(name: str, model: DenoisingModel, sampling: Denoising) -> None:
    if model.spec != sampling.condition.spec:
        raise ValueError(f"{name} has {model.spec}; {sampling.condition.spec} is expected")
    ours, theirs = sampling.normalizer, model.normalizer
    if not (torch.allclose(ours.shift_D, theirs.shift_D) and torch.allclose(ours.scale_D, theirs.scale_D)):
        raise ValueError(f"{name} normalises by other shifts or scales, so that its noise has another size; build all "
                         "models with one Normalizer")
