"""p(x0 | x) taken for a Gaussian: its mean is x0, its covariance sigma^2 / alpha * d x0 / dx (Tweedie, second order).

Conjugate gradients solve what follows from it; every row of a batch has its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Covariance = Callable[[Tensor], Tensor]  # its product with v_RHD
LEAST_CURVATURE = 0.1  # an energy that curves up may widen the posterior's variance ten times, not more
CONVERGED = 1e-11  # of the squared residual: about what float32 can resolve


def with_gradient(x: Tensor) -> Tensor:
    return x if x.requires_grad else x.detach().requires_grad_()


def covariance(x: Tensor, x0: Tensor, gain: Tensor | float = 1.0) -> Covariance:
    """gain * d x0 / dx, which is symmetric, so that one backward pass is a product; `x0` was made from `x`."""
    if not x0.requires_grad:
        raise ValueError("what is denoised has no gradient in x: an earlier plug-in cut it; put the guide before that "
                         "plug-in, or do without the gradient (Energy.at = 'noisy', Product.iterations = 0)")
    return lambda v: gain * torch.autograd.grad(x0, x, v.to(x0), retain_graph=True)[0]


def proximal(gradient: Tensor, hessian: Callable[[Tensor], Tensor], sigma: Covariance, iterations: int) -> Tensor:
    """The move d that maximises gradient^T d + d^T Hessian d / 2 - d^T Sigma^-1 d / 2.

    d = Sigma w with (1 - Hessian Sigma) w = gradient, by conjugate gradients in the inner product of Sigma. A row stops
    where that curves up (Steihaug 1983), with the explicit step Sigma gradient if it does so from the start.
    """
    r, p = gradient, gradient
    Sp = sigma(r)
    if iterations == 0:
        return Sp
    move, power, least = torch.zeros_like(r), _dot(r, Sp), CONVERGED * _dot(r, r)
    for i in range(iterations):
        q = p - hessian(Sp)
        curvature, variance = _dot(Sp, q), _dot(Sp, p)
        concave = curvature > LEAST_CURVATURE * variance
        size = torch.where(concave, power / curvature, 1.0 if i == 0 else 0.0)
        size = torch.where((power > 0) & (variance > 0), size, 0)  # else Sigma is no covariance along p
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
    """The mean m of prod N(mean_i, Sigma_i)^weight_i, Sigma_i being d mean_i / dx up to one factor for all.

    With u_i = weight_i Sigma_i^-1 (m - mean_i), which add up to 0, m is mean_i + Sigma_i u_i / weight_i for each i.
    That needs no inverse: equal to what i = 0 gives, it is a system for the other u. Returns the weighted mean of them
    all, which is that of the means before the first iteration, and where the covariances are equal.
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
    """Inner product of each row, (R, 1, 1): over all axes but that of the rows, which is the last but two."""
    axes = [axis for axis in range(-a.ndim, 0) if axis != -3]
    return (a * b).sum(axes, keepdim=True)[(0,) * (a.ndim - 3)]
