"""A training of a peer in a process of its own, and its scores when its budgets are spent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from platform import python_version
from typing import NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt

from gentraj.config import ConfigError, settings, to_json, write_json
from gentraj.data import Episodes, load_episodes
from gentraj.data.sources import split_names
from gentraj.envs.evaluation.scores import normalised
from gentraj.envs.evaluation.scoring import EvaluationConfig, score_agent
from gentraj.envs.making import EnvironmentFactory, ProtocolName, environment_factory
from gentraj.experiments.cards import Score, SeedResult
from gentraj.experiments.engine import PACKAGES, episode_scores
from gentraj.training.loop import freed_memory_kept

from .peer import Method, Peer, Task, TrainingDone, method, versions

FIRST = 10  # updates in which code may be compiled, which are not timed
MEASURED = 50  # updates that tell how many a budget of time has
UNKNOWN = 1_000_000  # updates of a training whose number is not known, for methods that do not use it


@settings
class Setting:
    """What methods learn from, for how long, and how they are scored."""

    data: str
    """As `gentraj train --dataset`, such as the path of a file in D4RL's layout."""
    env_id: str | None = None
    """Environment of the evaluations, such as Hopper-v5, if the data do not name it."""
    updates: PositiveInt | None = 10_000
    """Number of updates after which a method is scored; None for no such budget."""
    minutes: PositiveFloat | None = None
    """Core-minutes of updates after which a method is scored; None for no such budget. A method whose learning rates
    follow a schedule is trained once more for it."""
    episodes: PositiveInt = 20
    """Episodes of an evaluation, which start as those of `gentraj evaluate`; of each of the five tasks, for data of
    OGBench with goals."""
    checkouts: Path = Path("..")
    """The folder of the checkouts, each of which has the name of its repository."""
    like: str | None = None
    """The authors' dataset whose settings are taken, where they have settings for each; by default the one with the
    name of the data."""

    def __post_init__(self) -> None:
        if not self.budgets:
            raise ValueError("updates and minutes are None; give one of them, or both")

    @property
    def budgets(self) -> dict[str, float]:
        """What is given of `updates` and `minutes`."""
        given = {"updates": self.updates, "minutes": self.minutes}
        return {name: value for name, value in given.items() if value is not None}


class Contest:
    """The data and the evaluations of a setting. Raises `ConfigError` where the environment is unknown."""

    def __init__(self, setting: Setting):
        self.setting = setting
        self.data: Episodes = load_episodes(split_names(setting.data))
        env = setting.env_id or self.data.env
        if env is None:
            raise ConfigError(f"{setting.data}: does not name its environment; give --env-id")
        self.env = env
        self.protocol: ProtocolName = "random-goal"
        if self.data.goal_dims:
            self.protocol = "ogbench"
        self.factory: EnvironmentFactory = environment_factory(env, protocol=self.protocol)

    def task(self, chosen: Method, seed: int = 0, updates: int = 1) -> Task:
        """The task of a method. Raises `ConfigError` where its checkout is missing."""
        return Task(self.data, self.setting.data, self.env, seed, updates, chosen.checkout(self.setting.checkouts),
                    self.setting.like)

    @cached_property
    def score(self) -> Score:
        """Success where the data have goals, else D4RL's score where it is defined."""
        if self.data.goal_dims:
            return "success_rate"
        if normalised(0.0, self.factory)["score_d4rl"] is None:
            return "return_mean"
        return "score_d4rl"

    def check(self, peer: Peer) -> None:
        """Lets the agent act once, so that one that cannot fails before it is trained."""
        obs_BO = torch.from_numpy(self.data.obs[:3])
        goal_BG = None
        if self.data.goal_dims:
            goal_BG = obs_BO[:, list(self.data.goal_dims)]
        peer.reset(range(3))
        shape = tuple(peer.act(obs_BO, goal_BG).shape)
        if shape != (len(obs_BO), self.data.act_dim):
            raise ValueError(f"actions of shape {shape} came from a peer for {len(obs_BO)} observations; "
                             f"{(len(obs_BO), self.data.act_dim)} is expected")

    def evaluate(self, peer: Peer) -> tuple[tuple[float, ...], float]:
        """The scores of the episodes, and the median milliseconds of a decision for up to 25 of them at once."""
        how = EvaluationConfig(episodes=self.setting.episodes, protocol=self.protocol, baselines=False)
        found, _ = score_agent(peer, self.env, how, obs_keys=self.data.obs_keys, goal_dims=self.data.goal_dims,
                               progress=False)
        scores = episode_scores(self.score, found["returns"], found["successes"], self.factory)
        return tuple(scores), found["latency_ms_p50"]


class Budget(NamedTuple):
    """The updates or the CPU seconds after which a method is scored, whichever comes first."""

    updates: float = math.inf
    seconds: float = math.inf


class Training:
    """One training of a method, which is scored when each of its budgets is spent."""

    def __init__(self, name: str, contest: Contest, seed: int, updates: int):
        """`updates` is where a schedule of learning rates ends."""
        chosen = method(name)
        self.label = chosen.label
        self.contest = contest
        self.seed = seed
        self.peer = chosen.made(contest.task(chosen, seed, updates))
        self.versions = {"python": python_version()} | versions(" ".join([*PACKAGES, chosen.packages]))
        self.versions |= chosen.commit(contest.setting.checkouts)
        self.step = 0
        self.seconds = 0.0  # of all updates but the first, in which code may be compiled
        self.since = 0.0

    def run(self, is_done: Callable[[], bool]) -> None:
        """Counts updates and their CPU time until `is_done()`, which is called after each and whose time is not
        counted."""
        def after_update(updates: int = 1) -> None:
            if self.step == 0:
                self.contest.check(self.peer)
            self.step += updates
            if self.step > FIRST:
                self.seconds += time.process_time() - self.since
            if is_done():
                raise TrainingDone
            self.since = time.process_time()

        with suppress(TrainingDone), freed_memory_kept():  # as our trainings have it
            self.peer.train(after_update)

    def score(self, budgets: Mapping[Path, Budget]) -> None:
        """Trains until all budgets are spent, and writes the score after each to its place."""
        left = dict(budgets)

        def is_done() -> bool:
            for place, budget in budgets.items():
                if place in left and (self.step >= budget.updates or self.seconds >= budget.seconds):
                    write_json(place, to_json(self.scored()))
                    del left[place]
            return not left

        self.run(is_done)

    def pace(self) -> float:
        """CPU seconds of an update, measured by a few."""
        self.run(lambda: self.step >= FIRST + MEASURED)
        return self.seconds / (self.step - FIRST)

    def scored(self) -> SeedResult:
        """The scores now; the CPU time of the first updates is taken to be that of the others."""
        scores, decision_ms = self.contest.evaluate(self.peer)
        seconds = self.seconds * self.step / max(1, self.step - FIRST)
        return SeedResult(self.seed, self.label, self.step, "its own evaluation", scores, seconds, self.versions,
                          decision_ms=decision_ms)


def train(name: str, setting: Setting, seed: int, places: Mapping[str, Path]) -> None:
    """Trains a method until its budgets are spent, and writes the score after each to its place."""
    torch.set_num_threads(1)
    contest, scheduled = Contest(setting), method(name).scheduled
    budgets = dict[Path, Budget]()
    if "updates" in places:
        budgets[places["updates"]] = Budget(updates=setting.budgets["updates"])
    if "minutes" in places:
        seconds = 60 * setting.budgets["minutes"]
        budgets[places["minutes"]] = Budget(seconds=seconds)
        if scheduled:
            pace = Training(name, contest, seed, FIRST + MEASURED).pace()
            budgets[places["minutes"]] = Budget(updates=max(1, round(seconds / pace)))
    parts = [budgets]
    if scheduled:
        parts = [{place: budget} for place, budget in budgets.items()]
    for part in parts:
        longest = max(budget.updates for budget in part.values())
        updates = UNKNOWN if math.isinf(longest) else int(longest)
        Training(name, contest, seed, updates).score(part)
