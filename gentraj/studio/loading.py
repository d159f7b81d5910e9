"""The runs of a studio, made ready: each with its environment and its maze."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box

from gentraj.agents.planning.planner import Planner
from gentraj.envs.evaluation.replay import simulated
from gentraj.envs.making import EnvironmentFactory, environment_factory
from gentraj.envs.tasks.maze import Maze

from ..acceleration import BackendName, accelerate
from ..constraints import Blocks
from ..constraints.keepout import largest_free_boxes
from ..files import short_names
from ..runs.kinds.loading import load
from ..runs.kinds.planner_run import PlannerRun
from ..runs.kinds.run import Run, of_kind
from ..runs.kinds.world_run import WorldModelRun

MARGIN = 0.05  # how far plans keep off the walls where there are obstacles, in cells
REACHED = 0.45  # the distance from the goal of a PointMaze that counts as success


@dataclass(eq=False)
class Loaded:
    """A run, and what all browsers that look at it share."""

    name: str
    run: Run
    factory: EnvironmentFactory
    space: Box
    base: Any
    """The MuJoCo environment, whose model is drawn; it is closed. None for an environment that is not MuJoCo's."""
    goal_radius: float = REACHED
    """The distance from the goal that counts as success."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the run plans, so that plans of several browsers do not slow each other down."""

    @property
    def kind(self) -> str:
        """What the run is: "planner" or "policy"."""
        return self.run.NAME

    @property
    def maze(self) -> Maze | None:
        return self.factory.maze

    @property
    def dims(self) -> tuple[int, int]:
        """The entries of an observation that are drawn as x and y."""
        goal_dims = self.run.data.goal_dims
        if len(goal_dims) > 1:
            return goal_dims[0], goal_dims[1]
        return 0, min(1, self.run.data.obs_dim - 1)

    @property
    def has_goal(self) -> bool:
        return bool(self.run.data.goal_dims)

    @cached_property
    def planner(self) -> Planner:
        """The planner with its own settings, whose parts all other planners of this run share."""
        agent = of_kind(self.run, PlannerRun).agent(self.space)
        assert isinstance(agent, Planner)  # noqa: S101  as there is no deadline
        return agent

    @cached_property
    def walls(self) -> Blocks | None:
        """What plans keep out of where there are obstacles; None without a maze."""
        if self.maze is None:
            return None
        return Blocks(*self.maze.wall_boxes(), dims=self.dims, margin=MARGIN * self.maze.scaling)

    @cached_property
    def body(self) -> float:
        """The radius of the circle around its root that the body fits in, in the model's own posture."""
        from mujoco import MjData, mj_kinematics  # pyright: ignore[reportAttributeAccessIssue]

        model = self.base.model
        data = MjData(model)
        mj_kinematics(model, data)
        moving_N = model.body_weldid[model.geom_bodyid] > 0
        place_N2 = data.geom_xpos[moving_N, :2]
        return float((np.linalg.norm(place_N2 - place_N2[0], axis=1) + model.geom_rbound[moving_N]).max())

    @cached_property
    def free(self) -> tuple[np.ndarray, np.ndarray]:
        """low_K2 and high_K2 of the boxes in which the body touches no wall; together they are all free places."""
        if self.maze is None:
            return np.full((1, 2), -np.inf), np.full((1, 2), np.inf)
        low, high = self.maze.wall_boxes()
        return largest_free_boxes(low - self.body, high + self.body)

    def nearest_free(self, place_2: np.ndarray | Sequence[float]) -> np.ndarray:
        """The free place (2,) that is nearest to `place_2`."""
        inside_K2 = np.clip(place_2, *self.free)
        return inside_K2[np.linalg.norm(inside_K2 - place_2, axis=1).argmin()]


def load_runs(folders: Sequence[Path | str], backend: BackendName = "eager",
              device: torch.device | None = None) -> list[Loaded]:
    """Loads the runs of a studio, named by their folders, whose networks run in `backend`.

    Raises `NothingSaved` for a folder without a run, and ValueError for one that `ready` refuses.
    """
    runs = [load(folder, device=device) for folder in folders]
    names = short_names([run.folder for run in runs])
    return [ready(run, name, backend) for run, name in zip(runs, names, strict=True)]


def ready(run: Run, name: str = "", backend: BackendName = "eager") -> Loaded:
    """Makes a run ready for a studio; the networks of a planner run in `backend`.

    Raises ValueError for a world model, and for a run whose environment is not known.
    """
    from mujoco import MjModel  # pyright: ignore[reportAttributeAccessIssue]

    if isinstance(run, WorldModelRun):
        raise ValueError(f"{run.description}; the studio shows planners and policies, so see what a world model "
                         f"predicts with gentraj judge {run.folder} and gentraj report {run.folder}")
    if run.data.env is None:
        raise ValueError(f"{run.folder}: its data do not say which environment they come from, so the studio cannot "
                         "show it; train it with env=ID")
    factory = environment_factory(run.data.env)
    env = factory()
    env.close()  # the model stays in memory
    base = simulated(env.unwrapped)
    if not isinstance(getattr(base, "model", None), MjModel):
        base = None
    goal_radius = getattr(env.unwrapped, "goal_radius", REACHED)
    if isinstance(run, PlannerRun):
        run = accelerate(run, backend)
    return Loaded(name, run, factory, run.action_space(), base, goal_radius)


def alike(first: Loaded, second: Loaded) -> bool:
    """Whether two runs have the same environment and observations, so that they have starts and goals in common."""
    if first.run.data.obs_dim != second.run.data.obs_dim:
        return False
    if first.maze is None or second.maze is None:
        return first.factory.env_id == second.factory.env_id
    return first.maze.map == second.maze.map and first.maze.scaling == second.maze.scaling
