"""In which plane the trajectories of a run are drawn, if in any, and what their entries are called."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from gentraj.envs.making import recorded_factory
from gentraj.envs.tasks.maze import draw_maze

from ...entries import entry_word
from ...plots.figures import plot_samples_beside_data
from ...plots.signals import Signals, plot_signals, windows_of_data
from ...plots.style import Floor, colours
from ...trajectory import TrajectorySpec
from ..kinds.run import DataFacts

WINDOWS = 12  # trajectories that are drawn over time, where more would hide each other


def entry_names(data: DataFacts) -> list[str]:
    """The names of the entries of an observation, and behind them those of an action."""
    return [*(entry_word("observation", o, data.obs_names) for o in range(data.obs_dim)),
            *(entry_word("action", a, data.act_names) for a in range(data.act_dim))]


def floor_of(data: DataFacts) -> Floor | None:
    """The floor of the maze, or the plane of the first two entries of a goal; None where there is neither, and
    trajectories are drawn over time."""
    factory = recorded_factory(data.env)
    maze = factory.maze if factory else None
    dims = 0, 1
    if len(data.goal_dims) > 1:
        dims = data.goal_dims[0], data.goal_dims[1]
    if maze is not None:
        return Floor(partial(draw_maze, maze=maze), dims)
    if len(data.goal_dims) < 2:
        return None
    names = entry_names(data)
    return Floor(None, dims, (names[dims[0]], names[dims[1]]))


def draw_samples(data: DataFacts, spec: TrajectorySpec, samples: Mapping[str, np.ndarray], data_NHD: np.ndarray,
                 path: Path) -> Path:
    """Draws trajectories (N, H, D) of models, by their names, beside windows of data: in the plane, or over time."""
    floor = floor_of(data)
    if floor is not None:
        places = {name: floor.places(x_NHD) for name, x_NHD in samples.items()}
        return plot_samples_beside_data(places, floor.places(data_NHD), path, floor)
    step_H = np.array(spec.times)
    signals = [Signals(name, step_H, x_NHD[:WINDOWS], colour, 0.8)
               for (name, x_NHD), colour in zip(samples.items(), colours(len(samples)), strict=True)]
    names = entry_names(data)[: spec.dim]
    return plot_signals([windows_of_data(step_H, data_NHD[:WINDOWS]), *signals], names, path, "Samples and data")
