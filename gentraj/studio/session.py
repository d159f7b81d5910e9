"""`Session`: what one browser has loaded, chosen, planned and set in motion. It knows nothing of how it is drawn."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gentraj.envs.evaluation.vector import VectorEnvironment

from ..progress import one_line
from .driving import Drive, Loop, ahead
from .latest import Latest
from .loading import Loaded, alike
from .planning import Answer, Disc, Question, Settings, check_place, plan_for

RATE_SECONDS = 1.0  # over which plans are counted for their rate
MOST_DISCS = 20  # obstacles, each of which costs time in every plan


class PlanThread:
    """Plans for the newest questions in a thread of its own, and then calls `planned` with answers and problem."""

    def __init__(self, planned: Callable[[dict[int, Answer], str], None]):
        self.planned = planned
        self.times: deque[float] = deque(maxlen=200)
        """When plans were finished, in seconds."""
        self.latencies: dict[int, float] = {}
        self._ahead: dict[int, Drive] = {}  # in which policies drive ahead
        self._newest: Latest[list[tuple[Loaded, Question]]] = Latest(self._plan, "studio-plans")

    def ask(self, questions: list[tuple[Loaded, Question]]) -> None:
        """Has these planned for next, each by its run; the answers are numbered in this order."""
        self._newest.ask(questions)

    def wait(self, timeout: float | None) -> bool:
        """Waits until nothing is left to plan, at most `timeout` seconds, and says whether that is so."""
        return self._newest.wait(timeout)

    def latency(self, loaded: Loaded) -> str:
        """How long the newest plan of a run took, or a decision of a policy, in words."""
        ms = self.latencies.get(id(loaded))
        if ms is None:
            return ""
        return f"{ms:.2g} ms a step" if loaded.kind == "policy" else f"{ms:.0f} ms"

    @property
    def rate(self) -> float:
        """Plans a second, over the last second."""
        newest = self.times[-1] if self.times else 0.0
        recent = [each for each in list(self.times) if each > newest - RATE_SECONDS]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0

    def close(self) -> None:
        self._newest.close()
        for drive in self._ahead.values():
            drive.close()

    def _plan(self, questions: list[tuple[Loaded, Question]]) -> None:
        answers: dict[int, Answer] = {}
        problem = ""
        for side, (loaded, question) in enumerate(questions):
            try:
                answers[side] = self._answer(loaded, question)
            except (ValueError, RuntimeError) as error:
                problem = one_line(error)
        self.latencies |= {id(answer.loaded): answer.ms for answer in answers.values()}
        self.times.append(time.perf_counter())
        self.planned(answers, problem)

    def _answer(self, loaded: Loaded, question: Question) -> Answer:
        if loaded.kind == "planner":
            return plan_for(loaded, question)
        if id(loaded) not in self._ahead:
            self._ahead[id(loaded)] = Drive(loaded, question)
        return ahead(loaded, question, self._ahead[id(loaded)])


class Session:
    """The state behind one browser.

    `loaded` are the runs of the studio. Each change of the question asks for new plans, which the thread of `plans`
    makes; it then calls `on_plan`. `loop` is the closed loop. Their threads end with `close`.
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
        self.problem = ""
        """Why there are no plans, or the closed loop has stopped, in one line; empty if all is well."""
        self.on_plan: Callable[[], None] = lambda: None
        self.closed = False
        self.plans = PlanThread(self._planned)
        self.loop = Loop(lambda: Drive(self.loaded, self.question()), self.fail)
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
        if not self.loop.aim(self.goal):
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
        self.plans.ask([(loaded, self.question(loaded)) for loaded in sides])

    def attempt(self, action: Callable[..., object], *args: object) -> None:
        """Does what a browser asks for. An error is told in the place of what is said about the plans."""
        try:
            action(*args)
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            self.fail(error)

    def _planned(self, answers: dict[int, Answer], problem: str) -> None:
        if not self.closed:
            self.answers, self.problem = answers, problem
            self.on_plan()

    def fail(self, error: BaseException) -> None:
        """Shows an error in the place of what is said about the plans."""
        self.problem = one_line(error)
        self.on_plan()

    def plan(self, timeout: float | None = 60.0) -> Answer:
        """Waits for the newest plans and returns those of the chosen run. Raises ValueError without any in time."""
        if not self.answers and not self.problem:
            self.ask()
        if not self.plans.wait(timeout):
            raise ValueError(f"the plans take longer than {timeout:.0f} s; wait for them, or choose fewer steps or "
                             "candidates")
        if self.problem or 0 not in self.answers:
            raise ValueError(self.problem or "there is no plan yet")
        return self.answers[0]

    def reset(self) -> None:
        """Puts the closed loop back to the start, and asks for plans from there."""
        self.loop.reset()
        self.ask()

    def close(self) -> None:
        """Stops all work."""
        self.closed = True
        self.plans.close()
        self.loop.close()

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
