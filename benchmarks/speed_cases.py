"""Plans and training steps of the U-Net of Diffuser and updates of policies, as gentraj and its peers make them, and
decisions and steps of many environments, from the observations to the actions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

import gentraj
from benchmarks.speed_peers import (
    CPU,
    SCALE,
    UPDATE_BATCH,
    Call,
    Case,
    Setting,
    Setup,
    Value,
    diffusers_plan,
    diffusers_training,
)
from gentraj.acceleration import BackendName
from gentraj.agents.policies import POLICIES, PRESETS
from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.policy import Policy
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.policies.td3bc import DETERMINISTIC
from gentraj.data import ContextConfig, Episodes, Windows
from gentraj.diffusion import Diffusion, DiffusionConfig, Guided, NoisyValue
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.making import environment_factory
from gentraj.families import GAUSSIAN
from gentraj.models.sampling import Plugin
from gentraj.networks import ResidualMLPConfig, TemporalUNetConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.runs.kinds.presets import PRESETS as PLANNERS
from gentraj.runs.learn.training import prepare
from gentraj.training.loop import compile_networks
from gentraj.training.optimization import StepNumbers
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Agent, Batch, Condition, SamplingOptions

AgentOn = Callable[[torch.device, BackendName], Agent]
HOPPER = Setting(11, 3, 32, (1, 2, 4, 8), steps=20, few=5)
MAZE = Setting(4, 2, 128, (1, 4, 8), steps=64, few=16)
ACTOR = ResidualMLPConfig(width=128, depth=1, frequencies=0)  # as many weights as two hidden layers of 256 units
EQUAL = {"iql": {"model": replace(GAUSSIAN, network=ACTOR)},
         "td3bc": {"model": replace(DETERMINISTIC, network=ACTOR)}}


def model_of(setting: Setting, device: torch.device = CPU) -> Diffusion:
    config = DiffusionConfig(network=TemporalUNetConfig(32, setting.multipliers, 5, 0), path="vp-cosine",
                             levels=setting.steps, prediction="eps", sampler="ddpm", steps=setting.steps)
    return Diffusion(setting.spec, config, Normalizer.identity(setting.spec.dim)).to(device)


def start_of(setting: Setting, batch: int) -> Condition:
    return Condition.empty(setting.spec, batch).with_obs(0, torch.zeros(setting.obs_dim))


def each_backend(setup: Setup, model: Diffusion, call: Callable[[Diffusion], Call]) -> dict[str, Call]:
    """The call for the model as it is, and for the model in each backend."""
    return {name: call(gentraj.accelerate(model, name)) for name in ("eager", *setup.backends)}


def plans(setup: Setup, setting: Setting, batch: int, options: SamplingOptions) -> Mapping[str, Call]:
    start = start_of(setting, batch)
    return each_backend(setup, model_of(setting, setup.device), lambda model: partial(model.sample, start,
                                                                                      options=options))


def value_network(setting: Setting, device: torch.device, backend: str = "eager") -> Value:
    """The value of plans (R, H, D) by a network like that which denoises them."""
    network = gentraj.accelerate(model_of(setting, device).ema.module.requires_grad_(False), backend)
    t = torch.full((1,), 0.5, device=device)

    def value(x_RHD: Tensor) -> Tensor:
        return network(x_RHD, torch.zeros_like(x_RHD), torch.zeros_like(x_RHD, dtype=torch.bool), t).mean((1, 2))

    return value


def guided_plans(setup: Setup, setting: Setting, batch: int, guide: Callable[[Value], Plugin]) -> Mapping[str, Call]:
    start, model = start_of(setting, batch), model_of(setting, setup.device)
    return {name: partial(gentraj.accelerate(model, name).sample, start,
                          guide=guide(value_network(setting, setup.device, name)))
            for name in ("eager", *setup.backends)}


def training(setup: Setup, setting: Setting, batch: int) -> Mapping[str, Call]:
    """The loss, its gradient, AdamW and the average of the weights; also compiled, if compile is among the backends."""
    x_BHD = torch.randn(batch, setting.horizon, setting.spec.dim, device=setup.device)
    windows = Batch(x_BHD, torch.ones_like(x_BHD, dtype=torch.bool))
    found: dict[str, Call] = {}
    for name in ("eager", *{"compile"} & {*setup.backends}):
        model = model_of(setting, setup.device)
        if name == "compile":
            compile_networks(model, setup.device)
        found[name] = partial(model.update, windows, model.optimizers(), generator(0))
    return found


# -- updates of policies, on random numbers with the sizes of Hopper


def transitions() -> Episodes:
    """200 episodes of 100 steps, half of which terminate."""
    rng, count, length = np.random.default_rng(0), 200, 100
    last = np.arange(length - 1, count * length, length)
    terminated, truncated = np.zeros((2, count * length), bool)
    terminated[last[::2]] = True
    truncated[last[1::2]] = True
    return Episodes(rng.normal(size=(count * (length + 1), HOPPER.obs_dim)),
                    rng.uniform(-1, 1, (count * length, HOPPER.act_dim)), rng.normal(size=count * length),
                    terminated, truncated, np.full(count, length))


def updates(setup: Setup, kind: str) -> Mapping[str, Call]:
    """Updates as the training loop does them, with the batches drawn within the measured time; in bfloat16 and compiled
    if bf16 and compile are among the backends. iql and td3bc have networks of their papers' widths."""
    data, found = transitions(), {}
    for name in ("eager", *(name for name in setup.backends if name in ("bf16", "compile"))):
        config = replace(PRESETS[kind][1], **EQUAL.get(kind, {}))
        torch.manual_seed(0)
        scales = StateActionScales.fit(data, ContextConfig())
        policy = POLICIES.made_of(config)(config, scales).train().to(setup.device)
        if name == "compile":
            compile_networks(policy, setup.device)
        found[name] = partial(policy_update, policy, Windows(data, policy.spec), policy.optimizers(), itertools.count(),
                              bf16=name == "bf16")
    return found


def policy_update(policy: Policy, windows: Windows, optimizers: dict[str, torch.optim.Optimizer],
                  steps: Iterator[int], *, bf16: bool) -> None:
    step = next(steps)
    batch = windows.batch(step, 0, UPDATE_BATCH).to(policy.device)
    unread = list[tuple[str, torch.Tensor]]()
    with torch.autocast(policy.device.type, torch.bfloat16, enabled=bf16):
        metrics = policy.update(TrainingStep(batch, optimizers, generator(0, step), unread=unread))
    StepNumbers(unread, metrics).metrics()


# -- decisions, each with new plans or a new chunk of actions


def maze_planner(device: torch.device, backend: BackendName) -> Agent:
    """The planner of the preset pointmaze, on random walks in an open place."""
    rng, length, count = np.random.default_rng(0), 300, 10
    end = np.arange(length - 1, count * length, length)
    last = np.isin(np.arange(count * length), end)
    walks = Episodes(0.05 * rng.normal(size=(count * (length + 1), 4)).cumsum(0),
                     rng.uniform(-1, 1, (count * length, 2)), np.zeros(count * length), last & False, last,
                     np.full(count, length), goal_dims=(0, 1))
    run, _ = prepare(PLANNERS["pointmaze"], data=walks, check=False)
    return gentraj.accelerate(run.ready(device), backend).agent(Box(-1, 1, (2,)))


def actor(device: torch.device, backend: BackendName, kind: str) -> Agent:
    """The agent of a policy."""
    config = PRESETS[kind][1]
    policy = POLICIES.made_of(config)(config, StateActionScales.fit(transitions(), ContextConfig())).to(device)
    return Actor(gentraj.accelerate(policy, backend), -np.ones(HOPPER.act_dim), np.ones(HOPPER.act_dim))


def decisions(setup: Setup, agent_on: AgentOn, batch: int, goal_dim: int) -> dict[str, Call]:
    goal_BG = torch.ones(batch, goal_dim) if goal_dim else None

    def decide(agent: Agent, obs_BO: Tensor) -> None:
        agent.reset(range(batch))
        agent.act(obs_BO, goal_BG)

    found: dict[str, Call] = {}
    for name in ("eager", *setup.backends):
        agent = agent_on(setup.device, name)
        assert agent.spec is not None
        found[name] = partial(decide, agent, torch.zeros(batch, agent.spec.obs_dim))
    return found


def rollouts(setup: Setup, batch: int, steps: int) -> dict[str, Call]:
    """Steps of many mazes at once, in which the planner makes new plans and follows them."""
    envs = VectorEnvironment(environment_factory("pointmaze-umaze"), batch)

    def rollout(agent: Agent) -> None:
        envs.reset(np.ones(batch, bool), range(batch))
        agent.reset(range(batch))
        for _ in range(steps):
            assert envs.goal_BG is not None
            envs.step(agent.act(torch.from_numpy(envs.obs_BO), torch.from_numpy(envs.goal_BG)).numpy())

    return {name: partial(rollout, maze_planner(setup.device, name)) for name in ("eager", *setup.backends)}


# -- the cases


def _plan(title: str, setting: Setting, batch: int) -> Case:
    return Case(title, {"diffusers": partial(diffusers_plan, setting=setting, batch=batch)},
                partial(plans, setting=setting, batch=batch, options=SamplingOptions()))


def _ddim(title: str, setting: Setting, batch: int) -> Case:
    return Case(title, {"diffusers": partial(diffusers_plan, setting=setting, batch=batch, few=True)},
                partial(plans, setting=setting, batch=batch, options=SamplingOptions("ddim", setting.few)))


def _guided(title: str, setting: Setting, batch: int, guide: Callable[[Value], Plugin]) -> Case:
    def peer(setup: Setup) -> Call:
        return diffusers_plan(setup, setting, batch, value_network(setting, setup.device))

    return Case(title, {"diffusers": peer},
                partial(guided_plans, setting=setting, batch=batch, guide=guide))


def _train(title: str, setting: Setting, batch: int) -> Case:
    return Case(title, {"diffusers": partial(diffusers_training, setting=setting, batch=batch)},
                partial(training, setting=setting, batch=batch))


def _update(kind: str) -> Case:
    return Case(f"update of {kind}, 256 transitions", {}, partial(updates, kind=kind))


def _decide(who: str, agent_on: AgentOn, batch: int, goal_dim: int = 0) -> Case:
    many = "" if batch == 1 else f" in {batch} environments"
    ours = partial(decisions, agent_on=agent_on, batch=batch, goal_dim=goal_dim)
    return Case(f"decision by {who}{many}", {}, ours)


def noisy(value: Value) -> Plugin:
    """The guide of a value that is asked at the noisy plans."""
    return NoisyValue(lambda x_RHD, noise_R: value(x_RHD), SCALE)


CASES: dict[str, Case] = {
    "plan/hopper/1": _plan("one plan, horizon 32, 20 steps", HOPPER, 1),
    "plan/maze/1": _plan("one plan, horizon 128, 64 steps", MAZE, 1),
    "plan/hopper/64": _plan("64 plans, horizon 32, 20 steps", HOPPER, 64),
    "plan/maze/64": _plan("64 plans, horizon 128, 16 steps", replace(MAZE, steps=16), 64),
    "ddim/hopper/1": _ddim("one plan by DDIM, horizon 32, 5 steps", HOPPER, 1),
    "ddim/hopper/64": _ddim("64 plans by DDIM, horizon 32, 5 steps", HOPPER, 64),
    "guided/hopper/1": _guided("one plan, horizon 32, 20 steps, guided by a value network, one gradient a step",
                               HOPPER, 1, noisy),
    "guided/clean/16": _guided("16 plans guided by the same network in `Guided` by default", HOPPER, 16,
                               partial(Guided, scale=SCALE)),
    "train/hopper/32": _train("training step of 32 windows, horizon 32", HOPPER, 32),
    "train/maze/32": _train("training step of 32 windows, horizon 128", MAZE, 32),
    "update/iql": _update("iql"),
    "update/td3bc": _update("td3bc"),
    "update/fql": _update("fql"),
    "update/diffusion-ql": _update("diffusion-ql"),
    "update/swift": _update("swift"),
    "decide/planner/1": _decide("a planner of mazes", maze_planner, 1, 2),
    "decide/planner/64": _decide("a planner of mazes", maze_planner, 64, 2),
    **{f"decide/{kind}/1": _decide(kind, partial(actor, kind=kind), 1) for kind in ("iql", "fql", "bc-flow", "swift")},
    "evaluate/planner/64": Case("13 steps of 64 mazes by this planner, with two plans in each", {},
                                partial(rollouts, batch=64, steps=13)),
}
