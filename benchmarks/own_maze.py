"""Records data in a maze that no preset knows, 9 x 7 cells with loops, for `gentraj train pointmaze --dataset FILE`.

    python -m benchmarks.own_maze own-maze.npz
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gentraj.data import save_npz
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.pointmaze import record

MAZE = [
    "#########",
    "#...#...#",
    "#.#...#.#",
    "#.###.#.#",
    "#...#...#",
    "#.#...#.#",
    "#########"]


@dataclass(frozen=True)
class Args:
    file: Annotated[Path, tyro.conf.Positional]
    """The npz file to write."""
    steps: int = 500_000
    """Environment steps."""


def main(args: Args) -> None:
    maze_map = [[int(cell == "#") for cell in row] for row in MAZE]
    spec = json.loads(environment_factory("pointmaze-medium", {"maze_map": maze_map}).spec_json)
    spec["max_episode_steps"] = 10**6  # the controller goes on to the next goal, as in the recorded tasks
    save_npz(record(json.dumps(spec), args.steps), args.file)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
