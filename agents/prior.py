"""Generative models as priors: samples of actions, and the log density and score of given actions.

Everything is in environment units. The prior of a policy is its model of actions, even where the policy acts
otherwise, by a student or by the best of several samples: it is the behaviour of the data, to which KL-regularised
reinforcement learning stays close. Swift's model is conditioned on a positive advantage, so that its prior is the
better part of that behaviour.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gentraj.randomness import Seeds
from gentraj.trajectory import DEFAULT_OPTIONS, Condition, SamplingOptions, SupportsLogProb, SupportsScore

from .episodic import finite_actions
from .mpc import Prior
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
