"""A run: the parts that were trained together, the settings that made them, and a folder that is all they need."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import safetensors.torch
import torch

from agents.arrival import Arrival, ArrivalConfig
from agents.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from agents.planner import Planner, PlannerConfig
from agents.trust import Trust
from envs.advice import horizon_advice
from envs.pointmaze import make_missing

from . import checkpoint, training
from .config import from_json, read_json, to_json
from .data import ContextConfig, Episodes, Windows, load_episodes
from .files import write_file
from .generation import Guidance
from .models import FAMILIES, MODELS, Model, ModelConfig
from .normalize import Normalizer
from .randomness import fold
from .state import restore_module
from .training import TrainingConfig, check_same
from .trajectory import Batch, TrajectorySpec

if TYPE_CHECKING:
    from gymnasium.spaces import Box

CONFIG, REFERENCE = "config.json", "reference.safetensors"
Part = Model | InverseDynamics | Arrival
CONTEXT_WINDOWS = 4096  # give the statistics of the contexts
REFERENCE_WINDOWS = 512  # of the training data: they calibrate trust, and are drawn beside samples


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run. What is None is chosen from the data when training starts, and written down."""

    dataset: str = ""
    """A Minari id, a D4RL id, or a file (.hdf5 of D4RL's layout, .npz of gentraj or OGBench); '+' joins several."""
    horizon: int | None = None
    """Rows of a trajectory."""
    stride: int | None = None
    """Environment steps between two rows."""
    joint: bool = False
    """Trajectories of observations and actions; else of observations, with inverse dynamics."""
    stitch: bool = True
    """Join episodes that continue each other: one endless run that was cut at its goals."""
    context: ContextConfig = field(default_factory=ContextConfig)
    """What the model is told beside the trajectory, to be asked for when it samples."""
    model: ModelConfig = FAMILIES["diffusion"]
    inverse: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    arrival: ArrivalConfig = field(default_factory=ArrivalConfig)
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if self.planner.actions == "joint" and not self.joint:
            raise ValueError("planner.actions is 'joint', and the model would have no actions; set joint too")


@dataclass(frozen=True)
class DataFacts:
    """What a run must remember of its data to be used without it."""

    obs_dim: int
    act_dim: int
    context_dim: int
    goal_dims: tuple[int, ...]
    obs_keys: tuple[str, ...]
    env: str | None
    """Gymnasium's EnvSpec as JSON."""

    @classmethod
    def of(cls, episodes: Episodes, context: ContextConfig) -> DataFacts:
        return cls(episodes.obs_dim, episodes.act_dim, context.width(episodes), episodes.goal_dims, episodes.obs_keys,
                   episodes.env)


@dataclass(frozen=True)
class Run:
    """A trained run. `model` samples trajectories, `planner(action_space)` acts."""

    folder: Path
    config: RunConfig
    data: DataFacts
    parts: Mapping[str, Part]
    reference: Batch
    step: int

    @property
    def model(self) -> Model:
        return cast(Model, self.parts["model"])

    def save_pretrained(self, folder: Path | str) -> Path:
        """As `gentraj.hub.save_pretrained`, which `gentraj.from_pretrained` loads."""
        from .hub import save_pretrained

        return save_pretrained(self, folder)

    def planner(self, action_space: Box, config: PlannerConfig | None = None, guide: Guidance = None) -> Planner:
        """The planner of this run for that action space, with its own settings by default; `guide` shapes its plans."""
        inverse, arrival = cast(InverseDynamics, self.parts.get("inverse")), cast(Arrival, self.parts.get("arrival"))
        config = config or self.config.planner
        trust = Trust(self.model, self.reference, config.trust) if config.arrival == "earliest" else None
        return Planner(self.model, config, action_space.low, action_space.high, trust=trust, inverse=inverse,
                       arrival=arrival, guide=guide)

    def likeliest_arrival(self, obs_BO: torch.Tensor, goal_BG: torch.Tensor) -> torch.Tensor:
        """(B,) the row at which the goal is most probably reached; the last one without an arrival network."""
        if "arrival" not in self.parts:
            return torch.full((len(obs_BO),), self.model.spec.horizon - 1)
        return cast(Arrival, self.parts["arrival"]).propose(obs_BO, goal_BG, (1.0,))[:, 0]


@dataclass(frozen=True)
class _RunFile:
    """What config.json holds."""

    run: RunConfig
    data: DataFacts
    reference_sha256: str


def train(config: RunConfig, folder: Path | str, *, resume: bool = False, device: torch.device | None = None,
          progress: bool = True) -> Run:
    """Trains all parts of a run and returns it, loaded from its folder. A task's own dataset is recorded if missing.

    A resumed run may have another planner and, of the training's settings, those that may change; they are kept.

    Raises `DataError` for bad data and what `gentraj.training.train` raises.
    """
    folder, episodes = Path(folder), load_episodes([make_missing(name) for name in config.dataset.split("+")])
    episodes = episodes.stitched() if config.stitch else episodes
    config, data = resolve(config, episodes), DataFacts.of(episodes, config.context)
    parts = build(config, data, episodes)

    def prepare() -> None:
        seed, model = config.training.seed, cast(Model, parts["model"])
        reference = Windows(episodes, model.spec).batch(0, fold(seed, 1), REFERENCE_WINDOWS)
        windows = safetensors.torch.save({"x": reference.x_BHD, "mask": reference.mask_BHD})
        write_file(folder / REFERENCE, windows)
        file = _RunFile(config, data, hashlib.sha256(windows).hexdigest())
        write_file(folder / CONFIG, json.dumps(to_json(file), indent=2).encode())

    training.train(parts, episodes, config.training, folder, meta=_trained(config, data), resume=resume, device=device,
                   progress=progress, contexts=config.context, prepare=prepare)
    return load(folder, device=device)


def load(folder: Path | str, *, step: int | None = None, device: torch.device | None = None) -> Run:
    """The run in a folder, at its newest valid checkpoint or at `step`. Its dataset is not needed.

    Raises `NothingSaved` without a checkpoint, `ConfigError` for settings that are not those of the checkpoint.
    """
    folder = Path(folder)
    file = _read(folder)
    config, data = file.run, file.data
    saved = checkpoint.load(folder, step)
    check_same(saved.meta, saved.meta | _trained(config, data), str(folder / CONFIG))
    parts = build(config, data)
    for name, part in parts.items():
        restore_module(part, saved.parts.get(name, {}), name)
        part.to(device).eval()
    reference = read_reference(folder / REFERENCE, file.reference_sha256)
    return Run(folder, config, data, parts, reference.to(device) if device else reference, saved.step)


def read_config(folder: Path) -> tuple[RunConfig, DataFacts]:
    """The settings of a run folder. Raises `NothingSaved` or `ConfigError`."""
    file = _read(folder)
    return file.run, file.data


def _read(folder: Path) -> _RunFile:
    path = folder / CONFIG
    if not path.is_file():
        raise checkpoint.NothingSaved(f"{folder}: no run there ({CONFIG} is missing); `gentraj train` makes one")
    return from_json(_RunFile, read_json(path), str(path))


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
    return Batch(tensors["x"], tensors["mask"])


def resolve(config: RunConfig, episodes: Episodes) -> RunConfig:
    """The config with everything the data decide filled in."""
    horizon, stride = horizon_advice(episodes.env)
    goal_dims = config.model.mix.goal_dims or episodes.goal_dims
    mix = replace(config.model.mix, goal_dims=goal_dims)
    planner = replace(config.planner, goal_dims=goal_dims, actions="joint" if config.joint else "inverse")
    if not goal_dims:  # then there is nothing to come to rest at
        planner = replace(planner, rest_dims=())
    if any(not 0 <= dim < episodes.obs_dim for dim in planner.rest_dims):
        raise ValueError(f"planner.rest_dims are {planner.rest_dims}; entries of an observation of width "
                         f"{episodes.obs_dim} are expected")
    return replace(config, horizon=horizon if config.horizon is None else config.horizon,
                   stride=stride if config.stride is None else config.stride,
                   model=config.model.with_mix(mix), planner=planner)


def build(config: RunConfig, data: DataFacts, episodes: Episodes | None = None) -> dict[str, Part]:
    """The parts of a resolved config, with the statistics of `episodes` or with room to load saved ones into."""
    if config.horizon is None or config.stride is None:
        raise ValueError("the horizon or the stride is not chosen yet; call resolve(config, episodes) first")
    spec = TrajectorySpec(data.obs_dim, data.act_dim if config.joint else 0, config.horizon, config.stride)
    with torch.random.fork_rng(devices=()):  # torch draws initial weights from its global generator, left as it was
        torch.default_generator.manual_seed(fold(config.training.seed))
        return _parts(spec, config, data, episodes)


def _parts(spec: TrajectorySpec, config: RunConfig, data: DataFacts, episodes: Episodes | None) -> dict[str, Part]:
    def normalizer(kind: str, act_dim: int) -> Normalizer:
        if episodes is None:
            return Normalizer.identity(data.obs_dim + act_dim)
        return Normalizer.fit(kind, [episodes.obs, episodes.act] if act_dim else [episodes.obs])

    context = _context_normalizer(spec, config, data, episodes)
    model = MODELS[type(config.model)](spec, config.model, normalizer(config.model.normalizer, spec.act_dim), context)
    parts: dict[str, Part] = {"model": model}
    if not config.joint:
        parts["inverse"] = (InverseDynamics.blank(data.obs_dim, data.act_dim, config.inverse) if episodes is None
                            else InverseDynamics.fit(episodes, config.inverse))
    if goal_dims := config.model.mix.goal_dims:
        parts["arrival"] = Arrival(replace(spec, act_dim=0), goal_dims, config.arrival, normalizer("limits", 0))
    return parts


def _context_normalizer(spec: TrajectorySpec, config: RunConfig, data: DataFacts,
                        episodes: Episodes | None) -> Normalizer | None:
    if not data.context_dim:
        return None
    if episodes is None:
        return Normalizer.identity(data.context_dim)
    sample = Windows(episodes, spec, config.context).batch(0, fold(config.training.seed, 2), CONTEXT_WINDOWS)
    return Normalizer.fit("gaussian", [cast(torch.Tensor, sample.context_BC).numpy()])


def _trained(config: RunConfig, data: DataFacts) -> dict[str, Any]:
    """What checkpoints depend on: not the planner, nor where the data lie (they have a hash)."""
    run = {key: value for key, value in to_json(config).items() if key not in ("planner", "training", "dataset")}
    return {"run": run, "data": to_json(data)}
