"""Presets: named settings of runs. A new planner or world model is one line here; a policy's are in its own file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from gentraj.agents.planning.inverse_dynamics import InverseDynamicsConfig
from gentraj.agents.planning.plan_critic import PlanCriticConfig
from gentraj.agents.planning.sampler import PlannerConfig
from gentraj.agents.policies import PRESETS as POLICIES
from gentraj.agents.policies.bc import BCConfig
from gentraj.agents.policies.iql import IQLConfig
from gentraj.agents.roadmap.far_goals import RoadmapConfig

from ...config import JsonObject, Named, check_known, from_json, read_json, to_json, with_settings
from ...data import ContextConfig, HindsightConfig
from ...data.d4rl import is_antmaze
from ...data.sources import split_names
from ...data.windows import GoalContext
from ...diffusion import DiffusionConfig, FlowConfig
from ...families import ACTION_NETWORK, DIFFUSION, GAUSSIAN, ModelConfig
from ...models.conditioning import ConditionMix
from ...networks import NETWORKS, NetworkConfig, ResidualMLPConfig
from ...training.loop import TrainingConfig
from ...worlds.model import WorldModelConfig
from .folder import run_class
from .planner_run import PlannerRunConfig
from .policy_run import PolicyRunConfig
from .run import RunConfig
from .world_run import WorldModelRunConfig

# A planner that reaches a goal by the earliest trusted arrival; the data decide everything else.
GOALS = PlannerRunConfig(training=TrainingConfig(steps=8_000))
# The same along the roadmap of the data, with a plan that reaches a few places ahead, faster than noisy data do.
FAR = replace(GOALS, roadmap=RoadmapConfig(), planner=PlannerConfig(replan=8, pace=1.5),
              training=TrainingConfig(steps=4_000))
# The observation is (x, y, vx, vy), and the dynamics are smooth, so a plan is followed for many steps: replanning more
# often costs more than it gains.
POINTMAZE = replace(GOALS, planner=PlannerConfig(replan=32, rest_dims=(2, 3), hold_radius=0.45))
LONG = replace(POINTMAZE, training=TrainingConfig(steps=10_000))
# Diffuser (Janner et al. 2022) towards goals: plans of observations and actions that end at the goal. In mazes it is a
# single plan, as long as in the paper and sampled as there, level by level, which a PD controller tracks to its end.
TO_THE_END = replace(GOALS, joint=True, conditioning=ConditionMix(goal=1.0, goal_at="end"),
                     planner=PlannerConfig("fixed", lookahead=1, actions="joint"))
TRACKED = replace(TO_THE_END, model=replace(TO_THE_END.model, sampler="ddpm", steps=20), planner=replace(
    TO_THE_END.planner, steps=20, replan=1_000, actions="track", rest_dims=(2, 3)))

# Plans for returns are short, and a new one is made in every step. At least a tenth of the windows start early in an
# episode: an agent that has not learned how to start falls. Noise of plans is noise of actions, so it is small.
SHORT_PLANS = DiffusionConfig(ResidualMLPConfig(256, 2, frequencies=0), levels=None, clip=None, weight_decay=0.0,
                              ema=0.995)
VETERAN = PlannerRunConfig(horizon=4, stride=1, critic=PlanCriticConfig(), model=SHORT_PLANS,
                           conditioning=ConditionMix(goal=0.0),
                           normalizer="gaussian", batch_size=128, inverse=InverseDynamicsConfig(lookahead=1),
                           planner=PlannerConfig("fixed", replan=1, lookahead=1, select="value", candidates=16,
                                                 temperature=0.5),
                           training=TrainingConfig(steps=8_000, min_episode_start_fraction=0.1))
VETERAN_PLUS = replace(VETERAN, joint=True, inverse=None, planner=replace(
    VETERAN.planner, steps=2, actions="joint", temperature=0.7))
DIFFUSER = replace(VETERAN, joint=True, inverse=None, critic=PlanCriticConfig(noise_fraction=0.5),
                   planner=PlannerConfig(
    "fixed", replan=1, lookahead=1, guidance="value", scale=10.0, actions="joint", temperature=0.5))
# As published, except that plans are short.
DECISION = replace(VETERAN, horizon=8, critic=None, context=ContextConfig(("return",)), context_dropout=0.25,
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
    "far-goals": ("a planner for goals that are farther than any recorded episode goes; give --dataset", FAR),
    "veteran": ("plans for returns: the best of 16 by a critic, with inverse dynamics; give --dataset", VETERAN),
    "veteran+": ("our variant of veteran: plans of observations and actions, chosen by a critic; give --dataset",
                 VETERAN_PLUS),
    "decision-diffuser": ("plans of observations, conditioned on a high return, with inverse dynamics; give --dataset",
                          DECISION),
    "hierarchical-diffuser": ("a coarse plan guided by a critic, with its beginning filled in by a second model; give "
                              "--dataset", HIERARCHICAL),
    "diffuser-lite": ("the best coarse plan by a critic, filled in twice by rectified flows; give --dataset", LITE),
    "diffuser": ("plans of observations and actions, guided by a critic of returns; give --dataset", DIFFUSER),
    "diffuser-goals": ("Diffuser towards goals: plans of observations and actions that end at the goal; give --dataset",
                       TO_THE_END),
    "diffuser-pointmaze": ("Diffuser in mazes: one plan, tracked by a PD controller; give --dataset", TRACKED),
    "diffuser-pointmaze-umaze": ("the same in the smallest maze, with the published length: 128 steps",
                                 replace(TRACKED, dataset="gentraj/pointmaze/umaze-v0", horizon=44, stride=3)),
    "diffuser-pointmaze-medium": ("the same in the medium maze: 256 steps",
                                  replace(TRACKED, dataset="gentraj/pointmaze/medium-v0", horizon=52, stride=5)),
    "diffuser-pointmaze-large": ("the same in the large maze: 384 steps",
                                 replace(TRACKED, dataset="gentraj/pointmaze/large-v0", horizon=64, stride=6)),
}

# Policies that learn from data without goals and rewards.
HINDSIGHT = PolicyRunConfig(context=GoalContext(goals=HindsightConfig()))
WIDE = replace(DIFFUSION, network=replace(ACTION_NETWORK, width=256))
GCBC = replace(HINDSIGHT, policy=BCConfig(GAUSSIAN, temperature=0.0))
GOAL_POLICIES: dict[str, tuple[str, PolicyRunConfig]] = {
    "gcbc": ("behaviour cloning towards goals in hindsight", GCBC),
    "far-gcbc": ("the same towards near goals, which a roadmap of the data gives on the way to far ones",
                 replace(GCBC, context=GoalContext(goals=HindsightConfig(actor_steps=20.0)), roadmap=RoadmapConfig(),
                         training=TrainingConfig(steps=3_000))),
    "far-objects": ("behaviour cloning by a diffusion model towards the next change of the objects, which a roadmap of "
                    "the data gives on the way to a far goal",
                    replace(HINDSIGHT, policy=BCConfig(WIDE, chunk=8, execute=4),
                            context=GoalContext(goals=HindsightConfig(at_rest=True, actor_steps=1.0)),
                            roadmap=RoadmapConfig(), training=TrainingConfig(steps=10_000))),
    "cfgrl": ("behaviour cloning by a diffusion model, guided towards goals in hindsight",
              replace(HINDSIGHT, policy=BCConfig(context_dropout=0.1, guidance=2.0))),
    "gciql": ("IQL towards goals in hindsight", replace(HINDSIGHT, policy=IQLConfig(expectile=0.9))),
}

STARTS = ("td3bc", "diffusion-ql", "gan-critic")  # learn starts from early windows, as the planners for returns do

WORLDS: dict[str, tuple[str, WorldModelConfig]] = {
    "world-model": ("predicts the outcome of actions: a flow around the mean of an ensemble", WorldModelConfig()),
    "world-ensemble": ("the same with only an ensemble of perceptrons, as in MBPO",
                       WorldModelConfig(model=None, members=5)),
}

_published = read_json(Path(__file__).with_name("published.json"))
PUBLISHED = {name: (card["about"], from_json(RunConfig, card["settings"], name)) for name, card in _published.items()}
"""The settings of the papers' own code, whose `source` published.json names. docs/notebook/published.md says what
differs."""

PRESETS = Named[RunConfig]({
    **{name: config for name, (_, config) in PLANNERS.items()},
    **{name: PolicyRunConfig(policy=policy) for name, (_, policy) in POLICIES.items()},
    **{name: config for name, (_, config) in GOAL_POLICIES.items()},
    **{name: PolicyRunConfig(policy=POLICIES[name][1], training=TrainingConfig(min_episode_start_fraction=0.1))
       for name in STARTS},
    **{name: WorldModelRunConfig(world=world) for name, (_, world) in WORLDS.items()},
    **{name: config for name, (_, config) in PUBLISHED.items()},
}, "preset")
"""The settings of runs by the name of their preset, which `gentraj train --help` lists."""

DEMO = replace(PLANNERS["pointmaze-umaze"][1], training=TrainingConfig(steps=3_000))


def preset(name: str, dataset: str) -> RunConfig:
    """The preset, with what it has for these data only. Raises ValueError for an unknown name, and suggests a similar
    one."""
    check_known([name], PRESETS, "preset")
    return with_settings(PRESETS[name], data_settings(name, dataset), f"preset {name}")


def usual_steps(config: RunConfig) -> int:
    """The training steps of the presets of the same kinds, the fewest of several; 0 without any."""
    kinds = set(_kinds(to_json(config)))
    alike = [each for each in PRESETS.values() if set(_kinds(to_json(each))) == kinds]
    return min((each.training.steps for each in alike), default=0)


def short_training(config: RunConfig) -> str | None:
    """What is to be said of a training of less than half the usual steps; None of a longer one."""
    steps, usual = config.training.steps, usual_steps(config)
    if 2 * steps >= usual:
        return None
    return f"{steps:,} updates are few: presets of its kind make {usual:,}"


def _kinds(settings: JsonObject, key: str = "") -> Iterator[str]:
    """The kinds in settings, behind the keys of their groups; those of networks are left out."""
    for name, value in settings.items():
        if name == "kind":
            yield f"{key} {value}"
        elif isinstance(value, dict) and name != "network":
            yield from _kinds(value, f"{key}.{name}")


def data_settings(name: str, dataset: str) -> JsonObject:
    """The settings that the preset `name` has for these data only: the rewards that a critic learns of."""
    config = PRESETS[name]
    if not isinstance(config, PolicyRunConfig) or config.policy.critic is None:
        return {}
    return reward_settings(dataset)


def reward_settings(dataset: str) -> JsonObject:
    """The settings of the rewards that critics learn from on these data; empty where the defaults hold."""
    return {"policy.rewards": "minus-one"} if is_antmaze(split_names(dataset)[0]) else {}


def listing() -> str:
    """All presets with a line about each, in groups."""
    groups = {"planners": PLANNERS, "policies, which need --dataset": {**POLICIES, **GOAL_POLICIES},
              "world models, which need --dataset": WORLDS,
              "as published, which need --dataset (hours on one CPU core)": PUBLISHED}
    return "\n\n".join("\n".join([f"{title}:", *(f"  {name:{max(map(len, group))}} {about}"
                                                 for name, (about, _) in group.items())])
                       for title, group in groups.items())


# -- the generative model


def model_config(config: RunConfig) -> ModelConfig | None:
    """The settings of the generative model; None for a run without one."""
    return attrgetter(run_class(config).MODEL)(config)


def with_model(config: RunConfig, model: ModelConfig) -> RunConfig:
    """The settings with another generative model. Raises `ConfigError` for one that such a run cannot have.

    A planner's model of another family is trained as usual for that family, on the same conditions, and a critic of
    noisy plans becomes one of clean plans if the new family has no noise.
    """
    if not isinstance(config, PlannerRunConfig) or type(model) is type(config.model):
        return with_settings(config, {run_class(config).MODEL: to_json(model)})
    critic = config.critic
    if critic is not None and not isinstance(model, DiffusionConfig):
        critic = replace(critic, noise_fraction=0.0)
    return replace(config, model=model, critic=critic, normalizer="limits", context_dropout=model.CONTEXT_DROPOUT,
                   batch_size=model.BATCH_SIZE)


def with_components(config: RunConfig, model: str | None, network: str | None) -> RunConfig:
    """The settings with the generative model and the network of these names, with the defaults for such a run.

    Raises ValueError for names that the settings cannot have.
    """
    if model is not None:
        known = run_class(config).MODELS
        check_known([model], known, "model for this preset")
        config = with_model(config, known[model])
    if network is not None:
        check_known([network], NETWORKS, "network")
        made, _ = NETWORKS[network]
        generator = model_config(config)
        if generator is None:
            raise ValueError(f"network={network} was given, but this preset has no generative model; leave it out")
        if not isinstance(generator.network, made):
            other: NetworkConfig = made()
            config = with_model(config, generator.with_network(other))
    return config
