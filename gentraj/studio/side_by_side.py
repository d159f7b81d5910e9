"""A world model beside the simulator: what both make of the same actions, as a function of the settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from gentraj.envs.evaluation.replay import CannotReplay
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.recording.baselines import RandomAgent
from gentraj.envs.rendering.renderer import postures
from gentraj.envs.worlds.imagined import ImaginedConfig, ImaginedEpisodes

from ..runs.world import as_world_model
from ..trajectory import Agent
from .driving import posture
from .loading import Loaded, alike


@dataclass(frozen=True)
class Request:
    """What a prediction depends on beside the world model's run."""

    actor: Loaded | None
    """The run whose agent acts; None for random actions."""
    steps: int = 100
    """The largest number of environment steps."""
    restart: int = 0
    """Steps after which the prediction begins again at the simulator's state; 0 is never."""
    temperature: float = 0.0
    """Scale of the noise; 0 is the model's mean."""
    seed: int = 0
    """Seeds the start of the episode, the agent and the noise."""

    def starts(self, steps: int) -> range:
        """The steps, of this many, at which the prediction begins."""
        return range(0, steps, min(self.restart, steps) or steps)


@dataclass(frozen=True, eq=False)
class SideBySide:
    """T steps of the simulator and of the prediction along the same actions, in environment units."""

    obs_SO: np.ndarray
    """The simulator's observations, S = T + 1 with the start."""
    qpos_SQ: np.ndarray
    """The simulator's postures."""
    act_TA: np.ndarray
    ended: str
    """Why the simulator's episode is over: "terminated", "truncated", or "" if it goes on."""
    predicted_SO: np.ndarray
    """The predicted observations, with the start."""
    predicted_qpos_SQ: np.ndarray | None
    """The predicted postures; None where observations do not tell them."""
    error_T: np.ndarray
    """Root mean square of the difference after each step, in deviations of what one step changes in the data."""
    uncertainty_T: np.ndarray
    """The error that the model expects of each step alone, in the same unit."""
    limit: float
    """The uncertainty above which a step is not trusted."""
    why_T: np.ndarray
    """Why a step should not be trusted, "" where it may be."""

    @property
    def trusted(self) -> int:
        """The number of steps before the first one that should not be trusted."""
        return int(np.argmax(np.append(self.why_T != "", True)))


def compare_with_simulator(world: Loaded, asked: Request) -> SideBySide:
    """Lets the actor act in the simulator, and the world model predict the outcome of the same actions.

    Raises ValueError for an actor for another environment.
    """
    if asked.actor is not None and not alike(asked.actor, world):
        raise ValueError(f"{asked.actor.name} acts in {asked.actor.factory.env_id}, and {world.name} predicts "
                         f"{world.factory.env_id}; choose a run of the same environment")
    envs = VectorEnvironment(world.factory, 1, world.run.data.obs_keys)
    try:
        obs_SO, act_TA, qpos_SQ, ended = _simulate(envs, world, asked)
        goal_G = np.zeros(0, np.float32)
        if envs.goal_BG is not None:
            goal_G = envs.goal_BG[0].copy()
        base = envs.env(0).unwrapped
    finally:
        envs.close()
    model = as_world_model(world.run).world_model
    goal_TG = np.tile(goal_G[: model.facts.goal_dim], (len(act_TA), 1))
    predicted_SO, uncertainty_T = _predict(world, asked, obs_SO, act_TA, goal_TG)
    error_TO = (predicted_SO - obs_SO)[1:] / model.facts.step_scale.cpu().numpy()
    checks = ImaginedEpisodes(model, len(act_TA), ImaginedConfig())
    checks.place(predicted_SO[1:], goal_TG)
    return SideBySide(obs_SO, qpos_SQ, act_TA, ended, predicted_SO,
                      _postures(base, world, asked, predicted_SO, qpos_SQ), np.sqrt((error_TO**2).mean(1)),
                      uncertainty_T, checks.uncertainty_limit, checks.distrust(uncertainty_T))


def _simulate(envs: VectorEnvironment, world: Loaded, asked: Request,
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Observations (S, O), actions (T, A), postures (S, Q), and why the episode is over."""
    agent: Agent = RandomAgent(*_random_bounds(world))
    lock = world.lock
    if asked.actor is not None:
        agent = asked.actor.run.agent(asked.actor.space)
        lock = asked.actor.lock
    agent.reset(seeds_B=[asked.seed])
    envs.reset(np.ones(1, bool), [asked.seed])
    obs = [envs.obs_BO[0].copy()]
    qpos = [posture(envs)]
    act: list[np.ndarray] = []
    ended = ""
    while len(act) < asked.steps and not ended:
        goal_BG = None
        if envs.goal_BG is not None and asked.actor is not None and asked.actor.has_goal:
            goal_BG = torch.from_numpy(envs.goal_BG)
        with lock:
            act_BA = agent.act(torch.from_numpy(envs.obs_BO), goal_BG).detach().cpu().numpy()
        result = envs.step(act_BA)
        act.append(act_BA[0])
        obs.append(envs.obs_BO[0].copy())
        qpos.append(posture(envs))
        for reason in ("truncated", "terminated"):
            if result[reason][0]:
                ended = reason
    return np.array(obs), np.array(act), np.array(qpos), ended


def _predict(world: Loaded, asked: Request, obs_SO: np.ndarray, act_TA: np.ndarray, goal_TG: np.ndarray,
             ) -> tuple[np.ndarray, np.ndarray]:
    """The predicted observations (S, O), the start included, and the uncertainties (T,)."""
    model = as_world_model(world.run).world_model
    T = len(act_TA)
    starts = asked.starts(T)
    act_WJA = np.zeros((len(starts), starts.step, act_TA.shape[1]), np.float32)
    act_WJA.reshape(-1, act_TA.shape[1])[:T] = act_TA
    goal_WG = None
    if model.facts.goal_dim:
        goal_WG = torch.from_numpy(goal_TG[starts])
    with world.lock:
        made = model.imagine(torch.from_numpy(obs_SO[starts]), torch.from_numpy(act_WJA), goal_WG,
                             seeds=[asked.seed + start for start in starts], temperature=asked.temperature)
    next_TO = made.obs_BTO.flatten(0, 1)[:T].cpu().numpy()
    return np.concatenate([obs_SO[:1], next_TO]), made.uncertainty_BT.flatten()[:T].cpu().numpy()


def _postures(base: object, world: Loaded, asked: Request, predicted_SO: np.ndarray, qpos_SQ: np.ndarray,
              ) -> np.ndarray | None:
    """The postures (S, Q) of the prediction. Where it begins again, its root is the simulator's."""
    starts = asked.starts(len(predicted_SO) - 1)
    parts = [qpos_SQ[:1]]
    try:
        for start in starts:
            obs_1JO = predicted_SO[None, start : start + starts.step + 1]
            parts.append(postures(base, world.factory.env_id, obs_1JO, float(getattr(base, "dt", 0.0)),
                                  qpos_SQ[start])[0, 1:])
    except CannotReplay:
        return None
    return np.concatenate(parts)


def _random_bounds(world: Loaded) -> tuple[np.ndarray, np.ndarray]:
    """The bounds (A,) of random actions: those of the environment, or where it has none, those of the data."""
    act_NA = world.run.reference.x_BHD[..., world.run.data.obs_dim:].flatten(0, 1).cpu().numpy()
    low_A = world.space.low
    high_A = world.space.high
    return (np.where(np.isfinite(low_A), low_A, act_NA.min(0)), np.where(np.isfinite(high_A), high_A, act_NA.max(0)))
