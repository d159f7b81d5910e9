"""An agent in the real environment: the closed loop, the next steps of a policy, and a world model beside it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.sampler import Plans
from gentraj.envs.evaluation.replay import CannotReplay, place, simulated
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.recording.baselines import RandomAgent
from gentraj.envs.rendering import postures, speed
from gentraj.envs.worlds.imagined import ImaginedConfig, ImaginedEpisodes

from ..runs.kinds.run import of_kind
from ..runs.kinds.world_run import WorldModelRun
from ..trajectory import Agent
from .loading import Loaded, alike
from .planning import Answer, Question, Settings, answer_of, planner_of

MOST_AHEAD = 100  # environment steps that a policy is shown ahead outside mazes


class Drive:
    """One episode of an agent, step by step, from the observation of a question to its goal.

    The agent is by default that of the run with the settings of the question. An environment whose state no observation
    determines, or a question without one, begins as the reset with the question's seed does. Raises ValueError for
    settings that the run cannot have.
    """

    def __init__(self, loaded: Loaded, question: Question, agent: Agent | None = None):
        self.loaded = loaded
        self.envs = VectorEnvironment(loaded.factory, 1, loaded.run.data.obs_keys)
        if agent is None and loaded.kind == "planner":
            agent = planner_of(loaded, question)
        self.agent = agent or loaded.run.agent(loaded.space)
        self.begin(question)

    def begin(self, question: Question) -> None:
        """Begins the episode anew, with the start and the goal of `question`."""
        self.question = question
        self.ended = ""
        """Why the episode is over: "terminated", "truncated", or "" if it goes on."""
        self.success = False
        self.total = 0.0
        self.envs.reset(np.ones(1, bool), [question.settings.seed])
        self.fps = speed(self.envs.env(0))
        self.decisions: list[Answer] = []
        """The plans that the agent made."""
        self.newest: Plans | None = None
        if question.obs:
            with suppress(CannotReplay):
                self._place(np.array(question.obs, np.float32), np.array(question.goal, np.float32))
        self.path = [self.envs.obs_BO[0].copy()]
        """The observations (O,) so far."""
        self.postures = [self._posture()]
        """The postures (Q,) of the body beside them."""
        self.actions: list[np.ndarray] = []
        self.agent.reset([question.settings.seed])

    def aim(self, goal: tuple[float, ...]) -> None:
        """Gives the agent another goal on the way; it plans again in its next step."""
        self._place(self.path[-1], np.array(goal, np.float32))
        self.question = replace(self.question, goal=goal)
        self.ended = ""
        self.success = False
        self.agent.reset([self.question.settings.seed + len(self.path)])

    def step(self) -> None:
        """Takes one environment step, unless the episode is over. Raises `EnvironmentFault` for one that fails."""
        if self.ended:
            return
        goal_BG = None
        if self.envs.goal_BG is not None and self.loaded.has_goal:
            goal_BG = self.envs.goal_BG
        with self.loaded.lock:
            act_BA = self.agent.act(self.envs.obs_BO, goal_BG)
        plans = getattr(self.agent, "last", None)
        if isinstance(self.agent, Planner) and plans is not None and plans is not self.newest:
            self.newest = plans
            answer = answer_of(self.loaded, self.question, self.agent, plans)
            self.decisions.append(replace(answer, made=self.steps))
        result = self.envs.step(act_BA)
        self.actions.append(act_BA[0])
        self.postures.append(self._posture())
        self.path.append(self.envs.obs_BO[0].copy())
        self.total += float(result["reward"][0])
        self.success |= bool(result["success"][0])
        for reason in ("truncated", "terminated"):
            if result[reason][0]:
                self.ended = reason

    def plan_at(self, step: int) -> Answer | None:
        """The plans that the agent followed after so many steps; None for a policy, and before the first plan."""
        return next((answer for answer in reversed(self.decisions) if answer.made <= step), None)

    @property
    def steps(self) -> int:
        """The number of environment steps taken."""
        return len(self.path) - 1

    def __str__(self) -> str:
        """How far it is, in words."""
        state = "on its way"
        if self.success:
            state = "reached the goal"
        elif self.ended:
            state = "the episode is over"
        return f"Step {self.steps}, return {self.total:.1f}: {state}."

    def close(self) -> None:
        self.envs.close()

    def _place(self, obs_O: np.ndarray, goal_G: np.ndarray) -> None:
        put(self.loaded, self.envs.env(0), obs_O, goal_G)
        self.envs.obs_BO = obs_O[None].copy()
        if self.envs.goal_BG is not None and len(goal_G):
            self.envs.goal_BG = goal_G[None].copy()

    def _posture(self) -> np.ndarray:
        """(Q,) the positions of the simulator; none of one that is not MuJoCo."""
        if self.loaded.base is None:
            return np.zeros(0)
        return np.array(simulated(self.envs.env(0).unwrapped).data.qpos)


def put(loaded: Loaded, env: Any, obs_O: np.ndarray, goal_G: np.ndarray) -> None:
    """Sets an environment of a run to the state that an observation (O,) shows, and its goal to (G,); a humanoid in a
    maze, whose posture its observation does not tell, is moved as it stands. Raises `CannotReplay` for others."""
    try:
        place(env, loaded.factory.env_id, obs_O, goal_G)
    except CannotReplay:
        if not hasattr(env.unwrapped, "move"):
            raise
        env.unwrapped.move(obs_O[list(loaded.dims)], goal_G)


def start_and_goal(loaded: Loaded) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """An observation (O,) and a goal (G,) that the environment's reset gives, in a maze moved to the two free cells
    that are farthest apart; the goal is empty without one."""
    envs = VectorEnvironment(loaded.factory, 1, loaded.run.data.obs_keys)
    envs.reset(np.ones(1, bool), [0])
    envs.close()
    obs_O = envs.obs_BO[0]
    goal: tuple[float, ...] = ()
    if envs.goal_BG is not None:
        goal = tuple(envs.goal_BG[0].tolist())
    if loaded.maze is not None:
        start_2, goal_2 = loaded.maze.centre(np.array(loaded.maze.farthest))
        obs_O[list(loaded.dims)] = start_2
        goal = tuple(goal_2.tolist())
    return tuple(obs_O.tolist()), goal


def ahead(loaded: Loaded, question: Question, drive: Drive | None = None) -> Answer:
    """The path that a policy, which plans nothing, takes in the real environment up to its first success, and outside
    mazes, where an episode may have none, for at most `MOST_AHEAD` steps.

    It is a plan of one candidate whose timesteps are environment steps; `ms` is the mean time of a decision. `drive`,
    an episode of the run, is begun anew. Raises what `Drive.step` raises.
    """
    drive = drive or Drive(loaded, question)
    drive.begin(question)
    most = MOST_AHEAD
    if loaded.maze is not None:
        most = loaded.factory.max_episode_steps
    start = time.perf_counter()
    while not drive.ended and not drive.success and drive.steps < most:
        drive.step()
    ms = 1000 * (time.perf_counter() - start) / drive.steps
    return Answer(question, loaded, np.array(drive.path)[None], np.array([drive.steps]), np.zeros(1), 0, ms)


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


def compare_with_simulator(world: Loaded, actor: Loaded | None, steps: int = 100, restart: int = 0,
                           temperature: float = 0.0, seed: int = 0) -> SideBySide:
    """Lets the agent of a run, or random actions without one, act in the simulator for at most `steps` environment
    steps, and the world model predict the outcome of the same actions.

    After each `restart` steps the prediction begins again at the simulator's state; 0 is never. `temperature` scales
    the model's noise; 0 is its mean. `seed` seeds the start of the episode, the agent and the noise. Raises ValueError
    for an actor for another environment.
    """
    agent: Agent = RandomAgent(*_random_bounds(world))
    if actor is None:
        actor = world
    else:
        agent = actor.run.agent(actor.space)
    if not alike(actor, world):
        raise ValueError(f"{actor.name} acts in {actor.factory.env_id}, and {world.name} predicts "
                         f"{world.factory.env_id}; choose a run of the same environment")
    drive = Drive(actor, Question((), (), Settings(seed=seed)), agent)
    while not drive.ended and drive.steps < steps:
        drive.step()
    drive.close()
    obs_SO = np.array(drive.path)
    act_TA = np.array(drive.actions)
    T = len(act_TA)

    model = of_kind(world.run, WorldModelRun).world_model
    goal_TG = np.zeros((T, model.facts.goal_dim), np.float32)
    goal_WG = None
    # The prediction begins at these steps; each time it has as many steps, and those after T are left out.
    starts = range(0, T, min(restart, T) or T)
    if drive.envs.goal_BG is not None and model.facts.goal_dim:
        goal_TG[:] = drive.envs.goal_BG[0, : model.facts.goal_dim]
        goal_WG = torch.from_numpy(goal_TG[starts])
    act_WJA = np.zeros((len(starts), starts.step, act_TA.shape[1]), np.float32)
    act_WJA.reshape(-1, act_TA.shape[1])[:T] = act_TA
    obs, start_W = torch.from_numpy(obs_SO), torch.tensor(starts)
    spec = model.spec
    before_LD = torch.cat([spec.beginning(obs[:1])[0], spec.join(obs[:-1], torch.from_numpy(act_TA))])
    past_WPD = before_LD[start_W[:, None] + torch.arange(spec.past)]
    with world.lock:
        made = model.imagine(obs[start_W], torch.from_numpy(act_WJA), goal_WG, past_BPD=past_WPD,
                             seeds=[seed + start for start in starts], temperature=temperature)
    predicted_SO = np.concatenate([obs_SO[:1], made.obs_BTO.flatten(0, 1)[:T].cpu().numpy()])
    uncertainty_T = made.uncertainty_BT.flatten()[:T].cpu().numpy()

    # Where the prediction begins again, its root is the simulator's.
    seconds = float(getattr(world.base, "dt", 0.0))
    qpos_SQ = np.array(drive.postures)
    predicted_qpos_SQ = None
    with suppress(CannotReplay):
        legs = [postures(world.base, world.factory.env_id, predicted_SO[None, start : start + starts.step + 1], seconds,
                         qpos_SQ[start])[0, 1:] for start in starts]
        predicted_qpos_SQ = np.concatenate([qpos_SQ[:1], *legs])

    error_TO = (predicted_SO - obs_SO)[1:] / model.facts.step_scale.cpu().numpy()
    checks = ImaginedEpisodes(model, T, ImaginedConfig())
    checks.place(predicted_SO[1:], goal_TG)
    return SideBySide(obs_SO, qpos_SQ, act_TA, drive.ended, predicted_SO, predicted_qpos_SQ,
                      np.sqrt((error_TO**2).mean(1)), uncertainty_T, checks.uncertainty_limit,
                      checks.distrust(uncertainty_T))


def _random_bounds(world: Loaded) -> tuple[np.ndarray, np.ndarray]:
    """The bounds (A,) of random actions: those of the environment, or where it has none, those of the data."""
    act_NA = world.run.reference.x_BHD[..., world.run.data.obs_dim:].flatten(0, 1).cpu().numpy()
    low_A = world.space.low
    high_A = world.space.high
    return (np.where(np.isfinite(low_A), low_A, act_NA.min(0)), np.where(np.isfinite(high_A), high_A, act_NA.max(0)))
