"""Coarse-to-fine planning: models of finer time resolution fill in the part of a plan that is carried out.

One finer level is Hierarchical Diffuser (Chen et al. 2024, section 3), two are DiffuserLite (Dong et al. 2024,
section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gentraj.models.conditioning import ConditionMix
from gentraj.randomness import fold
from gentraj.trajectory import Condition, SamplingOptions, TrajectoryModel, TrajectorySpec

BOTH_ENDS = ConditionMix(goal=1.0, goal_at="end")  # a finer model is conditioned on both ends


def level_specs(coarse: TrajectorySpec, factors: Sequence[int], act_dim: int) -> list[TrajectorySpec]:
    """The layouts of the finer levels, one for each factor.

    A level fills in the time between two timesteps of the level above, and its timesteps are `factor` times as dense.
    Only the last level has actions. Raises ValueError where a stride is not divisible by its factor.
    """
    specs, above = [], coarse
    for factor in factors:
        coarse.require_even("refine")
        if above.stride % factor:
            raise ValueError(f"refine is {tuple(factors)}, and timesteps {coarse.stride} environment steps apart "
                             "cannot be divided by these factors; give factors whose product divides the stride")
        above = replace(above, act_dim=0, horizon=factor + 1, stride=above.stride // factor)
        specs.append(above)
    if specs:
        specs[-1] = replace(specs[-1], act_dim=act_dim)
    return specs


def filled_in(fine: TrajectoryModel, x_BHD: Tensor, ahead: int, seeds: Sequence[int], options: SamplingOptions,
              context_BC: Tensor | None = None) -> Tensor:
    """(B, H', D') plans in the time resolution of `fine`, as far as `ahead` environment steps.

    A leg is the time between two timesteps of the coarse plan. `fine` samples all legs that start within `ahead`
    environment steps, conditioned on both of their ends. `seeds` has one seed for each plan, and `context_BC`
    one row.
    """
    span = (fine.spec.horizon - 1) * fine.spec.stride
    legs = min(-(-ahead // span), x_BHD.shape[1] - 1)
    obs_BHO = x_BHD[:, : legs + 1, : fine.spec.obs_dim]
    ends = Condition.empty(fine.spec, len(x_BHD) * legs, device=x_BHD.device)
    first, last = (obs.flatten(0, 1) for obs in (obs_BHO[:, :-1], obs_BHO[:, 1:]))
    ends = ends.with_obs(0, first).with_obs(-1, last)
    if context_BC is not None:
        ends = replace(ends, context_BC=context_BC.repeat_interleave(legs, 0))
    leg_seeds = [fold(seed, leg, fine.spec.stride) for seed in seeds for leg in range(legs)]
    x_RHD = fine.sample(ends, seed=leg_seeds, options=options)[:, 0].float()
    joined_BTD = x_RHD[:, :-1].unflatten(0, (-1, legs)).flatten(1, 2)  # a leg begins where the last one ended
    return torch.cat([joined_BTD, x_RHD[legs - 1 :: legs, -1:]], 1)
