"""All metrics of a set of trajectories at once, and the features that they are computed on."""

from __future__ import annotations

import math

from torch import Tensor

from ..normalize import Normalizer
from .sets import METRICS, check_finite, neighbourhoods, novelty


def fit_scale(real_RHD: Tensor) -> Normalizer:
    """Mean and standard deviation of each dimension, over all rows of real windows without padding."""
    check_finite("real", real_RHD)
    return Normalizer.fit("gaussian", [real_RHD.detach().flatten(0, 1).cpu().numpy()]).to(real_RHD.device)


def features(x_RHD: Tensor, scale: Normalizer) -> Tensor:
    """(R, H * D) float64: entries in standard deviations of their dimension, over sqrt(H * D).

    So the distance of two rows is the root mean square difference of two trajectories in standard deviations of the
    data (in environment units along a dimension that is constant in the data). Raises ValueError for other shapes.
    """
    if x_RHD.ndim != 3 or x_RHD.shape[2] != len(scale.scale_D):
        raise ValueError(f"trajectories of shape {tuple(x_RHD.shape)} were given; "
                         f"(R, H, {len(scale.scale_D)}) is expected")
    return scale.normalize(x_RHD.double()).flatten(1) / math.sqrt(x_RHD.shape[1] * x_RHD.shape[2])


def measure(real_RHD: Tensor, fake_RHD: Tensor, train_RHD: Tensor | None = None, *, seed: int) -> dict[str, float]:
    """Each of `METRICS`, of windows without padding in environment units; the real ones set the scale.

    With training windows "novelty" and "novelty_of_real" too: the mean distance of the fake and of the real to the
    nearest of them. Where the real were held out of training, a smaller novelty of the fake tells of copies. Raises
    ValueError for fewer than 6 trajectories, for shapes that differ and for non-finite values.
    """
    given = {"real": real_RHD, "fake": fake_RHD} | ({} if train_RHD is None else {"train": train_RHD})
    for name, x in given.items():
        if x.ndim != 3 or not len(x) or x.shape[1:] != real_RHD.shape[1:]:
            raise ValueError(f"the {name} trajectories have shape {tuple(x.shape)}; (R, H, D) is expected, "
                             "H and D those of the real ones")
    scale = fit_scale(real_RHD)
    real, fake, *train = (features(x.to(real_RHD.device), scale) for x in given.values())
    found = neighbourhoods(real, fake)._asdict()  # four metrics of one pass
    found |= {name: metric(real, fake, seed) for name, metric in METRICS.items() if name not in found}
    for known in train:
        found |= {"novelty": float(novelty(fake, known).mean()), "novelty_of_real": float(novelty(real, known).mean())}
    return found
