"""What others take of a policy's or a planner's generator: likely actions, how likely actions are, and their score.

Everything is in environment units. A policy's generator is the one that it acts by, or, where it acts otherwise (a
student, the best of several draws), the one that it learnt the data's actions with: the behaviour that
Kullback-Leibler-regularised reinforcement learning stays close to. Swift's is told that more is asked for, and is the
better part of that behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gentraj.device import device_of
from gentraj.diffusion import Diffusion
from gentraj.families import Model
from gentraj.networks.rows import padded
from gentraj.randomness import unfold_each
from gentraj.trajectory import (
    DEFAULT_OPTIONS,
    Condition,
    Guide,
    SamplingOptions,
    SupportsLogProb,
    TrajectoryModel,
    TrajectorySpec,
)

from .mpc import Prior
from .policies.policy import Policy


def policy_prior(policy: Policy, options: SamplingOptions = DEFAULT_OPTIONS) -> Prior:
    """Chunks of actions as a policy's generator draws them. Raises ValueError for a policy without one."""
    model = _generator(policy)

    def sample(obs_BO: Tensor, goal_BG: Tensor | None, number: int, seeds: Sequence[int]) -> Tensor:
        context_BC = None if goal_BG is None or policy.context is None else goal_BG.to(policy.device)
        state_BS = policy.state(obs_BO.to(policy.device), context_BC)
        return policy.act_scale.unnormalize(policy.candidates(model, state_BS, number, seeds, options))

    return sample


def plan_prior(model: TrajectoryModel, goal_dims: Sequence[int] = (),
               options: SamplingOptions = DEFAULT_OPTIONS) -> Prior:
    """The actions of a planner's joint trajectories; with a goal they arrive there at their last row.

    Raises ValueError for trajectories without actions, or of more than one environment step a row.
    """
    spec, device = model.spec, device_of(model)
    if not spec.act_dim or spec.spacing != 1:
        raise ValueError(f"a prior of actions needs trajectories with actions, one environment step a row; these are "
                         f"of {spec}: train a run with --joint --stride 1")

    def sample(obs_BO: Tensor, goal_BG: Tensor | None, number: int, seeds: Sequence[int]) -> Tensor:
        start = Condition.unknown(spec, len(obs_BO), device=device).with_obs(0, obs_BO.to(device))
        if goal_BG is not None and goal_dims:
            start = start.with_obs(-1, goal_BG.to(device), goal_dims)
        return spec.split(model.sample(start, number, seed=unfold_each(number, seeds), options=options))[1]

    return sample


def log_prob(policy: Policy, obs_BO: Tensor, act_BKA: Tensor, goal_BG: Tensor | None = None, *,
             seeds: int | Sequence[int] = 0, steps: int | None = None) -> Tensor:
    """(B,) log density, in nats, of chunks of actions under the policy's generator.

    Exact and differentiable for a normal distribution; by the probability-flow ODE, and without gradient, for diffusion
    and flows (`Diffusion.log_prob`), whose `score` is the gradient. It is that of the generator's actions before they
    are cut to the data's bounds. Raises ValueError for a generator without a density, such as a GAN.
    """
    model = _generator(policy)
    if not isinstance(model, SupportsLogProb):
        raise ValueError(f"{type(model).__name__} draws actions and has no density; take a policy with a normal "
                         "distribution, a diffusion model or a flow for log_prob")
    known, x_BKD = _window(policy, obs_BO, act_BKA, goal_BG)
    log_p_B = model.log_prob(x_BKD, known, seeds=seeds, steps=steps)
    return log_p_B - policy.chunk * policy.act_scale.scale_D.log().sum()


@torch.no_grad()
def score(policy: Policy, obs_BO: Tensor, act_BKA: Tensor, t: float, goal_BG: Tensor | None = None) -> Tensor:
    """(B, K, A) gradient in the actions of log p_t, the log density of the generator's actions at noise time t.

    (alpha x0 - x) / sigma^2 with x0 as it is denoised (Vincent 2011; Song et al. 2021, equation 7), of noisy actions
    a_t whose normalised ones are alpha a + sigma eps. Close to t = 0 it is the score of the actions themselves. Raises
    ValueError for another generator than diffusion or a flow, and for a time outside (0, 1].
    """
    model = _generator(policy)
    if not isinstance(model, Diffusion):
        raise ValueError(f"{type(model).__name__} has no noise levels; take a policy with a diffusion model or a flow "
                         "for score")
    if not 0 < t <= 1:
        raise ValueError(f"t is {t}; a noise time above 0 (clean) and up to 1 is expected")
    known, x_BKD = _window(policy, obs_BO, act_BKA, goal_BG)
    level = model.level(model.path.snap(torch.full((1,), t, device=policy.device)))
    denoise = model.denoise(known.values_BHD, known.mask_BHD, known.context_BC, clipped=False)
    score_BKD = (level.alpha * denoise(x_BKD, level.t_R) - x_BKD) / level.sigma**2
    return score_BKD[..., policy.state_dim :] / policy.act_scale.scale_D


def likeness(policy: Policy, spec: TrajectorySpec, half_A: Tensor, weight: float) -> Guide:
    """An energy that prefers a policy's actions at a trajectory's observations (policy-guided diffusion: Jackson et
    al. 2024): minus `weight` times their squared distance, in `half_A`. Actions alone have a gradient. The policy is
    one without goals, and always has the same noise.
    """
    half_A = half_A.to(policy.device)

    def energy(x_RHD: Tensor) -> Tensor:
        obs_RHO, act_RHA = spec.split(x_RHD)
        with torch.no_grad():
            state = padded(policy.state(obs_RHO.detach().flatten(0, 1), None))
            wanted = policy.act_scale.unnormalize(policy.sample_actions(state, [0] * len(state))[:, 0])
        wanted_RHA = wanted[: act_RHA.shape[0] * act_RHA.shape[1]].view_as(act_RHA)
        return -weight * (((act_RHA - wanted_RHA) / half_A) ** 2).sum((1, 2))

    return energy


def _generator(policy: Policy) -> Model:
    model = getattr(policy, "model", None)
    if model is None:
        raise ValueError(f"{type(policy).__name__} has no generator of actions, so it is no prior")
    return model


def _window(policy: Policy, obs_BO: Tensor, act_BKA: Tensor, goal_BG: Tensor | None) -> tuple[Condition, Tensor]:
    """What the generator is conditioned on of the states, and its windows with these actions."""
    expected = (len(obs_BO), policy.chunk, policy.spec.act_dim)
    if act_BKA.shape != expected:
        raise ValueError(f"actions of shape {tuple(act_BKA.shape)} were given; {expected}, a chunk for each "
                         "observation, is expected")
    state_BS = policy.state(obs_BO.to(policy.device), None if goal_BG is None else goal_BG.to(policy.device))
    return policy.condition(state_BS), policy.join(state_BS, policy.act_scale.normalize(act_BKA.to(policy.device)))
