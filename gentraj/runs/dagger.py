"""DAgger: a small network, the student, learns the decisions of a planner or a policy from recorded episodes.

Ross et al. 2011, "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online Learning" (arXiv
1011.0686). In the first round the teacher acts. In each further one it takes turns with the student of the rounds
before, and what it does where the student has led is added to the data.

Rounds are saved in the run's folder before anything learns from them, so a distillation that was killed reads its
rounds again and goes on. A round does not depend on how many follow, so a distillation that is resumed with more rounds
ends as one that had as many from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from gentraj.agents.planning.planner_config import PlannerConfig
from gentraj.agents.policies.student import StudentConfig
from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.making import EnvironmentFactory, environment_factory

from ..config import read_json, settings, to_json, write_json
from ..data import Episodes, save_npz
from ..data.sources import split_names
from ..data.splitting import take
from ..progress import say
from ..randomness import fold
from ..training.checkpoint import NothingSaved, discard, has_checkpoints
from ..training.loop import TrainingConfig, check_same
from ..trajectory import Agent, TrajectorySpec
from .folder import RunFolder
from .planner import PlannerRun
from .policy import PolicyRunConfig
from .run import Run, environment_of
from .training import check_fit, train

TURNS_PER_EPISODE = 10  # on average, in a whole episode
NEW_GOAL_PROB = 0.5  # share of the student's turns, or of the teacher's without one, that begin with another goal
REPLAN_FACTOR = 3  # times as long as usual that a plan is followed while episodes are recorded
SETTINGS = "distillation.json"
STREAM = 0x64697374  # keeps the starts and goals of the rounds apart from those of evaluations with the same seed


@settings
class DecisionConfig:
    """How a student learns the decisions of a run."""

    episodes: PositiveInt = 300
    """Episodes that are recorded in each round."""
    rounds: NonNegativeInt = 5
    """Rounds after the first, in which the student and the teacher act by turns. The student that acts in a round is
    trained for a quarter of the steps."""
    num_envs: PositiveInt = 50
    """Environments that run side by side while episodes are recorded."""
    replan: NonNegativeInt = 0
    """Environment steps for which a planner follows each plan while episodes are recorded. Fewer plans take less time.
    The default (0) is three times as many as in an evaluation, but at most up to the plan's end; a planner that plans
    anew in every step goes on to do so."""
    temperature: NonNegativeFloat | None = None
    """Scale of the noise that a planner's plans are sampled from while episodes are recorded. The default is 0, where
    the plan for a state does not depend on the seed, so that the student has less to learn. A planner that selects the
    plan of the highest value keeps its own temperature by default, as all its candidates are the same at 0. It does not
    affect a teacher that is a policy or a world model."""
    policy: StudentConfig = field(default_factory=StudentConfig)
    """The network of the student, and how the student acts."""
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=40_000))
    """The training of the student on all rounds."""


def distill(teacher: Run, config: DecisionConfig, folder: Path, *, env_id: str | None = None, resume: bool = False,
            device: torch.device | None = None, progress: bool = True) -> Run:
    """Records the decisions of `teacher` in the environment `env_id`, by default its own, and trains a student of them.

    A resumed distillation may have more rounds than before; the student of fewer is kept until they are recorded. The
    student is a policy's run in `folder`, whose dataset is the recorded rounds beside it. Raises ValueError for an
    unknown environment and for a folder that cannot hold the student; `ConfigError` where other settings were
    distilled there; `EnvironmentFault` for an error in the environment; and what `gentraj.runs.training.train` raises.
    """
    folder = folder.absolute()
    factory = environment_factory(environment_of(teacher, env_id))
    check_fit(teacher.data, factory.spec_json)
    if config.temperature is None:
        config = replace(config, temperature=recording_temperature(planning_of(teacher)))
    _begin(folder, teacher, config, factory, resume)
    rounds = [folder / f"decisions-{number}.npz" for number in range(config.rounds + 1)]
    brief = replace(config, training=replace(config.training, steps=-(-config.training.steps // 4)))
    recorder = _Recorder(teacher, config, factory, progress)
    for number, path in enumerate(rounds):
        if path.exists():
            continue
        student = None
        if number:
            place = folder / f"student-{number - 1}"
            student = _train(teacher, brief, rounds[:number], place, device, progress)
        save_npz(recorder.record(number, student), path)
    _make_way(folder, len(rounds))
    return _train(teacher, config, rounds, folder, device, progress)


def _begin(folder: Path, teacher: Run, config: DecisionConfig, factory: EnvironmentFactory, resume: bool) -> None:
    """Writes what is distilled, or compares it with what was, if the distillation is resumed."""
    path = folder / SETTINGS
    of_teacher = {"kind": teacher.summary, "step": teacher.step, "dataset_hash": teacher.dataset_hash}
    what = {"teacher": of_teacher, "env": factory.spec_json} | to_json(config)
    if not resume and path.exists():
        raise ValueError(f"{folder} holds a distillation already; continue it with --resume, or give another folder")
    if resume and not path.exists():
        raise NothingSaved(f"{folder}: nothing distilled yet; leave --resume out")
    if resume:
        before = read_json(path)
        if before.get("rounds", config.rounds) < config.rounds:  # there may be more of them
            before["rounds"] = config.rounds
        check_same(before, what, str(folder))
    write_json(path, what)


def _make_way(folder: Path, rounds: int) -> None:
    """Deletes the checkpoints and the scores of a student that was trained on fewer rounds."""
    if has_checkpoints(folder) and len(split_names(RunFolder(folder).read().run.dataset)) < rounds:
        say(f"{rounds} rounds are recorded; a student of all of them takes the place of the one in {folder}")
        (folder / RunFolder.EVALUATION).unlink(missing_ok=True)
        discard(folder)


def _train(teacher: Run, config: DecisionConfig, rounds: Sequence[Path], folder: Path, device: torch.device | None,
           progress: bool) -> Run:
    """Trains a student of these rounds, or goes on with its training."""
    sample = config.policy.sample or follows(planning_of(teacher))
    policy = replace(config.policy, goal_dims=teacher.data.goal_dims, sample=sample)
    settings = PolicyRunConfig("+".join(map(str, rounds)), stitch=False, policy=policy, training=config.training)
    return train(settings, folder, resume=has_checkpoints(folder), device=device, progress=progress)


def planning_of(run: Run) -> PlannerConfig | None:
    """The settings of a planner; None for a run that plans no trajectories."""
    if isinstance(run, PlannerRun):
        return run.planning
    return None


def follows(planning: PlannerConfig | None) -> bool:
    """Whether an agent is a planner that follows each plan for several steps, and does not plan anew in every step."""
    return planning is not None and planning.replan > 1


def recording_temperature(planning: PlannerConfig | None) -> float:
    """The temperature at which a teacher's plans are recorded by default: see `DecisionConfig.temperature`."""
    if planning is not None and planning.select == "value":
        return planning.temperature
    return 0.0


class _Recorder:
    """Records rounds of decisions."""

    def __init__(self, teacher: Run, config: DecisionConfig, factory: EnvironmentFactory, progress: bool):
        self.teacher = teacher
        self.config = config
        self.factory = factory
        self.progress = progress
        self.space = teacher.action_space(factory.spec_json)

    def record(self, number: int, student: Run | None) -> Episodes:
        """The decisions of the teacher in one round.

        Where the student ends every episode before the teacher's turn, all is played again with turns of half the
        length. Raises ValueError where even turns of one step are too long.
        """
        data, config = self.teacher.data, self.config
        seed = fold(config.training.seed, STREAM, number)
        goals_NG = self._goals(fold(seed, STREAM))
        length = max(1, self.factory.max_episode_steps // TURNS_PER_EPISODE)
        while length:
            agent = MixedRollout(None, self._teacher(), length, goals_NG, seed)
            how = RolloutSettings(config.num_envs, obs_keys=data.obs_keys, goal_dims=data.goal_dims, name="teacher")
            if student is not None:
                agent.student = student.agent(self.space)
                how = replace(how, name="student and teacher")
            played = rollout(agent, self.factory, config.episodes, seed, how, record=True, progress=self.progress)
            taught = agent.taught(cast(Episodes, played.recorded), played.seeds)
            if taught is not None:
                return taught
            length //= 2
            say(f"round {number}: the student ended all episodes before its teacher's turn; shorter turns are played")
        raise ValueError(f"round {number}: all episodes end after one step, in which the student acts, so its teacher "
                         "never does; distil without further rounds (--rounds 0)")

    def _teacher(self) -> Agent:
        """The teacher. A planner follows its plans for longer than usual, and samples them with `temperature`."""
        planning, replan = planning_of(self.teacher), self.config.replan
        if planning is None:
            return self.teacher.agent(self.space)
        if not replan and follows(planning):
            whole = self.teacher.model.spec.times[-1 - planning.history] - planning.lookahead
            replan = max(planning.replan, min(REPLAN_FACTOR * planning.replan, whole))
        temperature = cast(float, self.config.temperature)  # `distill` has settled it
        return self.teacher.agent(self.space, replace(planning, replan=replan or 1, temperature=temperature))

    def _goals(self, seed: int) -> Tensor | None:
        """(N, G) the goals of as many other episodes as are recorded; None in an environment without goals."""
        envs = VectorEnvironment(self.factory, 1, self.teacher.data.obs_keys)
        goals = []
        for episode in range(self.config.episodes):
            if not envs.has_goal:
                break
            envs.reset(np.ones(1, bool), [fold(seed, episode)])
            if envs.goal_BG is not None:
                goals.append(torch.from_numpy(envs.goal_BG))
        envs.close()
        if not goals:
            return None
        return torch.cat(goals)


class MixedRollout(Agent):
    """An `Agent` in which a student and its teacher act by turns, and which notes when the teacher acted.

    The teacher starts each turn anew, as at the beginning of an episode, from wherever the student has led: its actions
    then follow from a plan for this state. The student begins. Without one, all turns are the teacher's. A turn takes 1
    to 2 `length` - 1 steps, at random. `seed` determines when turns end, at the same steps of every episode, so that
    nothing is planned while the student acts in all environments.

    Half of the student's turns begin with another goal, one of `goals_NG`, as an agent that has reached its goal does
    nothing new any more; the teacher keeps the student's goal. An episode's seed determines its goals.
    """

    def __init__(self, student: Agent | None, teacher: Agent, length: int, goals_NG: Tensor | None = None,
                 seed: int = 0):
        self.student = student
        self.teacher = teacher
        self.length = length
        self.goals_NG = goals_NG
        self.seed = seed
        self.episodes: list[_Episode] = []  # in each environment
        self.turns: dict[int, list[_Turn]] = {}  # of each episode, by its seed

    @property
    def spec(self) -> TrajectorySpec | None:
        return getattr(self.teacher, "spec", None)

    def reset(self, mask_B: Tensor | None = None, seeds_B: Sequence[int] | None = None) -> None:
        """Begins new episodes in the masked environments (all by default). Raises ValueError without seeds."""
        if seeds_B is None:
            raise ValueError("turns without seeds; reset with a seed for each environment")
        for agent in self.agents:
            agent.reset(mask_B, seeds_B)
        if len(self.episodes) != len(seeds_B):
            self.episodes = [_Episode(0, self.seed) for _ in seeds_B]
        for i in range(len(seeds_B)) if mask_B is None else mask_B.nonzero().flatten().tolist():
            self.episodes[i] = _Episode(int(seeds_B[i]), self.seed)
            self.turns.setdefault(int(seeds_B[i]), self.episodes[i].turns)  # an idle environment repeats an episode

    @property
    def agents(self) -> list[Agent]:
        if self.student is None:
            return [self.teacher]
        return [self.teacher, self.student]

    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        turns = [episode.step(self.length, self.student is not None, self.goals_NG) for episode in self.episodes]
        begins_B = torch.tensor([turn.steps == 1 for turn in turns])
        if goal_BG is not None:
            goal_BG = torch.stack([goal_G if turn.goal_G is None else turn.goal_G
                                   for turn, goal_G in zip(turns, goal_BG, strict=True)])
        if begins_B.any():
            for agent in self.agents:
                agent.reset(begins_B, [turn.seed for turn in turns])
        taught_B = torch.tensor([turn.teacher for turn in turns])
        if self.student is None or taught_B.all():
            return self.teacher.act(obs_BO, goal_BG)
        act_BA = self.student.act(obs_BO, goal_BG)
        if not taught_B.any():
            return act_BA
        return torch.where(taught_B[:, None], self.teacher.act(obs_BO, goal_BG), act_BA)

    def taught(self, played: Episodes, seeds: Sequence[int]) -> Episodes | None:
        """The turns of the teacher, each as an episode, with the goals that it was given; None if it had no turn."""
        pieces, turns = [], []
        for e, (seed, length) in enumerate(zip(seeds, played.lengths.tolist(), strict=True)):
            end = 0
            for turn in self.turns[seed]:
                start, end = end, min(end + turn.steps, length)  # turns are counted on after the end of the episode
                if turn.teacher and start < end:
                    pieces.append((e, start, end))
                    turns.append(turn)
        if not pieces:
            return None
        taught = take(played, pieces)
        for e, turn in enumerate(turns):
            if turn.goal_G is not None:
                taught[e].extras["goal"][:] = turn.goal_G
        return taught


@dataclass(eq=False)
class _Turn:
    """Who acts, towards which goal (None: the environment's own), and for how many steps so far."""

    teacher: bool
    seed: int
    goal_G: Tensor | None = None
    steps: int = 0


class _Episode:
    """The turns of one episode: a function of its seed, and of the seed of their lengths."""

    def __init__(self, seed: int, seed_of_lengths: int):
        self.rng = np.random.default_rng([seed, STREAM])
        self.lengths = np.random.default_rng(seed_of_lengths)
        self.turns: list[_Turn] = []
        self.last = _Turn(True, seed)
        self.left = 0

    def step(self, length: int, by_turns: bool, goals_NG: Tensor | None) -> _Turn:
        """Counts a step; returns the turn that it belongs to. Where a turn would change nothing, the last one goes
        on."""
        if self.left == 0:
            self.left = int(self.lengths.integers(1, 2 * length))
            goal_G = self.last.goal_G
            if goals_NG is not None and self.last.teacher and self.rng.random() < NEW_GOAL_PROB:
                goal_G = goals_NG[self.rng.integers(len(goals_NG))]
            if by_turns or not self.turns or goal_G is not self.last.goal_G:
                self.last = _Turn(not by_turns or not self.last.teacher, int(self.rng.integers(2**62)), goal_G)
                self.turns.append(self.last)
        self.left -= 1
        self.last.steps += 1
        return self.last
