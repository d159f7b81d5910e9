"""`Session`: what one browser has chosen, planned and set in motion. It knows nothing of how it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..progress import one_line
from .driving import Drive, Loop, ahead, start_and_goal
from .loading import Loaded, alike, companions
from .planning import Answer, Disc, Question, Settings, check_place, plan_for, ranges
from .threads import Latest

MOST_DISCS = 20  # obstacles, each of which costs time in every plan


class PlanThread:
    """Plans for the newest questions in a thread of its own, and then calls `planned` with answers and problem."""

    def __init__(self, planned: Callable[[dict[int, Answer], str], None]):
        self.planned = planned
        self.latencies: dict[Loaded, float] = {}
        """The milliseconds of the newest plan of each run, or of a decision of a policy."""
        self.ahead: dict[Loaded, Drive] = {}
        """In which policies drive ahead."""
        self.newest: Latest[list[tuple[Loaded, Question]]] = Latest(self._plan, "studio-plans")

    def close(self) -> None:
        self.newest.close()
        for drive in self.ahead.values():
            drive.close()

    def _plan(self, questions: list[tuple[Loaded, Question]]) -> None:
        answers: dict[int, Answer] = {}
        problem = ""
        for side, (loaded, question) in enumerate(questions):
            try:
                answers[side] = self._answer(loaded, question)
                self.latencies[loaded] = answers[side].ms
            except (ValueError, RuntimeError) as error:
                problem = one_line(error)
        self.planned(answers, problem)

    def _answer(self, loaded: Loaded, question: Question) -> Answer:
        if loaded.kind == "planner":
            return plan_for(loaded, question)
        if loaded not in self.ahead:
            self.ahead[loaded] = Drive(loaded, question)
        return ahead(loaded, question, self.ahead[loaded])


class Session:
    """The state behind one browser.

    `runs` are those of the studio. Each change of the question asks for new plans, which the thread of `plans` makes;
    it then calls `on_plan`. `loop` is the closed loop. Their threads end with `close`.
    """

    def __init__(self, runs: Sequence[Loaded]):
        if not runs:
            raise ValueError("no run was given; give the folder of at least one")
        self.runs = list(runs)
        self.loaded = self.runs[0]
        """The chosen run."""
        self.second: Loaded | None = None
        """The run that is shown beside the chosen one, if any."""
        self.settings = {each: Settings.of(each) for each in self.runs}
        self.obs, self.goal = start_and_goal(self.loaded)
        self.discs: tuple[Disc, ...] = ()
        self.answers: dict[int, Answer] = {}
        """The newest plans by side: 0 is the chosen run, 1 the one beside it."""
        self.problem = ""
        """Why there are no plans, or the closed loop has stopped, in one line; empty if all is well."""
        self.on_plan: Callable[[], None] = lambda: None
        self.closed = False
        self.plans = PlanThread(self._planned)
        self.loop = Loop(lambda: Drive(self.loaded, self.question(self.loaded)), self.fail)

    def question(self, loaded: Loaded) -> Question:
        """What is asked of a run."""
        question = Question(self.obs, (), self.settings[loaded])
        if loaded.has_goal:
            question = replace(question, goal=self.goal)
        if loaded.kind == "planner" and loaded.maze is not None:
            question = replace(question, discs=self.discs)
        return question

    def choose(self, loaded: Loaded, second: Loaded | None = None) -> None:
        """Chooses a run, and another one to show beside it. In the same environment start, goal and obstacles stay.

        Raises ValueError for a second run that is not one of the `companions` of the first.
        """
        if second is not None and second not in companions(loaded, self.runs):
            raise ValueError(f"{second.name} cannot be shown beside {loaded.name}; choose another run that plans or "
                             "acts in the same environment")
        if not alike(self.loaded, loaded):
            self.obs, self.goal = start_and_goal(loaded)
            self.discs = ()
        self.answers = {}  # first, so that no answer is taken for that of the new run
        self.loaded = loaded
        self.second = second
        self.ask()

    def move_start(self, place_2: np.ndarray | Sequence[float]) -> None:
        """Moves the start, at rest, to the free place that is nearest. Raises ValueError for what is no place."""
        obs_O = np.zeros(len(self.obs))
        obs_O[list(self.loaded.dims)] = self.loaded.nearest_free(check_place(place_2))
        self.obs = tuple(obs_O.tolist())
        self.ask()

    def move_goal(self, place_2: np.ndarray | Sequence[float]) -> None:
        """Moves the goal to the free place that is nearest; a closed loop on its way turns there.

        Raises ValueError for what is no place.
        """
        self.goal = (*self.loaded.nearest_free(check_place(place_2)).tolist(), *self.goal[2:])
        if not self.loop.aim(self.goal):
            self.ask()

    def set(self, **changes: float) -> None:
        """Changes settings of the chosen run and of the one beside it, as far as their `ranges` reach."""
        for loaded in (self.loaded, self.second):
            if loaded is not None:
                fitting = {name: min(high, max(low, changes[name])) for name, (low, high) in ranges(loaded).items()
                           if name in changes}
                self.settings[loaded] = replace(self.settings[loaded], **fitting)
        self.ask()

    def block(self, *discs: Disc) -> None:
        """Places these obstacles, instead of those before. Raises ValueError for more than `MOST_DISCS`."""
        if len(discs) > MOST_DISCS:
            raise ValueError(f"there are {MOST_DISCS} obstacles, and no more are taken; remove one first")
        self.discs = discs
        self.ask()

    def ask(self) -> None:
        """Asks for new plans."""
        shown = [each for each in (self.loaded, self.second) if each is not None and each.kind != "world model"]
        self.plans.newest.ask([(loaded, self.question(loaded)) for loaded in shown])

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

    def plan(self, timeout: float | None = 60.0) -> Answer:
        """Waits for the newest plans and returns those of the chosen run. Raises ValueError without any in time."""
        if not self.answers and not self.problem:
            self.ask()
        if not self.plans.newest.wait(timeout):
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

    def _planned(self, answers: dict[int, Answer], problem: str) -> None:
        if not self.closed:
            self.answers = answers
            self.problem = problem
            self.on_plan()
