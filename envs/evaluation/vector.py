"""Vectorised environments with flat float32 observations, in which every number is checked before it is used; in this
process, or each in a worker, so that one that crashes or hangs costs an episode and not the evaluation.

A lost worker is replaced, and its episode is lost. This module imports no torch, as worker processes start with it.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import closing, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

import gymnasium
import numpy as np

from gentraj.data.minari_io import flattening
from gentraj.process import end_with_parent
from gentraj.progress import one_line, say_once

from .stepping import (
    EnvCrashed,
    EnvironmentFault,
    EnvStep,
    Layout,
    MakeEnv,
    Orders,
    Stepper,
    bounds,
)

STARTING_SECONDS = 300.0  # that a worker may take to start and to make its first environment
ENDING_SECONDS = 5.0  # that a worker may take to close its environments


class VectorEnvironment:
    """`batch` environments that are stepped together. A finished one must be reset before the next step.

    The entries `obs_keys` of a dict or tuple observation are flattened and joined; its "desired_goal" is kept apart. By
    default they are "observation" where there are goals, or else all entries, and a line on stderr says so. After each
    reset and step `obs_BO` (B, O) and `goal_BG` (B, G), or None without goals, are new float32 arrays. With `workers`,
    each environment is in a process of its own, and a call of one may take `time_limit` seconds; the results are the
    same bits. `strict` raises the first `EnvironmentFault`; otherwise `faults` holds those of the last call by
    environment, in whose rows nothing is new. Raises ValueError for observation and action spaces other than 1-D Boxes,
    dicts and tuples of Boxes.
    """

    def __init__(self, make_env: MakeEnv, batch: int, obs_keys: Sequence[str] = (), *, workers: bool = False,
                 time_limit: float = 60.0, strict: bool = True):
        self.envs: Stepper | Workers
        if workers:
            self.envs = Workers(make_env, batch, obs_keys, time_limit)
        else:
            self.envs = Stepper(make_env, obs_keys)
        layout = self.layout = self.envs.layout
        self.env_id = layout.env_id
        self.obs_keys = layout.obs_keys
        self.action_space = layout.action_space
        self.obs_dim = sum(box.low.size for box in layout.boxes)
        self.act_dim = len(layout.action_space.low)
        self.has_goal = layout.goal is not None
        self.goal_dim = layout.goal.shape[0] if layout.goal else 0
        self.reports_success = False
        self.lowest = self.highest = 0.0  # reward so far
        if self.obs_keys and not obs_keys and not self.has_goal:
            say_once(flattening(self.env_id, dict(zip(self.obs_keys, layout.boxes, strict=True))))
        self.act_low_A, self.act_high_A = bounds(self.action_space)
        self.strict = strict
        self.faults = dict[int, EnvironmentFault]()
        self.seeds: list[int] = [0] * batch
        self.elapsed_B = np.zeros(batch, int)
        self.obs_BO = np.zeros((batch, self.obs_dim), np.float32)
        self.goal_BG = np.zeros((batch, self.goal_dim), np.float32) if self.has_goal else None

    @property
    def tells_success(self) -> bool:
        """Whether success is known: by the info, or, with goals, by positive rewards. Rewards that are negative and
        never positive, such as -1 until the goal and 0 there, do not say where the goal is reached."""
        return self.reports_success or (self.has_goal and (self.highest > 0 or self.lowest == 0))

    def reset(self, mask_B: np.ndarray, seeds: Sequence[int]) -> None:
        """Resets the masked environments with their seeds; `seeds` holds one for each environment."""
        self.seeds = list(seeds)
        self.elapsed_B[mask_B] = 0
        self._carry_out({i: self.seeds[i] for i in np.flatnonzero(mask_B).tolist()})

    def step(self, act_BA: np.ndarray, mask_B: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Steps the masked environments (all by default); returns reward, terminated, truncated, success and reported,
        (B,) each.

        Raises ValueError for actions of another shape, and `EnvironmentFault` for a faulty action or environment.
        Success is the environment's own `info["success"]` or `info["is_success"]`, where it is reported, or else a
        positive reward if there are goals.
        """
        act_BA = self.actions(act_BA)
        self._check_actions(act_BA)
        stepped = range(len(act_BA)) if mask_B is None else np.flatnonzero(mask_B).tolist()
        self.elapsed_B[stepped] += 1
        act_BA = act_BA.copy()  # the agent may reuse its own array
        space = self.action_space
        if space.dtype.kind == "f":  # an action at a rounded bound may lie beyond the true one
            act_BA = act_BA.astype(space.dtype).clip(space.low, space.high)
        result = {"reward": np.zeros(len(act_BA))}
        result |= {key: np.zeros(len(act_BA), bool) for key in ("terminated", "truncated", "success", "reported")}
        for i, step in self._carry_out({i: act_BA[i] for i in stepped}).items():
            self.lowest, self.highest = min(self.lowest, step.reward), max(self.highest, step.reward)
            result["reward"][i] = step.reward
            result["terminated"][i] = step.terminated
            result["truncated"][i] = step.truncated
            if step.success is None:
                result["success"][i] = step.reward > 0 and self.has_goal
            else:
                result["success"][i] = step.success
                result["reported"][i] = self.reports_success = True
        return result

    def actions(self, act: np.ndarray) -> np.ndarray:
        """(B, A) an agent's actions, which may be (B,) where A is 1. Raises ValueError for another shape."""
        shape = (len(self.obs_BO), self.act_dim)
        if act.ndim == 1 and self.act_dim == 1:
            act = act[:, None]
        if act.shape != shape:
            raise ValueError(f"the agent's actions have shape {act.shape}; {self.env_id} needs {shape}")
        return act

    def env(self, i: int) -> gymnasium.Env:
        """One of the environments, to be filmed. Raises ValueError if it is in a worker process."""
        return self.envs.env(i)

    def close(self) -> None:
        """Closes all environments."""
        self.envs.close()

    def _check_actions(self, act_BA: np.ndarray) -> None:
        inside_BA = (act_BA >= self.act_low_A) & (act_BA <= self.act_high_A) & np.isfinite(act_BA)
        if inside_BA.all():
            return
        i = int(np.argmin(inside_BA.all(1)))
        expected = f"finite numbers in {self.action_space} are expected; clip it in the agent"
        raise self._named(i, EnvironmentFault(f"the agent's action is {act_BA[i]}; {expected}"))

    def _carry_out(self, orders: Orders) -> dict[int, EnvStep]:
        """Keeps what the environments observe, and returns the steps that hold no fault."""
        steps = dict[int, EnvStep]()
        self.faults = {}
        obs_BO = self.obs_BO.copy()  # whoever has read it may keep it
        goal_BG = np.zeros((len(obs_BO), 0), np.float32) if self.goal_BG is None else self.goal_BG.copy()
        for i, answer in self.envs.carry_out(orders).items():
            if isinstance(answer, EnvStep):
                steps[i] = answer
                obs_BO[i] = answer.obs_O
                goal_BG[i] = answer.goal_G
            else:
                self.faults[i] = self._named(i, answer)
        for what, rows in (("observation", obs_BO), ("goal", goal_BG)):
            for i in np.flatnonzero(~np.isfinite(rows).all(1)).tolist():
                steps.pop(i, None)
                self.faults[i] = self._named(i, EnvironmentFault(f"{what} is {rows[i]}; finite numbers are expected"))
        if self.strict and self.faults:
            raise self.faults[min(self.faults)]
        for i in self.faults:
            obs_BO[i] = self.obs_BO[i]
            if self.goal_BG is not None:
                goal_BG[i] = self.goal_BG[i]
        self.obs_BO = obs_BO
        if self.goal_BG is not None:
            self.goal_BG = goal_BG
        return steps

    def _named(self, i: int, fault: EnvironmentFault) -> EnvironmentFault:
        """The fault with where and when it occurred."""
        return type(fault)(f"{self.env_id}, environment {i} (seed {self.seeds[i]}), step {self.elapsed_B[i]}: "
                           f"{one_line(fault)}")


def tells_success(make_env: MakeEnv) -> bool:
    """Whether the environment's episodes have a success rate; to read the info and a reward, a step is played."""
    with closing(VectorEnvironment(make_env, 1)) as envs:
        envs.action_space.seed(0)
        envs.reset(np.ones(1, bool), [0])
        envs.step(envs.action_space.sample()[None])
        return envs.tells_success


class Workers:
    """Environments in the slots 0 .. `number` - 1, each stepped by a process of its own.

    A call of an environment may take `time_limit` seconds. Raises ValueError if `make_env` cannot be sent to another
    process, and `EnvCrashed` if no environment can be made there, or, later, if no process can be started in the place
    of a lost one.
    """

    def __init__(self, make_env: MakeEnv, number: int, obs_keys: Sequence[str] = (), time_limit: float = 60.0):
        try:
            ForkingPickler.dumps(make_env)
        except Exception as error:
            raise ValueError(f"{make_env} cannot be sent to a worker process ({one_line(error)}); give what "
                             "environment_factory returns, a function of a module, or 0 workers") from error
        self.time_limit = time_limit
        self.workers = list[_Worker]()
        try:
            for slot in range(number):
                self.workers.append(_Worker(slot, make_env, obs_keys))
            layouts = [worker.greeting() for worker in self.workers]
            self.layout = layouts[0]
        except BaseException:
            self.close()
            raise

    def env(self, slot: int) -> gymnasium.Env:
        """Raises ValueError, as the environments are in other processes."""
        raise ValueError("environments in worker processes cannot be filmed; leave the workers out")

    def close(self) -> None:
        """Ends the workers."""
        for worker in self.workers:
            worker.connection.close()  # at which all of them end at the same time
        for worker in self.workers:
            worker.end(ENDING_SECONDS)

    def carry_out(self, orders: Orders) -> dict[int, EnvStep | EnvironmentFault]:
        """As `Stepper.carry_out`; the workers do it at the same time."""
        for slot, order in orders.items():
            self.workers[slot].send(order)
        return {slot: self.workers[slot].answer(self.time_limit) for slot in orders}


class _Worker:
    """A process with one of the environments."""

    def __init__(self, slot: int, make_env: MakeEnv, obs_keys: Sequence[str]):
        self.slot = slot
        self.arguments = (make_env, tuple(obs_keys))
        self.start()

    def start(self) -> None:
        # Spawned, not forked: the fork of a process that has used torch's threads may hang.
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        with theirs:
            self.process = context.Process(target=serve, args=(theirs, *self.arguments), daemon=True,
                                           name=f"environment-{self.slot}")
            self.process.start()

    def greeting(self) -> Layout:
        """What the environment looks like. Raises `EnvCrashed` if it cannot be made, and ValueError for its spaces."""
        try:
            layout = self.receive(STARTING_SECONDS)
        except EnvCrashed as lost:
            layout = lost
        if isinstance(layout, Layout):
            return layout
        if isinstance(layout, ValueError):
            raise layout
        raise EnvCrashed(f"worker {self.slot} cannot make the environment: {layout}")

    def send(self, order: int | np.ndarray) -> None:
        with suppress(OSError):  # if the worker has ended, `receive` reports it
            self.connection.send(order)

    def answer(self, time_limit: float) -> EnvStep | EnvironmentFault:
        """What came of the order; a lost worker is replaced. Raises `EnvCrashed` where no process can be started."""
        try:
            return self.receive(time_limit)
        except EnvCrashed as lost:
            self.connection.close()
            self.end(0)
            try:
                self.start()
                self.greeting()
            except (OSError, ValueError) as error:
                raise EnvCrashed(f"worker {self.slot} cannot be replaced: {error}") from error
            return lost

    def end(self, seconds: float) -> None:
        """Ends the process, which has so many seconds to end by itself."""
        with suppress(ValueError):  # it is closed already, and no other one could be started
            self.process.join(seconds)
            self.process.kill()
            self.process.join()
            self.process.close()

    def receive(self, time_limit: float) -> Any:
        """What the worker sends next. Raises `EnvCrashed` if it ends, or sends nothing for `time_limit` seconds."""
        if not wait([self.connection, self.process.sentinel], time_limit):
            raise EnvCrashed(f"no answer within {time_limit:g} s")
        with suppress(EOFError, OSError):
            if self.connection.poll():
                return self.connection.recv()
        self.process.join(ENDING_SECONDS)
        self.process.kill()  # in case it has only closed its connection
        self.process.join()
        code = self.process.exitcode or 0
        how = f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        raise EnvCrashed(f"it ended its process {how}")


def serve(connection: Connection, make_env: MakeEnv, obs_keys: Sequence[str]) -> None:
    """The entry point of a worker: describes the environment, and then carries out orders until nobody gives any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes
    end_with_parent()
    with suppress(EOFError, OSError):  # the parent has hung up
        try:
            stepper = Stepper(make_env, obs_keys)
        except ValueError as error:
            return connection.send(ValueError(one_line(error)))
        except (Exception, SystemExit) as error:
            return connection.send(EnvCrashed(f"{type(error).__name__}: {one_line(error)}"))
        with closing(stepper):
            connection.send(stepper.layout)
            while True:
                connection.send(stepper.order(0, connection.recv()))
