"""Distributions whose denoiser, marginals and probability flow are known in closed form, and a network for equality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gentraj.diffusion.denoiser import PREDICTIONS, NoiseLevel
from gentraj.diffusion.paths import PATHS, NoisePath
from gentraj.diffusion.samplers import Sampler
from gentraj.models.sampling import Denoise

DOUBLE = torch.float64
TO_NOISE = [name for name in PATHS if name != "vp-half"]  # which leaves 8 % of the signal at its end


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def stream(*shape: int, seed: int = 0) -> Callable[[], Tensor]:
    """`normal` of a sampler: each call gives other numbers, each stream with one seed the same."""
    g = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=g, dtype=DOUBLE)


def rotation(dim: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(normals(dim, dim, seed=seed))[0]


@dataclass(frozen=True)
class Mixture:
    """Gaussians N(mean_k, axes_k diag(variance_k) axes_k^T) with weights; one of them is a plain Gaussian."""

    weights_K: Tensor
    means_KD: Tensor
    axes_KDD: Tensor
    variances_KD: Tensor

    @property
    def mean(self) -> Tensor:
        return self.weights_K @ self.means_KD

    @property
    def covariance(self) -> Tensor:
        within = torch.einsum("k,kij,kj,klj->il", self.weights_K, self.axes_KDD, self.variances_KD, self.axes_KDD)
        apart = self.means_KD - self.mean
        return within + torch.einsum("k,ki,kj->ij", self.weights_K, apart, apart)

    def denoiser(self, path: NoisePath) -> Denoise:
        """E[x0 | x_t], exactly."""

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = path.alpha(t), path.sigma(t)
            y_KRD, variances = self._in_axes(x, alpha), self._variances(alpha, sigma)
            gain = alpha * self.variances_KD[:, None] / variances
            x0_KRD = self.means_KD[:, None] + (y_KRD * gain) @ self.axes_KDD.mT
            return (self._posterior(y_KRD, variances)[..., None] * x0_KRD).sum(0)

        return denoise

    def shares(self, x_RD: Tensor) -> Tensor:
        """(K,) share of the points that most probably come from each component."""
        one, zero = torch.ones(1, dtype=DOUBLE), torch.zeros(1, dtype=DOUBLE)
        likeliest = self._posterior(self._in_axes(x_RD, one), self._variances(one, zero)).argmax(0)
        return torch.bincount(likeliest, minlength=len(self.weights_K)) / len(x_RD)

    def _in_axes(self, x_RD: Tensor, alpha: Tensor) -> Tensor:
        return (x_RD - alpha * self.means_KD[:, None]) @ self.axes_KDD

    def _variances(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """(K, 1, D) of x_t."""
        return (alpha**2 * self.variances_KD + sigma**2)[:, None]

    def _posterior(self, y_KRD: Tensor, variances: Tensor) -> Tensor:
        """(K, R) probability of each component."""
        logits = self.weights_K.log()[:, None] - (y_KRD**2 / variances + variances.log()).sum(-1) / 2
        return logits.softmax(0)


def gaussian(mean_D: Tensor, axes_DD: Tensor, variances_D: Tensor) -> Mixture:
    return Mixture(torch.ones(1, dtype=DOUBLE), mean_D[None], axes_DD[None], variances_D[None])


GAUSSIAN = gaussian(normals(12, seed=1), rotation(12, 2), torch.logspace(-1.5, 0, 12, dtype=DOUBLE))
MIXTURE = Mixture(torch.tensor([0.1, 0.15, 0.2, 0.25, 0.3], dtype=DOUBLE),
                  torch.tensor([[-1.5, -1.2], [-0.8, 1.4], [0.1, -0.1], [1.2, 1.5], [1.6, -1.0]], dtype=DOUBLE),
                  torch.stack([rotation(2, seed) for seed in range(5)]),
                  torch.tensor([[0.02, 0.1], [0.05, 0.05], [0.02, 0.06], [0.1, 0.03], [0.04, 0.02]], dtype=DOUBLE))


def network(x: Tensor) -> Tensor:
    """Any function of x will do where two implementations are compared: both are given the same."""
    return torch.tanh(1.3 * x + 0.2)


def predicted(path: NoisePath, prediction: str, sigma_data: float = 1.0, network: Callable[[Tensor], Tensor] = network,
              ) -> Denoise:
    """Denoises with a network's output as `Diffusion.denoise` does."""
    to = PREDICTIONS[prediction]

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        at = NoiseLevel(path, t, sigma_data)
        return to.x0(x, to.unit(at) * network(x), at)

    return denoise


def held(denoise: Denoise, values: Tensor, mask: Tensor) -> Denoise:
    """Conditions a denoiser by inpainting, as `Diffusion.denoise` does."""
    return lambda x, t: torch.where(mask, values, denoise(torch.where(mask, values, x), t))


def moments(sampler: Sampler, target: Mixture, path: NoisePath, times: Tensor,
            at_start: Tensor) -> tuple[Tensor, Tensor]:
    """(D,) mean and (D,) variances along the axes of a Gaussian's samples, exactly.

    Its denoiser is affine, and so is a sampler in its start and in each noise it draws: one row of a batch follows
    zero, one a start that is `at_start` along every axis, and one each draw. What follows zero is the mean.
    """
    draws: list[Tensor] = []
    sampler(lambda x, t: x, target.means_KD, times, path, lambda: draws.append(target.means_KD) or draws[0])
    axes = target.axes_KDD[0]
    x = torch.zeros(len(draws) + 2, len(axes), dtype=DOUBLE)
    x[1] = axes @ at_start.expand(len(axes))
    row = iter(range(2, len(x)))

    def normal() -> Tensor:
        z = torch.zeros_like(x)
        z[next(row)] = axes.sum(1)
        return z

    out = sampler(target.denoiser(path), x, times, path, normal)
    return out[0], ((out[1:] - out[0]) @ axes).square().sum(0)
