"""Distils whole decisions: a small network learns what a planner or a policy does, from episodes that it records.

In the first round the teacher acts. In each further one the student of the rounds before acts, and the teacher says
what it would have done in the states that the student reaches (DAgger: Ross et al. 2011, "A Reduction of Imitation
Learning and Structured Prediction to No-Regret Online Learning"). Rounds are saved in the run's folder before anything
learns from them, so a distillation that was killed reads its rounds again and goes on.
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
from ..files import write_file
from ..randomness import fold
from ..training.checkpoint import NothingSaved, has_checkpoints
from ..training.loop import TrainingConfig, check_same
from ..trajectory import Agent, TrajectorySpec
from .checks import check_fit
from .folder import Run, train
from .policy import PolicyRunConfig

SETTINGS = "distillation.json"
STREAM = 0x64697374  # keeps the starts and goals of the rounds apart from those of evaluations with the same seed


@dataclass(frozen=True)
class DecisionConfig:
    """How a student learns the decisions of a run."""

    episodes: int = 200
    """Episodes that are recorded in each round."""
    rounds: int = 1
    """Rounds after the first, in which the student acts and the teacher says what it would have done."""
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
    rounds = [folder / f"decisions-{number}.npz" for number in range(config.rounds + 1)]
    recorder = _Recorder(teacher, config, factory, progress)
    student: Run | None = None
    for number, path in enumerate(rounds):
        if not path.exists():
            save_npz(recorder.record(number, student), path)
        place = folder if number == config.rounds else folder / f"student-{number}"
        student = _train(teacher, config, rounds[: number + 1], place, device, progress)
    return cast(Run, student)


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
        """The episodes of one round, with the teacher's actions whoever acted."""
        data, config, teacher = self.teacher.data, self.config, self.teacher.agent(self.space)
        agent = teacher if student is None else Labelled(student.agent(self.space), teacher)
        played = rollout(agent, self.factory, config.episodes, fold(config.training.seed, STREAM, number),
                         config.num_envs, obs_keys=data.obs_keys, goal_dims=data.goal_dims, record=True,
                         progress=self.progress, name="teacher" if student is None else "student, with its teacher,")
        recorded = cast(Episodes, played.recorded)
        return agent.labelled(recorded, played.seeds) if isinstance(agent, Labelled) else recorded


class Labelled:
    """An `Agent` that acts as one agent does, and notes what another one, the teacher, would have done."""

    def __init__(self, agent: Agent, teacher: Agent):
        self.agent, self.teacher = agent, teacher
        self.labels: dict[int, list[np.ndarray]] = {}  # the teacher's actions in each episode, by the episode's seed
        self.current: list[list[np.ndarray]] = []  # those of the episode in each environment

    @property
    def spec(self) -> TrajectorySpec | None:
        return getattr(self.agent, "spec", None)

    def reset(self, mask_B: Tensor | None = None, seeds_B: Sequence[int] | None = None) -> None:
        """Begins new episodes in the masked environments (all by default). Raises ValueError without seeds."""
        if seeds_B is None:
            raise ValueError("labels without seeds; reset with a seed for each environment")
        self.agent.reset(mask_B, seeds_B)
        self.teacher.reset(mask_B, seeds_B)
        if len(self.current) != len(seeds_B):
            self.current = [[] for _ in seeds_B]
        for i in range(len(seeds_B)) if mask_B is None else mask_B.nonzero().flatten().tolist():
            self.current[i] = []
            self.labels.setdefault(int(seeds_B[i]), self.current[i])  # an idle environment repeats an episode

    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        for labels, act_A in zip(self.current, self.teacher.act(obs_BO, goal_BG).numpy(), strict=True):
            labels.append(act_A)
        return self.agent.act(obs_BO, goal_BG)

    def labelled(self, played: Episodes, seeds: Sequence[int]) -> Episodes:
        """The episodes with the teacher's actions in the place of those that were carried out."""
        pairs = zip(seeds, played.lengths, strict=True)
        return replace(played, act=np.concatenate([self.labels[seed][:length] for seed, length in pairs]))
