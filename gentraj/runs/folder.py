"""A run: the components that were trained together, the settings that made them, and a folder that is all they need."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import safetensors.torch
import torch

from agents.planning.arrival import Arrival
from agents.planning.planner import Planner, PlannerConfig
from envs.evaluation.scores import DataReturns
from envs.making import environment_factory
from envs.recording.recipes import make_missing

from ..config import from_json, read_json, to_json
from ..data import Episodes, Windows, concatenate, load_episodes
from ..data.sources import FILES
from ..families import Model
from ..files import write_file
from ..models.sampling import Guidance
from ..randomness import fold
from ..training import checkpoint
from ..training import loop as training
from ..training.checkpoint import module_tensors, restore_module
from ..training.loop import check_same
from ..trajectory import DEFAULT_OPTIONS, Agent, Batch, SamplingOptions
from ..worlds.model import WorldModel
from . import records
from .checks import check_data, check_evaluable, dry_run
from .kinds import AnyRunConfig, Component, DataFacts, PlannerRunConfig, PolicyRunConfig, WorldModelRunConfig

if TYPE_CHECKING:
    from gymnasium.spaces import Box

__all__ = ["AnyRunConfig", "Component", "DataFacts", "PlannerRunConfig", "PolicyRunConfig", "Run",
           "WorldModelRunConfig", "build", "load", "load_episodes", "make_missing", "read_config", "resolve", "train"]

CONFIG, REFERENCE = "config.json", "reference.safetensors"
REFERENCE_WINDOWS = 512  # of the training data: they calibrate trust, and are drawn beside samples


@dataclass(frozen=True)
class Run:
    """A trained run of a planner or of a policy: `agent(action_space)` acts, `model` samples trajectories."""

    folder: Path
    config: AnyRunConfig
    data: DataFacts
    components: Mapping[str, Component]
    reference: Batch
    step: int
    dataset_hash: str
    """Of what it was trained on."""

    @property
    def main(self) -> Component:
        """The component that all others serve: a planner's model, or the policy."""
        return self.components[self.config.MAIN]

    @property
    def description(self) -> str:
        """What it is, for messages."""
        return f"{self.folder} is a {self.config.NAME} ({self.config.kind})"

    @property
    def model(self) -> Model:
        """The generator. That of a policy makes actions of states, both in the policy's own normalised units.

        Raises ValueError for a policy without one.
        """
        if (model := self.config.model_of(self.components)) is None:
            raise ValueError(f"{self.description} without a trajectory model; evaluate it with gentraj evaluate")
        return model

    @property
    def planning(self) -> PlannerConfig:
        """How it plans. Raises ValueError for a policy, which has no trajectories to show or to measure."""
        if (planning := self.config.planning) is None:
            raise ValueError(f"{self.description}, which acts and plans no trajectories; evaluate it with gentraj "
                             "evaluate")
        return planning

    @property
    def world_model(self) -> WorldModel:
        """Its uncertainty calibrated by data that it was not trained on. Raises ValueError for another run."""
        if (world := self.config.world_model(self.components)) is None:
            raise ValueError(f"{self.description} and no world model; train one with gentraj train world-model")
        return world

    def agent(self, action_space: Box, config: PlannerConfig | None = None, guide: Guidance = None,
              options: SamplingOptions = DEFAULT_OPTIONS) -> Agent:
        """What acts in that action space. A planner has its own settings by default, and `guide` shapes its plans.

        `options` say how it samples. Raises ValueError where a planner's settings or a guide are given to a policy.
        """
        return self.config.agent(self.components, self.reference, action_space, config, guide, options)

    def environment(self, asked: str | None = None) -> str:
        """The one asked for, else that of its data. Raises ValueError where neither is known."""
        if (env := asked or self.data.env) is None:
            raise ValueError(f"{self.folder}: its data do not say which environment they come from; give --env-id")
        return env

    def action_space(self, env: str | None = None) -> Box:
        """Of that environment, the run's own by default. Raises ValueError for one of another width than the run's."""
        made = environment_factory(self.environment(env))()
        made.close()
        if getattr(made.action_space, "shape", None) != (self.data.act_dim,):
            raise ValueError(f"{self.folder}: was trained on actions of width {self.data.act_dim}, but the action "
                             f"space of {made.spec.id} is {made.action_space}; train on data of this environment")
        return made.action_space

    def planner(self, action_space: Box, config: PlannerConfig | None = None, guide: Guidance = None) -> Planner:
        """`agent` of a planner's run. Raises ValueError for a policy."""
        return cast(Planner, self.agent(action_space, config or self.planning, guide))

    def likeliest_arrival(self, obs_BO: torch.Tensor, goal_BG: torch.Tensor) -> torch.Tensor:
        """(B,) the row at which the goal is most probably reached; the last one without an arrival network."""
        if "arrival" not in self.components:
            return torch.full((len(obs_BO),), self.model.spec.horizon - 1)
        return cast(Arrival, self.components["arrival"]).propose(obs_BO, goal_BG, (1.0,))[:, 0]


@dataclass(frozen=True)
class _RunFile:
    """What config.json holds."""

    run: AnyRunConfig
    data: DataFacts
    reference_sha256: str
    format_version: int = checkpoint.FORMAT_VERSION


def train(config: AnyRunConfig, folder: Path | str, *, resume: bool = False, device: torch.device | None = None,
          progress: bool = True) -> Run:
    """Trains all components of a run and returns it, loaded from its folder. A task's own dataset is recorded if
    missing.

    A resumed run may have another planner and, of the training's settings, those that may change; they are kept.

    Raises `DataError` for bad data, ValueError for an `env_id` that there is not or that the data do not fit and for
    settings that do not go together, and what `gentraj.training.train` raises.
    """
    folder = Path(folder)
    config = replace(config, dataset=located(config.dataset, folder))  # of use from any working directory
    config, data, components, episodes, windows = ready(config, folder, rehearsed=not resume)

    def prepare() -> None:
        reference = windows.batch(0, fold(config.training.seed, 1), REFERENCE_WINDOWS)
        context = {} if reference.context_BC is None else {"context": reference.context_BC}
        saved = safetensors.torch.save({"x": reference.x_BHD, "mask": reference.mask_BHD} | context)
        write_file(folder / REFERENCE, saved)
        file = _RunFile(config, data, hashlib.sha256(saved).hexdigest())
        write_file(folder / CONFIG, json.dumps(to_json(file), indent=2).encode())
        records.record_start(folder, device, resume)

    def evaluate(step: int) -> None:
        now = _run(folder, _read(folder), {name: module_tensors(component) for name, component in components.items()},
                   step, device)
        agent = now.agent(now.action_space())
        records.record_score(folder, step, agent, data, config.training.eval_episodes)

    training.train(components, episodes, config.training, folder, meta=_trained(config, data), resume=resume,
                   device=device, progress=progress, contexts=config.context, prepare=prepare, evaluate=evaluate)
    return load(folder, device=device)


def located(dataset: str, folder: Path) -> str:
    """The datasets, with each file as an absolute path: where it is said to be, else where it lies beside the run, in
    the run's folder or the one around it."""
    def place(name: str) -> str:
        path = Path(name).expanduser()
        if path.suffix not in FILES:
            return name
        found = next((one for one in (path, folder / path.name, folder.absolute().parent / path.name) if one.is_file()),
                     path).absolute()
        return name if "+" in str(found) else str(found)  # which parts datasets

    return "+".join(map(place, dataset.split("+")))


class Ready(NamedTuple):
    """All that a training begins with."""

    config: AnyRunConfig
    """With what the data decide filled in."""
    data: DataFacts
    components: dict[str, Component]
    episodes: Episodes
    """What is learnt of."""
    windows: Windows
    """Of the main component, of the data that it keeps."""


def ready(config: AnyRunConfig, folder: Path | None = None, *, record: bool = True, rehearsed: bool = True) -> Ready:
    """Reads the data, fills in what they decide, builds the components and, if it is to be rehearsed, lets them decide
    once.

    Raises what `train` raises before it trains.
    """
    if config.env_id is not None:
        environment_factory(config.env_id)  # a name that is wrong is told before data are read or recorded
    episodes, returns = read_data(config, folder, record=record)
    config = resolve(config, episodes)
    episodes, kept, _ = config.split(episodes)
    data = DataFacts.of(episodes, config.context, config.env_id, returns)
    if config.training.eval_every:
        check_evaluable(data)
    components = build(config, data, episodes)
    windows = Windows(kept, components[config.MAIN].spec, config.context)
    if rehearsed:
        check_data(data, episodes, config.env_id)
        dry_run(config, data, components, windows)
    return Ready(config, data, components, episodes, windows)


def read_data(config: AnyRunConfig, folder: Path | None = None, *,
              record: bool = True) -> tuple[Episodes, list[DataReturns]]:
    """What a run, that in `folder`, is trained on, and what the episodes of each of its datasets earned as they were
    recorded. Of steps that a world model imagined only a policy's critic learns; for other runs they are left out,
    with a warning. A task's own dataset is recorded if it is missing, unless `record` says not to."""
    names = config.dataset if folder is None else located(config.dataset, folder)
    datasets = [load_episodes(make_missing(name) if record else name) for name in names.split("+")]
    real = [dataset.real() for dataset in datasets]
    joined = concatenate(datasets if config.LEARNS_OF_IMAGINED else real)
    if lost := sum(dataset.num_steps for dataset in datasets) - joined.num_steps:
        warnings.warn(f"{config.dataset}: {lost} steps that a world model imagined are left out; only the critics of "
                      "policies learn of such", stacklevel=2)
    return joined.stitched() if config.stitch else joined, list(map(DataReturns.of, real))


def load(folder: Path | str, *, step: int | None = None, device: torch.device | None = None) -> Run:
    """The run in a folder, at its newest valid checkpoint or at `step`. Its dataset is not needed.

    Raises `NothingSaved` without a checkpoint, `ConfigError` for settings that are not those of the checkpoint.
    """
    folder = Path(folder)
    file, saved = _read(folder), checkpoint.load(folder, step)
    check_same(saved.meta, saved.meta | _trained(file.run, file.data), str(folder / CONFIG))
    return _run(folder, file, saved.components, saved.step, device, saved.meta["dataset_hash"])


def _run(folder: Path, file: _RunFile, tensors: Mapping[str, Mapping[str, torch.Tensor]], step: int,
         device: torch.device | None, dataset_hash: str = "") -> Run:
    """The run of copies of the components' tensors."""
    components = build(file.run, file.data)
    for name, component in components.items():
        restore_module(component, tensors.get(name, {}), name)
        component.to(device).eval()
    reference = read_reference(folder / REFERENCE, file.reference_sha256)
    file.run.loaded(components, reference)
    return Run(folder, file.run, file.data, components, reference.to(device) if device else reference, step,
               dataset_hash)


def read_config(folder: Path) -> tuple[AnyRunConfig, DataFacts]:
    """The settings of a run folder. Raises `NothingSaved` or `ConfigError`."""
    file = _read(folder)
    return file.run, file.data


def _read(folder: Path) -> _RunFile:
    path = folder / CONFIG
    if not path.is_file():
        raise checkpoint.NothingSaved(f"{folder}: no run there ({CONFIG} is missing); `gentraj train` makes one")
    held = read_json(path)
    checkpoint.check_format(held.get("format_version", 1), str(folder))
    return from_json(_RunFile, held, str(path))


def read_reference(path: Path, sha256: str) -> Batch:
    """The windows of training data that a run keeps. Raises `CheckpointError` for a file that is not what was saved."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise checkpoint.CheckpointError(f"{path}: cannot be read ({error.strerror}); `gentraj train --resume` "
                                         "writes it anew") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise checkpoint.CheckpointError(f"{path}: is not what was saved; `gentraj train --resume` writes it anew")
    tensors = safetensors.torch.load(data)
    return Batch(tensors["x"], tensors["mask"], tensors.get("context"))


def resolve(config: AnyRunConfig, episodes: Episodes) -> AnyRunConfig:
    """The config with everything the data decide filled in."""
    return config.resolve(episodes)


def build(config: AnyRunConfig, data: DataFacts, episodes: Episodes | None = None) -> dict[str, Component]:
    """The components of a resolved config, with the statistics of `episodes` or with room to load saved ones into."""
    with torch.random.fork_rng(devices=()):  # torch draws initial weights from its global generator, left as it was
        torch.default_generator.manual_seed(fold(config.training.seed))
        return config.build(data, episodes)


def _trained(config: AnyRunConfig, data: DataFacts) -> dict[str, Any]:
    """What checkpoints depend on: not the planner, nor where the data lie (they have a hash)."""
    run = {key: value for key, value in to_json(config).items() if key not in config.MAY_CHANGE}
    return {"run": run, "data": to_json(replace(data, returns=()))}
