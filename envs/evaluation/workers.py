"""Environments in worker processes, so that one that crashes or hangs costs an episode and not the evaluation.

A lost worker is replaced. Its unfinished episodes are lost with it, and a rollout begins them again from their seeds.
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

from gentraj.process import end_with_parent
from gentraj.progress import one_line

from .stepping import EnvCrashed, EnvironmentFault, EpisodeLost, Layout, MakeEnv, Orders, Step, Stepper, WorkerDied

STARTING_SECONDS = 300.0  # that a worker may take to start and to make its first environment
ENDING_SECONDS = 5.0  # that a worker may take to close its environments
NONE = -1  # in the place of a slot: no environment is being called


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
            raise ValueError(f"{make_env} cannot be sent to a worker process ({one_line(error)}); give what "
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
            worker.connection.close()  # at which all of them end at the same time
        for worker in self.workers:
            worker.end(ENDING_SECONDS)

    def carry_out(self, orders: Orders) -> dict[int, Step | EnvironmentFault]:
        """As `Stepper.carry_out`; the workers do it at the same time."""
        parts: list[Orders] = [{slot: order for slot, order in orders.items() if slot % len(self.workers) == index}
                               for index in range(len(self.workers))]
        busy = [(worker, part) for worker, part in zip(self.workers, parts, strict=True) if part]
        for worker, part in busy:
            worker.send(part)
        answers = dict[int, Step | EnvironmentFault]()
        for worker, part in busy:
            answers |= worker.answers(part, self.time_limit)
        return answers


class _Worker:
    """A process with some of the environments."""

    def __init__(self, number: int, make_env: MakeEnv, obs_keys: Sequence[str]):
        self.number = number
        self.arguments = (number, make_env, tuple(obs_keys))
        self.start()

    def start(self) -> None:
        # Spawned, not forked: the fork of a process that has used torch's threads may hang.
        context = get_context("spawn")
        self.calling = context.RawValue("q", NONE)  # the slot whose environment it is calling
        self.connection, theirs = context.Pipe()
        with theirs:
            process = context.Process(target=serve, args=(theirs, self.calling, *self.arguments), daemon=True,
                                      name=f"environments-{self.number}")
            process.start()
        self.process = process

    def greeting(self) -> Layout:
        """What the environments look like. Raises `EnvCrashed` if none can be made, and ValueError for their spaces."""
        try:
            layout = self.receive(STARTING_SECONDS)
        except EnvCrashed as lost:
            layout = lost
        if isinstance(layout, Layout):
            return layout
        if isinstance(layout, ValueError):
            raise layout
        raise EnvCrashed(f"worker {self.number} cannot make the environment: {layout}")

    def send(self, orders: Orders) -> None:
        self.calling.value = NONE
        with suppress(OSError):  # if the worker has ended, `receive` reports it
            self.connection.send(orders)

    def answers(self, orders: Orders, time_limit: float) -> dict[int, Step | EnvironmentFault]:
        """What came of the orders; if the worker is lost, the fault of the environment that it was calling, and
        `EpisodeLost` for the others. Raises `EnvCrashed` where no process can be started in its place."""
        try:
            return self.receive(time_limit)
        except EnvCrashed as lost:
            calling = self.calling.value
            self.replace()
            return {slot: lost if slot == calling else EpisodeLost(str(lost)) for slot in orders}

    def replace(self) -> None:
        """Starts another process in the place of a lost one. Raises `EnvCrashed` where that does not work."""
        self.connection.close()
        self.end(0)
        try:
            self.start()
            self.greeting()
        except (OSError, ValueError) as error:
            raise EnvCrashed(f"worker {self.number} cannot be replaced: {error}") from error

    def end(self, seconds: float) -> None:
        """Ends the process, which has so many seconds to end by itself."""
        with suppress(ValueError):  # it is closed already, and no other one could be started
            self.process.join(seconds)
            self.process.kill()
            self.process.join()
            self.process.close()

    def receive(self, time_limit: float) -> Any:
        """What the worker sends next. Raises `EnvCrashed` if it ends, or calls one environment for `time_limit` seconds
        (up to half of it longer, as nobody looks more often)."""
        seen = None
        while not wait([self.connection, self.process.sentinel], time_limit / 2):
            if seen == (calling := self.calling.value):
                raise EnvCrashed(f"no answer within {time_limit:g} s")
            seen = calling
        with suppress(EOFError, OSError):
            if self.connection.poll():
                return self.connection.recv()
        self.process.join(ENDING_SECONDS)
        self.process.kill()  # in case it has only closed its connection
        self.process.join()
        code = self.process.exitcode or 0
        how = f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        raise WorkerDied(f"it ended its process {how}")


def serve(connection: Connection, calling: Any, first: int, make_env: MakeEnv, obs_keys: Sequence[str]) -> None:
    """The entry point of a worker: describes the environment, and then carries out orders until nobody gives any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes
    end_with_parent()
    with suppress(EOFError, OSError):  # the parent has hung up
        try:
            stepper = Stepper(make_env, obs_keys, first)
        except ValueError as error:
            return connection.send(ValueError(one_line(error)))
        except (Exception, SystemExit) as error:
            return connection.send(EnvCrashed(f"{type(error).__name__}: {one_line(error)}"))
        with closing(stepper):
            connection.send(stepper.layout)
            while True:
                answers = dict[int, Step | EnvironmentFault]()
                for slot, order in connection.recv().items():
                    calling.value = slot
                    answers[slot] = stepper.order(slot, order)
                connection.send(answers)
