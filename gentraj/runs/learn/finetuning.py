"""Fine-tunes a run online: the best of what it proposes and of small edits, by critics that learn from what is played.

What is learned is `gentraj.agents.policies.expo`; here is what is played, and when. The run itself, which is the prior,
plays the first round, and the newest behaviour all others. One half of each batch is drawn from the data and the other
from all rounds so far: the symmetric sampling of Ball et al. 2023 (arXiv 2302.02948), section 4.1. A round is a
function of weights and of seeds and is saved before anything learns from it, so that a training that was killed reads
its rounds again and goes on.

In episodes of its own, from which nothing is learned, the newest behaviour has to prove better than the start. Each of
the checks of a training is a test at the level `ERROR` divided by their number: by the bound of Bonferroni, all of them
together take something worse for better in no more than this share of trainings.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Interval
from einops import rearrange
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from gentraj.agents.policies.expo import Expo, ExpoConfig
from gentraj.agents.policies.policy import check_acting
from gentraj.agents.wrappers import NoisyAgent
from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.evaluation.scoring import bootstrap_interval
from gentraj.envs.making import EnvironmentFactory, environment_factory, imported

from ...config import JsonObject, settings, to_json, with_settings
from ...data import ContextConfig, Episodes, Windows, concatenate, load_episodes, save_npz
from ...data.windows import WindowStarts
from ...device import pick_device
from ...progress import say
from ...randomness import OneStream, fold, for_choosing, generator
from ...training.log import add_row
from ...training.loop import MAY_CHANGE_ON_RESUME, TrainingConfig, TrainingData
from ...trajectory import Agent, Batch, TrajectorySpec
from ..judge.choosing import true_returns
from ..kinds.folder import RunFolder
from ..kinds.planner_run import PlannerRun
from ..kinds.policy_run import PolicyRun
from ..kinds.run import Run, environment_of, of_kind
from .steering import freeze, plans_settings, policy_run_settings
from .training import NOTHING, RunTrainer, prepare

COMPARED = 20  # episodes in which the result and the start are compared
ERROR = 0.05  # the share of trainings, at most, that accept what is no better than the start
PLAYED = "played"  # the folder, inside the run's, of the episodes that were played: one file per round
PROPOSALS = "proposals"  # the extra of episodes that holds what the prior proposes in each state
DATA_STREAM, OLD, NEW = 0x64617461, 2, 1  # keys of seeds; the first has the letters of "data"


@settings
class FinetuneConfig:
    """How a run learns online."""

    steps: PositiveInt = 50_000
    """Environment steps to learn from; the last episodes are carried on to their end. The checks are not among them."""
    updates: Annotated[float, Interval(ge=1e-3, le=1e3)] = 1.0
    """Updates of the critics per environment step."""
    episodes: PositiveInt = 2
    """Episodes that are played side by side in each round."""
    noise: NonNegativeFloat = 0.1
    """Standard deviation of the noise that is added to each action of these episodes, in units of half their range."""
    caution: NonNegativeFloat = 0.0
    """The policy's caution in these episodes: 0 tries what the critics believe to be best on average."""
    check_every: PositiveInt = 5_000
    """Environment steps between two checks: episodes in which the newest behaviour acts, without noise. It acts from
    then on if it earns more than what acted before, and surely more than the start: all checks together err in 5 % of
    trainings at most."""
    checks: Annotated[int, Ge(2)] = 20
    """Episodes of each check. The start plays as many in the first round."""
    data: PositiveInt = 100_000
    """Steps of the data at most, in whole episodes that the seed draws. The start proposes actions in all of them."""
    bf16: bool = False
    """Compute in bfloat16 where that is safe, which is faster on GPUs and on some CPUs."""
    seed: NonNegativeInt = 0
    """Seed of the episodes and of the updates."""
    policy: ExpoConfig = field(default_factory=ExpoConfig)
    """The learner."""


def finetune(run: Run, env: str | EnvironmentFactory | None = None, *, folder: Path | str, steps: int | None = None,
             seed: int | None = None, settings: Mapping[str, Any] = NOTHING, minutes: float | None = None,
             resume: bool = False, device: torch.device | str | None = None, progress: bool = True) -> PolicyRun:
    """Learns online to act better than a policy or a planner of any model, whose weights stay as they are. Returns the
    new run, which is written to `folder`; as long as nothing proved better, it acts as `run` does.

        gentraj.finetune(run, steps=20_000, settings={"policy.edit.bound": 0.2}, folder="runs/tuned")

    `env` is the environment, by default the run's own. `settings` are those of `FinetuneConfig` by their dotted keys.
    With `minutes`, no round begins after this time; `resume` goes on later.

    Raises ValueError for a world model, for a run with goals in hindsight, for an unknown environment and for one of
    other observations or actions; `EnvironmentFault` for an error in the environment; and what
    `gentraj.training.Trainer` raises.
    """
    given = {"steps": steps, "seed": seed}
    config = with_settings(finetune_settings(run), {key: to_json(value) for key, value in settings.items()}
                           | {key: value for key, value in given.items() if value is not None}, "settings")
    if device is not None:
        device = pick_device(str(device))
    return learn(run, config, folder, env=env, minutes=minutes, resume=resume, device=device, progress=progress)


def finetune_settings(run: Run) -> FinetuneConfig:
    """The default settings by which a run learns online. Raises ValueError for a world model, and for a planner that
    needs more than an observation and a goal to make one plan."""
    if isinstance(run, PlannerRun):
        frozen = plans_settings(run)
    else:
        frozen = of_kind(run, PolicyRun).config.policy
    policy = ExpoConfig(frozen=frozen, chunk=frozen.execute, execute=frozen.execute, observations=frozen.observations)
    if frozen.critic is not None:
        policy = replace(policy, rewards=frozen.rewards)
    return FinetuneConfig(policy=policy)


def learn(run: Run, config: FinetuneConfig, folder: Path | str, *, env: str | EnvironmentFactory | None = None,
          minutes: float | None = None, resume: bool = False, device: torch.device | None = None,
          progress: bool = True) -> PolicyRun:
    """Does what `finetune` says, by settings such as those of `finetune_settings`."""
    check_acting(finetune_settings(run).policy.frozen, config.policy.frozen, "policy.frozen")
    began, files = time.monotonic(), RunFolder(Path(folder).absolute())
    if not resume and (files / PLAYED).exists():
        raise ValueError(f"{files / PLAYED} holds episodes of another fine-tuning; give another folder")
    total = max(1, round(config.steps * config.updates))
    training = TrainingConfig(steps=total, eval_every=max(1, round(config.check_every * config.updates)),
                              save_every=total, seed=config.seed, bf16=config.bf16)
    own = policy_run_settings(run, config.policy)
    if own.context.goals is not None:
        raise ValueError(f"{run.description}, which draws goals in hindsight, and what it plays has those of the "
                         "environment; take a run with the goals that the data record")
    if env is not None:
        own = replace(own, env_id=imported(env))
    env = environment_of(run, own.env_id)
    made, parts = prepare(replace(own, training=training), check=not resume)
    tuned = of_kind(made, PolicyRun)
    policy = freeze(run, tuned)
    assert isinstance(policy, Expo)  # noqa: S101  by its settings
    data = some(parts.train.real(), config.data, config.seed)
    data = propose(data, policy, tuned.context, fold(config.seed, DATA_STREAM))
    halves = Halves(data, policy.spec, tuned.context)
    player = Player(tuned, env, config, files / PLAYED, progress)
    kept = {key: value for key, value in to_json(config).items() if key not in MAY_CHANGE_ON_RESUME}
    about = {"finetune": kept | {"env": player.factory.spec_json, "from": run.step}}
    source = TrainingData(parts.train, tuned.context, lambda _: halves)
    trainer = OnlineTrainer(tuned, source, files, player, about=about, device=device or run.device,
                            progress=progress)

    trainer.fit(resume, until=0)
    if not policy.accepted.done:
        policy.standing.copy_(torch.tensor(mean_and_interval(player.round(0).returns)))
    done = 0
    while done < total and (minutes is None or time.monotonic() < began + 60 * minutes):
        halves.add(player.round(len(halves.rounds)))
        done = min(total, math.ceil(config.updates * halves.num_steps))
        if trainer.step < done:
            trainer.fit(until=done)
    return of_kind(files.load(device=device or run.device), PolicyRun)


def gain(start: Run, tuned: Run, seed: int, env: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(E,) the returns of a run and of what it was fine-tuned to, in the same `COMPARED` episodes.

    These are the first ones that `gentraj evaluate` plays with this seed: nothing was learned from any of them, and
    none was a check.
    """
    before_E, after_E = (true_returns(run, env, COMPARED, seed) for run in (start, tuned))
    return before_E, after_E


def some(episodes: Episodes, steps: int, seed: int) -> Episodes:
    """Episodes of about so many steps in all, which the seed draws, or all if they are no more."""
    order = np.random.default_rng(fold(seed, DATA_STREAM)).permutation(len(episodes))
    enough = 1 + int(np.searchsorted(np.cumsum(episodes.lengths[order]), steps))
    return episodes[np.sort(order[:enough])]


# -- what the prior proposes is kept with the episodes


@torch.no_grad()
def propose(episodes: Episodes, policy: Expo, contexts: ContextConfig, seed: int) -> Episodes:
    """The episodes with what the prior proposes in each of their states."""
    windows, row_R = Windows(episodes, policy.spec, contexts), np.arange(len(episodes.obs))
    seen_RO, goal_RG = torch.from_numpy(episodes.obs), None
    if policy.spec.past:
        episode_R = np.repeat(np.arange(len(episodes)), episodes.lengths + 1)
        at = WindowStarts(row_R - episode_R, episode_R, episode_R, windows.ends[episode_R][:, None])
        seen_RO = policy.spec.seen(seen_RO, torch.from_numpy(windows.past(at)))
    if windows.context_rows is not None:
        goal_RG = torch.from_numpy(windows.context_rows(row_R, row_R))
    noise = OneStream(len(row_R), generator(seed))
    act_RNX = policy.propose(policy.scales.state(seen_RO, goal_RG), noise)
    kept = {PROPOSALS: rearrange(act_RNX, "r n x -> r (n x)").cpu().numpy()}
    return replace(episodes, extras=dict(episodes.extras) | kept)


class ProposedWindows(Windows):
    """Windows of episodes with what the prior proposes in their first and in their last states."""

    def gather(self, starts_B: np.ndarray) -> Batch:
        at = self.at(starts_B)
        row_B2 = np.stack([at.row_B, self._last(at)], 1)
        proposals_B2Y = torch.from_numpy(self.episodes.extras[PROPOSALS][row_B2])
        return replace(super().gather(starts_B), proposals_B2Y=proposals_B2Y)


class Halves:
    """Batches of which one half is drawn from the data, and the other from all rounds of episodes that were added."""

    def __init__(self, data: Episodes, spec: TrajectorySpec, contexts: ContextConfig):
        self.spec = spec
        self.contexts = contexts
        self.old = ProposedWindows(data, self.spec, contexts)
        self.rounds: list[Episodes] = []

    def add(self, played: Episodes) -> None:
        """Adds a round."""
        self.rounds.append(played)
        self.new = ProposedWindows(concatenate(self.rounds), self.spec, self.contexts)

    @property
    def num_steps(self) -> int:
        """The environment steps of all rounds."""
        return sum(played.num_steps for played in self.rounds)

    def batch(self, step: int, seed: int, size: int) -> Batch:
        """The batch of one training step."""
        old = self.old.batch(step, fold(seed, OLD), size - size // 2)
        new = self.new.batch(step, fold(seed, NEW), size // 2)
        both = {name: torch.cat([tensor, getattr(new, name)]) for name, tensor in vars(old).items()
                if tensor is not None}
        return Batch(**both)


# -- what is played


class Player:
    """Plays episodes in an environment by the behaviours of a run in training, and keeps them in a folder."""

    def __init__(self, run: PolicyRun, env: str, config: FinetuneConfig, folder: Path, progress: bool):
        self.run = run
        self.factory = environment_factory(env)
        self.space = run.data.allowed(run.action_space(self.factory.spec_json))
        self.config = config
        self.folder = folder
        self.progress = progress

    def agent(self, **acting: Any) -> Agent:
        """The agent of a behaviour."""
        agent = self.run.agent(self.space, replace(self.run.config.policy, **acting))
        agent.leave_data()  # as it should, to find out what is better
        return agent

    def exploring(self) -> Agent:
        """The agent of the newest behaviour, with noise and less caution."""
        agent = self.agent(by="newest", caution=self.config.caution)
        if not self.config.noise:
            return agent
        return NoisyAgent(agent, self.space.low, self.space.high, self.config.noise)

    def round(self, number: int) -> Episodes:
        """The episodes of a round, with what the prior proposes. The prior plays the first one."""
        seed = fold(for_choosing(self.config.seed), number)
        path = self.folder / f"{number:08d}.npz"
        if path.exists():
            return load_episodes(path)
        if number == 0:
            played = self.play(self.agent(by="prior"), self.config.checks, seed)
        else:
            played = self.play(self.exploring(), self.config.episodes, seed)
        policy: Any = self.run.policy
        played = propose(played, policy, self.run.context, seed)
        save_npz(played, path)
        return played

    def check(self, step: int) -> Episodes:
        """The episodes in which the newest behaviour of a training step is checked."""
        return self.play(self.agent(by="newest"), self.config.checks, fold(for_choosing(self.config.seed), step, 1))

    def play(self, agent: Agent, episodes: int, seed: int) -> Episodes:
        """Episodes of an agent."""
        data = self.run.data
        settings = RolloutSettings(episodes, batch_invariant=False, obs_keys=data.obs_keys, goal_dims=data.goal_dims,
                                   name="exploring")
        self.run.main.eval()
        played = rollout(agent, self.factory, episodes, seed, settings, record=True, progress=self.progress)
        self.run.main.train()
        assert played.recorded is not None  # noqa: S101  as asked for
        return played.recorded


class OnlineTrainer(RunTrainer):
    """Trains the learner, and checks what it has learned before it acts."""

    def __init__(self, run: PolicyRun, data: TrainingData, folder: RunFolder, player: Player, *, about: JsonObject,
                 device: torch.device | None, progress: bool):
        super().__init__(run, data, folder, about=about, device=device, progress=progress)
        self.player = player

    def evaluate(self) -> None:
        """Checks the newest behaviour, which acts from now on if it proves better, and adds a line to the curve."""
        policy: Any = self.run.main
        newest_E = self.player.check(self.step).returns
        start_E = self.player.round(0).returns
        newest = mean_and_interval(newest_E)
        start = float(start_E.mean())
        by_chance = p_value(newest_E, start_E)
        checks = math.ceil(self.settings.steps / self.settings.eval_every)
        if by_chance <= ERROR / checks and newest[0] > policy.standing[0]:
            policy.accept(*newest)
        mean, low, high = policy.standing.tolist()
        row = {"step": self.step, "episodes": len(newest_E), "return_mean": mean, "return_ci95": [low, high],
               "accepted": policy.accepted.done, "start_mean": start, "newest_mean": newest[0],
               "newest_ci95": newest[1:], "p_value": by_chance}
        add_row(self.run_folder / RunFolder.CURVE, row)
        say(f"update {self.step}: the newest behaviour earns {newest[0]:.4g} [{newest[1]:.4g}, {newest[2]:.4g}] and "
            f"the start {start:.4g}; the run acts by {policy.acts}, {mean:.4g}")


def mean_and_interval(return_E: np.ndarray) -> list[float]:
    """The mean of these returns and its 95 % interval."""
    return [float(return_E.mean()), *bootstrap_interval(return_E)]


def p_value(newest_E: np.ndarray, start_E: np.ndarray) -> float:
    """How probable it is to see means at least so much better than the start's where nothing is better: Welch's test of
    the means of two samples of other variances, one-sided. Failures too rare to be among the episodes are not seen.
    """
    from scipy.stats import ttest_ind  # half a second, which nothing should wait for before the first check

    if not (np.ptp(newest_E) or np.ptp(start_E)):  # without any variance the test is not defined
        return float(newest_E[0] <= start_E[0])
    found: Any = ttest_ind(newest_E, start_E, equal_var=False, alternative="greater")
    return float(found.pvalue)
