"""Environments in worker processes, so that one that crashes or hangs costs an episode and not the evaluation.

A lost worker is replaced. Its unfinished episodes are lost with it, and a rollout begins them again from their seeds.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

import gymnasium
import numpy as np

from gentraj.process import end_with_parent

from .stepping import (
    EnvCrashed,
    EnvironmentFault,
    EpisodeLost,
    Fault,
    Layout,
    MakeEnv,
    Orders,
    Step,
    Stepper,
    WorkerDied,
    one_line,
)

STARTING_SECONDS = 300.0  # that a worker may take to start and to make its first environment
ENDING_SECONDS = 5.0  # that a worker may take to close its environments
IDLE_LOSSES = 20  # workers that may be lost outside of the calls of environments
IDLE = -1  # in the place of a slot: no environment is being called


class WorkerLost(Exception):
    """A worker has ended or hangs. `slot` is the environment that it was calling, or IDLE, and `step` its step."""

    def __init__(self, slot: int, step: int, text: str, hung: bool):
        super().__init__(text)
        self.slot = slot
        self.step = step
        self.hung = hung

    def fault(self, slot: int) -> Fault:
        """What it means for the episode in a slot of the worker."""
        if slot != self.slot:
            return Fault(str(self), EpisodeLost)
        return Fault(str(self), EnvCrashed if self.hung else WorkerDied)


class Workers:
    """Environments in the slots 0 .. `number` - 1, which `workers` processes step; each steps several.

    A call of an environment may take `time_limit` seconds. Raises ValueError if `make_env` cannot be sent to another
    process, and `EnvCrashed` if no environment can be made there, or, later, if no process can be started in the place
    of a lost one.
    """

    def __init__(self, make_env: MakeEnv, number: int, obs_keys: Sequence[str] = (), workers: int = 1,
                 time_limit: float = 60.0):
        try:
            ForkingPickler.dumps(make_env)
        except Exception as error:
            raise ValueError(f"{make_env} cannot be sent to a worker process ({one_line(str(error))}); give what "
                             "environment_factory returns, a function of a module, or 0 workers") from error
        self.time_limit = time_limit
        self.workers = list[_Worker]()
        try:
            for index in range(min(workers, number)):
                self.workers.append(_Worker(index, make_env, obs_keys))
            layouts = [worker.greeting() for worker in self.workers]
            self.layout = layouts[0]
        except BaseException:
            self.close()
            raise

    def place(self, slot: int) -> str:
        """Where an environment is, for messages."""
        return f"worker {slot % len(self.workers)}, environment {slot}"

    def env(self, slot: int) -> gymnasium.Env:
        """Raises ValueError, as the environments are in other processes."""
        raise ValueError("environments in worker processes cannot be filmed; leave the workers out")

    def close(self) -> None:
        """Ends the workers."""
        for worker in self.workers:
            worker.hang_up()  # all of them end at the same time
        for worker in self.workers:
            worker.end()

    def carry_out(self, orders: Orders) -> dict[int, Step | Fault]:
        """As `Stepper.carry_out`; the workers do it at the same time."""
        parts: list[dict[int, int | np.ndarray]] = [{} for _ in self.workers]
        for slot, order in orders.items():
            parts[slot % len(self.workers)][slot] = order
        busy = [(worker, part) for worker, part in zip(self.workers, parts, strict=True) if part]
        for worker, part in busy:
            worker.send(part)
        answers = dict[int, Step | Fault]()
        for worker, part in busy:
            try:
                answers |= worker.receive(self.time_limit)
            except WorkerLost as lost:
                worker.replace(lost)
                answers |= {slot: lost.fault(slot) for slot in part}
        return {slot: answers[slot] for slot in orders}


class _Worker:
    """A process with some of the environments."""

    def __init__(self, number: int, make_env: MakeEnv, obs_keys: Sequence[str]):
        self.number = number
        self.arguments = (number, make_env, tuple(obs_keys))
        self.idle_losses = 0
        self.start()

    def start(self) -> None:
        # Spawned, not forked: the fork of a process that has used torch's threads may hang.
        context = get_context("spawn")
        self.calls = context.RawArray("q", [0, IDLE, 0])  # the number of calls so far, and slot and step of the last
        self.connection, theirs = context.Pipe()
        with theirs:
            process = context.Process(target=serve, args=(theirs, self.calls, *self.arguments), daemon=True,
                                      name=f"environments-{self.number}")
            process.start()
        self.process = process

    def greeting(self) -> Layout:
        """What the environments look like. Raises `EnvCrashed` if none can be made, and ValueError for their spaces."""
        try:
            layout = self.receive(STARTING_SECONDS)
        except WorkerLost as lost:
            layout = Fault(str(lost))
        if not isinstance(layout, Fault):
            return layout
        if layout.kind is EnvCrashed:
            raise EnvCrashed(f"worker {self.number} cannot make the environment: {layout.text}")
        raise ValueError(layout.text)

    def replace(self, lost: WorkerLost) -> None:
        """Starts another process in the place of a lost one. Raises `EnvCrashed` where that does not work."""
        if lost.slot == IDLE:
            self.idle_losses += 1
            if lost.hung or self.idle_losses > IDLE_LOSSES:
                raise EnvCrashed(f"worker {self.number} was lost {self.idle_losses} times outside of its episodes: "
                                 f"{lost}") from lost
        self.hang_up()
        self.end()
        try:
            self.start()
            self.greeting()
        except (OSError, ValueError) as error:
            raise EnvCrashed(f"worker {self.number} cannot be replaced: {error}") from error

    def send(self, orders: Orders) -> None:
        with suppress(OSError):  # if the worker has ended, `receive` reports it
            self.connection.send(orders)

    def hang_up(self) -> None:
        """Closes the connection, at which an idle worker ends."""
        self.connection.close()

    def end(self) -> None:
        """Ends the process, at once if it is calling an environment."""
        with suppress(ValueError):  # it is closed already, and no other one could be started
            self.process.join(ENDING_SECONDS if self.calls[1] == IDLE else 0)
            self.process.kill()
            self.process.join()
            self.process.close()

    def receive(self, time_limit: float) -> Any:
        """What the worker sends: its greeting, and then the answers to its orders. Raises `WorkerLost`."""
        seen, since = self.calls[0], time.monotonic()
        while not wait([self.connection, self.process.sentinel], time_limit / 10):
            if self.calls[0] != seen:
                seen, since = self.calls[0], time.monotonic()
            elif time.monotonic() - since > time_limit:
                raise WorkerLost(self.calls[1], self.calls[2], f"no answer within {time_limit:g} s", hung=True)
        with suppress(EOFError, OSError):
            if self.connection.poll():
                return self.connection.recv()
        self.process.join(ENDING_SECONDS)
        self.process.kill()  # in case it has only closed its connection
        self.process.join()
        code = self.process.exitcode or 0
        how = f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        raise WorkerLost(self.calls[1], self.calls[2], f"it ended its process {how}", hung=False)


def serve(connection: Connection, calls: Any, first: int, make_env: MakeEnv, obs_keys: Sequence[str]) -> None:
    """The entry point of a worker: describes the environment, and then carries out orders until nobody gives any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes
    end_with_parent()

    def begin_call(slot: int, step: int) -> None:
        calls[0] += 1
        calls[1], calls[2] = slot, step

    stepper, greeting = None, None
    try:
        stepper = Stepper(make_env, obs_keys, first, begin_call)
    except ValueError as error:
        greeting = Fault(one_line(str(error)), EnvironmentFault)
    except (Exception, SystemExit) as error:
        greeting = Fault(one_line(f"{type(error).__name__}: {error}"))
    with suppress(EOFError, OSError):  # the parent has hung up
        calls[1] = IDLE
        connection.send(greeting if stepper is None else stepper.layout)
        while stepper is not None:
            orders = connection.recv()
            answers = stepper.carry_out(orders)
            calls[1] = IDLE
            connection.send(answers)
    if stepper is not None:
        stepper.close()
