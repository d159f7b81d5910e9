"""Generative models as priors: samples of actions, and the log density and score of given actions.

Everything is in environment units. The prior of a policy is its model of actions, even where the policy acts
otherwise, by a student or by the best of several samples: it is the behaviour of the data, to which KL-regularised
reinforcement learning stays close. Swift's model is conditioned on a positive advantage, so that its prior is the
better part of that behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gentraj.device import device_of
from gentraj.models.model import TrajectoryModel
from gentraj.networks.embedding import padded
from gentraj.randomness import Seeds, as_noise
from gentraj.trajectory import (
    DEFAULT_OPTIONS,
    Condition,
    Guide,
    SamplingOptions,
    SupportsLogProb,
    SupportsScore,
    TrajectorySpec,
)

from .episodic import finite_actions
from .mpc import Prior
from .planning.sampler import with_context
from .policies.policy import Policy, action_model_of


def policy_prior(policy: Policy, options: SamplingOptions = DEFAULT_OPTIONS) -> Prior:
    """A prior that samples chunks of actions from a policy's model.

    Raises ValueError for a policy without a model.
    """
    actions = action_model_of(policy)

    def sample(obs_BO: Tensor, goal_BG: Tensor | None, number: int, seeds: Seeds) -> Tensor:
        state_BS = policy.scales.state(obs_BO.to(policy.device), goal_BG if policy.scales.context_dim else None)
        act_BNKA = finite_actions(actions.sample(state_BS, seeds, options, number), "the policy")
        return policy.scales.act.unnormalize(act_BNKA)

    return sample


def plan_prior(model: TrajectoryModel, goal_dims: Sequence[int] = (), options: SamplingOptions = DEFAULT_OPTIONS,
               context: Sequence[float] = ()) -> Prior:
    """A prior that samples trajectories of a planner's model and takes their actions.

    With `goal_dims` and a goal, the trajectories reach the goal at their last timestep. `context` is what the model is
    conditioned on, such as a return (`run.planning.context`); without it, such a model samples what all of its data do.
    Raises ValueError for trajectories without actions, and for timesteps that are more than one environment step apart.
    """
    spec, device = model.spec, device_of(model)
    if not spec.act_dim or spec.spacing != 1:
        raise ValueError("a prior of actions needs trajectories with actions, and timesteps one environment step "
                         f"apart; these are of {spec}: train a run with joint=True and stride=1")

    def sample(obs_BO: Tensor, goal_BG: Tensor | None, number: int, seeds: Seeds) -> Tensor:
        start = Condition.empty(spec, len(obs_BO), device=device).with_obs(0, obs_BO.to(device))
        if goal_BG is not None and goal_dims:
            start = start.with_obs(-1, goal_BG.to(device), goal_dims)
        start = with_context(start, tuple(context))
        noise = as_noise(seeds, len(obs_BO), "observations").several(number)
        return spec.split(model.sample(start, number, seed=noise, options=options))[1]

    return sample


def log_prob(policy: Policy, obs_BO: Tensor, act_BKA: Tensor, goal_BG: Tensor | None = None, *,
             seeds: Seeds = 0, steps: int | None = None) -> Tensor:
    """(B,) log density, in nats, of chunks of actions (B, K, A) under the policy's model.

    It is exact and differentiable for a normal distribution. For diffusion models and flows it is computed by the
    probability-flow ODE in `steps` steps, without a gradient (`Diffusion.log_prob`); their `score` is the gradient. The
    density is that of actions before they are clamped to the data's bounds. An entry that never varies in the data is
    taken to be as it is there, and adds the density that the model has there in normalised units. Raises ValueError for
    a model without a density, such as a GAN.
    """
    model = action_model_of(policy).model
    if not isinstance(model, SupportsLogProb):
        raise ValueError(f"{type(model).__name__} samples actions and has no density; use a policy with a normal "
                         "distribution, a diffusion model or a flow for log_prob")
    condition, x_BKD = _window(policy, obs_BO, act_BKA, goal_BG)
    log_p_B = model.log_prob(x_BKD, condition, seeds=seeds, steps=steps)
    return log_p_B - policy.chunk * policy.scales.act.scale_D.log()[policy.scales.varies_A].sum()


def score(policy: Policy, obs_BO: Tensor, act_BKA: Tensor, t: float, goal_BG: Tensor | None = None) -> Tensor:
    """(B, K, A) score of noisy actions: the gradient with respect to the actions of their log density at time t.

    The actions are noisy, alpha a + sigma eps in normalised units (`Diffusion.score`). Close to t = 0 it is the score
    of clean actions. It is 0 for an entry that never varies in the data. Raises ValueError for a model that is neither
    a diffusion model nor a flow, and for a time outside (0, 1].
    """
    model = action_model_of(policy).model
    if not isinstance(model, SupportsScore):
        raise ValueError(f"{type(model).__name__} has no noise levels; use a policy with a diffusion model or a flow "
                         "for score")
    condition, x_BKD = _window(policy, obs_BO, act_BKA, goal_BG)
    score_BKA = model.score(x_BKD, condition, t)[..., condition.spec.obs_dim :]
    return torch.where(policy.scales.varies_A, score_BKA / policy.scales.act.scale_D, 0)


def likeness(policy: Policy, spec: TrajectorySpec, half_A: Tensor, weight: float) -> Guide:
    """A guide that prefers trajectories whose actions are a policy's (policy-guided diffusion, Jackson et al. 2024).

    It is -weight times the sum of squared distances to the policy's actions at the trajectory's observations, in units
    of `half_A`, and has a gradient with respect to the actions only. The policy has no goals, and its noise is fixed.
    """
    half_A = half_A.to(policy.device)

    def guide(x_RHD: Tensor) -> Tensor:
        obs_RHO, act_RHA = spec.split(x_RHD)
        with torch.no_grad():
            state = padded(policy.scales.state(obs_RHO.detach().flatten(0, 1), None))
            wanted = policy.scales.act.unnormalize(policy.sample_actions(state, [0] * len(state))[:, 0])
        wanted_RHA = wanted[: act_RHA.shape[0] * act_RHA.shape[1]].view_as(act_RHA)
        return -weight * (((act_RHA - wanted_RHA) / half_A) ** 2).sum((1, 2))

    return guide


def _window(policy: Policy, obs_BO: Tensor, act_BKA: Tensor, goal_BG: Tensor | None) -> tuple[Condition, Tensor]:
    """The model's condition on the states, and its windows with these actions."""
    expected = (len(obs_BO), policy.chunk, policy.spec.act_dim)
    if act_BKA.shape != expected:
        raise ValueError(f"actions of shape {tuple(act_BKA.shape)} were given; {expected}, a chunk for each "
                         "observation, is expected")
    state_BS = policy.scales.state(obs_BO, goal_BG)
    z_BKA = torch.where(policy.scales.varies_A, policy.scales.act.normalize(act_BKA.to(policy.device)), 0)
    condition = action_model_of(policy).condition(state_BS)
    return condition, torch.cat([condition.values_BHD[..., : condition.spec.obs_dim], z_BKA], -1)
