"""The closed loop of a studio: an agent acts in the real environment, from any start to any goal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch

from gentraj.agents.planning.sampler import Plans
from gentraj.envs.evaluation.replay import CannotReplay, place, simulated
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.rendering.film import speed

from ..trajectory import Agent
from .loading import Loaded
from .planning import Answer, Question, answer_of, planner_of

MOST_AHEAD = 100  # environment steps that a policy is shown ahead outside mazes
SHOWN_PER_SECOND = 25.0  # steps of the closed loop that are shown


@dataclass(frozen=True, eq=False)
class Way:
    """How far a closed loop has come."""

    loaded: Loaded
    path: list[np.ndarray]
    """The observations (O,) so far."""
    qpos_Q: np.ndarray
    """The present posture of the body."""


class Drive:
    """One episode of a run's agent, step by step, from the observation of a question to its goal.

    An environment whose state no observation determines begins as its reset with the question's seed does. Raises
    ValueError for settings that the run cannot have.
    """

    def __init__(self, loaded: Loaded, question: Question):
        self.loaded, self.question = loaded, question
        self.envs = VectorEnvironment(loaded.factory, 1, loaded.run.data.obs_keys)
        self.agent: Agent = (planner_of(loaded, question) if loaded.kind == "planner" else
                             loaded.run.agent(loaded.space))
        self.begin(question)

    def begin(self, question: Question) -> None:
        """Begins the episode anew, with the start and the goal of `question`."""
        self.question, self.done, self.success, self.total = question, False, False, 0.0
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
        self._place(self.obs_O, np.array(goal, np.float32))
        self.question, self.done, self.success = replace(self.question, goal=goal), False, False
        self.agent.reset(seeds_B=[self.question.settings.seed + len(self.path)])

    @property
    def obs_O(self) -> np.ndarray:
        """The present observation."""
        return self.path[-1]

    def step(self) -> None:
        """Takes one environment step, unless the episode is over. Raises `EnvironmentFault` for one that fails."""
        if self.done:
            return
        goal_BG = None if self.envs.goal_BG is None or not self.question.goal else torch.from_numpy(self.envs.goal_BG)
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

    @property
    def plan(self) -> Answer | None:
        """The plans that the agent follows; None for a policy, and before the first plan."""
        return self.plan_at(len(self.path))

    def plan_at(self, step: int) -> Answer | None:
        """The plans that the agent followed after so many steps; None for a policy, and before the first plan."""
        return next((answer for made, answer in reversed(self.decisions) if made <= step), None)

    def way(self, step: int | None = None) -> Way:
        """How far the loop had come after so many steps, by default what it has by now."""
        path = self.path[: len(self.path) if step is None else step + 1]
        return Way(self.loaded, path, self.postures[len(path) - 1])

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
        self.playing = threading.Event()
        self.closed = False
        self._lock = threading.RLock()

    def step(self, steps: int = 1) -> None:
        """Takes environment steps."""
        with self._lock:
            if self.closed:
                return
            try:
                if self.drive is None:
                    self.drive = self.begin()
                for _ in range(steps):
                    self.drive.step()
                if self.drive.done:
                    self.pause()
            except (ValueError, RuntimeError) as error:
                self.failed(error)
                self.pause()
        self.changed()

    def aim(self, goal: tuple[float, ...]) -> bool:
        """Turns an episode on its way to another goal, and says whether there is one."""
        with self._lock:
            if self.drive is None:
                return False
            self.drive.aim(goal)
        self.changed()
        return True

    def play(self) -> None:
        if not self.playing.is_set() and not self.closed:
            self.playing = threading.Event()  # which a thread in its last step does not obey
            self.playing.set()
            threading.Thread(target=self._play, args=(self.playing,), name="studio-loop", daemon=True).start()

    def pause(self) -> None:
        self.playing.clear()

    def reset(self) -> None:
        """Puts the closed loop back to the start, and pauses it."""
        self.pause()
        with self._lock:
            if self.drive is not None:
                self.drive.close()
            self.drive = None
        self.changed()

    def close(self) -> None:
        self.closed = True
        self.pause()
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
        return f"Step {len(drive.path) - 1}, return {drive.total:.1f}: {state}."

    def _play(self, playing: threading.Event) -> None:
        due = time.perf_counter()
        while playing.is_set() and not self.closed:
            fps = self.drive.fps if self.drive is not None else SHOWN_PER_SECOND
            steps = max(1, round(fps / SHOWN_PER_SECOND))
            self.step(steps)
            due = max(due + steps / fps, time.perf_counter() - 0.2)  # what was lost long ago is not caught up
            time.sleep(max(0.0, due - time.perf_counter()))


def posture(envs: VectorEnvironment) -> np.ndarray:
    """(Q,) the positions of the simulator of the first environment."""
    return np.array(simulated(envs.env(0).unwrapped).data.qpos)


def ahead(loaded: Loaded, question: Question, drive: Drive | None = None) -> Answer:
    """The path that a policy, which plans nothing, takes in the real environment up to its first success, and outside
    mazes, where an episode may have none, for at most `MOST_AHEAD` steps.

    It is a plan of one candidate whose timesteps are environment steps; `ms` is the mean time of a decision. `drive`, a
    closed loop of the run, is used anew. Raises what `Drive.step` raises.
    """
    drive = Drive(loaded, question) if drive is None else drive
    drive.begin(question)
    start = time.perf_counter()
    most = MOST_AHEAD if loaded.maze is None else loaded.factory.max_episode_steps
    while not (drive.done or drive.success or len(drive.path) > most):
        drive.step()
    ms = 1000 * (time.perf_counter() - start) / (len(drive.path) - 1)
    x_NHD = np.array(drive.path)[None]
    return Answer(question, loaded, x_NHD, np.array([x_NHD.shape[1] - 1]), np.zeros(1), 0, ms)
