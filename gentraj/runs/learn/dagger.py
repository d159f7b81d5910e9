"""DAgger: a small network, the student, learns the decisions of a planner or a policy from recorded episodes.

Ross et al. 2011, "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online Learning" (arXiv
1011.0686). In the first round the teacher acts. In each further one it takes turns with the student of the rounds
before, and what it does where the student has led is added to the data.

Rounds are saved in the run's folder before anything learns from them, so a distillation that was killed reads its
rounds again and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from gymnasium.spaces import Box
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from gentraj.agents.policies.student import StudentConfig
from gentraj.agents.roadmap.far_goals import roadmap_of_tensors
from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.making import EnvironmentFactory, environment_factory

from ...config import read_json, settings, to_json, write_json
from ...data import Episodes, save_npz
from ...data.sources import resolve_paths
from ...data.splitting import take
from ...progress import say
from ...randomness import fold
from ...training.checkpoint import NothingSaved, has_checkpoints
from ...training.loop import TrainingConfig, check_same
from ...trajectory import Agent, TrajectorySpec
from ..kinds.folder import RunFolder
from ..kinds.planner_run import PlannerRun
from ..kinds.policy_run import PolicyRun, PolicyRunConfig
from ..kinds.run import Run, ahead_of, environment_of, straight
from .training import RunTrainer, check_fit, prepare, training_data

TURNS_PER_EPISODE = 10  # on average, in a whole episode
NEW_GOAL_PROB = 0.5  # share of the student's turns, or of the teacher's without one, that begin with another goal
REPLAN_FACTOR = 3  # times as long as usual that a plan is followed while episodes are recorded
SETTINGS = "distillation.json"
ROUND_STREAM = 0x64697374  # keeps the starts and goals of the rounds apart from those of evaluations with the same seed


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
    policy: StudentConfig = field(default_factory=StudentConfig)
    """The network of the student, and how the student acts."""
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=40_000))
    """The training of the student on all rounds."""


def distill_decisions(teacher: Run, config: DecisionConfig, folder: Path, *, env_id: str | None = None,
                      resume: bool = False, device: torch.device | None = None, progress: bool = True) -> Run:
    """Records the decisions of `teacher` in the environment `env_id`, by default its own, and trains a student of them.

    The student is a policy's run in `folder`, whose dataset is the recorded rounds beside it. Raises ValueError for an
    unknown environment and for a folder that cannot hold the student; `ConfigError` where other settings were
    distilled there; `EnvironmentFault` for an error in the environment; and what `gentraj.train` raises.
    """
    folder = folder.absolute()
    factory = environment_factory(environment_of(teacher, env_id))
    check_fit(teacher.data, factory.spec_json)
    _begin(folder, teacher, config, factory, resume)
    brief = replace(config, training=replace(config.training, steps=-(-config.training.steps // 4)))
    rounds = list[Path]()
    for number in range(config.rounds + 1):
        path, student = folder / f"decisions-{number}.npz", None
        if rounds and not path.exists():
            student = _train(teacher, brief, rounds, folder / f"student-{number - 1}", device, progress)
        if not path.exists():
            save_npz(_record(teacher, student, config, factory, number, progress), path)
        rounds.append(path)
    return _train(teacher, config, rounds, folder, device, progress)


def _begin(folder: Path, teacher: Run, config: DecisionConfig, factory: EnvironmentFactory, resume: bool) -> None:
    """Writes what is distilled, or compares it with what was, if the distillation is resumed."""
    path = folder / SETTINGS
    of_teacher = {"kind": teacher.summary, "step": teacher.step, "dataset_hash": teacher.dataset_hash}
    what = {"teacher": of_teacher, "env": factory.spec_json} | to_json(config)
    if not resume and path.exists():
        raise ValueError(f"{folder} holds a distillation already; continue it with resume=True, or give another folder")
    if resume and not path.exists():
        raise NothingSaved(f"{folder}: nothing distilled yet; leave resume= out")
    if resume:
        check_same(read_json(path), what, str(folder))
    write_json(path, what)


def _train(teacher: Run, config: DecisionConfig, rounds: Sequence[Path], folder: Path, device: torch.device | None,
           progress: bool) -> Run:
    """Trains a student of these rounds, or goes on with its training."""
    follows = isinstance(teacher, PlannerRun) and teacher.planning.replan > 1
    policy = replace(config.policy, goal_dims=teacher.data.goal_dims, sample=config.policy.sample or follows)
    spec = teacher.main.spec
    recorded = resolve_paths("+".join(map(str, rounds)), folder)
    settings = PolicyRunConfig(recorded, stitch=False, policy=policy, training=config.training, roadmap=teacher.roadmap,
                               history=spec.history, past_actions=spec.past_actions)
    resume = has_checkpoints(folder)
    student, parts = prepare(settings, check=not resume)
    student.kept = teacher.kept
    trainer = RunTrainer(student, training_data(student, parts), RunFolder(folder), device=device, progress=progress)
    return trainer.trained(resume)


def _record(teacher: Run, student: Run | None, config: DecisionConfig, factory: EnvironmentFactory, number: int,
            progress: bool) -> Episodes:
    """The decisions of the teacher in one round.

    Where the student ends every episode before the teacher's turn, all is played again with turns of half the length.
    Raises ValueError where even turns of one step are too long.
    """
    data, space = teacher.data, teacher.action_space(factory.spec_json)
    seed, steps = fold(config.training.seed, ROUND_STREAM, number), factory.max_episode_steps
    goals_NG = _goals(teacher, factory, config.episodes, fold(seed, ROUND_STREAM))
    legs = Legs.of(teacher)
    how = RolloutSettings(config.num_envs, obs_keys=data.obs_keys, goal_dims=data.goal_dims,
                          name="teacher" if student is None else "student and teacher")
    length = max(1, steps // TURNS_PER_EPISODE)
    while length:
        acting = None if student is None else student.agent(space)
        if acting is not None:
            acting.leave_data()  # it is meant to leave its data, from where the teacher takes it back
        agent = MixedRollout(acting, _recorded_agent(straight(teacher), space), length, steps, goals_NG, seed, legs)
        played = rollout(agent, factory, config.episodes, seed, how, record=True, progress=progress)
        assert played.recorded is not None  # noqa: S101  as asked for
        taught = agent.taught(played.recorded, played.seeds)
        if taught is not None:
            return taught
        length //= 2
        say(f"round {number}: the student ended all episodes before its teacher's turn; shorter turns are played")
    raise ValueError(f"round {number}: all episodes end after one step, in which the student acts, so its teacher "
                     "never does; distil without further rounds, rounds=0")


def _recorded_agent(teacher: Run, space: Box) -> Agent:
    """The teacher. A planner that follows its plans does so for longer than usual, as fewer plans take less time.

    A planner samples at temperature 0, where the plan for a state does not depend on the seed, so that the student has
    less to learn, unless it selects a plan by its value: its candidates would all be the same.
    """
    if not isinstance(teacher, PlannerRun):
        return teacher.agent(space)
    planning = teacher.planning
    if planning.replan > 1:
        whole = int(teacher.model.spec.times[-1] / planning.pace) - planning.lookahead
        planning = replace(planning, replan=max(planning.replan, min(REPLAN_FACTOR * planning.replan, whole)))
    if planning.select != "value":
        planning = replace(planning, temperature=0.0)
    return teacher.agent(space, planning)


def _goals(teacher: Run, factory: EnvironmentFactory, number: int, seed: int) -> Tensor | None:
    """(N, G) the goals of so many other episodes, or so many places of the roadmap if there is one; None in an
    environment without goals."""
    if teacher.roadmap is not None:
        place_PG = roadmap_of_tensors(teacher.kept).core_PG
        return torch.as_tensor(place_PG[np.random.default_rng(seed).integers(len(place_PG), size=number)])
    envs, goals = VectorEnvironment(factory, 1, teacher.data.obs_keys), []
    for episode in range(number if envs.has_goal else 0):
        envs.reset(np.ones(1, bool), [fold(seed, episode)])
        goals.append(torch.as_tensor(envs.goal_BG))
    envs.close()
    return torch.cat(goals) if goals else None


@dataclass(frozen=True)
class Legs:
    """The way to a far goal in legs, each of which the teacher goes towards a goal within reach."""

    aim: Callable[[Tensor, Tensor], Tensor]
    """From observations and far goals to the goals within reach."""
    steps: int
    """Environment steps between two of them."""

    @classmethod
    def of(cls, teacher: Run) -> Legs | None:
        """The legs in which a teacher goes on its roadmap; None if it has none."""
        aim = ahead_of(teacher)
        if aim is None:
            return None
        if isinstance(teacher, PolicyRun):
            return cls(aim, teacher.policy.execute)
        return cls(aim, teacher.planning.replan if isinstance(teacher, PlannerRun) else 1)

    def goals(self, obs_TO: np.ndarray, goal_TG: np.ndarray) -> np.ndarray:
        """(T, G) the goals within reach in the observations of a turn, in which the far goals are `goal_TG`."""
        begins = slice(None, None, self.steps)
        aim_LG = self.aim(torch.from_numpy(obs_TO[begins]).float(), torch.from_numpy(goal_TG[begins]).float())
        return aim_LG.numpy().repeat(self.steps, 0)[: len(obs_TO)]


@dataclass(eq=False)
class Turn:
    """Who acts in the steps from `start` to `end`, and towards which goal; None is the environment's own."""

    teacher: bool
    seed: int
    goal_G: Tensor | None
    start: int
    end: int


class MixedRollout(Agent):
    """An `Agent` in which a student and its teacher act by turns.

    The teacher starts each turn anew, as at the beginning of an episode, from wherever the student has led: its actions
    then follow from a plan for this state. The student begins. Without one, all turns are the teacher's. A turn takes 1
    to 2 `length` - 1 of the `steps` of an episode, at random. `seed` determines when turns end, at the same steps of
    every episode, so that nothing is planned while the student acts in all environments.

    Half of the student's turns begin with another goal, one of `goals_NG`, as an agent that has reached its goal does
    nothing new any more; the teacher keeps the student's goal. An episode's seed determines its goals. A teacher on a
    roadmap goes there in `legs`, whose goals are those of the data.
    """

    def __init__(self, student: Agent | None, teacher: Agent, length: int, steps: int, goals_NG: Tensor | None = None,
                 seed: int = 0, legs: Legs | None = None):
        self.student = student
        self.agents = [teacher] if student is None else [teacher, student]
        self.length = length
        self.steps = steps
        self.goals_NG = goals_NG
        self.seed = seed
        self.legs = legs
        self.leg_BG = torch.zeros(0, 0)  # the goals of the legs that are under way
        self.episodes: list[list[Turn]] = []  # the turns in each environment
        self.step_B = np.zeros(0, int)

    @property
    def spec(self) -> TrajectorySpec | None:
        return getattr(self.agents[0], "spec", None)

    def turns(self, seed: int) -> list[Turn]:
        """The turns of an episode. Where one would change nothing, the one before it goes on."""
        rng, lengths = np.random.default_rng([seed, ROUND_STREAM]), np.random.default_rng(self.seed)
        turns: list[Turn] = []
        last = Turn(True, seed, None, 0, 0)
        while last.end < self.steps:
            end, goal_G = last.end + int(lengths.integers(1, 2 * self.length)), last.goal_G
            if self.goals_NG is not None and last.teacher and rng.random() < NEW_GOAL_PROB:
                goal_G = self.goals_NG[rng.integers(len(self.goals_NG))]
            if turns and self.student is None and goal_G is last.goal_G:
                last.end = end
                continue
            is_teacher = self.student is None or not last.teacher
            last = Turn(is_teacher, int(rng.integers(2**62)), goal_G, last.end, end)
            turns.append(last)
        return turns

    def _reset(self, seeds_B: list[int], mask_B: Tensor) -> None:
        for agent in self.agents:
            agent.reset(seeds_B, mask_B)
        if len(self.episodes) != len(seeds_B):
            self.episodes = [self.turns(0) for _ in seeds_B]
            self.step_B = np.zeros(len(seeds_B), int)
        for i in mask_B.nonzero().flatten().tolist():
            self.episodes[i] = self.turns(seeds_B[i])
            self.step_B[i] = 0

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        turns = [next((turn for turn in episode if step < turn.end), episode[-1])  # an idle environment goes on
                 for step, episode in zip(self.step_B, self.episodes, strict=True)]
        since_B = self.step_B - np.array([turn.start for turn in turns])
        begins_B = torch.from_numpy(since_B == 0)
        self.step_B = self.step_B + 1
        if goal_BG is not None:
            goal_BG = torch.stack([goal_G if turn.goal_G is None else turn.goal_G
                                   for turn, goal_G in zip(turns, goal_BG, strict=True)])
        if begins_B.any():
            for agent in self.agents:
                agent.reset([turn.seed for turn in turns], begins_B)
        taught_B = torch.tensor([turn.teacher for turn in turns])
        near_BG = goal_BG
        if self.legs is not None and goal_BG is not None:
            near_BG = self._near(self.legs, obs_BO, goal_BG, since_B)
        if self.student is None or taught_B.all():
            return self.agents[0].act(obs_BO, near_BG)
        act_BA = self.student.act(obs_BO, goal_BG)
        if not taught_B.any():
            return act_BA
        return torch.where(taught_B[:, None], self.agents[0].act(obs_BO, near_BG), act_BA)

    def _near(self, legs: Legs, obs_BO: Tensor, goal_BG: Tensor, since_B: np.ndarray) -> Tensor:
        """(B, G) the goals of the teacher's legs, where its turns are `since_B` steps old."""
        if self.leg_BG.shape != goal_BG.shape:
            self.leg_BG = goal_BG.clone()
        begins_B = torch.from_numpy(since_B % legs.steps == 0)
        if begins_B.any():
            self.leg_BG[begins_B] = legs.aim(obs_BO[begins_B].float(), goal_BG[begins_B].float()).to(goal_BG)
        return self.leg_BG.clone()

    def taught(self, played: Episodes, seeds: Sequence[int]) -> Episodes | None:
        """The turns of the teacher, each as an episode, with the goals that it was given; None if it had no turn."""
        pieces, goals = [], []
        for e, (seed, length) in enumerate(zip(seeds, played.lengths.tolist(), strict=True)):
            for turn in self.turns(seed):
                if turn.teacher and turn.start < length:
                    pieces.append((e, turn.start, min(turn.end, length)))
                    goals.append(turn.goal_G)
        if not pieces:
            return None
        taught = take(played, *np.array(pieces).T)
        for e, goal_G in enumerate(goals):
            turn = taught[e]
            if goal_G is not None:
                turn.extras["goal"][:] = goal_G
            if self.legs is not None:
                turn.extras["goal"][:] = self.legs.goals(turn.obs, turn.extras["goal"])
        return taught
