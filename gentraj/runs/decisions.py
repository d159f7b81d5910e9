"""Distils whole decisions: a small network learns what a planner or a policy does, from episodes that it records.

In the first round the teacher acts. In each further one it takes turns with the student of the rounds before, and what
it does where the student has led is added to the data (DAgger: Ross et al. 2011, "A Reduction of Imitation Learning and
Structured Prediction to No-Regret Online Learning"). Rounds are saved in the run's folder before anything learns from
them, so a distillation that was killed reads its rounds again and goes on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from agents.policies.student import StudentConfig
from envs.evaluation.rollout import rollout
from envs.making import EnvironmentFactory, environment_factory

from ..config import read_json, require, to_json
from ..data import Episodes, save_npz
from ..data.episodes import take
from ..files import inside, write_file
from ..randomness import fold
from ..training.checkpoint import NothingSaved, has_checkpoints
from ..training.loop import TrainingConfig, check_same
from ..trajectory import Agent, TrajectorySpec
from .checks import check_fit
from .folder import Run, train
from .policy import PolicyRunConfig

TURNS = 10  # turns in a whole episode, on average
SETTINGS = "distillation.json"
STREAM = 0x64697374  # keeps the starts and goals of the rounds apart from those of evaluations with the same seed


@dataclass(frozen=True)
class DecisionConfig:
    """How a student learns the decisions of a run."""

    episodes: int = 200
    """Episodes that are recorded in each round."""
    rounds: int = 1
    """Rounds after the first, in which the student and the teacher act by turns."""
    num_envs: int = 50
    """Environments that run side by side while episodes are recorded."""
    policy: StudentConfig = field(default_factory=StudentConfig)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=6_000))

    def __post_init__(self) -> None:
        require(self, episodes=(1, 1e9), rounds=(0, 1e3), num_envs=(1, 1e5))

    def unused(self) -> dict[str, str]:
        return {"policy.goal_dims": "the teacher's data decide them"}


def distill(teacher: Run, config: DecisionConfig, folder: Path, *, env_id: str | None = None, resume: bool = False,
            device: torch.device | None = None, progress: bool = True) -> Run:
    """Records the decisions of `teacher` in the environment `env_id`, by default its own, and trains a student of them.

    The student is a policy's run in `folder`, whose dataset is the recorded rounds beside it. Raises ValueError for an
    unknown environment and for a folder that cannot hold the student; `ConfigError` where other settings were
    distilled there; `EnvironmentFault` for an error in the environment; and what `gentraj.runs.folder.train` raises.
    """
    folder, factory = folder.absolute(), environment_factory(teacher.environment(env_id))
    if "+" in str(folder):
        raise ValueError(f"{folder} has a '+' in its path, which separates the files of a dataset; give another folder")
    check_fit(teacher.data, factory.spec_json)
    _begin(folder, teacher, config, factory, resume)
    rounds = [inside(folder, f"decisions-{number}.npz") for number in range(config.rounds + 1)]
    recorder = _Recorder(teacher, config, factory, progress)
    for number, path in enumerate(rounds):
        if not path.exists():
            place = inside(folder, f"student-{number - 1}")
            student = _train(teacher, config, rounds[:number], place, device, progress) if number else None
            save_npz(recorder.record(number, student), path)
    return _train(teacher, config, rounds, folder, device, progress)


def _begin(folder: Path, teacher: Run, config: DecisionConfig, factory: EnvironmentFactory, resume: bool) -> None:
    """Writes what is distilled, or compares it with what was, if the distillation is resumed."""
    path, what = folder / SETTINGS, {"teacher": {"kind": teacher.config.summary, "step": teacher.step,
                                                 "dataset_hash": teacher.dataset_hash},
                                     "env": factory.spec_json} | to_json(config)
    if not resume and path.exists():
        raise ValueError(f"{folder} holds a distillation already; continue it with --resume, or give another folder")
    if resume and not path.exists():
        raise NothingSaved(f"{folder}: nothing distilled yet; leave --resume out")
    if resume:
        check_same(read_json(path), what, str(folder))
    write_file(path, json.dumps(what, indent=2).encode())


def _train(teacher: Run, config: DecisionConfig, rounds: Sequence[Path], folder: Path, device: torch.device | None,
           progress: bool) -> Run:
    """Trains a student of these rounds, or goes on with its training."""
    policy = replace(config.policy, goal_dims=teacher.data.goal_dims)
    settings = PolicyRunConfig("+".join(map(str, rounds)), stitch=False, policy=policy, training=config.training)
    return train(settings, folder, resume=has_checkpoints(folder), device=device, progress=progress)


class _Recorder:
    """Records rounds of decisions."""

    def __init__(self, teacher: Run, config: DecisionConfig, factory: EnvironmentFactory, progress: bool):
        self.teacher, self.config, self.factory, self.progress = teacher, config, factory, progress
        self.space = teacher.action_space(factory.spec_json)

    def record(self, number: int, student: Run | None) -> Episodes:
        """The decisions of the teacher in one round."""
        data, config, teacher = self.teacher.data, self.config, self.teacher.agent(self.space)
        agent = teacher
        if student is not None:
            agent = Turns(student.agent(self.space), teacher, max(1, self.factory.max_episode_steps // TURNS))
        played = rollout(agent, self.factory, config.episodes, fold(config.training.seed, STREAM, number),
                         config.num_envs, obs_keys=data.obs_keys, goal_dims=data.goal_dims, record=True,
                         progress=self.progress, name="teacher" if student is None else "student and teacher")
        recorded = cast(Episodes, played.recorded)
        return agent.taught(recorded, played.seeds) if isinstance(agent, Turns) else recorded


class Turns:
    """An `Agent` in which a student and its teacher act by turns, and which notes when the teacher acted.

    The teacher starts each turn anew, as at the beginning of an episode, from wherever the student has led: its actions
    then follow from a plan for this state. Who begins, and how many steps a turn takes, is random: 1 to 2 `length` - 1.
    An episode's seed determines both.
    """

    def __init__(self, student: Agent, teacher: Agent, length: int):
        self.student, self.teacher, self.length = student, teacher, length
        self.turns: list[_Turn] = []  # in each environment
        self.acted: dict[int, list[bool]] = {}  # whether the teacher acted, for each step of an episode, by its seed

    @property
    def spec(self) -> TrajectorySpec | None:
        return getattr(self.student, "spec", None)

    def reset(self, mask_B: Tensor | None = None, seeds_B: Sequence[int] | None = None) -> None:
        """Begins new episodes in the masked environments (all by default). Raises ValueError without seeds."""
        if seeds_B is None:
            raise ValueError("turns without seeds; reset with a seed for each environment")
        self.student.reset(mask_B, seeds_B)
        self.teacher.reset(mask_B, seeds_B)
        if len(self.turns) != len(seeds_B):
            self.turns = [_Turn.first(0) for _ in seeds_B]
        for i in range(len(seeds_B)) if mask_B is None else mask_B.nonzero().flatten().tolist():
            self.turns[i] = _Turn.first(int(seeds_B[i]))
            self.acted.setdefault(int(seeds_B[i]), self.turns[i].acted)  # an idle environment repeats an episode

    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        begins_B = torch.tensor([turn.step(self.length) for turn in self.turns])
        if begins_B.any():
            self.teacher.reset(begins_B, [turn.seed for turn in self.turns])
        taught_B = torch.tensor([turn.teacher for turn in self.turns])
        return torch.where(taught_B[:, None], self.teacher.act(obs_BO, goal_BG), self.student.act(obs_BO, goal_BG))

    def taught(self, played: Episodes, seeds: Sequence[int]) -> Episodes:
        """The turns of the teacher, each as an episode."""
        turns = []
        for e, (seed, length) in enumerate(zip(seeds, played.lengths, strict=True)):
            changes = np.flatnonzero(np.diff(np.pad(np.array(self.acted[seed][:length], int), 1)))
            turns += [(e, int(first), int(end)) for first, end in changes.reshape(-1, 2)]
        return take(played, turns)


@dataclass
class _Turn:
    """Whose turn it is in one environment, and for how many steps more."""

    rng: np.random.Generator
    teacher: bool
    left: int = 0
    seed: int = 0
    acted: list[bool] = field(default_factory=list)

    @classmethod
    def first(cls, seed: int) -> _Turn:
        rng = np.random.default_rng([seed, STREAM])
        return cls(rng, bool(rng.integers(2)))

    def step(self, length: int) -> bool:
        """Counts a step; returns whether a turn of the teacher begins with it."""
        begins = self.left == 0
        if begins:
            self.teacher, self.left = not self.teacher, int(self.rng.integers(1, 2 * length))
            self.seed = int(self.rng.integers(2**62))
        self.left -= 1
        self.acted.append(self.teacher)
        return begins and self.teacher
