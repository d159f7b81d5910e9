"""A run: parts that were trained together, their settings, and what they remember of their data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import numpy as np
import torch
from annotated_types import Interval
from gymnasium.spaces import Box
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from gentraj import runs
from gentraj.agents.mpc import MPCConfig
from gentraj.agents.planning.arrival import Arrival
from gentraj.agents.planning.inverse_dynamics import InverseDynamics
from gentraj.agents.planning.plan_critic import PlanCritic
from gentraj.agents.planning.sampler import PlannerConfig
from gentraj.agents.policies.policy import Policy, PolicyConfig
from gentraj.agents.roadmap.far_goals import FarGoals, RoadmapConfig, roadmap_of_tensors
from gentraj.envs.evaluation.scores import DataReturns
from gentraj.envs.making import EnvironmentFactory, environment_factory

from ...config import JsonObject, settings
from ...data import ContextConfig, Episodes, windows_of
from ...data.splitting import hold_out
from ...data.windows import context_width
from ...device import device_of
from ...families import Model, ModelConfig
from ...models.sampling import Guidance
from ...randomness import fold
from ...ranges import DataRanges
from ...training.loop import TrainingConfig
from ...training.state import module_tensors, restore_module
from ...trajectory import DEFAULT_OPTIONS, Agent, ArrayLike, Batch, SamplingOptions, TrajectorySpec
from ...worlds.model import WorldModel

if TYPE_CHECKING:
    from gentraj.agents.realtime.background import Deadline

REFERENCE_WINDOWS = 512  # windows of the data that a run keeps
MAX_HISTORY = 1000  # more observations than these are a mistake, and would fill the memory

Component = Model | InverseDynamics | Arrival | PlanCritic | Policy | WorldModel
"""A part of a run that is trained, such as a generative model or a critic."""

ActingConfig = PlannerConfig | PolicyConfig | MPCConfig
"""The settings by which an agent acts."""


@settings
class DataFacts:
    """What a run must remember of its data to be used without them."""

    obs_dim: PositiveInt
    """Width O of an observation."""
    act_dim: PositiveInt
    """Width A of an action."""
    context_dim: NonNegativeInt
    """Width C of the context; 0 without one."""
    goal_dims: tuple[int, ...]
    """The entries of an observation that a goal gives values for; empty without goals."""
    obs_keys: tuple[str, ...]
    """The keys of the dict observations that were joined; empty for plain ones."""
    env: str | None
    """Gymnasium's EnvSpec as JSON: that of the run's `env_id`, or else the one that the data name."""
    recorded: str | None = None
    """The EnvSpec that the data name, as JSON; None if they name none."""
    returns: tuple[DataReturns, ...] = ()
    """The returns of each dataset that was joined, in the order in which they were joined."""
    constant_actions: tuple[float | None, ...] = ()
    """The value of each entry of an action that never varies, and None for the others; empty if all vary."""
    obs_names: tuple[str, ...] = ()
    """The names of the entries of an observation; empty if the data give none."""
    act_names: tuple[str, ...] = ()
    """The names of the entries of an action."""
    obs_low: tuple[float, ...] = ()
    """The smallest value of each entry of an observation; empty in runs that were trained before it was kept."""
    obs_high: tuple[float, ...] = ()
    """The largest ones."""

    @classmethod
    def of(cls, episodes: Episodes, context: ContextConfig, env_id: str | None = None,
           returns: Sequence[DataReturns] = (), goal_dims: tuple[int, ...] = ()) -> DataFacts:
        """The facts of `episodes`. `returns` are those of each joined dataset, by default those of `episodes`;
        `goal_dims` hold where the episodes name none."""
        env = environment_factory(env_id).spec_json if env_id else episodes.env
        low_A, high_A = episodes.act.min(0).tolist(), episodes.act.max(0).tolist()
        constant = tuple(low if low == high else None for low, high in zip(low_A, high_A, strict=True))
        if set(constant) == {None}:
            constant = ()
        return cls(episodes.obs_dim, episodes.act_dim, context_width(episodes, context),
                   episodes.goal_dims or goal_dims, episodes.obs_keys, env, episodes.env,
                   tuple(returns or [DataReturns.of(episodes)]), constant, episodes.obs_names, episodes.act_names,
                   tuple(episodes.obs.min(0).tolist()), tuple(episodes.obs.max(0).tolist()))

    def allowed(self, space: Box) -> Box:
        """The actions of a space among which an agent chooses: what never varies in the data stays as it is.

        Raises ValueError for a space whose actions have another width than the data's.
        """
        if not isinstance(space, Box) or space.shape != (self.act_dim,):
            raise ValueError(f"the action space is {space}, and the agent was trained on actions of width "
                             f"{self.act_dim}; give it the space of such actions, Box(low, high, ({self.act_dim},))")
        if not self.constant_actions:
            return space
        held_A = np.array([np.nan if value is None else value for value in self.constant_actions], np.float32)
        varies_A, held_A = np.isnan(held_A), held_A.clip(space.low, space.high)
        return Box(np.where(varies_A, space.low, held_A), np.where(varies_A, space.high, held_A), dtype=np.float32)


@settings
class RunConfig:
    """The settings that every run has; each kind of run adds its parts and its training."""

    dataset: str = ""
    """A Minari id, a D4RL id, an OGBench name, a file (.hdf5 or .h5 in D4RL's or robomimic's layout, .npz of
    gentraj, OGBench or D4RL's layout) or a LeRobot dataset (lerobot:OWNER/NAME or its folder); '+' joins several."""
    env_id: str | None = None
    """The environment, if the data do not name one or another one is wanted: a Gymnasium id or a task name. Its
    arguments are given by --env-kwargs KEY=VALUE."""
    stitch: bool = True
    """Join consecutive episodes that continue each other, as in data that are one endless run truncated at its
    goals."""
    held_out: Annotated[float, Interval(ge=0, le=0.5)] = 0.0
    """Fraction of the data that is set aside in whole episodes, at least one: nothing is trained on them, and no
    normaliser is fitted to them. The losses on them are written to held-out.jsonl at each checkpoint, and `gentraj
    choose` ranks checkpoints by them. Which episodes they are does not depend on the seed of the training."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The training loop."""

    @property
    def goal_dims(self) -> tuple[int, ...]:
        """The entries of an observation that a goal gives values for, where the settings name them."""
        return ()

    @property
    def whole_goals(self) -> bool:
        """Whether the goals that it learns to reach are whole observations."""
        return False

    @property
    def learns_from_synthetic(self) -> bool:
        """Whether a part learns from synthetic steps, which a world model imagined."""
        return False

    @property
    def learns_from_rewards(self) -> bool:
        """Whether values are learned from the rewards of the data and from where their episodes end."""
        return False


@settings
class MemoryRunConfig(RunConfig):
    """The settings of a run whose agent may see more than the present observation."""

    history: Annotated[int, Interval(ge=1, le=MAX_HISTORY)] = 1
    """Number of observations that it sees: the present one and the last ones before it. At the beginning of an episode
    the first one is repeated."""
    past_actions: Annotated[int, Interval(ge=0, le=MAX_HISTORY)] = 0
    """Number of its last actions that it sees; 0 at the beginning of an episode."""

    def memory(self, data: DataFacts) -> TrajectorySpec:
        """The layout of what it sees of these data (`TrajectorySpec.seen`)."""
        return TrajectorySpec(data.obs_dim, data.act_dim, 1, history=self.history, past_actions=self.past_actions,
                              obs_names=data.obs_names, act_names=data.act_names)


class Split(NamedTuple):
    """The data of a run in three parts: training data, data whose windows the run keeps, and data that it is tested on.

    Planners and policies keep windows of the real episodes that they train on, and are tested on the same if none are
    held out. A world model never trains on the other two parts: its uncertainty is calibrated on one and it is tested
    on the other.
    """

    train: Episodes
    reference: Episodes
    test: Episodes


ConfigT = TypeVar("ConfigT", bound=RunConfig)
RunT = TypeVar("RunT", bound="Run")
ActingT = TypeVar("ActingT", PlannerConfig, PolicyConfig, MPCConfig)
GOAL = ContextConfig(("goal",))
HELD_OUT_SEED = 0  # the same for all trainings, students and fine-tunings, so that their numbers can be compared


class Run(ABC, Generic[ConfigT]):
    """A planner, a policy or a world model, with the parts that were trained together.

    `gentraj.train` makes one and trains its parts, and `gentraj.load` reads one from its folder. A subclass makes the
    parts as attributes, and says in `components` what they are called in its folder.
    """

    NAME: ClassVar[str]
    """The name of this kind of run in messages."""
    MAIN: ClassVar[str]
    """The component that all others serve; the run keeps windows of its layout."""
    ACTS_BY: ClassVar[str]
    """The name of the settings by which the agent acts: `planner`, `policy` or `control`."""
    MODEL: ClassVar[str]
    """The dotted key of the settings of the generative model."""
    MODELS: ClassVar[Mapping[str, ModelConfig]]
    """The generative models that `gentraj train --model` can choose from, by name."""
    CARD: ClassVar[tuple[str, str, str]]
    """For the model card: what the run is, a line of Python that uses it, and its tag on the hub."""

    config: ConfigT
    """Its settings."""
    data: DataFacts
    """What it remembers of its data."""
    context: ContextConfig
    """What it is conditioned on, besides the observation."""
    summary: str
    """What it is made of in a few words, such as "planner, diffusion"."""
    acting: ActingConfig
    """The settings by which the agent acts; some of a policy's are for its training."""
    roadmap: RoadmapConfig | None = None
    """The settings of the roadmap on which the agent goes to far goals; None if it acts straight for all goals."""
    components: Mapping[str, Component]
    """The parts that are trained, by name."""
    reference: Batch
    """Windows of the data, beside which samples are judged."""
    kept: Mapping[str, Tensor] = {}
    """What acting needs of the data beside the trained parts."""
    folder: Path = Path()
    """The folder that it is in."""
    step: int = 0
    """The training step of its weights."""
    dataset_hash: str = ""
    """The hash of the training data."""

    @abstractmethod
    def __init__(self, config: ConfigT, data: DataFacts, episodes: Episodes | None = None):
        """Makes the parts of resolved settings, with the statistics of `episodes`, or blank, to load weights into."""
        self.config, self.data = config, data
        self.context = GOAL if data.context_dim else ContextConfig()

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.summary}, step {self.step})"

    @classmethod
    def build(cls, config: ConfigT, data: DataFacts, episodes: Episodes | None = None) -> Self:
        """A run whose first weights follow from the seed of its training. The settings must be resolved."""
        with torch.random.fork_rng(devices=()):  # initial weights come from torch's global generator, restored after
            torch.default_generator.manual_seed(fold(config.training.seed))
            return cls(config, data, episodes)

    @classmethod
    @abstractmethod
    def resolve(cls, config: ConfigT, episodes: Episodes) -> tuple[ConfigT, ContextConfig]:
        """The settings with everything filled in that the data decide, and what the parts are conditioned on.

        Raises ValueError if the settings do not suit the data.
        """

    @classmethod
    def split(cls, config: ConfigT, episodes: Episodes) -> Split:
        """The episodes to train on, to keep windows of, and to test on. Raises ValueError where none is left to test
        on."""
        if not config.held_out:
            return Split(episodes, episodes.real(), episodes.real())
        train, unseen = hold_out(episodes, config.held_out, HELD_OUT_SEED, whole=True)
        return Split(train, train.real(), unseen.real())

    def keep_windows(self, episodes: Episodes) -> None:
        """Keeps windows of these episodes, beside which samples are judged."""
        windows = windows_of(episodes, self.main.spec, self.context)
        batch = windows.batch(0, fold(self.config.training.seed, 1), REFERENCE_WINDOWS)
        self.reference = Batch(batch.x_BHD, batch.mask_BHD, batch.context_BC, past_BPD=batch.past_BPD)

    @property
    def main(self) -> Component:
        """The main component: a planner's model, the policy, or the world model."""
        return self.components[self.MAIN]

    def modules(self) -> Iterator[nn.Module]:
        """The modules of its parts, each once, as those of an `nn.Module`."""
        return nn.ModuleDict(self.components).modules()

    def ranges(self) -> DataRanges:
        """The ranges of the observations in its data; of a run that does not know them, those in the windows that it
        keeps."""
        data = self.data
        if data.obs_low:
            return DataRanges(data.obs_low, data.obs_high, data.goal_dims, data.obs_names)
        kept = self.reference
        low_O, high_O = kept.x_BHD[kept.mask_BHD[..., 0]][:, : data.obs_dim].aminmax(dim=0)
        return DataRanges(low_O.cpu(), high_O.cpu(), data.goal_dims, data.obs_names)

    @property
    def device(self) -> torch.device:
        """The device of its main component."""
        return device_of(self.main)

    @property
    def description(self) -> str:
        """What the run is, for messages, such as "runs/a is a planner (planner, diffusion)"."""
        return f"{self.folder} is a {self.NAME} ({self.summary})"

    @property
    @abstractmethod
    def model(self) -> Model:
        """The generative model. A policy's model samples actions given states, both in the policy's normalised units.

        Raises ValueError for a run without one.
        """

    def agent(self, action_space: Box | None = None, config: ActingConfig | None = None, guide: Guidance = None,
              options: SamplingOptions = DEFAULT_OPTIONS, deadline: Deadline | None = None, *,
              env: str | None = None) -> Agent:
        """The agent for an action space, by default that of the environment `env` or else of the data's own.

        An entry of an action that never varies in the data stays as it is. `config` replaces the settings by which it
        acts, as in `replace(run.config.policy, temperature=0)`, `guide` scores a planner's plans while they are
        sampled, `options` say how the agent samples, and `deadline` is the time in which a planner or a policy has to
        act. Raises ValueError for settings of another kind of agent or that differ in what the training depends on, for
        a guide of anything but a planner, and for a deadline of a world model.
        """
        space = self.data.allowed(self.action_space(env) if action_space is None else action_space)
        return self._agent(space, config, guide, options, deadline)

    @abstractmethod
    def _agent(self, space: Box, config: ActingConfig | None, guide: Guidance, options: SamplingOptions,
               deadline: Deadline | None) -> Agent:
        """The agent that chooses among the actions of a space; see `agent`."""

    def evaluate(self, env: str | EnvironmentFactory | None = None, episodes: int = 50, *,
                 acting: runs.Acting | None = None, out: Path | str | None = None, video: Path | str | None = None,
                 progress: bool = True, **settings: Any) -> runs.Scores:
        """The scores of its agent, as of `gentraj.evaluate`; they are written to evaluation.json in its folder, or to
        `out`."""
        return runs.evaluate(self, env, episodes, acting=acting, out=out, video=video, progress=progress, **settings)

    def sample(self, start: ArrayLike | None = None, num: int = 16, *, goal: ArrayLike | None = None,
               arrival: int | None = None, context: ArrayLike | None = None, guidance: float = 1.0,
               seed: int | None = None, options: SamplingOptions = DEFAULT_OPTIONS) -> runs.Samples:
        """`num` trajectories of a planner's model, or chunks of actions of a policy's, as of `gentraj sample`.

        `start` (O,) is the first observation, or the entries of it that a goal has; `goal` (G,) is to be reached, at
        the timestep `arrival` if it is given. `context` (C,) is what the model is conditioned on, and `guidance` the
        weight of classifier-free guidance by it. Without a `seed`, samples differ from call to call. Raises ValueError
        for a run without such a model, and for numbers that do not fit it.
        """
        return runs.sample_run(self, start, num, goal=goal, arrival=arrival, context=context, guidance=guidance,
                               seed=seed, options=options)

    def export(self, path: Path | str, batch: int = 1, *, env: str | None = None, action_space: Box | None = None,
               options: SamplingOptions = DEFAULT_OPTIONS) -> Path:
        """Writes a decision for `batch` observations as a program that runs without gentraj: .onnx for ONNX Runtime, or
        .pt2 for torch.export.load.

        Actions are bounded by `action_space`, or else by that of `env` or of the data's environment. Returns the path.
        Raises ValueError for another file, and for a run that cannot be exported; ImportError for missing packages.
        """
        return runs.save_program(self, path, batch, env, options, action_space)

    def report(self, out: Path | str | None = None, seed: int = 0) -> Path:
        """Writes its report, as of `gentraj.make_report`, by default to report.html in its folder."""
        return runs.make_report(self, out, seed)

    def measure(self, dataset: str | None = None, num: int = 512, steps: int | None = None,
                seed: int = 0) -> JsonObject:
        """How close a planner's samples are to data, as `gentraj measure` writes it (`gentraj.runs.measure_run`)."""
        return runs.measure_run(self, dataset=dataset, num=num, steps=steps, seed=seed)

    def save_pretrained(self, folder: Path | str) -> Path:
        """Saves its checkpoint without optimisers, with a model card (`gentraj.runs.save_pretrained`)."""
        return runs.save_pretrained(self, folder)

    def push_to_hub(self, name: str, *, private: bool | None = None) -> str:
        """Pushes it to a repository OWNER/NAME of the Hugging Face hub (`gentraj.runs.push_to_hub`)."""
        return runs.push_to_hub(self, name, private=private)

    @abstractmethod
    def sampling(self, config: ActingConfig | None = None, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        """How the agent samples, in words."""

    @abstractmethod
    def facts(self) -> JsonObject:
        """The main component in words and numbers, for tables about the run."""

    def example_goal(self, windows: Batch, obs_BO: Tensor) -> Tensor | None:
        """(B, G) goals for decisions in the first states of these windows; None if the agent takes no goals."""
        return None if windows.context_BC is None else windows.context_BC[: len(obs_BO)]

    def ready(self, device: torch.device | None) -> Self:
        """This run, ready to act on a device, when its parts are trained or loaded."""
        for component in self.components.values():
            component.to(device).eval()
        if device is not None:
            self.reference = self.reference.to(device)
        return self

    def action_space(self, env: str | None = None) -> Box:
        """The action space of an environment, by default of the run's own.

        Raises ValueError if its actions have another width than the run's.
        """
        environment = environment_factory(environment_of(self, env))()
        environment.close()
        if environment.action_space.shape != (self.data.act_dim,):
            raise ValueError(f"{self.folder}: was trained on actions of width {self.data.act_dim}, but the action "
                             f"space of {environment.spec.id} is {environment.action_space}; train on data of this "
                             "environment")
        return environment.action_space


def steps_done(run: Run) -> str:
    """The steps of the training, such as "1,500", or "159 of 1,500" if it is not finished."""
    steps = run.config.training.steps
    return f"{run.step:,} of {steps:,}" if run.step < steps else f"{run.step:,}"


def environment_of(run: Run, env_id: str | None = None) -> str:
    """`env_id`, or else the environment of the run's data. Raises ValueError if the data name none."""
    if (env := env_id or run.data.env) is None:
        raise ValueError(f"{run.folder}: its data do not say which environment they come from; give env=")
    return env


def ahead_of(run: Run) -> FarGoals | None:
    """What gives the places to act towards on the roadmap of a run; None without one."""
    if run.roadmap is None:
        return None
    return FarGoals(roadmap_of_tensors(run.kept), run.roadmap, run.data.goal_dims)


def straight(run: RunT) -> RunT:
    """The same run without its roadmap, whose agent acts straight for its goals. They have to be within its reach."""
    near = copy(run)
    near.roadmap = None
    return near


def examples(run: Run) -> tuple[Tensor, Tensor | None]:
    """Example inputs: observations (R, O) of the run's own data, and goals (R, G) if it is conditioned on goals.

    An agent with a history decides by all that it sees, (R, `TrajectorySpec.seen_dim`).
    """
    reference = run.reference
    obs_RO = reference.x_BHD[:, 0, : run.data.obs_dim]
    return run.main.spec.seen(obs_RO, reference.past_BPD), straight(run).example_goal(reference, obs_RO)


def of_kind(run: Run, kind: type[RunT]) -> RunT:
    """The run. Raises ValueError if it is one of another kind, and TypeError for what is no run."""
    if not isinstance(run, Run):
        raise TypeError(f"a {type(run).__name__} was given; a run is expected, such as gentraj.load('runs/demo')")
    if not isinstance(run, kind):
        raise ValueError(f"{run.description}; a {kind.NAME} is expected")
    return run


def check_widths(other: Run, run: Run) -> None:
    """Raises ValueError for a run of other observations or actions than those of the run that it stands by."""
    theirs, own = (f"observations of width {each.data.obs_dim} and actions of width {each.data.act_dim}"
                   for each in (other, run))
    if other.data.obs_keys != run.data.obs_keys:
        theirs, own = (f"{words} (keys: {', '.join(each.data.obs_keys) or 'none'})"
                       for words, each in ((theirs, other), (own, run)))
    if theirs != own:
        raise ValueError(f"{other.folder} was trained on {theirs}, and {run.folder} on {own}; give a run of "
                         "its environment")


def acting_settings(run: Run, given: ActingConfig | None, expected: type[ActingT]) -> ActingT:
    """The settings by which an agent acts. Raises ValueError for those of another kind of agent."""
    settings = run.acting if given is None else given
    if not isinstance(settings, expected) or type(settings) is not type(run.acting):
        raise ValueError(f"{run.description}, and a {type(given).__name__} was given; give it a "
                         f"{type(run.acting).__name__}, such as run.config.{run.ACTS_BY}")
    return settings


def refuse_planning(run: Run, guide: Guidance, deadline: Deadline | None = None) -> None:
    """Raises ValueError if a guide is given to an agent that plans nothing, or a deadline to one that has none."""
    if guide is not None:
        raise ValueError(f"a guide was given to a {run.NAME} ({run.summary}), which plans no trajectories; leave it "
                         "out")
    if deadline is not None:
        raise ValueError(f"a deadline was given to a {run.NAME} ({run.summary}), which makes nothing in advance; leave "
                         "it out")


def restore(run: Run, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Gives the parts these weights. Raises `CheckpointError` for those of another run."""
    for name, component in run.components.items():
        restore_module(component, tensors.get(name, {}), name)


def copy_of(run: Run, device: torch.device | None = None) -> Run:
    """A run with weights of its own, which are the same, ready to act."""
    made = run.build(run.config, run.data)
    made.reference, made.kept = run.reference, run.kept
    made.folder = run.folder
    made.step, made.dataset_hash = run.step, run.dataset_hash
    made.roadmap = run.roadmap
    restore(made, {name: module_tensors(part) for name, part in run.components.items()})
    return made.ready(device)
