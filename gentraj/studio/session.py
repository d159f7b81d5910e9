"""`Session`: what one browser has chosen, planned and set in motion. It knows nothing of how it is drawn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from gentraj.envs.tasks.maze import Disc

from ..progress import one_line
from .driving import Drive, ahead, start_and_goal
from .loading import Loaded, alike
from .planning import Answer, Question, answers, ranges, settings_of

SHOWN_PER_SECOND = 25.0  # steps of the closed loop that are shown
MOST_IDLE = 60.0  # seconds that a worker without a job sleeps at once


class Worker:
    """A thread that does jobs one at a time, each when it is due; what a job raises is given to `failed`.

    Of the jobs of one name that wait, the newest is done at the time of the oldest: of the places that a mouse passes,
    only the last one is planned for.
    """

    def __init__(self, failed: Callable[[Exception], None]):
        self.failed = failed
        self.waiting: dict[str, tuple[float, Callable[[], object]]] = {}
        """The time at which each job is due, and the job, by its name."""
        self.doing = ""
        self.closed = False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._run, name="studio", daemon=True)
        self.thread.start()

    def do(self, name: str, job: Callable[[], object], delay: float = 0.0) -> None:
        """Has `job` done after `delay` seconds. After `close` it is dropped."""
        due = time.perf_counter() + delay
        with self.changed:
            if name in self.waiting:
                due = min(due, self.waiting[name][0])
            self.waiting[name] = due, job
            self.changed.notify_all()

    def wait(self, *names: str, timeout: float | None = 60.0) -> bool:
        """Waits until no job of these names is left, at most `timeout` seconds, and says whether that is so."""
        with self.changed:
            return self.changed.wait_for(lambda: not {*self.waiting, self.doing} & {*names}, timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Ends the thread after the job that it is doing, for which it waits at most `timeout` seconds."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        self.thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self.changed:
                self.doing = ""
                self.changed.notify_all()
                while not self.closed and (rest := self._rest()) > 0:
                    self.changed.wait(rest)
                if self.closed:
                    return
                self.doing = min(self.waiting, key=lambda name: self.waiting[name][0])
                _, job = self.waiting.pop(self.doing)
            try:
                job()
            except Exception as error:
                self.failed(error)

    def _rest(self) -> float:
        """The seconds until a job is due."""
        return min([MOST_IDLE, *(due - time.perf_counter() for due, _ in self.waiting.values())])


class Session:
    """The state behind one browser.

    `runs` are those of the studio. Each change of the question asks for new plans, which `worker` makes; what changes
    is told by `on_change`. Everything else is meant to be called by jobs of the worker too, so that no two threads
    change a session at once.
    """

    def __init__(self, runs: Sequence[Loaded]):
        self.runs = list(runs)
        self.loaded = self.runs[0]
        """The chosen run."""
        self.settings = {each: settings_of(each) for each in self.runs}
        self.obs, self.goal = start_and_goal(self.loaded)
        self.discs: tuple[Disc, ...] = ()
        self.answer: Answer | None = None
        """The newest plans."""
        self.growing: Iterator[Answer] | None = None
        """The same with chosen plans that go on towards a far goal."""
        self.latencies: dict[Loaded, float] = {}
        """The milliseconds of the newest plan of each run, or of a decision of a policy."""
        self.problem = ""
        """What failed, in one line; empty if all is well."""
        self.drive: Drive | None = None
        """The closed loop: the episode so far, or None at the start."""
        self.playing = False
        self.ahead: dict[Loaded, Drive] = {}
        """In which policies drive ahead; making an environment takes as long as many of its steps."""
        self.on_change: Callable[[], None] = lambda: None
        self.worker = Worker(self.fail)

    def question(self) -> Question:
        """What is asked of the run."""
        loaded = self.loaded
        question = Question(self.obs, (), self.settings[loaded])
        if loaded.has_goal:
            question = replace(question, goal=self.goal)
        if loaded.kind == "planner" and loaded.maze is not None:
            question = replace(question, discs=self.discs)
        return question

    def choose(self, loaded: Loaded) -> None:
        """Chooses a run. In the same environment start, goal and obstacles stay."""
        if not alike(self.loaded, loaded):
            self.obs, self.goal = start_and_goal(loaded)
            self.discs = ()
        self.answer = None
        self.loaded = loaded
        self.ask()

    def move_start(self, place_2: np.ndarray | Sequence[float]) -> None:
        """Moves the start to the free place that is nearest."""
        self.start_at(dict(zip(self.loaded.dims, self.loaded.nearest_free(place_2).tolist(), strict=True)))

    def start_at(self, changes: Mapping[int, float]) -> None:
        """Changes entries of the observation that plans start from."""
        self.obs = tuple(changes.get(entry, value) for entry, value in enumerate(self.obs))
        self.ask()

    def move_goal(self, place_2: np.ndarray | Sequence[float]) -> None:
        """Moves the goal to the free place that is nearest."""
        self.aim_at(dict(enumerate(self.loaded.nearest_free(place_2).tolist())))

    def aim_at(self, changes: Mapping[int, float]) -> None:
        """Changes entries of the goal; a closed loop on its way turns there."""
        self.goal = tuple(changes.get(index, value) for index, value in enumerate(self.goal))
        if self.drive is None:
            self.ask()
        else:
            self.drive.aim(self.goal)
            self.on_change()

    def set(self, **changes: float) -> None:
        """Changes settings of the run, as far as their `ranges` reach."""
        fitting = {name: min(high, max(low, changes[name])) for name, (low, high) in ranges(self.loaded).items()
                   if name in changes}
        self.settings[self.loaded] = replace(self.settings[self.loaded], **fitting)
        self.ask()

    def block(self, *discs: Disc) -> None:
        """Places these obstacles, instead of those before."""
        self.discs = discs
        self.ask()

    def ask(self) -> None:
        """Asks for new plans."""
        self.worker.do("plan", self._plan)

    def plan(self, timeout: float | None = 60.0) -> Answer:
        """Waits for the newest plans, up to a far goal. Raises ValueError without any in time."""
        if not self.worker.wait("plan", "grow", timeout=timeout):
            raise ValueError(f"the plans take longer than {timeout:.0f} s; wait for them, or choose fewer steps or "
                             "candidates")
        if self.answer is None:
            raise ValueError(self.problem or "there is no plan yet")
        return self.answer

    def step(self, steps: int = 1) -> None:
        """Takes environment steps of the closed loop, unless its episode is over."""
        if self.drive is None:
            self.drive = Drive(self.loaded, self.question())
        for _ in range(steps):
            self.drive.step()
        if self.drive.ended:
            self.playing = False
        self.on_change()

    def reset(self) -> None:
        """Puts the closed loop back to the start, and asks for plans from there."""
        self.playing = False
        if self.drive is not None:
            self.drive.close()
        self.drive = None
        self.ask()

    def fail(self, error: Exception) -> None:
        """Tells of an error, in the place of what is said about the plans."""
        self.problem = one_line(error)
        self.playing = False
        self.on_change()

    def close(self) -> None:
        """Ends all work."""
        self.worker.close()
        for drive in (self.drive, *self.ahead.values()):
            if drive is not None:
                drive.close()

    def _plan(self) -> None:
        loaded, question = self.loaded, self.question()
        answer = None
        self.growing = None
        self.problem = ""
        try:
            if loaded.kind == "planner":
                growing = answers(loaded, question)
                answer, self.growing = next(growing), growing
            else:
                if loaded not in self.ahead:
                    self.ahead[loaded] = Drive(loaded, question)
                answer = ahead(loaded, question, self.ahead[loaded])
        except (ValueError, RuntimeError) as error:
            self.problem = one_line(error)
        self.answer = answer
        if answer is not None:
            self.latencies[loaded] = answer.ms
        self.worker.do("grow", lambda: grow(self))
        self.on_change()


def play(session: Session) -> None:
    """Goes on with the closed loop at the speed of the simulator, until its `playing` is unset."""
    if not session.playing:
        return
    start = time.perf_counter()
    fps = SHOWN_PER_SECOND
    if session.drive is not None:
        fps = session.drive.fps
    steps = max(1, round(fps / SHOWN_PER_SECOND))
    session.step(steps)
    session.worker.do("play", lambda: play(session), max(0.0, steps / fps - (time.perf_counter() - start)))


def grow(session: Session) -> None:
    """Lets the chosen plan go on by one part, so that a new question waits for no more than that; the closed loop makes
    its own plans."""
    if session.drive is not None or session.growing is None:
        return
    longer = next(session.growing, None)
    if longer is None:
        session.growing = None
        return
    session.answer = longer
    session.worker.do("grow", lambda: grow(session))
    session.on_change()
