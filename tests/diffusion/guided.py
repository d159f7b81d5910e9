"""What the tests of plug-ins share: closed-form targets as trajectories, a tiny model, and exact moments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from oracle import DOUBLE, Mixture, held, normals
from torch import Tensor

from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.diffusion.paths import PATHS, NoisePath, sampling_times
from gentraj.diffusion.samplers import SAMPLERS
from gentraj.models.sampling import Checks, Denoise, Denoising, Plugin
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.trajectory import Condition, TrajectorySpec

SPEC = TrajectorySpec(obs_dim=2, act_dim=1, horizon=4)  # 12 numbers
SIZE = SPEC.horizon * SPEC.dim
NORMALIZER = Normalizer(torch.tensor([1.0, -2.0, 0.5]), torch.tensor([2.0, 0.5, 1.0])).double()  # as the targets are
TARGET = normals(SIZE, seed=9)

# Path, sampler, grid and the steps that make it accurate.
COMBINATIONS = [("vp-cosine", "ddim", "uniform", 120), ("vp-linear", "dpmpp-2m-sde", "karras", 50),
                ("sub-vp", "heun", "karras", 40), ("ve", "unipc", "karras", 40), ("edm", "heun", "karras", 60),
                ("edm", "dpmpp-2m", "karras", 60), ("flow", "heun", "uniform", 40),
                ("flow", "euler-maruyama", "uniform", 40)]


def quadratic(precision: Tensor) -> Callable[[Tensor], Tensor]:
    """A guide in environment units that is - d^T precision d / 2 in normalised ones, d from TARGET."""

    def guide(x_RHD: Tensor) -> Tensor:
        d = NORMALIZER.normalize(x_RHD).flatten(1) - TARGET
        return -torch.einsum("ri,ij,rj->r", d, precision, d) / 2

    return guide


@dataclass
class Exact:
    """The denoiser of a closed-form target of normalised trajectories (a `DenoisingModel`).

    `contexts` are targets by the first number of the context, `target` is the one without.
    """

    target: Mixture
    path: NoisePath
    contexts: Sequence[Mixture] = ()
    spec: TrajectorySpec = SPEC
    normalizer: Normalizer = NORMALIZER

    def denoise(self, values: Tensor, mask: Tensor, context: Tensor | None = None) -> Denoise:
        target = self.target if context is None else self.contexts[int(context[0, 0])]
        return held(flattened(target.denoiser(self.path)), values, mask)

    def sampling(self, condition: Condition) -> Denoising:
        values = self.normalizer.normalize(condition.values_BHD)
        return Denoising(self.normalizer, condition, Checks(), self.path,
                         lambda: self.denoise(values, condition.mask_BHD))


def flattened(denoise: Denoise) -> Denoise:
    return lambda x, t: denoise(x.flatten(1), t).view_as(x)


def moments(model: Exact, plugins: Sequence[Plugin], sampler: str, grid: str, steps: int,
            context: float | None = None) -> tuple[Tensor, Tensor]:
    """(12,) mean and (12, 12) covariance, normalised units, of what is sampled; exact if that is affine in its noise.

    One row of a batch follows no noise at all, and so the mean; one each follows a single number of a single draw.
    """
    path, times = model.path, sampling_times(model.path, steps, grid).double()
    start, draws = torch.ones(1, SPEC.horizon, SPEC.dim, dtype=DOUBLE), []
    SAMPLERS[sampler](lambda x, t: x, start, times, path, lambda: draws.append(0) or start)
    noise = torch.cat([torch.zeros(1, SIZE * (len(draws) + 1)), torch.eye(SIZE * (len(draws) + 1))]).to(DOUBLE)
    normal = iter(noise.unflatten(1, (-1, SPEC.horizon, SPEC.dim)).unbind(1)).__next__
    x = guided(model, plugins, sampler, path.sigma(times[:1]) * normal(), times, normal, context)
    apart = (x - x[0]).flatten(1)
    return x[0].flatten(), apart.T @ apart


def guided(model: Exact, plugins: Sequence[Plugin], sampler: str, x: Tensor, times: Tensor,
           normal: Callable[[], Tensor], context: float | None = None) -> Tensor:
    """Samples as `Diffusion.sample` does, in normalised units."""
    known = Condition.empty(SPEC, len(x))
    if context is not None:
        known = Condition(SPEC, known.values_BHD, known.mask_BHD, torch.full((len(x), 1), context))
    sampling = model.sampling(known)
    denoise = model.denoise(model.normalizer.normalize(known.values_BHD), known.mask_BHD, known.context_BC)
    for plugin in plugins:
        denoise = plugin.wrap(denoise, sampling)
    with torch.no_grad():
        return SAMPLERS[sampler](denoise, x, times, model.path, normal)


def off(found: tuple[Tensor, Tensor], mean: Tensor, covariance: Tensor) -> float:
    """The larger of the relative errors of mean and covariance."""
    return max(float((found[0] - mean).norm() / mean.norm()), float((found[1] - covariance).norm() / covariance.norm()))


def exact(target: Mixture, path: str, contexts: Sequence[Mixture] = ()) -> Exact:
    return Exact(target, PATHS[path](), contexts)


def tiny(seed: int = 0, **changes: object) -> Diffusion:
    """A real model with a context of two numbers, at its random start."""
    torch.manual_seed(seed)
    settings = {"network": ResidualMLPConfig(16, 1, 2), "path": "vp-cosine", "levels": None, "steps": 3, **changes}
    normalizer = Normalizer(NORMALIZER.shift_D, NORMALIZER.scale_D)
    return Diffusion(SPEC, DiffusionConfig(**settings), normalizer, Normalizer.identity(2))  # type: ignore[arg-type]
