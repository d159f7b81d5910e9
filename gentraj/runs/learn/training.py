"""`train`: reads the data, builds the parts of a run, checks that they fit, and trains them into a folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box

from gentraj.agents.policies.steering import SteeredConfig
from gentraj.envs.evaluation.scoring import EvaluationConfig, score_agent
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.making import EnvironmentFactory, environment_factory, imported, lost_wrappers, try_making
from gentraj.envs.recording.recipes import make_missing

from ...config import JsonObject, to_json, with_settings
from ...data import DataError, Episodes, load_episodes
from ...data.ends import ends_like_any
from ...data.episodes import last_steps, problems
from ...data.sources import Data, resolve_paths, several
from ...device import pick_device
from ...progress import counted, one_line, say
from ...randomness import for_choosing
from ...ranges import SHOWN_ENTRIES
from ...training.log import LogWarning, Row, add_row
from ...training.loop import RunStore, Trainer, TrainingData
from ...trajectory import Agent
from ..judge.held_out import held_out_measures
from ..kinds.datasets import join, read_datasets
from ..kinds.folder import KEPT, RunFolder, fingerprint, may_change, run_class
from ..kinds.policy_run import PolicyRunConfig
from ..kinds.presets import preset
from ..kinds.run import DataFacts, Run, RunConfig, Split, copy_of

SLACK = 1e-3  # how far outside its space an action or an observation of the data may be: environments round
RARE = 0.01  # of the observations may lie outside their space, as some environments leave theirs
FEW_WINDOWS = 16  # of the data, by which the trust of a planner is calibrated before its training
NOTHING: JsonObject = {}


def train(what: str | RunConfig, data: Data | Sequence[Data] | None = None, *, folder: Path | str,
          env: str | EnvironmentFactory | None = None, steps: int | None = None, seed: int | None = None,
          settings: Mapping[str, Any] = NOTHING, resume: bool = False, device: torch.device | str | None = None,
          progress: bool = True, on_row: Callable[[Row], None] | None = None) -> Run:
    """Trains all parts of a run into a folder, and returns the run.

        gentraj.train("iql", "plant.npz", env="plant/Motor-v0", steps=3000, settings={"policy.beta": 10},
                      folder="runs/iql")

    `what` is the name of a preset, or settings such as `gentraj.PRESETS["iql"]`. `data` are trained on in the place of
    its own dataset: a name or a path, as of `gentraj train --dataset`, or several, or `Episodes`, which are saved in
    the folder as data.npz. The dataset of a task is recorded first if it is missing. `env` is the environment, where
    the data name none: a Gymnasium id, a task name, a factory or, as in Gymnasium, MODULE:ID, whose module is imported.
    `settings` has other values of settings by their dotted keys, which `gentraj train PRESET --print-config` shows;
    `steps` and `seed` are those of the training.

    `on_row` is given each row of metrics.jsonl, as it is written. A resumed run may have other values of the settings
    by which the agent acts, which are saved.

    Raises `DataError` for bad data; ValueError for an unknown preset, setting, environment or device, for data that do
    not fit the environment, for parts that cannot act together, and for a run that is resumed with other data; and what
    `gentraj.training.Trainer` raises.
    """
    if not isinstance(settings, Mapping):
        raise TypeError(f"settings is a {type(settings).__name__}; a dict is expected, such as "
                        "{'policy.chunk': 4}")
    folder = Path(folder)
    name, data = named(data)
    config = settings_of(what, name)
    given = {"dataset": name, "env_id": env and imported(env), "training.steps": steps, "training.seed": seed}
    config = with_settings(config, {key: to_json(value) for key, value in settings.items()}
                           | {key: value for key, value in given.items() if value not in (None, "")}, "settings")
    if device is not None:
        device = pick_device(str(device))
    if isinstance(config, PolicyRunConfig) and isinstance(config.policy, SteeredConfig) and not resume:
        raise ValueError("these settings steer a frozen run, whose weights are not in them; `gentraj steer RUN` does")
    if data is not None:
        config = replace(config, dataset=str(folder / RunFolder.DATA))
    config = replace(config, dataset=resolve_paths(config.dataset, folder))  # valid from any working directory
    run, parts = prepare(config, data=data, check=not resume)
    trainer = RunTrainer(run, training_data(run, parts), RunFolder(folder, data), device=device, on_row=on_row,
                         progress=progress)
    return trainer.trained(resume)


def settings_of(what: str | RunConfig, dataset: str) -> RunConfig:
    """The settings of a preset, with what it has for this dataset only, or those that are given. Raises ValueError for
    anything else."""
    if isinstance(what, RunConfig):
        return what
    if not isinstance(what, str):
        raise ValueError(f"a {type(what).__name__} was given to be trained; the name of a preset, such as 'iql', or "
                         "settings are expected, such as gentraj.PRESETS['iql']")
    return preset(what, dataset)


def named(data: Data | Sequence[Data] | None) -> tuple[str, Episodes | None]:
    """The data as names, which '+' joins, and as episodes if some of them have no name. Raises ValueError for others.
    """
    listed = [] if data is None else several(data)
    if any(isinstance(each, Episodes) for each in listed):
        return "", load_episodes([make_missing(each) if isinstance(each, str) else each for each in listed])
    return "+".join(resolve_paths(str(each), Path()) for each in listed), None


class RunTrainer(Trainer):
    """Trains the parts of a run into its folder, and evaluates and measures the run meanwhile.

    The parts named in `frozen` are saved and not trained. `about` is what the weights depend on beside the settings of
    the run, as JSON values.
    """

    def __init__(self, run: Run, data: TrainingData, folder: RunFolder, *, about: JsonObject = NOTHING,
                 frozen: Collection[str] = (), device: torch.device | None = None,
                 on_row: Callable[[Row], None] | None = None, progress: bool = True):
        self.run = run
        self.run_folder = folder
        self.device = device
        self.held_out = data.held_out
        run.folder = folder.path
        kept = {name: run.components[name].to(device) for name in frozen}
        trained = {name: part for name, part in run.components.items() if name not in frozen}
        store = RunStore(folder.path, fingerprint(run) | about, may_change(run.config), kept)
        super().__init__(trained, data, run.config.training, store, device=device, on_row=on_row, progress=progress)

    def trained(self, resume: bool = False) -> Run:
        """Trains to the last step, and returns the run ready to act."""
        self.run.step = self.fit(resume).step
        self.run.dataset_hash = self.meta["dataset_hash"]
        return self.run.ready(self.device)

    def write_folder(self, resume: bool) -> None:
        """Writes what a run needs beside its checkpoints, and how its training was started."""
        self.run_folder.start(self.run, self.device, resume)

    def evaluate(self) -> None:
        """Evaluates the agent and adds a line to the learning curve.

        The episodes are the same at every step, and none of those that are reported. An error of the environment
        becomes a warning; it costs the line, not the training.
        """
        current, data = copy_of(self.run, self.device), self.run.data
        config = EvaluationConfig(episodes=self.settings.eval_episodes, seed=for_choosing(0), baselines=False)
        try:
            scores, _ = score_agent(current.agent(current.action_space()), str(data.env), config,
                                    obs_keys=data.obs_keys, goal_dims=data.goal_dims)
        except (RuntimeError, ValueError, OSError) as error:
            warnings.warn(f"step {self.step}: not evaluated, {error}; training goes on", LogWarning, stacklevel=2)
            return
        row = {"step": self.step} | {key: scores[key] for key in KEPT if scores[key] is not None}
        add_row(self.run_folder / RunFolder.CURVE, row)
        low, high = scores["return_ci95"]
        say(f"step {self.step}: return {row['return_mean']:.4g} [{low:.4g}, {high:.4g}] in "
            f"{counted(config.episodes, 'episodes')}")

    def measure(self) -> None:
        """Measures the run on the episodes that were held out, if any were, as `evaluate` evaluates its agent."""
        if self.held_out is None:
            return
        try:
            measures = held_out_measures(self.run, self.held_out, self.device)
        except (RuntimeError, ValueError) as error:
            warnings.warn(f"step {self.step}: not measured on held-out data, {error}; training goes on", LogWarning,
                          stacklevel=2)
            return
        add_row(self.run_folder / RunFolder.HELD_OUT, {"step": self.step} | measures)


def training_data(run: Run, parts: Split) -> TrainingData:
    """The parts of the data as a run is trained and measured on them."""
    held_out = parts.test if run.config.held_out else None
    return TrainingData(parts.train, run.context, held_out=held_out)


def prepare(config: RunConfig, *, data: Episodes | None = None, record: bool = True,
            check: bool = True) -> tuple[Run, Split]:
    """The run, untrained, and its data: reads the data, unless they are given, and fills in the settings that they
    decide.

    With `check`, also checks that the data fit their environment, and that the parts can act together. The dataset of a
    task is recorded if it is missing, unless `record` is false. Raises what `train` raises at its start.
    """
    if config.env_id is not None:
        environment_factory(config.env_id)  # a wrong name raises before data are read or recorded
    if data is None and not config.dataset:
        raise ValueError("there are no data to train on; give data=, a path, a name that `gentraj data list` shows, or "
                         "Episodes")
    if data is not None:
        for problem in problems(data):  # of arrays that were changed since
            raise DataError(problem)
    joined, returns = read_datasets(config, record=record) if data is None else join(config, [data])
    kind = run_class(config)
    parts = kind.split(config, joined)
    episodes = parts.train
    config, context = kind.resolve(config, episodes)
    facts = DataFacts.of(episodes, context, config.env_id, returns, config.goal_dims)
    if config.training.eval_every:
        check_evaluable(facts)
    run = kind.build(config, facts, episodes)
    run.keep_windows(parts.reference)
    if check:
        check_lessons(config, joined)
        check_data(facts, episodes, config.env_id)
        untrained_agent(run)
    return run, parts


def check_lessons(config: RunConfig, episodes: Episodes) -> None:
    """Warns of data that teach less than these settings ask for: of actions that are all the same, and, where values
    are learned, of rewards that are all 0 and of episodes that are not said to end."""
    first_A = episodes.act[0]
    if len(first_A) and (episodes.act == first_A).all():
        warnings.warn(f"{episodes.name}: all actions are {first_A}, and no other can be learned; are they the actions "
                      "that were carried out?", stacklevel=3)
    if not config.learns_from_rewards:
        return
    if not episodes.reward.any():
        warnings.warn(f"{episodes.name}: all rewards are 0, and these settings learn from rewards which actions are "
                      "good; record rewards, or train what imitates without them, such as bc-diffusion", stacklevel=3)
    last_S = last_steps(episodes.lengths)
    open_ended = last_S & ~episodes.terminated & ~episodes.truncated
    if open_ended.any():
        warnings.warn(f"{episodes.name}: {open_ended.sum()} of {len(episodes)} episodes end without a flag, and count "
                      "as truncated, as if they went on; mark as terminated those that ended for good, such as in a "
                      "fall or at the goal, and as truncated the others", stacklevel=3)
    if ends_like_any(episodes):
        warnings.warn(f"{episodes.name}: {episodes.terminated.sum()} steps are terminated, and what they lead to looks "
                      "like what others go on from; if they are time limits, cuts or the end of a recording, mark them "
                      "as truncated, as nothing that comes after a terminated step counts", stacklevel=3)


def check_data(data: DataFacts, episodes: Episodes, env_id: str | None) -> None:
    """Checks that the data come from the environment `env_id`, by default the one that they name.

    Raises ValueError if observations, actions or goals have another width than the environment's. Warns if actions or
    observations lie outside its spaces, if the data were recorded with wrappers that it is made without, and if it
    cannot be made here, so that nothing is compared.
    """
    if data.env is None:
        return
    if env_id is None:
        try:
            try_making(data.env)
        except Exception as error:  # a package may be missing, for example
            warnings.warn(f"{episodes.name}: the environment of these data cannot be made here, so nothing is compared "
                          f"with its spaces ({one_line(error)})", stacklevel=3)
            return
        if lost := lost_wrappers(data.env):
            warnings.warn(f"{episodes.name}: the data were recorded with the wrappers {', '.join(lost)}, without which "
                          "their environment is made here, so that observations or actions may have other units; "
                          "register an environment with these additional_wrappers, and name it by env=",
                          stacklevel=3)
    envs = check_fit(data, data.env)
    goal = episodes.extras.get("goal")
    if goal is not None and envs.goal_dim not in (0, goal.shape[1]):
        raise ValueError(f"the data have goals of width {goal.shape[1]}, but {envs.env_id} has goals of "
                         f"{envs.goal_dim}; name the environment of the data by env=")
    if found := outside(episodes.act, (envs.action_space,)):
        share, example, _ = found
        warnings.warn(f"{episodes.name}: {share} of the actions lie outside the action space of {envs.env_id}, "
                      f"{envs.action_space}, such as {example}; the agent stays inside it: scale the actions to its "
                      "units, or name the environment of the data by env=", stacklevel=3)
    if found := outside(episodes.obs, envs.layout.boxes, RARE):
        share, _, entries = found
        warnings.warn(f"{episodes.name}: {share} of the observations lie outside the observation space of "
                      f"{envs.env_id}: {entries}; the agent will see those of the environment: give the data in its "
                      "order and units, or name the environment of the data by env=", stacklevel=3)


def outside(x_RX: np.ndarray, boxes: Sequence[Box], rare: float = 0.0) -> tuple[str, np.ndarray, str] | None:
    """Which share of these rows lie outside the boxes, which are joined, the first such row, and the entries that do,
    in words. None if not more than the share `rare` do."""
    low_X = np.concatenate([box.low.ravel() for box in boxes]).astype(np.float64)
    high_X = np.concatenate([box.high.ravel() for box in boxes]).astype(np.float64)
    outside_RX = (x_RX < low_X - SLACK) | (x_RX > high_X + SLACK)
    outside_R = outside_RX.any(1)
    if outside_R.mean() <= rare:
        return None
    entries = [f"entry {i} is {x_RX[:, i].min():.4g} to {x_RX[:, i].max():.4g} and may be {low_X[i]:.4g} to "
               f"{high_X[i]:.4g}" for i in np.flatnonzero(outside_RX.any(0))]
    return f"{100 * outside_R.mean():.3g} %", x_RX[np.argmax(outside_R)], "; ".join(entries[:SHOWN_ENTRIES])


def check_fit(data: DataFacts, env: str) -> VectorEnvironment:
    """The environment, closed. Raises ValueError if its observations or actions have another width than the data's."""
    envs = VectorEnvironment(environment_factory(env), 1, data.obs_keys)
    envs.close()
    if (envs.obs_dim, envs.act_dim) != (data.obs_dim, data.act_dim):
        raise ValueError(f"the data have observations of width {data.obs_dim} and actions of {data.act_dim}, but "
                         f"{envs.env_id} has {envs.obs_dim} and {envs.act_dim}; name the environment of the data by "
                         "env=, registered with the arguments that they were recorded with")
    return envs


def check_evaluable(data: DataFacts) -> None:
    """Raises ValueError if an agent cannot be evaluated while it is trained, as `--eval-every` asks."""
    if data.env is None:
        raise ValueError("training.eval_every= evaluates in an environment, and the data do not say which one they "
                         "come from; give env=, or leave training.eval_every= out")
    envs = check_fit(data, data.env)
    if data.goal_dims and not envs.has_goal:
        raise ValueError(f"training.eval_every= evaluates an agent that is given goals (entries {data.goal_dims} of an "
                         f"observation), and {envs.env_id} gives none; leave training.eval_every= out")


def untrained_agent(run: Run) -> Agent:
    """The agent of an untrained run, calibrated on few windows. Raises ValueError if its parts cannot act together."""
    one_A, few = np.ones(run.data.act_dim, np.float32), copy(run)
    few.reference = run.reference.take(slice(FEW_WINDOWS))
    return few.agent(Box(-one_A, one_A))
