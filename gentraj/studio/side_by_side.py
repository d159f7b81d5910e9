"""A world model beside the simulator: what both make of the same actions, as a function of the settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from gentraj.envs.evaluation.replay import CannotReplay
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.rendering.renderer import postures
from gentraj.envs.worlds.imagined import ImaginedConfig, ImaginedEpisodes

from ..randomness import fold
from ..trajectory import Agent
from .driving import posture
from .loading import Loaded, alike

RANDOM_ACTION_STEPS = 5  # environment steps that a random action is held for


@dataclass(frozen=True)
class Request:
    """What an imagination depends on beside the world model's run."""

    actor: Loaded | None
    """The run whose agent acts; None for random actions."""
    steps: int = 100
    """The largest number of environment steps."""
    restart: int = 0
    """Steps after which the imagination begins again at the simulator's state; 0 is never."""
    temperature: float = 0.0
    """Scale of the noise; 0 is the model's mean."""
    seed: int = 0
    """Seeds the start of the episode, the agent and the noise."""


@dataclass(frozen=True, eq=False)
class SideBySide:
    """T steps of the simulator and of the imagination along the same actions, in environment units."""

    obs_SO: np.ndarray
    """The simulator's observations, S = T + 1 with the start."""
    imagined_SO: np.ndarray
    act_TA: np.ndarray
    goal_G: np.ndarray
    """The goal; empty without one."""
    error_T: np.ndarray
    """Root mean square of the difference after each step, in deviations of what one step changes in the data."""
    uncertainty_T: np.ndarray
    """The error that the model expects of each step alone, in the same unit."""
    why_T: np.ndarray
    """Why a step should not be trusted, "" where it may be."""
    ended: str
    """Why the simulator's episode is over: "terminated", "truncated", or "" if it goes on."""
    limit: float
    """The uncertainty above which a step is not trusted."""
    qpos_SQ: np.ndarray
    """The simulator's postures."""
    imagined_qpos_SQ: np.ndarray | None
    """The postures that the imagination shows; None where observations do not tell them."""

    @property
    def trusted(self) -> int:
        """The number of steps before the first one that should not be trusted."""
        return int(np.argmax(self.why_T != "")) if (self.why_T != "").any() else len(self.why_T)


def compare_with_simulator(world: Loaded, asked: Request) -> SideBySide:
    """Lets the actor act in the simulator, and the world model imagine the same actions.

    Raises ValueError for a run without a world model, or an actor for another environment.
    """
    if asked.actor is not None and not alike(asked.actor, world):
        raise ValueError(f"{asked.actor.name} acts in {asked.actor.factory.env_id}, and {world.name} imagines "
                         f"{world.factory.env_id}; choose a run of the same environment")
    envs = VectorEnvironment(world.factory, 1, world.run.data.obs_keys)
    try:
        obs_SO, act_TA, qpos_SQ, ended = _simulate(envs, world, asked)
        goal_G = np.zeros(0, np.float32) if envs.goal_BG is None else envs.goal_BG[0].copy()
        base = envs.env(0).unwrapped
    finally:
        envs.close()
    imagined_SO, uncertainty_T = _imagine(world, asked, obs_SO, act_TA, goal_G)
    model = world.run.world_model
    error_T = np.sqrt((((imagined_SO - obs_SO)[1:] / model.facts.step_scale.cpu().numpy()) ** 2).mean(1))
    checks = ImaginedEpisodes(model, len(act_TA), ImaginedConfig())
    checks.place(imagined_SO[1:], np.tile(goal_G[: model.facts.goal_dim], (len(act_TA), 1)))
    imagined_qpos = _postures(base, world, asked, imagined_SO, qpos_SQ)
    return SideBySide(obs_SO, imagined_SO, act_TA, goal_G, error_T, uncertainty_T, checks.distrust(uncertainty_T),
                      ended, checks.uncertainty_limit, qpos_SQ, imagined_qpos)


def _simulate(envs: VectorEnvironment, world: Loaded, asked: Request,
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Observations (S, O), actions (T, A), postures (S, Q), and why the episode is over."""
    envs.reset(np.ones(1, bool), [asked.seed])
    agent, (low_A, high_A) = _agent(asked), _random_actions(world)
    rng = np.random.default_rng(fold(asked.seed, 1))  # the environment draws its start from the seed itself
    obs, act, qpos, ended, held_A = [envs.obs_BO[0].copy()], [], [posture(envs)], "", np.zeros(0)
    for t in range(asked.steps):
        if agent is None or asked.actor is None:
            held_A = rng.uniform(low_A, high_A) if t % RANDOM_ACTION_STEPS == 0 else held_A
            act_BA = held_A.astype(np.float32)[None]
        else:
            goal_BG = torch.from_numpy(envs.goal_BG) if envs.goal_BG is not None and asked.actor.has_goal else None
            with asked.actor.lock:
                act_BA = agent.act(torch.from_numpy(envs.obs_BO), goal_BG).detach().cpu().numpy()
        result = envs.step(act_BA)
        act.append(act_BA[0])
        obs.append(envs.obs_BO[0].copy())
        qpos.append(posture(envs))
        ended = next((name for name in ("terminated", "truncated") if result[name][0]), "")
        if ended:
            break
    return np.array(obs), np.array(act), np.array(qpos), ended


def _imagine(world: Loaded, asked: Request, obs_SO: np.ndarray, act_TA: np.ndarray, goal_G: np.ndarray,
             ) -> tuple[np.ndarray, np.ndarray]:
    """The imagined observations (S, O), the start included, and the uncertainties (T,)."""
    model, T = world.run.world_model, len(act_TA)
    every = min(asked.restart, T) or T
    first_W = np.arange(0, T, every)
    act_WJA = np.zeros((len(first_W), every, act_TA.shape[1]), np.float32)
    act_WJA.reshape(-1, act_TA.shape[1])[:T] = act_TA
    goal = torch.from_numpy(np.tile(goal_G, (len(first_W), 1))) if model.facts.goal_dim else None
    with world.lock:
        made = model.imagine(torch.from_numpy(obs_SO[first_W]), torch.from_numpy(act_WJA), goal,
                             seeds=[asked.seed + int(w) for w in first_W], temperature=asked.temperature)
    next_TO = made.obs_BTO.flatten(0, 1)[:T].cpu().numpy()
    return np.concatenate([obs_SO[:1], next_TO]), made.uncertainty_BT.flatten()[:T].cpu().numpy()


def _postures(base: object, world: Loaded, asked: Request, imagined_SO: np.ndarray, qpos_SQ: np.ndarray,
              ) -> np.ndarray | None:
    """The postures (S, Q) that the imagination shows. Where it begins again, its root is the simulator's."""
    T, parts = len(imagined_SO) - 1, [qpos_SQ[:1]]
    every = min(asked.restart, T) or T
    try:
        for first in range(0, T, every):
            rows = imagined_SO[first : first + every + 1].copy()
            parts.append(postures(base, world.factory.env_id, rows[None], float(getattr(base, "dt", 0.0)),
                                  qpos_SQ[first])[0, 1:])
    except CannotReplay:
        return None
    return np.concatenate(parts)


def _random_actions(world: Loaded) -> tuple[np.ndarray, np.ndarray]:
    """The bounds (A,) of random actions: those of the environment, or where it has none, those of the data."""
    act_A = world.run.reference.x_BHD[..., world.run.data.obs_dim:].flatten(0, 1).cpu().numpy()
    low_A, high_A = world.space.low, world.space.high
    return (np.where(np.isfinite(low_A), low_A, act_A.min(0)), np.where(np.isfinite(high_A), high_A, act_A.max(0)))


def _agent(asked: Request) -> Agent | None:
    if asked.actor is None:
        return None
    agent = asked.actor.run.agent(asked.actor.space)
    agent.reset(seeds_B=[asked.seed])
    return agent
