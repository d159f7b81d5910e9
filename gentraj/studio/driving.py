"""The closed loop of a studio: an agent acts in the real environment, from any start to any goal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch

from gentraj.agents.planning.sampler import Plans
from gentraj.envs.evaluation.replay import CannotReplay, place, simulated
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.rendering.film import speed

from ..trajectory import Agent
from .loading import Loaded
from .planning import Answer, Question, answer_of, planner_of
from .threads import Player

MOST_AHEAD = 100  # environment steps that a policy is shown ahead outside mazes
SHOWN_PER_SECOND = 25.0  # steps of the closed loop that are shown


class Drive:
    """One episode of a run's agent, step by step, from the observation of a question to its goal.

    An environment whose state no observation determines begins as its reset with the question's seed does. Raises
    ValueError for settings that the run cannot have.
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
        self.done = False
        self.success = False
        self.total = 0.0
        self.envs.reset(np.ones(1, bool), [question.settings.seed])
        self.fps = speed(self.envs.env(0))
        self.decisions: list[tuple[int, Answer]] = []
        """The plans that the agent made, each with the step before which it made them."""
        self.newest: Plans | None = None
        with suppress(CannotReplay):
            self._place(np.array(question.obs, np.float32), np.array(question.goal, np.float32))
        self.path = [self.envs.obs_BO[0]]
        """The observations (O,) so far."""
        self.postures = [posture(self.envs)]
        """The postures (Q,) of the body beside them."""
        self.agent.reset(seeds_B=[question.settings.seed])

    def aim(self, goal: tuple[float, ...]) -> None:
        """Gives the agent another goal on the way; it plans again in its next step."""
        self._place(self.path[-1], np.array(goal, np.float32))
        self.question = replace(self.question, goal=goal)
        self.done = False
        self.success = False
        self.agent.reset(seeds_B=[self.question.settings.seed + len(self.path)])

    def step(self) -> None:
        """Takes one environment step, unless the episode is over. Raises `EnvironmentFault` for one that fails."""
        if self.done:
            return
        goal_BG = None
        if self.envs.goal_BG is not None and self.question.goal:
            goal_BG = torch.from_numpy(self.envs.goal_BG)
        with self.loaded.lock:
            act_BA = self.agent.act(torch.from_numpy(self.envs.obs_BO), goal_BG)
        plans = getattr(self.agent, "last", None)
        if plans is not None and plans is not self.newest:
            self.newest = plans
            self.decisions.append((len(self.path) - 1, answer_of(self.loaded, self.question, plans, 0.0)))
        result = self.envs.step(act_BA.numpy())
        self.postures.append(posture(self.envs))
        self.path.append(self.envs.obs_BO[0])
        self.total += float(result["reward"][0])
        self.success |= bool(result["success"][0])
        self.done = bool(result["terminated"][0] | result["truncated"][0])

    def plan_at(self, step: int) -> Answer | None:
        """The plans that the agent followed after so many steps; None for a policy, and before the first plan."""
        return next((answer for made, answer in reversed(self.decisions) if made <= step), None)

    @property
    def steps(self) -> int:
        """The number of environment steps taken."""
        return len(self.path) - 1

    def close(self) -> None:
        self.envs.close()

    def _place(self, obs_O: np.ndarray, goal_G: np.ndarray) -> None:
        place(self.envs.env(0), self.envs.env_id, obs_O, goal_G)
        self.envs.obs_BO = obs_O[None].copy()
        if self.envs.goal_BG is not None and len(goal_G):
            self.envs.goal_BG = goal_G[None].copy()


class Loop:
    """The closed loop of a session: one episode, taken step by step or played at the speed of the simulator.

    `begin` makes the episode at the first step. `changed` is called after each change, and `failed` with the error of
    an episode that cannot go on. A thread plays it, which ends with `pause`, the end of the episode or `close`.
    """

    def __init__(self, begin: Callable[[], Drive], failed: Callable[[Exception], None]):
        self.begin, self.failed = begin, failed
        self.changed: Callable[[], None] = lambda: None
        self.drive: Drive | None = None
        """The episode so far; None at the start."""
        self.player = Player(self._play, "studio-loop")
        self._lock = threading.RLock()

    def step(self, steps: int = 1) -> None:
        """Takes environment steps."""
        with self._lock:
            if self.player.closed:
                return
            try:
                if self.drive is None:
                    self.drive = self.begin()
                for _ in range(steps):
                    self.drive.step()
                if self.drive.done:
                    self.player.pause()
            except (ValueError, RuntimeError) as error:
                self.failed(error)
                self.player.pause()
        self.changed()

    def aim(self, goal: tuple[float, ...]) -> bool:
        """Turns an episode on its way to another goal, and says whether there is one."""
        with self._lock:
            if self.drive is None:
                return False
            self.drive.aim(goal)
        self.changed()
        return True

    def reset(self) -> None:
        """Puts the closed loop back to the start, and pauses it."""
        self.player.pause()
        with self._lock:
            if self.drive is not None:
                self.drive.close()
            self.drive = None
        self.changed()

    def close(self) -> None:
        self.player.close()
        with self._lock:
            if self.drive is not None:
                self.drive.close()

    def described(self) -> str:
        """The closed loop in words."""
        drive = self.drive
        if drive is None:
            return "The agent is at the start."
        state = "on its way"
        if drive.success:
            state = "reached the goal"
        elif drive.done:
            state = "the episode is over"
        return f"Step {drive.steps}, return {drive.total:.1f}: {state}."

    def _play(self) -> float:
        """Takes the steps that are shown at once, and returns for how many seconds."""
        fps = SHOWN_PER_SECOND
        if self.drive is not None:
            fps = self.drive.fps
        steps = max(1, round(fps / SHOWN_PER_SECOND))
        self.step(steps)
        return steps / fps


def start_and_goal(loaded: Loaded) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """An observation (O,) and a goal (G,): in the two free cells of the maze that are farthest apart, or what the
    environment's reset gives; the goal is empty without one."""
    maze = loaded.maze
    if maze is not None:
        start_2, goal_2 = maze.centre(np.array(maze.farthest))
        obs_O = np.zeros(loaded.run.data.obs_dim)
        obs_O[list(loaded.dims)] = start_2
        return tuple(obs_O.tolist()), tuple(goal_2.tolist())
    envs = VectorEnvironment(loaded.factory, 1, loaded.run.data.obs_keys)
    envs.reset(np.ones(1, bool), [0])
    goal: tuple[float, ...] = ()
    if envs.goal_BG is not None:
        goal = tuple(envs.goal_BG[0].tolist())
    envs.close()
    return tuple(envs.obs_BO[0].tolist()), goal


def posture(envs: VectorEnvironment) -> np.ndarray:
    """(Q,) the positions of the simulator of the first environment."""
    return np.array(simulated(envs.env(0).unwrapped).data.qpos)


def ahead(loaded: Loaded, question: Question, drive: Drive | None = None) -> Answer:
    """The path that a policy, which plans nothing, takes in the real environment up to its first success, and outside
    mazes, where an episode may have none, for at most `MOST_AHEAD` steps.

    It is a plan of one candidate whose timesteps are environment steps; `ms` is the mean time of a decision. `drive`, a
    closed loop of the run, is used anew. Raises what `Drive.step` raises.
    """
    if drive is None:
        drive = Drive(loaded, question)
    else:
        drive.begin(question)
    most = MOST_AHEAD
    if loaded.maze is not None:
        most = loaded.factory.max_episode_steps
    start = time.perf_counter()
    while not drive.done and not drive.success and drive.steps < most:
        drive.step()
    ms = 1000 * (time.perf_counter() - start) / drive.steps
    return Answer(question, loaded, np.array(drive.path)[None], np.array([drive.steps]), np.zeros(1), 0, ms)
