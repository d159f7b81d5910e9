"""`Session`: what one browser has loaded, chosen, planned and set in motion. It knows nothing of how it is drawn."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gentraj.envs.evaluation.vector import VectorEnvironment

from ..progress import one_line
from .driving import Drive, ahead
from .latest import Latest
from .loading import Loaded
from .offered import check_place
from .planning import Answer, Disc, Question, Settings, plan_for

SECONDS = 1.0  # over which plans are counted for their rate
SHOWN_PER_SECOND = 25.0  # steps of the closed loop that are shown
MOST_DISCS = 20  # obstacles, each of which costs time in every plan

Listener = Callable[[], None]


class Session:
    """The state behind one browser.

    `loaded` are the runs of the studio. Each change of the question asks for new plans. A thread makes them and then
    calls `on_plan`. The closed loop runs in another thread, which calls `on_drive`. Both threads end with `close`.
    """

    def __init__(self, loaded: Sequence[Loaded]):
        if not loaded:
            raise ValueError("no run was given; give the folder of at least one")
        self.runs = list(loaded)
        self.index = 0
        self.beside: int | None = None
        self.settings = {id(each): Settings.of(each) for each in self.runs}
        self.discs: tuple[Disc, ...] = ()
        self.answers: dict[int, Answer] = {}
        """The newest plans by side: 0 is the chosen run, 1 the one beside it."""
        self.latencies: dict[int, float] = {}
        self.problem = ""
        """Why there are no plans, or the closed loop has stopped, in one line; empty if all is well."""
        self.on_plan: Listener = lambda: None
        self.on_drive: Listener = lambda: None
        self.drive: Drive | None = None
        self.driving, self.closed = threading.Event(), False
        self._times: deque[float] = deque(maxlen=200)
        self._ahead: dict[int, Drive] = {}  # in which policies drive ahead
        self._lock = threading.RLock()  # guards the closed loop
        self._planning: Latest[list[tuple[int, Loaded, Question]]] = Latest(self._plan, "studio-plans")
        self._start_anew()

    # -- the question

    @property
    def loaded(self) -> Loaded:
        """The chosen run."""
        return self.runs[self.index]

    @property
    def second(self) -> Loaded | None:
        """The run that is shown beside the chosen one, if any."""
        return None if self.beside is None else self.runs[self.beside]

    @property
    def others(self) -> list[Loaded]:
        """The runs that can be shown beside the chosen one: those that plan or act in the same environment."""
        plan = [each for each in self.runs if each is not self.loaded and each.kind != "world model"]
        return [each for each in plan if alike(each, self.loaded)] if self.loaded.kind != "world model" else []

    @property
    def own(self) -> Settings:
        """The settings of the chosen run."""
        return self.settings[id(self.loaded)]

    def question(self, loaded: Loaded | None = None) -> Question:
        """What is asked of a run, by default the chosen one."""
        loaded = loaded or self.loaded
        goal = self.goal if loaded.has_goal else ()
        discs = self.discs if loaded.kind == "planner" and loaded.maze is not None else ()
        return Question(self.obs, goal, self.settings[id(loaded)], discs)

    @property
    def start_2(self) -> np.ndarray:
        """The start as it is drawn (2,)."""
        return np.array([self.obs[dim] for dim in self.loaded.dims])

    @property
    def goal_2(self) -> np.ndarray | None:
        """The goal as it is drawn (2,); None without one."""
        return np.array(self.goal[:2]) if len(self.goal) > 1 else None

    def choose(self, index: int) -> None:
        """Chooses a run. Start, goal and obstacles stay if it has the same maze."""
        same = alike(self.loaded, self.runs[index])
        self.answers, self.index = {}, index  # in this order, so that no answer is taken for that of the new run
        if self.second is not None and self.second not in self.others:
            self.beside = None
        if not same:
            self._start_anew()
        self.ask()

    def compare(self, index: int | None) -> None:
        """Shows another run beside the chosen one, or none. Raises ValueError for one that is not in `others`."""
        if index is not None and self.runs[index] not in self.others:
            raise ValueError(f"{self.runs[index].name} cannot be shown beside {self.loaded.name}; choose another run "
                             "that plans or acts in the same environment")
        self.beside = index
        self.ask()

    def move_start(self, place_2: np.ndarray) -> None:
        """Moves the start, at rest, to the free place that is nearest. Raises ValueError for what is no place."""
        x, y = self.loaded.nearest_free(check_place(place_2))
        obs = np.zeros(len(self.obs))
        obs[list(self.loaded.dims)] = x, y
        self.obs = tuple(obs.tolist())
        self.ask()

    def move_goal(self, place_2: np.ndarray) -> None:
        """Moves the goal to the free place that is nearest; a closed loop on its way turns there.

        Raises ValueError for what is no place.
        """
        x, y = self.loaded.nearest_free(check_place(place_2))
        self.goal = (float(x), float(y), *self.goal[2:])
        with self._lock:
            if self.drive is not None:
                self.drive.aim(self.goal)
                self.on_drive()
                return
        self.ask()

    def set(self, **changes: float) -> None:
        """Changes settings of the chosen run, and of the one beside it if it has them."""
        for loaded in filter(None, (self.loaded, self.second)):
            limits = dict(steps=loaded.most_steps, candidates=None if loaded.several else 1,
                          scale=None if loaded.guidance else 0.0)
            fitting = {name: value if (most := limits.get(name)) is None else min(value, most)
                       for name, value in changes.items()}
            if "steps" in fitting:
                fitting["steps"] = max(fitting["steps"], loaded.least_steps)
            self.settings[id(loaded)] = replace(self.settings[id(loaded)], **fitting)
        self.ask()

    def add_disc(self, place_2: np.ndarray, radius: float) -> None:
        """Adds an obstacle. Raises ValueError for what is no place, and for more than `MOST_DISCS`."""
        x, y = check_place(place_2)
        if len(self.discs) >= MOST_DISCS:
            raise ValueError(f"there are {MOST_DISCS} obstacles, and no more are taken; remove one first")
        self.discs = (*self.discs, Disc(float(x), float(y), float(radius)))
        self.ask()

    def remove_discs(self, *which: Disc) -> None:
        """Removes these obstacles, or all of them if none is named."""
        self.discs = tuple(disc for disc in self.discs if which and disc not in which)
        self.ask()

    def ask(self) -> None:
        """Asks for new plans."""
        sides = [each for each in (self.loaded, self.second) if each is not None and each.kind != "world model"]
        self._planning.ask([(side, loaded, self.question(loaded)) for side, loaded in enumerate(sides)])

    def attempt(self, action: Callable[..., object], *args: object) -> None:
        """Does what a browser asks for. An error is told in the place of what is said about the plans."""
        try:
            action(*args)
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Shows an error in the place of what is said about the plans."""
        self.problem = one_line(error)
        self.on_plan()

    def latency(self, loaded: Loaded) -> str:
        """How long the newest plan of a run took, or a decision of a policy, in words."""
        ms = self.latencies.get(id(loaded))
        return "" if ms is None else f"{ms:.2g} ms a step" if loaded.kind == "policy" else f"{ms:.0f} ms"

    def plan(self, timeout: float | None = 60.0) -> Answer:
        """Waits for the newest plans and returns those of the chosen run. Raises ValueError without any in time."""
        if not self.answers and not self.problem:
            self.ask()
        if not self._planning.wait(timeout):
            raise ValueError(f"the plans take longer than {timeout:.0f} s; wait for them, or choose fewer steps or "
                             "candidates")
        if self.problem or 0 not in self.answers:
            raise ValueError(self.problem or "there is no plan yet")
        return self.answers[0]

    @property
    def rate(self) -> float:
        """Plans a second, over the last second."""
        newest = self._times[-1] if self._times else 0.0
        recent = [each for each in list(self._times) if each > newest - SECONDS]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0

    # -- the closed loop

    def reset(self) -> None:
        """Puts the closed loop back to the start, and pauses it."""
        self.pause()
        with self._lock:
            if self.drive is not None:
                self.drive.close()
            self.drive = None
        self.on_drive()
        self.ask()

    def step(self, steps: int = 1) -> None:
        """Takes environment steps in the closed loop, which begins at the start if it has not begun."""
        with self._lock:
            if self.closed:
                return
            try:
                if self.drive is None:
                    self.drive = Drive(self.loaded, self.question())
                for _ in range(steps):
                    self.drive.step()
                if self.drive.done:
                    self.driving.clear()
            except (ValueError, RuntimeError) as error:
                self.problem = one_line(error)
                self.driving.clear()
        self.on_drive()

    def play(self) -> None:
        """Runs the closed loop at the speed of the simulator until `pause`, the end of the episode or `close`."""
        if not self.driving.is_set() and not self.closed:
            self.driving = threading.Event()  # which a thread in its last step does not obey
            self.driving.set()
            threading.Thread(target=self._play, args=(self.driving,), name="studio-loop", daemon=True).start()

    def pause(self) -> None:
        self.driving.clear()

    def close(self) -> None:
        """Stops all work."""
        self.closed = True
        self.pause()
        self._planning.close()
        with self._lock:
            for drive in (self.drive, *self._ahead.values()):
                if drive is not None:
                    drive.close()

    # -- in the threads

    def _play(self, driving: threading.Event) -> None:
        due = time.perf_counter()
        while driving.is_set() and not self.closed:
            fps = self.drive.fps if self.drive is not None else SHOWN_PER_SECOND
            steps = max(1, round(fps / SHOWN_PER_SECOND))
            self.step(steps)
            due = max(due + steps / fps, time.perf_counter() - 0.2)  # what was lost long ago is not caught up
            time.sleep(max(0.0, due - time.perf_counter()))

    def _plan(self, questions: list[tuple[int, Loaded, Question]]) -> None:
        answers, problem = {}, ""
        for side, loaded, question in questions:
            try:
                answers[side] = self._answer(loaded, question)
            except (ValueError, RuntimeError) as error:
                problem = one_line(error)
        if self.closed:
            return
        self.answers, self.problem = answers, problem
        self.latencies |= {id(answer.loaded): answer.ms for answer in answers.values()}
        self._times.append(time.perf_counter())
        self.on_plan()

    def _answer(self, loaded: Loaded, question: Question) -> Answer:
        if loaded.kind == "planner":
            return plan_for(loaded, question)
        if id(loaded) not in self._ahead:
            self._ahead[id(loaded)] = Drive(loaded, question)
        return ahead(loaded, question, self._ahead[id(loaded)])

    def _start_anew(self) -> None:
        """Takes the two free cells of the maze that are farthest apart, or what the environment's reset gives."""
        self.discs, maze = (), self.loaded.maze
        if maze is None:
            envs = VectorEnvironment(self.loaded.factory, 1, self.loaded.run.data.obs_keys)
            envs.reset(np.ones(1, bool), [0])
            self.obs = tuple(envs.obs_BO[0].tolist())
            self.goal = () if envs.goal_BG is None else tuple(envs.goal_BG[0].tolist())
            envs.close()
            return
        start, goal = maze.centre(np.array(maze.farthest))
        obs = np.zeros(self.loaded.run.data.obs_dim)
        obs[list(self.loaded.dims)] = start
        self.obs, self.goal = tuple(obs.tolist()), tuple(goal.tolist())


def alike(first: Loaded, second: Loaded) -> bool:
    """Whether two runs have the same environment and observations, so that they have starts and goals in common."""
    if first.run.data.obs_dim != second.run.data.obs_dim:
        return False
    if first.maze is None or second.maze is None:
        return first.factory.env_id == second.factory.env_id
    return first.maze.map == second.maze.map and first.maze.scaling == second.maze.scaling
