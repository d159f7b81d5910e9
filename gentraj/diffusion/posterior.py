"""p(x0 | x) approximated by a Gaussian of mean x0 and covariance sigma^2 / alpha * d x0 / dx (Tweedie, second order).

The linear systems that follow from it are solved by conjugate gradients, for each row of a batch on its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

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
