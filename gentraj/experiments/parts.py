"""The episodes of an evaluation, split by their seeds over the jobs of a pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gentraj.envs.evaluation.rollout import DEFAULT_SETTINGS, Rollout, RolloutSettings, join, rollout

from ..data.npz import load_npz, open_npz, save_npz
from ..files import new_file
from ..trajectory import Agent
from .processes import Job, Pool, run_jobs

EPISODES, NUMBERS = "episodes.npz", "numbers.npz"


class ShardedRollout:
    """Plays episodes as `rollout` does, in as many parts as a pool runs jobs at a time.

    `pool_of` makes the pool for jobs that write into a folder, which is made in `folder` and removed afterwards. An
    episode is a function of its own seed, so the result is the same as in one process with one thread, but for the
    decisions' times. The agent is sent to the jobs.
    """

    def __init__(self, pool_of: Callable[[Path], Pool], folder: Path):
        self.pool_of, self.folder = pool_of, folder

    def __call__(self, agent: Agent, make_env: Callable[[], Any], episodes: int, seed: int = 0,
                 settings: RolloutSettings = DEFAULT_SETTINGS, *, record: bool = False, progress: bool = True,
                 watch: None = None) -> Rollout:
        """Raises RuntimeError if a part fails, as where an environment is faulty."""
        with TemporaryDirectory(dir=self.folder, prefix=".parts-") as made:
            pool, jobs, places = self.pool_of(Path(made)), [], []
            size = -(-episodes // pool.number)
            for first in range(0, episodes, size):
                last = min(first + size, episodes)
                places.append(place := Path(made).resolve() / str(first))
                arguments = (place, agent, make_env, last - first, seed, replace(settings, first=first), record)
                what = f"{settings.name}, episodes {first} to {last - 1}"
                jobs.append(Job(what, play_part, arguments, lambda: "done"))
            run_jobs(jobs, pool)
            lacking = [place for place in places if not (place / NUMBERS).is_file()]
            if lacking:
                raise RuntimeError(f"{len(lacking)} of {len(jobs)} parts of the evaluation failed; without --ray, the "
                                   "episodes that finish are scored")
            return join([load_part(place) for place in places])


def play_part(place: Path, agent: Agent, make_env: Callable[[], Any], episodes: int, seed: int,
              settings: RolloutSettings, record: bool) -> None:
    """Plays some of the episodes, and stores them in the folder `place`."""
    save_part(rollout(agent, make_env, episodes, seed, settings, record=record, progress=False), place)


def save_part(played: Rollout, place: Path) -> None:
    """Stores a rollout in a folder, as npz without objects."""
    if played.recorded is not None:
        save_npz(played.recorded, place / EPISODES)
    found = {field.name: getattr(played, field.name) for field in fields(played) if field.name != "recorded"}
    members: dict[str, Any] = {key: np.asarray(value) for key, value in found.items() if value is not None}
    with new_file(place / NUMBERS) as file:
        np.savez(file, **members)


def load_part(place: Path) -> Rollout:
    """The rollout that `save_part` stored in the folder."""
    found: dict[str, Any] = {key: value if value.ndim else value.item()
                             for key, value in open_npz(place / NUMBERS).items()}
    found |= {"seeds": found["seeds"].tolist(), "faults": tuple(found["faults"].tolist()),
              "network_calls": found.get("network_calls")}
    if (place / EPISODES).is_file():
        found["recorded"] = replace(load_npz(place / EPISODES), name=f"rollout in {found['env_id']}")
    return Rollout(**found)
