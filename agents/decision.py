"""One decision of an agent without memory, as a function: what is exported."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .planning.planner import Planner
from .policies.policy import Actor


def decide(agent: Actor | Planner, obs_BO: Tensor, goal_BG: Tensor | None, seeds: Sequence[int]) -> Tensor:
    """(B, E, A) inside the action space: the actions that are carried out before the next decision.

    A planner whose actions are not the plan's own decides the first one; the others depend on what is observed
    meanwhile. Nothing is left of an earlier decision. Raises ValueError where a policy's goal is missing, and for a
    planner with a history.
    """
    obs_BO, goal_BG = obs_BO.to(agent.device), None if goal_BG is None else goal_BG.to(agent.device)
    if isinstance(agent, Actor):
        act_BEA = _acting(agent, obs_BO, goal_BG, seeds)
    else:
        act_BEA = _planning(agent, obs_BO, goal_BG, seeds)
    return act_BEA.clamp(agent.low_A.to(agent.device), agent.high_A.to(agent.device))


def _acting(actor: Actor, obs_BO: Tensor, goal_BG: Tensor | None, seeds: Sequence[int]) -> Tensor:
    policy = actor.policy
    state_BS = policy.state(obs_BO, None if policy.context is None else goal_BG)
    return policy.act_scale.unnormalize(policy.decide(state_BS, seeds))[:, : policy.execute]


def _planning(planner: Planner, obs_BO: Tensor, goal_BG: Tensor | None, seeds: Sequence[int]) -> Tensor:
    config, spec = planner.config, planner.executed
    if config.history:
        raise ValueError(f"the planner's history is {config.history} rows, and what is exported remembers nothing; set "
                         "history to 0 under planner in config.json")
    ahead_BTD = planner.along(planner.propose(obs_BO, goal_BG, seeds), goal_BG, seeds)
    if goal_BG is not None:
        near_B = planner.near(obs_BO, goal_BG)
        ahead_BTD = torch.where(near_B[:, None, None], planner.held(obs_BO, goal_BG)[:, None], ahead_BTD)
    if config.actions == "joint":
        return spec.split(ahead_BTD[:, : config.replan])[1]
    return planner.toward(obs_BO, spec.split(ahead_BTD[:, config.look - 1])[0])[:, None]
