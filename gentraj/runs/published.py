"""Presets with the settings of the papers' own code and their budgets; docs/published.md lists what still differs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agents.policies.critic import CriticConfig
from agents.policies.diffusion_ql import DiffusionQLConfig
from agents.policies.fql import FQLConfig
from agents.policies.iql import IQLConfig
from agents.policies.td3bc import TD3BCConfig

from ..diffusion import DiffusionConfig, FlowConfig
from ..models.gaussian import GaussianConfig
from ..networks import PerceptronConfig
from ..training.loop import TrainingConfig
from .policy import PolicyRunConfig

NO_CLIPPING = 1e9  # a norm of gradients that none reaches
ACTOR = PerceptronConfig(activation="relu", embedding=0, fixed_mask=True)  # two hidden layers of 256
LEARNING: dict[str, Any] = {"learning_rate": 3e-4, "weight_decay": 0.0, "max_grad_norm": NO_CLIPPING}
CRITIC = CriticConfig(**LEARNING, n_step=1, tau=0.005, schedule="constant", norm="none", start="zero")


def budget(steps: int) -> TrainingConfig:
    """A training of so many updates, without the warm-up that the papers do not have."""
    return TrainingConfig(steps=steps, warmup=0, save_every=10_000, log_every=1_000)


# Kostrikov et al. 2022, github.com/ikostrikov/implicit_q_learning, configs/mujoco_config.py
IQL = IQLConfig(
    model=GaussianConfig(replace(ACTOR, initial="orthogonal"), **LEARNING, spread="shared", squash=True,
                         log_sigma=(-5.0, 2.0), ema=0.0),
    critic=replace(CRITIC, initial="orthogonal"),
    expectile=0.7, beta=3.0, advantages="raw", observations="raw", rewards="return-range")

# Fujimoto & Gu 2021, github.com/sfujim/TD3_BC
TD3BC = TD3BCConfig(
    model=GaussianConfig(ACTOR, **LEARNING, schedule="constant", spread=0.001, squash=True, ema=0.995),
    critic=replace(CRITIC, gradient="first"),
    alpha=2.5, smoothing=0.2, delay=2, rewards="raw")

# Park et al. 2025, github.com/seohongpark/fql
FQL = FQLConfig(
    model=FlowConfig(replace(ACTOR, width=512, depth=4, activation="gelu", initial="glorot", time_scale=1.0),
                     **LEARNING, schedule="constant", prediction="velocity", clip=None, ema=0.0, steps=10),
    critic=replace(CRITIC, width=512, depth=4, activation="gelu", norm="after", initial="glorot", target="mean"),
    alpha=10.0, relative=False, observations="raw", rewards="raw")

# Wang et al. 2023, github.com/Zhendong-Wang/Diffusion-Policies-for-Offline-RL, with --lr_decay. The bound on a norm is
# 1 to 10 by task; that of the critic is half as large, as its loss is the mean over two networks and not their sum.
DIFFUSION_QL = DiffusionQLConfig(
    model=DiffusionConfig(replace(ACTOR, depth=3, activation="mish", embedding=16, time_scale=5.0, time_shift=-1.0),
                          **LEARNING | {"max_grad_norm": 5.0}, path="vp-half", levels=5, prediction="eps", clip=1.0,
                          ema=0.999, sampler="ddpm", steps=5),
    critic=replace(CRITIC, depth=3, max_grad_norm=2.5, schedule="cosine", activation="mish", gradient="random"),
    eta=1.0, candidates=50, choice="softmax", gradient="chain", observations="raw", rewards="raw")

PUBLISHED: dict[str, tuple[str, PolicyRunConfig]] = {
    "iql-published": ("IQL (Kostrikov et al. 2022) in locomotion: a million updates, 3 hours",
                      PolicyRunConfig(policy=IQL, training=budget(1_000_000))),
    "td3bc-published": ("TD3+BC (Fujimoto & Gu 2021): a million updates, 2 hours",
                        PolicyRunConfig(policy=TD3BC, training=budget(1_000_000))),
    "fql-published": ("FQL (Park et al. 2025): a million updates, 30 hours; give the task's --policy.alpha",
                      PolicyRunConfig(policy=FQL, training=budget(1_000_000))),
    "diffusion-ql-published": ("Diffusion-QL (Wang et al. 2023) in locomotion: 2 million updates, 25 hours",
                               PolicyRunConfig(policy=DIFFUSION_QL, training=budget(2_000_000))),
}
