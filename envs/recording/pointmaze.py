"""PointMaze data by the public recipe: a noisy waypoint controller that is sent to one random goal after another."""

from __future__ import annotations

import numpy as np

from gentraj.data import Episodes
from gentraj.data.episodes import last_steps
from gentraj.progress import bar
from gentraj.randomness import fold

from ..making import EnvironmentFactory, environment_factory
from ..tasks.maze import Maze
from ..tasks.registry import MAZES
from .baselines import WaypointController

ACTION_NOISE = 0.5  # standard deviation of the Gaussian noise on the controller's actions
RUN_STEPS = 20_000  # steps of one endless run, which is one episode
NEVER = 1_000_000  # as in Minari's own PointMaze recordings
MAX_SPEED = 5.0  # the environment clips velocities to it before each step
SUCCESS_RADIUS = 0.45
RECORDING = {"continuing_task": True, "reset_target": True, "max_episode_steps": NEVER}


def record(env: str, steps: int, seed: int = 0, *, progress: bool = True) -> Episodes:
    """Records `steps` steps in any PointMaze, which a task name, a Gymnasium id or an EnvSpec as JSON names.

    The episodes are independent runs of 20,000 steps (the last may be shorter), truncated at their end, with a new goal
    after every success. Run r is a function of (seed, r), so a longer recording begins like a shorter one. Raises
    ValueError for other environments, and for a map with a single goal, or with a goal that no
    path leads to, where a run would stand still.
    """
    factory = environment_factory(env, RECORDING)
    if factory.pointmaze is None:
        raise ValueError(f"{factory.env_id} is not a PointMaze; give one of {', '.join(MAZES)} or another PointMaze")
    _check_goals(factory.pointmaze)
    lengths = np.full(-(-steps // RUN_STEPS), RUN_STEPS)
    lengths[-1] = steps - RUN_STEPS * (len(lengths) - 1)
    seeds = [fold(seed, r) for r in range(len(lengths))]
    obs, act, reward, goal = _run(factory, factory.pointmaze, seeds, int(lengths[0]), progress)

    def flat(rows: np.ndarray, more: int) -> np.ndarray:
        return np.concatenate([rows[r, : n + more] for r, n in enumerate(lengths)])

    return Episodes(flat(obs, 1), flat(act, 0), flat(reward, 0), np.zeros(steps, bool), last_steps(lengths), lengths,
                    {"goal": flat(goal, 1)}, goal_dims=(0, 1), obs_keys=("observation",), env=factory.spec_json,
                    name=env if env in MAZES else factory.env_id)  # without qpos and qvel, which are the observation


def _run(factory: EnvironmentFactory, maze: Maze, seeds: list[int], T: int, progress: bool) -> tuple[np.ndarray, ...]:
    """Records one run per seed: obs (R, T + 1, 4), act (R, T, 2), reward (R, T), goal (R, T + 1, 2), float32."""
    runs = PointMazes(factory, seeds)
    controller = WaypointController(maze, ACTION_NOISE)
    R = len(seeds)
    controller.reset([fold(seed, 1) for seed in seeds])
    obs, goal = np.empty((R, T + 1, 4), np.float32), np.empty((R, T + 1, 2), np.float32)
    act, reward = np.empty((R, T, 2), np.float32), np.empty((R, T), np.float32)
    obs[:, 0], goal[:, 0] = runs.state, runs.shown_goal
    with bar(T, f"recording {R} runs", shown=progress) as done:
        for t in range(T):
            act[:, t] = controller.control(runs.state, runs.shown_goal)
            reward[:, t] = runs.step(act[:, t])
            obs[:, t + 1], goal[:, t + 1] = runs.state, runs.shown_goal
            done.update()
    return obs, act, reward, goal


def _check_goals(maze: Maze) -> None:
    """Raises ValueError unless there are two goals, and paths between all of them and the starts."""
    if len(maze.goals) < 2:
        raise ValueError("the map has a single goal, at which the controller would stand still; mark another cell 'g'")
    if not maze.connects(np.union1d(maze.goals, maze.starts)):
        raise ValueError("the map has goals that no path leads to, where the controller would stand still; open the "
                         "walls between its parts, or mark the cells of one part 'c', where goals and starts then lie")


class PointMazes:
    """PointMaze environments stepped together through their MuJoCo models, several times as fast as by `step`.

    Resets, goals and rewards are the environments' own; a test compares every number with those of `step`.
    """

    def __init__(self, factory: EnvironmentFactory, seeds: list[int]):
        self.envs = [factory().unwrapped for _ in seeds]
        import mujoco  # after an environment, which decides how mujoco renders
        self._step = mujoco.mj_step  # pyright: ignore[reportAttributeAccessIssue]
        first = [env.reset(seed=seed)[0] for env, seed in zip(self.envs, seeds, strict=True)]
        self.state = np.stack([obs["observation"] for obs in first])
        self.shown_goal = np.stack([env.goal for env in self.envs])  # as in the observation: one step old
        self.goal = self.shown_goal.copy()

    def step(self, act_BA: np.ndarray) -> np.ndarray:
        """Steps every environment with actions in [-1, 1]; returns the rewards (B,)."""
        speed = np.clip(self.state[:, 2:], -MAX_SPEED, MAX_SPEED)
        for i, env in enumerate(self.envs):
            model, data = env.model, env.data
            data.qvel[:] = speed[i]
            data.ctrl[:] = act_BA[i]
            self._step(model, data)
            self.state[i, :2], self.state[i, 2:] = data.qpos, data.qvel
        self.shown_goal = self.goal.copy()
        reward = self.envs[0].compute_reward(self.state[:, :2], self.goal, {})
        for i in np.flatnonzero(np.linalg.norm(self.state[:, :2] - self.goal, axis=1) <= SUCCESS_RADIUS):
            self.envs[i].update_goal(self.state[i, :2])
            self.goal[i] = self.envs[i].goal
        return reward
