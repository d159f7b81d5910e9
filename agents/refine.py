"""Coarse to fine: a second model fills in the first leg of a plan whose rows are far apart.

Chen et al. 2024, "Simple Hierarchical Planning with Diffusion" (Hierarchical Diffuser), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gentraj.randomness import fold
from gentraj.trajectory import Condition, TrajectoryModel, TrajectorySpec


def check_leg(coarse: TrajectorySpec, fine: TrajectorySpec, ahead: int) -> None:
    """Raises ValueError unless a plan of `fine` lies between two rows of `coarse`, `ahead` environment steps in it."""
    span = (fine.horizon - 1) * fine.stride
    if fine.obs_dim != coarse.obs_dim or span != coarse.stride:
        raise ValueError(f"the fine model is of {fine}, which spans {span} environment steps; one of observations of "
                         f"width {coarse.obs_dim} that spans {coarse.stride}, the stride of the plans, is expected")
    if ahead > span:
        raise ValueError(f"replan and look go {ahead} environment steps along a plan; its first leg, which is filled "
                         f"in, has {span}")


def first_leg(fine: TrajectoryModel, x_BHD: Tensor, seeds: Sequence[int], steps: int, temperature: float) -> Tensor:
    """(B, H', D') of the fine model, from the first observation of each plan to its second."""
    obs_BHO = x_BHD[..., : fine.spec.obs_dim]
    ends = Condition.unknown(fine.spec, len(x_BHD), device=x_BHD.device)
    ends = ends.with_obs(0, obs_BHO[:, 0]).with_obs(-1, obs_BHO[:, 1])
    return fine.sample(ends, seed=[fold(seed, 0, 1) for seed in seeds], steps=steps, temperature=temperature)[:, 0]
