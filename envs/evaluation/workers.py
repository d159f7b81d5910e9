"""Environments in worker processes, so that one that crashes or hangs costs an episode and not the evaluation.

A lost worker is replaced. Its unfinished episodes are repeated from their seeds and actions, unnoticed by the
agent. An environment is faulty if it hangs, or if several workers end in the same step of its episode.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

import gymnasium
import numpy as np

from gentraj.process import end_with_parent

from .stepping import EnvCrashed, Episode, Fault, Layout, MakeEnv, Step, Stepper, one_line

STARTING = 300.0  # seconds that a worker may take to start and to make its first environment
STARTS, RESTARTS = 3, 20  # workers that may be lost in a row outside of episodes, before and after one has worked
ATTEMPTS, LOSSES = 3, 30  # workers that may be lost in one step of an episode, and in all of its steps
ENDING = 5.0  # seconds that a worker may take to close its environments
IDLE = -1  # in the place of a slot: no environment is being called


class WorkerLost(Exception):
    """A worker has ended or hangs. `slot` is the environment that it was calling, or IDLE, and `step` its step."""

    def __init__(self, slot: int, step: int, text: str, hung: bool):
        super().__init__(text)
        self.slot, self.step, self.hung = slot, step, hung


@dataclass
class _Running:
    """What is known of an episode under way, to repeat it in another worker."""

    seed: int
    actions: list[np.ndarray] = field(default_factory=list)
    seen_O: np.ndarray | None = None
    pending: np.ndarray | None = None
    losses: list[int] = field(default_factory=list)
    """The steps of this episode in which workers ended."""

    def order(self) -> Episode:
        return Episode(self.seed, tuple(self.actions), self.seen_O, self.pending)

    def is_to_blame(self, lost: WorkerLost) -> bool:
        """Whether the environment is faulty. Another cause would not end workers several times in the same step."""
        self.losses.append(lost.step)
        return lost.hung or self.losses.count(lost.step) >= ATTEMPTS or len(self.losses) >= LOSSES

    def answered(self, step: Step) -> None:
        if self.pending is not None:
            self.actions.append(self.pending)
        self.seen_O, self.pending = step.obs_O, None


class Workers:
    """`Environments` in the slots 0 .. `number` - 1, which `workers` processes step; each steps several.

    A call of an environment may take `time_limit` seconds. Raises ValueError if `make_env` cannot be sent to another
    process, and `EnvCrashed` if no environment can be made there. `begin` and `step` raise it, too, if no process can
    be started in the place of a lost one.
    """

    def __init__(self, make_env: MakeEnv, number: int, obs_keys: Sequence[str] = (), workers: int = 1,
                 time_limit: float = 60.0):
        try:
            ForkingPickler.dumps(make_env)
        except Exception as error:
            raise ValueError(f"{make_env} cannot be sent to a worker process ({one_line(str(error))}); give what "
                             "environment_factory returns, a function of a module, or 0 workers") from error
        self.time_limit = time_limit
        self.running: dict[int, _Running] = {}
        self.faults: dict[int, Fault] = {}  # of environments that were not asked: told when they are
        self.workers: list[_Worker] = []
        try:
            for index in range(min(workers, number)):
                self.workers.append(_Worker(index, make_env, obs_keys))
            layouts = [worker.greeting() for worker in self.workers]
            self.layout = layouts[0]
        except BaseException:
            self.close()
            raise

    def place(self, slot: int) -> str:
        return f"worker {slot % len(self.workers)}, environment {slot}"

    def begin(self, seeds: dict[int, int]) -> dict[int, Step | Fault]:
        for slot, seed in seeds.items():
            self.running[slot] = _Running(seed)
            self.faults.pop(slot, None)
        return self._ask({slot: self.running[slot].order() for slot in seeds})

    def step(self, actions: dict[int, np.ndarray]) -> dict[int, Step | Fault]:
        broken: dict[int, Step | Fault] = {slot: self.faults.pop(slot) for slot in actions if slot in self.faults}
        asked = {slot: action for slot, action in actions.items() if slot not in broken}
        for slot, action in asked.items():
            self.running[slot].pending = np.array(action)  # the agent may reuse its own
        return broken | self._ask(asked)

    def env(self, slot: int) -> gymnasium.Env:
        raise ValueError("environments in worker processes cannot be filmed; leave the workers out")

    def close(self) -> None:
        for worker in self.workers:
            worker.hang_up()  # all of them end at the same time
        for worker in self.workers:
            worker.end()

    def _ask(self, orders: dict[int, Any]) -> dict[int, Step | Fault]:
        """Sends the orders to the workers, which carry them out at the same time, and returns the answers."""
        parts = [{slot: orders[slot] for slot in orders if slot % len(self.workers) == worker.number}
                 for worker in self.workers]
        busy = [(worker, part) for worker, part in zip(self.workers, parts, strict=True) if part]
        for worker, part in busy:
            worker.send(part)
        answers: dict[int, Step | Fault] = {}
        for worker, _ in busy:
            answers |= self._answers(worker)
        for slot, answer in answers.items():
            if isinstance(answer, Fault) or answer.terminated or answer.truncated:
                del self.running[slot]
            else:
                self.running[slot].answered(answer)
        self.faults |= {slot: each for slot, each in answers.items() if isinstance(each, Fault) and slot not in orders}
        return {slot: answers[slot] for slot in orders}

    def _answers(self, worker: _Worker) -> dict[int, Step | Fault]:
        """The worker's answers. If it is lost, another one first repeats the episodes that were under way in it."""
        faulty: dict[int, Step | Fault] = {}
        while True:
            try:
                return faulty | worker.receive(self.time_limit)
            except WorkerLost as lost:
                episode = self.running.get(lost.slot)
                if episode is not None and episode.is_to_blame(lost):
                    faulty[lost.slot] = Fault(str(lost))
                worker.replace(lost)
                worker.send({slot: episode.order() for slot, episode in self.running.items()
                             if slot % len(self.workers) == worker.number and slot not in faulty})


class _Worker:
    """A process with some of the environments."""

    def __init__(self, number: int, make_env: MakeEnv, obs_keys: Sequence[str]):
        self.number, self.arguments, self.idle_losses = number, (number, make_env, tuple(obs_keys)), 0
        self.patience = STARTS
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
        while True:
            try:
                layout = self._receive(STARTING)
                break
            except WorkerLost as lost:
                self._lost_idle(lost)
                self.hang_up()
                self.end()
                self.start()
        if isinstance(layout, Fault):
            what = f"worker {self.number} cannot make the environment: {layout.text}"
            raise EnvCrashed(what) if layout.crashed else ValueError(layout.text)
        return layout

    def replace(self, lost: WorkerLost) -> None:
        """Starts another process in the place of a lost one. Raises `EnvCrashed` where that does not work."""
        if lost.slot == IDLE:
            self._lost_idle(lost)
        self.hang_up()
        self.end()
        try:
            self.start()
            self.greeting()
        except (OSError, ValueError) as error:
            raise EnvCrashed(f"worker {self.number} cannot be replaced: {error}") from error

    def send(self, orders: dict[int, Any]) -> None:
        with suppress(OSError):  # if the worker has ended, `receive` reports it
            self.connection.send(orders)

    def receive(self, time_limit: float) -> dict[int, Step | Fault]:
        """The answers to the orders. Raises `WorkerLost`."""
        answers = self._receive(time_limit)
        self.idle_losses, self.patience = 0, RESTARTS
        return answers

    def hang_up(self) -> None:
        """Closes the connection, at which an idle worker ends."""
        self.connection.close()

    def end(self) -> None:
        """Ends the process, at once if it is calling an environment."""
        with suppress(ValueError):  # it is closed already, and no other one could be started
            self.process.join(ENDING if self.calls[1] == IDLE else 0)
            self.process.kill()
            self.process.join()
            self.process.close()

    def _lost_idle(self, lost: WorkerLost) -> None:
        self.idle_losses += 1
        if lost.hung or self.idle_losses >= self.patience:
            raise EnvCrashed(f"worker {self.number} was lost {self.idle_losses} times outside of its episodes: "
                             f"{lost}") from lost

    def _receive(self, time_limit: float) -> Any:
        seen, since = self.calls[0], time.monotonic()
        while not wait([self.connection, self.process.sentinel], time_limit / 10):
            if self.calls[0] != seen:
                seen, since = self.calls[0], time.monotonic()
            elif time.monotonic() - since > time_limit:
                raise WorkerLost(self.calls[1], self.calls[2], f"no answer within {time_limit:g} s", hung=True)
        with suppress(EOFError, OSError):
            if self.connection.poll():
                return self.connection.recv()
        self.process.join(ENDING)
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

    stepper = Stepper(make_env, obs_keys, begin_call)
    try:
        greeting = stepper.describe(first)
    except ValueError as error:
        greeting = Fault(one_line(str(error)), crashed=False)
    except (Exception, SystemExit) as error:
        greeting = Fault(one_line(f"{type(error).__name__}: {error}"))
    with suppress(EOFError, OSError):  # the parent has hung up
        calls[1] = IDLE
        connection.send(greeting)
        while True:
            orders = connection.recv()
            answers = {slot: stepper.begin(slot, order) if isinstance(order, Episode) else stepper.step(slot, order)
                       for slot, order in orders.items()}
            calls[1] = IDLE
            connection.send(answers)
    stepper.close()
