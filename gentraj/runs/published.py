"""Presets with the settings of the papers' own code and their budgets; docs/policies.md lists what still differs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gentraj.agents.planning.inverse_dynamics import InverseDynamicsConfig
from gentraj.agents.planning.plan_critic import PlanCriticConfig
from gentraj.agents.planning.planner_config import PlannerConfig
from gentraj.agents.policies.bc import BCConfig
from gentraj.agents.policies.critic import CriticConfig
from gentraj.agents.policies.diffusion_ql import DiffusionQLConfig
from gentraj.agents.policies.fql import FlowPullConfig
from gentraj.agents.policies.idql import IDQLConfig
from gentraj.agents.policies.iql import IQLConfig
from gentraj.agents.policies.one_step import OneStepConfig
from gentraj.agents.policies.policy import PolicyConfig
from gentraj.agents.policies.td3bc import DataPullConfig

from ..data import ContextConfig
from ..diffusion import DiffusionConfig, FlowConfig
from ..models.conditioning import ConditionMix
from ..models.gaussian import GaussianConfig
from ..networks import DiTConfig, PerceptronConfig, ResidualMLPConfig, TemporalUNetConfig
from ..training.loop import TrainingConfig
from .planner import PlannerRunConfig
from .policy import PolicyRunConfig
from .run import RunConfig

NO_CLIPPING = 1e9  # a norm of gradients that none reaches
ACTOR = PerceptronConfig(activation="relu", embedding=0, fixed_mask=True)  # two hidden layers of 256


def learning(rate: float = 3e-4, *, decay: float = 0.0, norm: float = NO_CLIPPING) -> dict[str, Any]:
    return {"learning_rate": rate, "weight_decay": decay, "max_grad_norm": norm}


CRITIC = CriticConfig(**learning(), n_step=1, tau=0.005, schedule="constant", norm="none", start="zero")


def budget(steps: int) -> TrainingConfig:
    """A training of so many updates, without the warm-up that the papers do not have."""
    return TrainingConfig(steps=steps, warmup=0, save_every=10_000, log_every=1_000)


# Kostrikov et al. 2022, github.com/ikostrikov/implicit_q_learning, configs/mujoco_config.py
IQL = IQLConfig(
    model=GaussianConfig(replace(ACTOR, initial="orthogonal"), **learning(), spread="shared", squash=True,
                         log_sigma=(-5.0, 2.0), ema=0.0),
    critic=replace(CRITIC, initial="orthogonal"),
    expectile=0.7, beta=3.0, advantages="raw", observations="raw", rewards="return-range")

# Fujimoto & Gu 2021, github.com/sfujim/TD3_BC
TD3BC = OneStepConfig(
    pull=DataPullConfig(model=GaussianConfig(ACTOR, **learning(), schedule="constant", spread=0.001, squash=True,
                                             ema=0.995)),
    critic=replace(CRITIC, gradient="first"),
    eta=2.5, smoothing=0.2, delay=2, rewards="raw")

# Park et al. 2025, github.com/seohongpark/fql
FLOW = FlowConfig(replace(ACTOR, width=512, depth=4, activation="gelu", initial="glorot", time_scale=1.0),
                  **learning(), schedule="constant", prediction="velocity", clip=None, ema=0.0, steps=10)
FQL = OneStepConfig(
    pull=FlowPullConfig(model=FLOW, alpha=10.0, max_grad_norm=NO_CLIPPING),
    critic=replace(CRITIC, width=512, depth=4, activation="gelu", norm="after", initial="glorot", target="mean"),
    relative=False, observations="raw", rewards="raw")

# Wang et al. 2023, github.com/Zhendong-Wang/Diffusion-Policies-for-Offline-RL, with --lr_decay. The bound on a norm is
# 1 to 10 by task; that of the critic is half as large, as its loss is the mean over two networks and not their sum.
DIFFUSION_QL = DiffusionQLConfig(
    model=DiffusionConfig(replace(ACTOR, depth=3, activation="mish", embedding=16, time_scale=5.0, time_shift=-1.0),
                          **learning(norm=5.0), path="vp-half", levels=5, prediction="eps", clip=1.0,
                          ema=0.999, sampler="ddpm", steps=5),
    critic=replace(CRITIC, depth=3, max_grad_norm=2.5, schedule="cosine", activation="mish", gradient="random"),
    eta=1.0, candidates=50, choice="softmax", gradient="chain", observations="raw", rewards="raw")

# Hansen-Estruch et al. 2023, github.com/philippe-eecs/IDQL
IDQL = IDQLConfig(
    model=DiffusionConfig(ResidualMLPConfig(width=256, depth=3, frequencies=0, activation="mish"),
                          **learning(decay=1e-4), path="vp-half", levels=5, prediction="eps", clip=1.0,
                          ema=0.999, sampler="ddpm", steps=5),
    critic=replace(CRITIC, initial="glorot"),
    expectile=0.7, candidates=64, batch_size=512, observations="raw", rewards="return-range")

# Behaviour cloning by TD3+BC's actor without its critic, the baseline of the papers above.
BC = BCConfig(
    model=GaussianConfig(ACTOR, **learning(), schedule="constant", spread=0.001, squash=True, ema=0.0),
    temperature=0.0)

# Chi et al. 2023, github.com/real-stanford/diffusion_policy, the U-Net for states
DIFFUSION_POLICY = BCConfig(
    model=DiffusionConfig(TemporalUNetConfig(width=256, multipliers=(1, 2, 4), kernel=5, frequencies=0,
                                             time_scale=100.0, time_shift=-1.0),
                          **learning(1e-4, decay=1e-6), path="vp-cosine",
                          levels=100, prediction="eps", clip=1.0, ema=0.9999, sampler="ddpm", steps=100),
    chunk=16, execute=8)

# Janner et al. 2022, github.com/jannerm/diffuser, config/locomotion.py
U_NET = TemporalUNetConfig(width=32, multipliers=(1, 2, 4, 8), frequencies=0, time_scale=20.0, time_shift=-1.0)
DENOISER = DiffusionConfig(U_NET, **learning(2e-4), schedule="constant", path="vp-cosine", levels=20,
                           prediction="x0", clip=None, ema=0.995, sampler="ddpm", steps=20)
RETURNS = PlanCriticConfig(inputs="plan", members=1, discount=0.997, expectile=0.5, n_step=1_000, noise_fraction=1.0,
                           batch_size=64, learning_rate=2e-4, schedule="constant")
DIFFUSER = PlannerRunConfig(
    horizon=32, stride=1, joint=True, model=DENOISER, conditioning=ConditionMix(goal=0.0),
    normalizer="gaussian", batch_size=64, critic=RETURNS,
    planner=PlannerConfig("fixed", replan=1, lookahead=1, steps=20, candidates=64, select="value", guidance="value",
                          scale=0.1, actions="joint"))

# Chen et al. 2024, github.com/changchencc/Simple-Hierarchical-Planning-with-Diffusion, config/locomotion_hl.py
HIERARCHICAL = replace(DIFFUSER, horizon=9, stride=4, refine=(4,), model=replace(
    DENOISER, network=ResidualMLPConfig(width=256, depth=3, frequencies=0)))

# Ajay et al. 2023, github.com/anuragajay/decision-diffuser, config/locomotion_config.py
DECISION = PlannerRunConfig(
    horizon=100, stride=1, conditioning=ConditionMix(goal=0.0), normalizer="gaussian", batch_size=64,
    model=DiffusionConfig(TemporalUNetConfig(width=128, multipliers=(1, 4, 8), frequencies=0, time_scale=200.0,
                                             time_shift=-1.0),
                          **learning(2e-4), schedule="constant", path="vp-cosine", levels=200, prediction="eps",
                          clip=1.0, ema=0.995, sampler="ddpm", steps=200),
    context=ContextConfig(("return",)), context_dropout=0.25,
    inverse=InverseDynamicsConfig(**learning(2e-4), schedule="constant", lookahead=1, width=256, batch_size=64),
    planner=PlannerConfig("fixed", replan=1, lookahead=1, steps=200, guidance="classifier-free", scale=1.2,
                          temperature=0.5))

# Lu et al. 2025, github.com/Josh00-Lu/DiffusionVeteran, configs/veteran/mujoco
TRANSFORMER = DiTConfig(width=256, depth=2, heads=8, frequencies=0)
VETERAN = PlannerRunConfig(
    horizon=4, stride=1, conditioning=ConditionMix(goal=0.0), normalizer="gaussian", batch_size=128,
    model=DiffusionConfig(TRANSFORMER, **learning(2e-4), path="vp-linear", levels=None, prediction="eps", clip=None,
                          ema=0.9999, sampler="ddim", steps=20),
    inverse=InverseDynamicsConfig(learning_rate=3e-4, weight_decay=0.0, lookahead=1, batch_size=128),
    critic=PlanCriticConfig(network="transformer", width=256, depth=2, heads=8, members=1, discount=0.997,
                            expectile=0.5, n_step=1_000, batch_size=128, learning_rate=3e-4),
    planner=PlannerConfig("fixed", replan=1, lookahead=1, steps=20, candidates=50, select="value"))

# Dong et al. 2024, as in github.com/CleanDiffuserTeam/CleanDiffuser, configs/diffuserlite/mujoco: 5, 5 and 9 timesteps
LITE = PlannerRunConfig(
    horizon=5, stride=32, refine=(4, 8), conditioning=ConditionMix(goal=0.0), normalizer="gaussian", batch_size=256,
    model=FlowConfig(TRANSFORMER, **learning(2e-4), prediction="velocity", clip=None, ema=0.9999, steps=3,
                     grid="quadratic"),
    context=ContextConfig(("return",)), context_dropout=0.25,
    inverse=InverseDynamicsConfig(learning_rate=2e-4, weight_decay=0.0, lookahead=1, batch_size=256),
    planner=PlannerConfig("fixed", replan=1, lookahead=1, steps=3, guidance="classifier-free", scale=1.0,
                          temperature=0.5))


def policy(settings: PolicyConfig, steps: int, **training: Any) -> PolicyRunConfig:
    return PolicyRunConfig(policy=settings, training=replace(budget(steps), **training))


def planner(settings: PlannerRunConfig) -> PlannerRunConfig:
    return replace(settings, training=budget(1_000_000))


# The hours are those of a training, on one core.
PUBLISHED: dict[str, tuple[str, RunConfig]] = {
    "iql-published": ("Kostrikov et al. 2022, in locomotion: 1 million updates, 4 hours", policy(IQL, 1_000_000)),
    "td3bc-published": ("Fujimoto & Gu 2021: 1 million updates, 3 hours", policy(TD3BC, 1_000_000)),
    "fql-published": ("Park et al. 2025: 1 million updates, 55 hours; alpha is the task's",
                      policy(FQL, 1_000_000)),
    "diffusion-ql-published": ("Wang et al. 2023, in locomotion: 2 million updates, 41 hours",
                               policy(DIFFUSION_QL, 2_000_000)),
    "idql-published": ("Hansen-Estruch et al. 2023, in locomotion: 3 million updates, 105 hours",
                       policy(IDQL, 3_000_000)),
    "bc-published": ("cloning by the actor of TD3+BC: 1 million updates, 2 hours", policy(BC, 1_000_000)),
    "diffusion-policy-published": ("Chi et al. 2023: 1 million updates, for a GPU",
                                   policy(DIFFUSION_POLICY, 1_000_000, warmup=500)),
    "diffuser-published": ("Janner et al. 2022, in locomotion: 1 million updates, 47 hours", planner(DIFFUSER)),
    "hierarchical-diffuser-published": ("Chen et al. 2024, in locomotion: 1 million updates, 15 hours",
                                        planner(HIERARCHICAL)),
    "decision-diffuser-published": ("Ajay et al. 2023, in locomotion: 1 million updates, for a GPU",
                                    planner(DECISION)),
    "veteran-published": ("Lu et al. 2025, in locomotion: 1 million updates, 55 hours", planner(VETERAN)),
    "diffuser-lite-published": ("Dong et al. 2024, in locomotion: 1 million updates, 240 hours", planner(LITE)),
}
