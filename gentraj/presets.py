"""Presets: literal dicts of run settings. Adding a task or a policy is one line here."""

from __future__ import annotations

from dataclasses import replace

from agents.bc import BCConfig
from agents.diffusion_ql import DiffusionQLConfig
from agents.fql import FQLConfig
from agents.generators import DIFFUSION, FLOW, GAN, GAUSSIAN
from agents.idql import IDQLConfig
from agents.inverse_dynamics import InverseDynamicsConfig
from agents.iql import IQLConfig
from agents.plan_critic import PlanCriticConfig
from agents.planner import PlannerConfig
from agents.policies import PolicyConfig
from agents.swift import SwiftConfig
from agents.td3bc import TD3BCConfig

from .conditioning import ConditionMix
from .diffusion import DiffusionConfig
from .networks import ResidualMLPConfig
from .parts import AnyRunConfig, PolicyRunConfig, RunConfig
from .training import TrainingConfig

# The observation is (x, y, vx, vy); everything else about a maze comes from its data.
# Its dynamics are calm, so a plan is followed for long: a new one for every change of mind costs more than it gains.
POINTMAZE = RunConfig(planner=PlannerConfig(replan=32, rest_dims=(2, 3), hold_radius=0.45),
                      training=TrainingConfig(steps=8_000))
LONG = replace(POINTMAZE, training=TrainingConfig(steps=10_000))

# Plans for returns are short and made anew in every step.
BRIEF = DiffusionConfig(ResidualMLPConfig(256, 2, frequencies=0), levels=None, clip=None, normalizer="gaussian",
                        mix=ConditionMix(goal=0.0), batch_size=128, weight_decay=0.0, ema=0.995)
VETERAN = RunConfig(horizon=4, stride=1, valued=True, model=BRIEF, inverse=InverseDynamicsConfig(look=1),
                    planner=PlannerConfig("fixed", replan=1, look=1, select="value", candidates=16),
                    training=TrainingConfig(steps=8_000))
VETERAN_PLUS = replace(VETERAN, joint=True, planner=replace(VETERAN.planner, candidates=32, actions="joint"))
DIFFUSER = replace(VETERAN, joint=True, critic=PlanCriticConfig(noised=0.5), planner=PlannerConfig(
    "fixed", replan=1, look=1, guidance="value", actions="joint"))

PLANNERS: dict[str, tuple[str, RunConfig]] = {
    "pointmaze": ("a planner for any PointMaze dataset: give --dataset", POINTMAZE),
    "pointmaze-open": ("PointMaze without walls", replace(POINTMAZE, dataset="gentraj/pointmaze/open-v0")),
    "pointmaze-umaze": ("PointMaze's smallest maze", replace(POINTMAZE, dataset="gentraj/pointmaze/umaze-v0")),
    "pointmaze-medium": ("PointMaze's medium maze", replace(LONG, dataset="gentraj/pointmaze/medium-v0")),
    "pointmaze-large": ("PointMaze's large maze", replace(LONG, dataset="gentraj/pointmaze/large-v0")),
    "veteran": ("plans for returns: the best of 16 by a critic, and inverse dynamics; give --dataset", VETERAN),
    "veteran+": ("the same, ours: plans of observations and actions, valued by their actions; give --dataset",
                 VETERAN_PLUS),
    "diffuser": ("plans for returns: of observations and actions, guided by a critic; give --dataset", DIFFUSER),
}

POLICIES: dict[str, tuple[str, PolicyConfig]] = {
    "bc-gaussian": ("behaviour cloning by a normal distribution", BCConfig(GAUSSIAN)),
    "bc-diffusion": ("behaviour cloning by a diffusion model", BCConfig(DIFFUSION)),
    "bc-flow": ("behaviour cloning by a rectified flow", BCConfig(FLOW)),
    "bc-gan": ("behaviour cloning by a conditional GAN, in one call", BCConfig(GAN)),
    "diffusion-policy": ("behaviour cloning of chunks of actions by a diffusion model",
                         BCConfig(DIFFUSION, chunk=8, execute=4)),
    "iql": ("values by expectiles of the data; copies the better actions more", IQLConfig()),
    "td3bc": ("an actor that climbs its value and stays near the data", TD3BCConfig()),
    "diffusion-ql": ("a diffusion model of actions that climbs its value while it learns", DiffusionQLConfig()),
    "idql": ("the best, by IQL's values, of what a diffusion model draws", IDQLConfig()),
    "fql": ("a flow of the data's actions and a one-step student that climbs its value", FQLConfig()),
    "swift": ("ours: the best of a student's draws, of a flow that copies the better actions more", SwiftConfig()),
    "gan-critic": ("a conditional GAN of actions that climbs its value while it learns", DiffusionQLConfig(GAN)),
}

PRESETS: dict[str, AnyRunConfig] = {
    **{name: config for name, (_, config) in PLANNERS.items()},
    **{name: PolicyRunConfig(policy=policy) for name, (_, policy) in POLICIES.items()},
}

DEMO = replace(PLANNERS["pointmaze-umaze"][1], training=TrainingConfig(steps=3_000))


def listing() -> str:
    """What there is, a line each."""
    groups = {"planners": PLANNERS, "policies, which need --dataset": POLICIES}
    return "\n\n".join("\n".join([f"{title}:", *(f"  {name:18} {about}" for name, (about, _) in group.items())])
                       for title, group in groups.items())
