"""D4RL's AntMaze and Kitchen as environments of today, for policies that learned from D4RL's own files.

D4RL's own need MuJoCo 2.1 and the old gym. AntMaze needs the package ogbench, whose ant has the bodies, joints, forces
and time step of D4RL's; that of gymnasium-robotics is five times as strong, and its mazes are mirrored.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from .ogbench_envs import Around, InMaze, make_base, without_file

U_MAZE = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]])
GOAL_PLACES = {"umaze": (0.0, 8.0), "medium": (20.0, 20.0), "large": (32.0, 24.0)}
"""The centres of the goals' cells by the size of the maze; the ant starts at (0, 0)."""
TASKS = {"complete": ("microwave", "kettle", "light switch", "slide cabinet"),
         "partial": ("microwave", "kettle", "light switch", "slide cabinet"),
         "mixed": ("microwave", "kettle", "bottom burner", "light switch")}
"""What has to be done in the kitchen, by the kind of the data."""
OBSERVATION_NOISE = 0.1  # of an observation of D4RL's kitchen, as a share of what the robot's specification allows


class AntMaze(InMaze, Around):
    """D4RL's AntMaze: the reward is 1 at the goal, within 0.5, where the episode ends, and else 0.

    In each episode the goal is drawn in its cell, as in D4RL's environments of version 2. An observation (29,) holds
    positions and velocities, and not the goal.
    """

    def __init__(self, dataset_id: str, render_mode: str | None = None):
        self.render_mode, self.metadata = render_mode, {"render_modes": ["rgb_array"], "render_fps": 10}
        size = dataset_id.split("-")[1]
        self.centre, self.base = GOAL_PLACES[size], _maze(size, render_mode)
        self.action_space = Box(-1, 1, (8,), np.float32)
        self.observation_space = Box(-np.inf, np.inf, self.base.observation_space.shape, np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None):
        super().reset(seed=seed)
        self.base.action_space.seed(int(self.np_random.integers(2**31)))
        self.base.reset(seed=int(self.np_random.integers(2**31)), options={"task_id": 1})
        # D4RL adds up to a quarter of a cell of 4, and then up to an eighth.
        self.base.set_goal(goal_xy=self.centre + self.np_random.uniform(0, 1, 2) + self.np_random.uniform(0, 0.5, 2))
        self.base.set_xy(self.np_random.uniform(-0.1, 0.1, 2))
        return self.base.get_ob(), {"success": False}


class Kitchen(Around):
    """D4RL's kitchen: each of four tasks gives a reward of 1 when it is done first, and the episode ends after them.

    An observation (60,) holds the positions of the robot (9) and of the objects (21), with noise, and the goal (30).
    """

    def __init__(self, dataset_id: str, render_mode: str | None = None):
        from gymnasium_robotics.envs.franka_kitchen.kitchen_env import OBS_ELEMENT_GOALS, OBS_ELEMENT_INDICES

        self.render_mode, self.metadata = render_mode, {"render_modes": ["rgb_array"], "render_fps": 12}
        tasks = TASKS[dataset_id.split("-")[1]]
        self.base = gymnasium.make("FrankaKitchen-v1", tasks_to_complete=list(tasks), render_mode=render_mode,
                                   robot_noise_ratio=OBSERVATION_NOISE,
                                   object_noise_ratio=OBSERVATION_NOISE).unwrapped
        self.goal = np.zeros(30)
        for task in tasks:
            self.goal[OBS_ELEMENT_INDICES[task]] = OBS_ELEMENT_GOALS[task]
        self.action_space = Box(-1, 1, (9,), np.float32)
        self.observation_space = Box(-np.inf, np.inf, (60,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None):
        super().reset(seed=seed)
        obs, _ = self.base.reset(seed=int(self.np_random.integers(2**31)))
        return self._seen(obs), {"success": False}

    def step(self, action: np.ndarray):
        obs, reward, terminated, truncated, _ = self.base.step(action)
        return self._seen(obs), float(reward), bool(terminated), bool(truncated), {"success": bool(terminated)}

    def _seen(self, obs: dict[str, Any]) -> np.ndarray:
        return np.concatenate([obs["observation"][:9], obs["observation"][18:39], self.goal])


def _maze(size: str, render_mode: str | None) -> Any:
    """OGBench's ant in a maze of D4RL, whose walls OGBench has for the two larger ones."""
    known = make_base(f"antmaze-{'medium' if size == 'umaze' else size}-v0", add_noise_to_goal=False,
                      render_mode=render_mode)
    if size != "umaze":
        return known

    class UMaze(type(known)):
        def update_tree(self, tree: Any) -> None:
            self.maze_map = U_MAZE
            super().update_tree(tree)

    known.close()
    return without_file(UMaze(maze_type="medium", add_noise_to_goal=False, render_mode=render_mode))
