"""Trains IQL or TD3+BC of d3rlpy on the data of a run, and scores it as `gentraj train --eval-every` scores a run.

    python -m venv d3rlpy-venv && d3rlpy-venv/bin/pip install . scikit-learn
    d3rlpy-venv/bin/pip install --no-deps d3rlpy==2.8.1 gym==0.26.2 gym-notices structlog colorama dataclasses-json \\
        marshmallow typing-inspect mypy-extensions
    d3rlpy-venv/bin/python -m benchmarks.d3rlpy_peer iql --dataset data/hopper-medium.hdf5 --env-id Hopper-v5 \\
        --updates 300000 --eval-every 25000 --out runs/d3rlpy/iql-hopper-medium-0

d3rlpy asks for gymnasium 1.0, and works with that of gentraj where it is installed without dependencies. The settings
are those of d3rlpy's own reproductions of the papers. Data and episodes of the evaluations are those of gentraj.

OUT/scores.jsonl is the learning curve, with the rows of a run's, and OUT/result.json holds it too, with the last score
and the mean over the last three. The same command continues after the last saved update, with the same bits as without
the interruption.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, cast

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import tyro
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from benchmarks.speed_peers import replay_buffer
from gentraj.config import ConfigError, differences, read_json, settings, write_json
from gentraj.data import ContextConfig, load_episodes
from gentraj.data.episodes import Episodes, episodes_hash
from gentraj.data.sources import split_names
from gentraj.envs.making import environment_factory
from gentraj.files import check_folder, new_file
from gentraj.progress import say
from gentraj.randomness import fold
from gentraj.runs.folder import RunFolder, last_evaluations
from gentraj.runs.model_card import dataset_names
from gentraj.runs.run import DataFacts
from gentraj.training.loop import Interrupts
from gentraj.trajectory import Agent

STATE, RESULT = "state.json", "result.json"
MAY_CHANGE = ("dataset", "out", "save_every")
PACKAGES = ("d3rlpy", "gentraj", "torch", "numpy", "gymnasium", "mujoco")
REWARDS = 1000.0  # IQL divides rewards by the range of the data's returns, and multiplies them by this


@settings
class Args:
    algorithm: Annotated[Literal["iql", "td3bc"], tyro.conf.Positional]
    """What is trained."""
    dataset: str
    """As `gentraj train --dataset`; several files are joined by '+'."""
    env_id: str
    """Environment of the evaluations, such as Hopper-v5."""
    out: Path
    """Folder of the checkpoint, the learning curve and the result."""
    updates: PositiveInt = 300_000
    """Number of updates. The cosine decay of the learning rate of IQL's actor ends at the last one."""
    eval_every: PositiveInt = 25_000
    """Number of updates between evaluations, which are also made after the last."""
    episodes: PositiveInt = 20
    """Episodes of each evaluation, which start as those of `gentraj evaluate` and of `--eval-every`."""
    save_every: PositiveInt = 1_000
    """Number of updates between checkpoints; the next one comes before the command stops after a signal."""
    seed: NonNegativeInt = 0
    """Seed of the training."""

    def __post_init__(self) -> None:
        for name in ("updates", "eval_every"):
            if getattr(self, name) % self.save_every:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)} and --save-every "
                                 f"{self.save_every}; give a multiple of it")


class Peer(Agent):
    """An algorithm of d3rlpy in training, and an `Agent` that acts by its policy without noise."""

    def __init__(self, args: Args, data: Episodes):
        self.d3rlpy: Any = import_module("d3rlpy")  # no dependency of gentraj
        structlog: Any = import_module("structlog")  # of d3rlpy, which logs its settings at each call of fit
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        self.seed, self.dataset = args.seed, replay_buffer(self.d3rlpy, data)
        self._restart_randomness(0)
        self.algorithm = self._configured(args).create(device="cpu:0")
        self.algorithm.build_with_dataset(self.dataset)

    def _configured(self, args: Args) -> Any:
        preprocessing, optimizers = self.d3rlpy.preprocessing, self.d3rlpy.optimizers
        if args.algorithm == "td3bc":
            return self.d3rlpy.algos.TD3PlusBCConfig(observation_scaler=preprocessing.StandardObservationScaler())
        decay = optimizers.lr_schedulers.CosineAnnealingLRFactory(T_max=args.updates)
        return self.d3rlpy.algos.IQLConfig(
            reward_scaler=preprocessing.ReturnBasedRewardScaler(multiplier=REWARDS),
            actor_optim_factory=optimizers.AdamFactory(lr_scheduler_factory=decay))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as d3rlpy writes them."""
        return self.algorithm.config.serialize_to_dict()

    def train(self, step: int, updates: int) -> None:
        """Does so many updates after the first `step`; their random numbers are a function of the seed and `step`."""
        self._restart_randomness(step + 1)
        self.algorithm.set_grad_step(step)
        self.algorithm.fit(self.dataset, updates, n_steps_per_epoch=updates, show_progress=False,
                           logger_adapter=self.d3rlpy.logging.NoopAdapterFactory())

    def save(self, path: Path) -> None:
        with new_file(path) as file:
            self.algorithm.impl.save_model(file)

    def restore(self, path: Path) -> None:
        self.algorithm.load_model(str(path))

    def reset(self, mask_B: Tensor | None = None, seeds_B: object = None) -> None:
        """Does nothing, as the agent has no state."""

    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        return torch.from_numpy(self.algorithm.predict(obs_BO.numpy().astype(np.float32)))

    def _restart_randomness(self, key: int) -> None:
        self.d3rlpy.seed(fold(self.seed, key) % 2**32)


@dataclass(frozen=True)
class State:
    """How far a training is, in OUT/state.json."""

    options: dict[str, Any]
    step: int = 0
    seconds: float = 0.0
    """Duration of the updates."""

    def checkpoint(self, folder: Path) -> Path:
        return folder / f"step-{self.step:09}.pt"

    @classmethod
    def read(cls, folder: Path, options: dict[str, Any]) -> State:
        """The saved state, or a new one. Raises `ConfigError` where the options were others."""
        if not (folder / STATE).exists():
            return cls(options)
        state = cls(**read_json(folder / STATE))
        if changed := [f"{key} was {old} and is {new}" for key, old, new in differences(state.options, options)]:
            raise ConfigError(f"{folder}: holds a training with other options: {'; '.join(changed)}; give them, or "
                              "another --out")
        return state


def trained(peer: Peer, args: Args, data: DataFacts, state: State) -> State:
    """Trains, evaluates and saves until the last update or a signal; returns the state that is saved."""
    if state.step:
        peer.restore(state.checkpoint(args.out))
        say(f"going on after {state.step} updates")
    with Interrupts() as interrupts:
        while state.step < args.updates and not interrupts.received:
            began = time.process_time()
            peer.train(state.step, args.save_every)
            before, seconds = state, state.seconds + time.process_time() - began
            state = State(state.options, state.step + args.save_every, seconds)
            if state.step % args.eval_every == 0 or state.step == args.updates:
                RunFolder(args.out).record_score(state.step, peer, data, args.episodes)
            peer.save(state.checkpoint(args.out))
            write_json(args.out / STATE, asdict(state))
            before.checkpoint(args.out).unlink(missing_ok=True)
    return state


def main(args: Args) -> None:
    torch.set_num_threads(1)
    check_folder(args.out, "--out")
    data = load_episodes(split_names(args.dataset))
    facts = DataFacts.of(data, ContextConfig(), args.env_id)
    options = {key: value for key, value in asdict(args).items() if key not in MAY_CHANGE}
    options |= {"data": dataset_names(args.dataset), "data_sha256": episodes_hash(data)}
    state = State.read(args.out, options)
    peer = Peer(args, data)
    state = trained(peer, args, facts, state)
    curve = RunFolder(args.out).curve()
    result = options | {"settings": peer.settings, "step": state.step, "train_seconds": state.seconds,
                        "env": environment_factory(args.env_id).env_id, "last": curve[-1] if curve else None,
                        "last_evaluations": last_evaluations(curve), "curve": curve,
                        "versions": {name: version(name) for name in PACKAGES}}
    write_json(args.out / RESULT, cast(dict[str, Any], result))
    done = "done" if state.step == args.updates else "stopped, and the same command continues"
    say(f"{state.step} of {args.updates} updates, {done}; {args.out / RESULT}")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
