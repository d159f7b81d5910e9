"""Presets: literal dicts of run settings. Adding a task or a policy is one line here."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Literal, cast

from agents.planning.inverse_dynamics import InverseDynamicsConfig
from agents.planning.plan_critic import PlanCriticConfig
from agents.planning.planner import PlannerConfig
from agents.policies.bc import BCConfig
from agents.policies.diffusion_ql import DiffusionQLConfig
from agents.policies.fql import FQLConfig
from agents.policies.generators import DIFFUSION, FLOW, GAN, GAUSSIAN
from agents.policies.idql import IDQLConfig
from agents.policies.iql import IQLConfig
from agents.policies.policy import PolicyConfig
from agents.policies.swift import SwiftConfig
from agents.policies.td3bc import TD3BCConfig
from envs.making import recorded_factory
from envs.recording.recipes import recipes
from envs.tasks.registry import MANIPULATION, TASKS

from ..data import ContextConfig, load_episodes
from ..diffusion import DiffusionConfig, FlowConfig
from ..models.conditioning import ConditionMix
from ..networks import ResidualMLPConfig
from ..training.loop import TrainingConfig
from ..worlds.model import WorldModelConfig
from .kinds import AnyRunConfig, PlannerRunConfig, PolicyRunConfig, WorldModelRunConfig

# To a goal by the earliest trusted arrival; everything about it comes from the data.
GOALS = PlannerRunConfig(training=TrainingConfig(steps=8_000))
# The observation is (x, y, vx, vy), and the dynamics are calm, so a plan is followed for long: a new one for every
# change of mind costs more than it gains.
POINTMAZE = replace(GOALS, planner=PlannerConfig(replan=32, rest_dims=(2, 3), hold_radius=0.45))
LONG = replace(POINTMAZE, training=TrainingConfig(steps=10_000))
# Diffuser towards goals: plans of observations and actions that end there. In mazes it is one plan, that takes as long
# as in the paper and is drawn as there, level by level, tracked to its end by a PD controller.
TO_THE_END = replace(GOALS, joint=True, mix=ConditionMix(goal=1.0, goal_at="end"),
                     planner=PlannerConfig("fixed", lookahead=1, actions="joint"))
TRACKED = replace(TO_THE_END, model=replace(TO_THE_END.model, sampler="ddpm", steps=20), planner=replace(
    TO_THE_END.planner, steps=20, replan=1_000, actions="track", rest_dims=(2, 3)))

# Plans for returns are short and made anew in every step.
SHORT_PLANS = DiffusionConfig(ResidualMLPConfig(256, 2, frequencies=0), levels=None, clip=None, weight_decay=0.0,
                              ema=0.995)
VETERAN = PlannerRunConfig(horizon=4, stride=1, valued=True, model=SHORT_PLANS, mix=ConditionMix(goal=0.0),
                           normalizer="gaussian", batch_size=128, inverse=InverseDynamicsConfig(lookahead=1),
                           planner=PlannerConfig("fixed", replan=1, lookahead=1, select="value", candidates=16),
                           training=TrainingConfig(steps=8_000))
VETERAN_PLUS = replace(VETERAN, joint=True, planner=replace(VETERAN.planner, candidates=8, steps=2, actions="joint"))
DIFFUSER = replace(VETERAN, joint=True, critic=PlanCriticConfig(noised=0.5), planner=PlannerConfig(
    "fixed", replan=1, lookahead=1, guidance="value", actions="joint"))
# As published, but for short plans: what is long in the papers is their training.
DECISION = replace(VETERAN, horizon=8, valued=False, context=ContextConfig(("return",)),
                   context_dropout=0.25,
                   planner=PlannerConfig("fixed", replan=1, lookahead=1, guidance="classifier-free", scale=1.5,
                                         temperature=0.5))
HIERARCHICAL = replace(DIFFUSER, horizon=5, stride=8, refine=(8,))
LITE = replace(VETERAN, horizon=3, stride=16, refine=(4, 4), planner=replace(VETERAN.planner, steps=3),
               model=FlowConfig(SHORT_PLANS.network, prediction="velocity", sampler="ddim", clip=None, weight_decay=0.0,
                                 ema=0.995, steps=3))

PLANNERS: dict[str, tuple[str, PlannerRunConfig]] = {
    "pointmaze": ("a planner for any PointMaze dataset: give --dataset", POINTMAZE),
    "pointmaze-open": ("PointMaze without walls", replace(POINTMAZE, dataset="gentraj/pointmaze/open-v0")),
    "pointmaze-umaze": ("PointMaze's smallest maze", replace(POINTMAZE, dataset="gentraj/pointmaze/umaze-v0")),
    "pointmaze-medium": ("PointMaze's medium maze", replace(LONG, dataset="gentraj/pointmaze/medium-v0")),
    "pointmaze-large": ("PointMaze's large maze", replace(LONG, dataset="gentraj/pointmaze/large-v0")),
    "goals": ("a planner for any dataset with goals: the earliest trusted arrival; give --dataset", GOALS),
    "veteran": ("plans for returns: the best of 16 by a critic, and inverse dynamics; give --dataset", VETERAN),
    "veteran+": ("the same, ours: plans of observations and actions, valued by their actions; give --dataset",
                 VETERAN_PLUS),
    "decision-diffuser": ("plans for returns: of observations, conditioned on a good one, and inverse dynamics; give "
                          "--dataset",
                          DECISION),
    "hierarchical-diffuser": ("a coarse plan guided by a critic, a second model fills in its beginning; give --dataset",
                              HIERARCHICAL),
    "diffuser-lite": ("the best coarse plan by a critic, filled in twice, by rectified flows; give --dataset", LITE),
    "diffuser": ("plans for returns: of observations and actions, guided by a critic; give --dataset", DIFFUSER),
    "diffuser-goals": ("Diffuser towards goals: plans that end there, and their own actions; give --dataset",
                       TO_THE_END),
    "diffuser-pointmaze": ("Diffuser in mazes: one plan, tracked by a PD controller; give --dataset", TRACKED),
    "diffuser-pointmaze-umaze": ("the same in the smallest maze, as long as published: 128 steps",
                                 replace(TRACKED, dataset="gentraj/pointmaze/umaze-v0", horizon=44, stride=3)),
    "diffuser-pointmaze-medium": ("the same in the medium maze: 256 steps",
                                  replace(TRACKED, dataset="gentraj/pointmaze/medium-v0", horizon=52, stride=5)),
    "diffuser-pointmaze-large": ("the same in the large maze: 384 steps",
                                 replace(TRACKED, dataset="gentraj/pointmaze/large-v0", horizon=64, stride=6)),
}
# What a name stands for where the data have goals: in mazes, with what the data's own task adds after it, elsewhere.
TOWARDS_GOALS = {"veteran+": ("pointmaze", "goals"), "diffuser": ("diffuser-pointmaze", "diffuser-goals")}

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
    "swift": ("ours: a diffusion model of the data's actions, guided to those that led to more", SwiftConfig()),
    "gan-critic": ("a conditional GAN of actions that climbs its value while it learns", DiffusionQLConfig(GAN)),
}

WORLDS: dict[str, tuple[str, WorldModelConfig]] = {
    "world-model": ("what comes of actions: a flow around what an ensemble expects", WorldModelConfig()),
    "world-ensemble": ("the same by an ensemble of perceptrons, as MBPO's", WorldModelConfig(model=None, members=5)),
}

PRESETS: dict[str, AnyRunConfig] = {
    **{name: config for name, (_, config) in PLANNERS.items()},
    **{name: PolicyRunConfig(policy=policy) for name, (_, policy) in POLICIES.items()},
    **{name: WorldModelRunConfig(world=world) for name, (_, world) in WORLDS.items()},
}

DEMO = replace(PLANNERS["pointmaze-umaze"][1], training=TrainingConfig(steps=3_000))


def suited(name: str, dataset: str) -> str:
    """The preset that the name of one stands for with these data: veteran+ and diffuser plan for goals where there are.

    The dataset of a task may be missing. Raises `DataError` for any other that cannot be read.
    """
    first, *_ = dataset.split("+")
    if name not in TOWARDS_GOALS or not first:
        return name
    in_mazes, elsewhere = TOWARDS_GOALS[name]
    task = _task(first)
    goals = "maze" if task else _goals(first)
    if goals != "maze":
        return elsewhere if goals else name
    own = in_mazes + task.removeprefix("pointmaze")
    return own if own in PRESETS else in_mazes


def check_goals(name: str, config: AnyRunConfig) -> None:
    """Raises ValueError for a preset that plans for goals where neither the data nor the settings say which entries of
    an observation those speak of. It may be asked what `suited` may."""
    first, *_ = config.dataset.split("+")
    instead = {elsewhere: other for other, (_, elsewhere) in TOWARDS_GOALS.items()}.get(name)
    if instead and not (cast(PlannerRunConfig, config).mix.goal_dims or _task(first) or _goals(first)):
        raise ValueError(f"the preset '{name}' plans for goals, and {first} does not say which entries of an "
                         f"observation those speak of; take {instead}, or say it by --mix.goal-dims")


def _task(dataset: str) -> str:
    """The maze that a dataset is of by its name, or ""."""
    return next((task for task, known in TASKS.items() if dataset in (*known.dataset_ids, known.d4rl_id)), "")


@cache  # a command asks more than once, and reading data takes seconds
def _goals(dataset: str) -> Literal["maze", "elsewhere", ""]:
    """Where the goals of data lie; told without the data where `gentraj train` would record them first."""
    own = next((task for task, recipe in recipes().items() if recipe.dataset_id == dataset), None)
    if own:
        return "elsewhere" if own in MANIPULATION else ""
    episodes = load_episodes(dataset)
    if not episodes.goal_dims:
        return ""
    known = recorded_factory(episodes.env)
    return "maze" if known and known.maze else "elsewhere"


def listing() -> str:
    """What there is, a line each."""
    groups = {"planners": PLANNERS, "policies, which need --dataset": POLICIES,
              "world models, which need --dataset": WORLDS}
    return "\n\n".join("\n".join([f"{title}:", *(f"  {name:25} {about}" for name, (about, _) in group.items())])
                       for title, group in groups.items())
