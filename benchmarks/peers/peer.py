"""What an adapter is: a method that is trained by its authors' code, from a checkout, on our data, and that acts as an
`Agent`; and all of them by their names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import numpy as np

from gentraj.config import ConfigError
from gentraj.data import Episodes
from gentraj.data.d4rl import d4rl_arrays
from gentraj.data.sources import split_names
from gentraj.runs.kinds.presets import PRESETS
from gentraj.trajectory import Agent

OURS = "gentraj:"  # before the name of a preset
SLACK = 1e-3  # how far rounding may take an action beyond 1


class TrainingDone(Exception):
    """Ends a training from within the authors' loop."""


@dataclass(frozen=True)
class Task:
    """What a peer is trained for."""

    data: Episodes
    dataset: str
    """As `gentraj train --dataset`."""
    env_id: str
    """The environment of the data and of the evaluations."""
    seed: int
    updates: int
    """The number of updates after which a schedule of learning rates ends, if the method has one."""
    checkout: Path | None = None
    """The folder of the authors' code; None for a package."""
    like: str | None = None
    """The dataset for which the authors chose the settings that are taken, where they have settings for each; by
    default the one that is called as the data."""

    def settings_file(self, files: Mapping[str, Path]) -> Path:
        """The file of settings, of those for datasets of D4RL, whose names may lack their -v2.

        By default it is the one for the name of the data, where medium+expert are medium-expert, and mixed is
        medium-replay. Raises `ConfigError` where there is none.
        """
        stems = sorted(Path(name).stem for name in split_names(self.dataset))
        named = re.sub(r"-expert\+.*-medium$", "-medium-expert", "+".join(stems)).replace("-mixed", "-medium-replay")
        like = self.like or named
        found = files.get(like, files.get(f"{like}-v2"))
        if found is None:
            raise ConfigError(f"the authors' code has no settings for {like}; give by --like one of "
                              f"{', '.join(sorted(files))}")
        return found


class Peer(Agent):
    """A method in training, and the agent of what it has learned so far. It is made of a `Task`."""

    @abstractmethod
    def train(self, after_update: Callable[..., None]) -> None:
        """Trains by the authors' loop, and calls `after_update()` after each update, when its work is done, or
        `after_update(n)` after n updates of a loop that stops for no less; the call raises `TrainingDone` at the end of
        the training, and may ask the agent to act before."""


@dataclass(frozen=True)
class Method:
    """A method of a repository."""

    label: str
    """As its paper calls it."""
    module: str
    """The adapter: a module of this package, whose `made` is given `name` and a task."""
    name: str
    """The name of the method for the adapter."""
    repository: str = ""
    """OWNER/NAME at github.com, for code from a checkout; its folder has the repository's name."""
    packages: str = ""
    """What `pip install` is given."""
    scheduled: bool = False
    """Whether its learning rates follow a schedule up to the last update, so that a training is of one length."""
    ours: str = ""
    """The preset of gentraj for the same method, if there is one."""
    goals: bool = False
    """Whether it learns from data with goals, and from no others."""

    def made(self, task: Task) -> Peer:
        """The method, before its first update."""
        return import_module(f"benchmarks.peers.{self.module}").made(self.name, task)

    def check_code(self, folder: Path) -> None:
        """Raises `ConfigError` where its checkout is not in the folder of checkouts, or a package is missing."""
        self.checkout(folder)
        found = versions(self.packages)
        if absent := [name for name in names(self.packages) if name not in found]:
            raise ConfigError(f"{self.label} needs {', '.join(absent)}: pip install {self.packages}")

    def check_data(self, task: Task) -> None:
        """Raises `ConfigError` for data that it cannot learn from: with goals, or without, and with actions beyond -1
        and 1, which most authors' actors cannot take. For a preset of gentraj, raises what its training would."""
        data = task.data
        if self.module == "ours":
            self.made(task)
        elif self.goals and not data.goal_dims:
            raise ConfigError(f"{data.name}: has no goals, which {self.label} learns to reach; give data with goals, "
                              "such as gentraj/ogbench/pointmaze-medium-stitch-v0")
        elif data.goal_dims and not self.goals:
            raise ConfigError(f"{data.name}: has goals, and {self.label} is for data without; give data of one task")
        elif np.abs(data.act).max() > 1 + SLACK:
            raise ConfigError(f"{data.name}: has actions up to {np.abs(data.act).max():.3g}, and {self.label} needs "
                              "actions between -1 and 1; scale them")

    def checkout(self, folder: Path) -> Path | None:
        """Its checkout in a folder of checkouts, or None if it needs none. Raises `ConfigError` where it is missing."""
        if not self.repository:
            return None
        path = folder.expanduser().absolute() / self.repository.partition("/")[2]
        if not path.is_dir():
            raise ConfigError(f"{self.label} needs a checkout: git clone https://github.com/{self.repository} {path}")
        return path

    def commit(self, folder: Path) -> dict[str, str]:
        """The repository and the commit of its checkout, if it needs one."""
        path = self.checkout(folder)
        if path is None:
            return {}
        found = subprocess.run(["git", "-C", path, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
        return {self.repository: found.stdout.strip() or "unknown"}


JAX = "jax flax optax distrax ml_collections"
_fql = partial(Method, module="fql", repository="seohongpark/fql", packages=JAX)
_qc = partial(Method, module="qc", repository="ColinQiyangLi/qc", packages=JAX)
_corl = partial(Method, module="corl", repository="tinkoff-ai/CORL", packages="pyyaml")
_d3rlpy = partial(Method, module="d3rlpy", packages="--no-deps d3rlpy==2.8.1 gym==0.26.2 gym-notices structlog "
                  "colorama dataclasses-json marshmallow typing-inspect mypy-extensions scikit-learn joblib "
                  "threadpoolctl narwhals")  # it asks for gymnasium 1.0, and works with later ones
_ogbench = partial(Method, module="ogbench", repository="seohongpark/ogbench", packages=JAX, goals=True)
_cleandiffuser = partial(Method, module="cleandiffuser", repository="CleanDiffuserTeam/CleanDiffuser",
                         packages="einops greenlet pyyaml", scheduled=True)
METHODS = {
    "fql": _fql("FQL of its authors", name="fql", ours="fql"),
    "fql-normalized": _fql("Normalized FQL of its authors", name="fql-normalized", ours="fql"),
    "ifql": _fql("IFQL of FQL's authors", name="ifql", ours="idql"),
    "rebrac": _fql("ReBRAC of FQL's authors", name="rebrac"),
    "qc": _qc("QC of its authors", name="qc"),
    "qc-fql": _qc("QC-FQL of its authors", name="qc-fql"),
    "veteran": _cleandiffuser("Diffusion Veteran of CleanDiffuser", name="veteran", ours="veteran"),
    "veteran-raw": _cleandiffuser("Veteran of CleanDiffuser, last weights", name="veteran-raw", ours="veteran"),
    "diffusion-ql": _cleandiffuser("Diffusion-QL of CleanDiffuser", name="dql", ours="diffusion-ql"),
    "idql": _cleandiffuser("IDQL of CleanDiffuser", name="idql", ours="idql"),
    "idql-raw": _cleandiffuser("IDQL of CleanDiffuser, last weights", name="idql-raw", ours="idql"),
    "corl-iql": _corl("IQL of CORL", name="iql", scheduled=True, ours="iql"),
    "corl-td3bc": _corl("TD3+BC of CORL", name="td3_bc", ours="td3bc"),
    "corl-rebrac": _corl("ReBRAC of CORL", name="rebrac", packages="pyyaml jax flax optax chex"),
    "d3rlpy-iql": _d3rlpy("IQL of d3rlpy", name="iql", scheduled=True, ours="iql"),
    "d3rlpy-td3bc": _d3rlpy("TD3+BC of d3rlpy", name="td3bc", ours="td3bc"),
    "gcbc": _ogbench("GCBC of OGBench", name="gcbc", ours="gcbc"),
    "gcivl": _ogbench("GCIVL of OGBench", name="gcivl"),
    "gciql": _ogbench("GCIQL of OGBench", name="gciql", ours="gciql"),
    "qrl": _ogbench("QRL of OGBench", name="qrl"),
    "crl": _ogbench("CRL of OGBench", name="crl"),
    "hiql": _ogbench("HIQL of OGBench", name="hiql"),
}


def method(name: str) -> Method:
    """The method with this name: one of `METHODS`, or gentraj:PRESET. Raises `ConfigError` for another."""
    preset = name.removeprefix(OURS)
    if name.startswith(OURS) and preset in PRESETS:
        return Method(f"{preset} of gentraj", "ours", preset, scheduled=True)
    if name not in METHODS:
        raise ConfigError(f"unknown method '{name}'; one of {', '.join(METHODS)} is expected, or {OURS}PRESET with a "
                          "preset of gentraj")
    return METHODS[name]


def first_on_path(folder: Path | None) -> None:
    """Lets modules be imported from a checkout, before those of the working directory, which may hold gentraj's own
    agents/."""
    sys.path.insert(0, str(folder))


class _Nothing(type):
    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __call__(cls, *given: object, **how: object) -> object:
        if len(given) == 1 and not how and callable(given[0]):
            return given[0]
        return cls


class Nothing(metaclass=_Nothing):
    """Stands for whatever is not needed: each attribute of it and each call gives it again, it can be a base class, and
    as a decorator, with arguments or without, it leaves a function or a class as it is."""


class StandIn(ModuleType):
    """A module whose attributes are `Nothing`, except those that are set."""

    def __getattr__(self, name: str) -> type:
        return getattr(Nothing, name)


def stand_in(*modules: str) -> None:
    """Lets authors' code import modules by these names, whether they are installed or not, which it does not need for
    what is done here: `import a.b` needs "a" and "a.b"."""
    for name in modules:
        sys.modules[name] = StandIn(name)


def one_core() -> None:
    """Keeps JAX, before it is imported, to one core."""
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")


def transitions(data: Episodes) -> dict[str, np.ndarray]:
    """The rows (S, ...) of `d4rl_arrays` as float32."""
    return {key: array.astype(np.float32) for key, array in d4rl_arrays(data).items()}


def masked_transitions(data: Episodes) -> dict[str, np.ndarray]:
    """The transitions as FQL's code and what is built on it take them: `terminals` is 1 where an episode has ended in
    any way, and `masks` is 0 where it has ended for good."""
    rows = transitions(data)
    ended_S = np.maximum(rows["terminals"], rows.pop("timeouts"))
    return rows | {"masks": 1 - rows["terminals"], "terminals": ended_S}


def names(packages: str) -> list[str]:
    """The names of packages in what `pip install` is given."""
    return [word.partition("==")[0] for word in packages.split() if not word.startswith("-")]


def versions(packages: str) -> dict[str, str]:
    """The versions of those of the packages that are installed."""
    found = {}
    for name in names(packages):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
