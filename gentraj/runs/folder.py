"""A run: components that were trained together, their settings, and the folder that holds all of it."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch

from gentraj.agents.planning.arrival import Arrival
from gentraj.agents.planning.deadline import Deadline
from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.planner_config import PlannerConfig
from gentraj.envs.evaluation.scores import DataReturns
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.recipes import make_missing

from ..config import from_json, read_json, to_json, write_json
from ..data import Episodes, Windows, concatenate, episodes_hash, load_episodes
from ..data.sources import is_path, split_names
from ..data.splitting import stitch
from ..device import device_of
from ..families import Model
from ..files import write_file
from ..models.sample_batch import Guidance
from ..randomness import fold
from ..training import checkpoint
from ..training.loop import Callbacks, RunStore, Trainer, TrainingData, check_same
from ..training.parallel import SINGLE, Processes
from ..training.state import module_tensors, restore_module
from ..trajectory import DEFAULT_OPTIONS, Agent, Batch, SamplingOptions
from ..worlds.model import WorldModel
from . import records
from .checks import check_data, check_evaluable, dry_run
from .kinds import AnyRunConfig
from .reference import REFERENCE, read_reference, reference_bytes
from .settings import ActingConfig, Component, DataFacts, optional

if TYPE_CHECKING:
    from gymnasium.spaces import Box

CONFIG = "config.json"


@dataclass(frozen=True)
class Run:
    """A trained planner, policy or world model: `agent(action_space)` acts, and `model` samples trajectories."""

    folder: Path
    """The folder that it is in."""
    config: AnyRunConfig
    """Its settings."""
    data: DataFacts
    """What it remembers of its data."""
    components: Mapping[str, Component]
    """What was trained, by name."""
    reference: Batch
    """Windows of the data, beside which samples are judged."""
    step: int
    """The training step of its checkpoint."""
    dataset_hash: str
    """The hash of the training data."""

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.config.summary}, step {self.step})"

    @property
    def main(self) -> Component:
        """The main component, which all others serve: a planner's model, the policy, or the world model."""
        return self.components[self.config.MAIN]

    @property
    def device(self) -> torch.device:
        """The device of its main component."""
        return device_of(self.main)

    @property
    def description(self) -> str:
        """What the run is, for messages, such as "runs/a is a planner (planner, diffusion)"."""
        return f"{self.folder} is a {self.config.NAME} ({self.config.summary})"

    @property
    def model(self) -> Model:
        """The generative model. A policy's model samples actions given states, both in the policy's normalised units.

        Raises ValueError for a run without one.
        """
        if (model := self.config.model_of(self.components)) is None:
            raise ValueError(f"{self.description} without a trajectory model; evaluate it with gentraj evaluate")
        return model

    @property
    def planning(self) -> PlannerConfig:
        """The settings of the planner. Raises ValueError for a run that plans no trajectories."""
        if (planning := self.config.planning) is None:
            raise ValueError(f"{self.description}, which acts and plans no trajectories; evaluate it with gentraj "
                             "evaluate")
        return planning

    @property
    def world_model(self) -> WorldModel:
        """The world model, whose uncertainty is calibrated on data that it was not trained on.

        Raises ValueError for a run without one.
        """
        if (world := self.config.world_model(self.components)) is None:
            raise ValueError(f"{self.description} and no world model; train one with gentraj train world-model")
        return world

    def agent(self, action_space: Box, config: ActingConfig | None = None, guide: Guidance = None,
              options: SamplingOptions = DEFAULT_OPTIONS, deadline: Deadline | None = None) -> Agent:
        """The agent for an action space, in which an entry of an action that never varies in the data stays as it is.

        `config` replaces the settings by which it acts, as in `replace(run.config.policy, temperature=0)`, `guide`
        scores a planner's plans while they are sampled, `options` say how the agent samples, and `deadline` is the time
        in which a planner has to act. Raises ValueError if `config` is for another kind of agent or differs in what the
        training depends on, if `guide` or `deadline` is given for a run that plans no trajectories, and for a deadline
        that is no `Deadline`.
        """
        if config is not None and type(config) is not type(own := self.config.acting):
            raise ValueError(f"{self.description}, and a {type(config).__name__} was given; give it a "
                             f"{type(own).__name__}, such as run.config.{self.config.ACTING}")
        if deadline is not None and not isinstance(deadline, Deadline):
            raise ValueError(f"deadline is {deadline!r}; a Deadline is expected, as in "
                             "run.agent(space, deadline=agents.Deadline(seconds=0.05))")
        allowed = self.data.allowed(action_space)
        return self.config.agent(self.components, self.reference, allowed, config, guide, options, deadline)

    def environment(self, env_id: str | None = None) -> str:
        """`env_id`, or else the environment of the data. Raises ValueError if the data name none."""
        if (env := env_id or self.data.env) is None:
            raise ValueError(f"{self.folder}: its data do not say which environment they come from; give --env-id")
        return env

    def action_space(self, env: str | None = None) -> Box:
        """The action space of an environment, by default of the run's own.

        Raises ValueError if its actions have another width than the run's.
        """
        environment = environment_factory(self.environment(env))()
        environment.close()
        if environment.action_space.shape != (self.data.act_dim,):
            raise ValueError(f"{self.folder}: was trained on actions of width {self.data.act_dim}, but the action "
                             f"space of {environment.spec.id} is {environment.action_space}; train on data of this "
                             "environment")
        return environment.action_space

    def planner(self, action_space: Box, config: PlannerConfig | None = None, guide: Guidance = None) -> Planner:
        """The agent of a planner's run. Raises ValueError for a run that plans no trajectories."""
        return cast(Planner, self.agent(action_space, config or self.planning, guide))

    def likeliest_arrival(self, obs_BO: torch.Tensor, goal_BG: torch.Tensor) -> torch.Tensor:
        """(B,) the timestep at which the goal is most probably reached; the last one without an arrival network."""
        if (arrival := optional(self.components, "arrival", Arrival)) is None:
            return torch.full((len(obs_BO),), self.model.spec.horizon - 1)
        return arrival.propose(obs_BO, goal_BG, (1.0,))[:, 0]


@dataclass(frozen=True)
class _RunFile:
    """The content of config.json."""

    run: AnyRunConfig
    data: DataFacts
    reference_sha256: str


def train(config: AnyRunConfig, folder: Path | str, *, resume: bool = False, device: torch.device | None = None,
          progress: bool = True, processes: Processes = SINGLE) -> Run:
    """Trains all components of a run into a folder, and returns the run as loaded from there.

    The dataset of a task is recorded first if it is missing. A resumed run may have other values of the settings in
    `config.may_change`, which are saved. Of several `processes`, the main process alone records, checks and writes.
    Raises `DataError` for bad data; ValueError for an unknown `env_id`, for data that do not fit it and for components
    that cannot act together; and what `gentraj.training.Trainer` raises.
    """
    folder = Path(folder)
    config = replace(config, dataset=resolve_paths(config.dataset, folder))  # valid from any working directory
    start = partial(ready, config, folder)
    prepared = processes.on_main(partial(start, check=not resume)) or start(record=False, check=False)
    config, data, components, episodes, windows = prepared

    def prepare() -> None:
        write_settings(folder, config, data, reference_bytes(windows, fold(config.training.seed, 1)))
        records.record_start(folder, device, resume, processes.world_size)

    def evaluate(step: int) -> None:
        tensors = {name: module_tensors(component) for name, component in components.items()}
        current = _run(folder, _read(folder), tensors, step, device)
        agent = current.agent(current.action_space())
        records.record_score(folder, step, agent, current.data, config.training.eval_episodes)

    store = RunStore(folder, decisive(config, data), resumable(config))
    trainer = Trainer(components, TrainingData(episodes, config.context), config.training, store,
                      Callbacks(on_start=prepare, evaluate=evaluate), processes=processes.on(device), progress=progress)
    trainer.fit(resume)
    return load(folder, device=device)


def write_settings(folder: Path, config: AnyRunConfig, data: DataFacts, reference: bytes) -> None:
    """Writes what a run needs beside its checkpoints: its settings, and the windows that it keeps.

    Raises ValueError for a new run in a folder with the config.json of something else.
    """
    path = folder / CONFIG
    if not checkpoint.has_checkpoints(folder) and path.exists() and b'"reference_sha256"' not in path.read_bytes():
        raise ValueError(f"{path} is not that of a run, and would be overwritten; train in another folder")
    write_file(folder / REFERENCE, reference)
    file = _RunFile(config, data, hashlib.sha256(reference).hexdigest())
    write_json(path, to_json(file))


def resolve_paths(dataset: str, folder: Path) -> str:
    """The names of datasets, joined by '+', with each file, and each folder of a dataset, as an absolute path.

    A file that is not where its path says is looked for in the run's folder, and in the folder around it. Raises
    ValueError for a path that is not in UTF-8.
    """
    def locate(name: str) -> str:
        path = Path(os.path.expanduser(name))
        if not is_path(name):
            return name
        places = path, folder / path.name, folder.absolute().parent / path.name
        place = next(filter(os.path.exists, places), path).absolute()
        try:
            str(place).encode()
        except UnicodeEncodeError:
            raise ValueError(f"{str(place)!r} is a path that is not in UTF-8, in which the settings of a run are "
                             "written; rename the folder or the file") from None
        return str(place)

    return "+".join(map(locate, split_names(dataset)))


class Ready(NamedTuple):
    """Everything that a training starts from."""

    config: AnyRunConfig
    """The settings, with everything filled in that the data decide."""
    data: DataFacts
    components: dict[str, Component]
    episodes: Episodes
    """The training data."""
    windows: Windows
    """The windows, for the main component, that the run can keep some of."""


def ready(config: AnyRunConfig, folder: Path | None = None, *, record: bool = True, check: bool = True) -> Ready:
    """Reads the data, fills in the settings that they decide, and builds the components, as `build` does.

    With `check`, also checks that the data fit their environment, and lets the components decide once in a dry run. The
    dataset of a task is recorded if it is missing, unless `record` is false. Raises what `train` raises at its start.
    """
    if config.env_id is not None:
        environment_factory(config.env_id)  # a wrong name raises before data are read or recorded
    episodes, returns = read_data(config, folder, record=record)
    config = config.resolve(episodes)
    episodes, reference, _ = config.split(episodes)
    data = DataFacts.of(episodes, config.context, config.env_id, returns)
    if config.training.eval_every:
        check_evaluable(aiming(config, data))
    components = build(config, data, episodes)
    windows = Windows(reference, components[config.MAIN].spec, config.context)
    if check:
        check_data(data, episodes, config.env_id)
        dry_run(config, aiming(config, data), components, windows)
    return Ready(config, data, components, episodes, windows)


def read_data(config: AnyRunConfig, folder: Path | None = None, *,
              record: bool = True) -> tuple[Episodes, list[DataReturns]]:
    """The data that a run in `folder` is trained on, and the returns of the recorded episodes of each of its datasets.

    Only the critic of a policy learns from synthetic steps, which a world model imagined; for other runs they are left
    out, with a warning. The dataset of a task is recorded if it is missing, unless `record` is false.
    """
    names = config.dataset if folder is None else resolve_paths(config.dataset, folder)
    datasets = [load_episodes(make_missing(name) if record else name) for name in split_names(names)]
    real = [dataset.real() for dataset in datasets]
    joined = concatenate(datasets if config.learns_from_synthetic else real)
    if lost := sum(dataset.num_steps for dataset in datasets) - joined.num_steps:
        warnings.warn(f"{config.dataset}: {lost} steps that a world model imagined are left out; only the critics of "
                      "policies learn from them", stacklevel=2)
    return stitch(joined) if config.stitch else joined, list(map(DataReturns.of, real))


def training_data(run: Run) -> Episodes:
    """The episodes that a run was trained on. Raises ValueError for a dataset that was changed since."""
    episodes = run.config.split(read_data(run.config, run.folder)[0]).train
    if episodes_hash(episodes) != run.dataset_hash:
        raise ValueError(f"{run.config.dataset} is not what {run.folder} was trained on; its dataset is expected")
    return episodes


def load(folder: Path | str, *, step: int | None = None, device: torch.device | None = None) -> Run:
    """Loads the run in a folder, at its newest valid checkpoint or at `step`. The dataset is not needed.

    Raises `NothingSaved` without a checkpoint, `ConfigError` if config.json is not that of the checkpoint.
    """
    folder = Path(folder)
    file, saved = _read(folder), checkpoint.load(folder, step)
    check_same(saved.meta, saved.meta | decisive(file.run, file.data), str(folder / CONFIG),
               resumable(file.run))
    return _run(folder, file, saved.components, saved.step, device, saved.meta["dataset_hash"])


def _run(folder: Path, file: _RunFile, tensors: Mapping[str, Mapping[str, torch.Tensor]], step: int,
         device: torch.device | None, dataset_hash: str = "") -> Run:
    """A run whose components are copies with these tensors."""
    components = build(file.run, file.data)
    for name, component in components.items():
        restore_module(component, tensors.get(name, {}), name)
        component.to(device).eval()
    reference = read_reference(folder / REFERENCE, file.reference_sha256)
    file.run.after_loading(components, reference)
    return Run(folder, file.run, aiming(file.run, file.data), components,
               reference.to(device) if device else reference, step, dataset_hash)


def aiming(config: AnyRunConfig, data: DataFacts) -> DataFacts:
    """The facts of the data with the goals that a planner plans for: `conditioning.goal_dims` if the data name none."""
    planner = config.planning
    return data if planner is None or data.goal_dims else replace(data, goal_dims=planner.goal_dims)


def read_config(folder: Path) -> tuple[AnyRunConfig, DataFacts]:
    """The settings of a run folder, and the facts of its data. Raises `NothingSaved` or `ConfigError`."""
    file = _read(folder)
    return file.run, file.data


def _read(folder: Path) -> _RunFile:
    path = folder / CONFIG
    if not os.path.lexists(path):
        raise checkpoint.NothingSaved(f"{folder}: no run there ({CONFIG} is missing); `gentraj train` makes one")
    return from_json(_RunFile, read_json(path), str(path))


def build(config: AnyRunConfig, data: DataFacts, episodes: Episodes | None = None) -> dict[str, Component]:
    """The components of resolved settings, with the statistics of `episodes`, or blank, ready to load saved weights."""
    with torch.random.fork_rng(devices=()):  # initial weights come from torch's global generator, restored after
        torch.default_generator.manual_seed(fold(config.training.seed))
        return config.build(data, episodes)


def resumable(config: AnyRunConfig) -> set[str]:
    """The dotted keys of settings in the result of `decisive` that may change when a training is resumed."""
    return {f"run.{key}" for key in config.may_change}


def decisive(config: AnyRunConfig, data: DataFacts) -> dict[str, Any]:
    """The settings that checkpoints depend on, without the planner's and the path of the data, which have a hash.
    What agents read of the data alone is left out, too."""
    run = {key: value for key, value in to_json(config).items() if key not in config.may_change}
    return {"run": run, "data": to_json(replace(data, returns=(), still=()))}
