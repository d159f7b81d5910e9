"""An agent in the real environment: the closed loop, and the next steps of a policy."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.sampler import Plans
from gentraj.envs.evaluation.replay import CannotReplay, place, simulated
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.rendering import speed

from ..trajectory import Agent
from .loading import Loaded
from .planning import Answer, Question, answer_of, planner_of

MOST_AHEAD = 100  # environment steps that a policy is shown ahead outside mazes


class Drive:
    """One episode of an agent, step by step, from the observation of a question to its goal.

    The agent is that of the run with the settings of the question. An environment whose state no observation
    determines, or a question without one, begins as the reset with the question's seed does. Raises ValueError for
    settings that the run cannot have.
    """

    def __init__(self, loaded: Loaded, question: Question):
        self.loaded = loaded
        self.envs = VectorEnvironment(loaded.factory, 1, loaded.run.data.obs_keys)
        self.agent: Agent
        if loaded.kind == "planner":
            self.agent = planner_of(loaded, question)
        else:
            self.agent = loaded.run.agent(loaded.space)
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
