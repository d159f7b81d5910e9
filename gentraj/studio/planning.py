"""Plans as a function of a question: `answers(loaded, question)` are the same whenever they are asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.sampler import Plans
from gentraj.agents.roadmap.graph import Route
from gentraj.envs.tasks.maze import Disc

from ..constraints import FULL_BUDGETS, Certificate, Circle, Constraints
from ..constraints.kinds import Constraint
from ..diffusion import Constrained
from ..runs.kinds.planner_run import PlannerRun
from ..runs.kinds.run import of_kind
from ..trajectory import only_steps
from .loading import Loaded

BUDGETS = FULL_BUDGETS[:2]  # a hand that drags does not wait for the last of the infeasible plans
CHECKS = 33  # places of the line between two timesteps at which it is checked for walls and obstacles
# What the sliders reach to, unless the run's own settings are higher.
MOST_STEPS = 50
MOST_CANDIDATES = 16
MOST_SCALE = 10.0
MOST_TEMPERATURE = 2.0
MOST_SEED = 99


@dataclass(frozen=True)
class Settings:
    """The settings of a planner that the studio changes."""

    steps: int = 1
    candidates: int = 1
    scale: float = 0.0
    """Scale of the guidance; 0 is none."""
    temperature: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Question:
    """Everything that a plan depends on beside its run."""

    obs: tuple[float, ...]
    """The observation (O,) that plans start from."""
    goal: tuple[float, ...]
    """The goal (G,); empty for a run without goals."""
    settings: Settings
    discs: tuple[Disc, ...] = ()
    """Obstacles, which plans keep out of. Where there are some, plans keep out of the walls too."""


@dataclass(frozen=True)
class Answer:
    """The N plans that a question has, and the chosen one; arrays are in environment units."""

    question: Question
    loaded: Loaded
    x_NHD: np.ndarray
    arrival_step_N: np.ndarray
    """The timesteps of arrival; plans are drawn up to there."""
    ratio_N: np.ndarray
    """Trust ratios: a plan is trusted up to 1. All are 0 where the run has no trust."""
    chosen: int
    ms: float
    """How long the plan took, in milliseconds."""
    made: int = 0
    """The steps of the closed loop before it."""
    value_N: np.ndarray | None = None
    """The values of the plans, where the run has a critic."""
    frames: Sequence[np.ndarray] = ()
    """The denoising: (N, H, D) after each step of the first sampling of all plans."""
    certificate: Certificate | None = None
    """The largest violations of each plan, where there are obstacles."""
    route: Route | None = None
    """The recorded way to the goal; None without a roadmap, and where no way leads from there."""

    @property
    def lacks_way(self) -> bool:
        """Whether the run has a roadmap, on which no way leads to the goal."""
        run = self.loaded.run
        return isinstance(run, PlannerRun) and run.roadmap is not None and self.route is None

    @property
    def stride(self) -> int:
        """The environment steps from each timestep to the next."""
        if self.loaded.kind == "policy":
            return 1
        return self.loaded.run.model.spec.stride

    @property
    def step_H(self) -> np.ndarray:
        """(H,) the environment steps of the timesteps."""
        return self.made + self.stride * np.arange(self.x_NHD.shape[1])

    def places(self, n: int) -> np.ndarray:
        """(H', 2) the places of plan n up to its arrival."""
        return self.x_NHD[n, : int(self.arrival_step_N[n]) + 1][:, list(self.loaded.dims)]

    @cached_property
    def crossing(self) -> np.ndarray:
        """(H' - 1,) whether the chosen plan, as it is drawn between two timesteps, crosses a wall or an obstacle, as
        constraints hold at timesteps only."""
        places_H2 = self.places(self.chosen)
        part_P1 = np.linspace(0, 1, CHECKS)[:, None]
        points_SP2 = places_H2[:-1, None] + part_P1 * np.diff(places_H2, axis=0)[:, None]
        crossing_S = np.zeros(len(points_SP2), bool)
        if self.loaded.maze is not None:
            low_W2, high_W2 = self.loaded.maze.wall_boxes()
            points_SP12 = points_SP2[:, :, None]
            crossing_S |= ((low_W2 < points_SP12) & (points_SP12 < high_W2)).all(-1).any(-1).any(-1)
        for disc in self.question.discs:
            crossing_S |= (np.linalg.norm(points_SP2 - [disc.x, disc.y], axis=-1) < disc.radius).any(1)
        return crossing_S

    def __str__(self) -> str:
        """The plans in words."""
        if self.loaded.kind == "policy":
            return f"These are its next {self.x_NHD.shape[1] - 1} steps."
        count = len(self.ratio_N)
        words = [f"{count} plans, of a run without a measure of trust."]
        if self.ratio_N.any():
            words = [f"{int((self.ratio_N <= 1).sum())} of {count} plans trusted. The chosen one differs from the "
                     f"data by {self.ratio_N[self.chosen]:.2f} of what is trusted (less is better, above 1 it is not)."]
        if self.value_N is not None:
            words.append(f"The value of the chosen one: {self.value_N[self.chosen]:.2f} (more is better).")
        if self.route is not None:
            words.append(f"The recorded way to the goal: {self.route.left:.0f} steps (pink).")
        if self.lacks_way:
            words.append("**No recorded way leads from the start to the goal**, so the plans lead straight there.")
        if self.certificate is not None and self.certificate.feasible[self.chosen]:
            words.append("Certificate: it keeps out of all obstacles and walls at its timesteps.")
        elif self.certificate is not None:
            words.append(f"Certificate: **violated by {self.certificate.worst[self.chosen]:.3g}**.")
        if self.crossing.any():
            words.append("Parts of it between timesteps that cross a wall or an obstacle: "
                         f"**{self.crossing.sum()} of {len(self.crossing)}** (red).")
        return " ".join(words)


def settings_of(loaded: Loaded) -> Settings:
    """The run's own settings; those that it does not have are neutral."""
    if not isinstance(loaded.run, PlannerRun):
        return Settings()
    own = loaded.run.planning
    settings = Settings(min(own.steps, _steps(loaded.run)[1]), own.candidates, own.scale, own.temperature)
    if own.guidance == "none":
        return replace(settings, scale=0.0)
    return settings


def ranges(loaded: Loaded) -> dict[str, tuple[float, float]]:
    """The settings of a run that can be changed, each with its lowest and its highest value."""
    found: dict[str, tuple[float, float]] = {}
    if isinstance(loaded.run, PlannerRun):
        own = settings_of(loaded)
        least, most = _steps(loaded.run)
        if least < most:
            found["steps"] = least, most
        if loaded.run.planning.arrival == "earliest" or loaded.run.planning.select == "value":
            found["candidates"] = 1, max(MOST_CANDIDATES, own.candidates)
        if _guidance(loaded.run) != "none":
            found["scale"] = min(0.0, own.scale), max(MOST_SCALE, own.scale)
        found["temperature"] = 0.0, max(MOST_TEMPERATURE, own.temperature)
    found["seed"] = 0, MOST_SEED
    return found


def _steps(run: PlannerRun) -> tuple[int, int]:
    """The smallest and the largest number of sampling steps."""
    if run.config.model.DIRECT:
        return 1, 1
    only = only_steps(run.model)  # of a student
    if only:
        return only, only
    most = max(MOST_STEPS, run.planning.steps)
    return 1, min(run.config.model.max_steps or most, most)


def _guidance(run: PlannerRun) -> Literal["none", "value", "classifier-free"]:
    """What can guide the plans."""
    if run.planning.guidance != "none":
        return run.planning.guidance
    if run.critic is not None and not run.config.context.goals:
        return "value"
    if run.planning.context:
        return "classifier-free"
    return "none"


def constraints_of(loaded: Loaded, question: Question) -> Constraints | None:
    """The obstacles of a question and the walls as constraints; None without obstacles."""
    if not question.discs:
        return None
    found: list[Constraint] = [Circle((disc.x, disc.y), disc.radius, loaded.dims) for disc in question.discs]
    if loaded.walls is not None:
        found.append(loaded.walls)
    return Constraints(loaded.run.model.spec, found)


def planner_of(loaded: Loaded, question: Question) -> Planner:
    """A planner with the settings and obstacles of a question. It shares the parts of the run's own planner.

    Raises ValueError for settings that the run cannot have, such as obstacles for a plan that finer models fill in.
    """
    base = loaded.planner
    asked = question.settings
    run = of_kind(loaded.run, PlannerRun)
    config = replace(run.planning, steps=asked.steps, candidates=asked.candidates, temperature=asked.temperature,
                     guidance="none")
    if asked.scale:
        config = replace(config, guidance=_guidance(run), scale=asked.scale)
    constraints = constraints_of(loaded, question)
    guide = None
    if constraints is not None:
        guide = Constrained(constraints, strict=False, budgets=BUDGETS, attempts=1)
    return Planner(replace(base.sampler, config=config, guide=guide), replace(base.tracker, config=config))


def answers(loaded: Loaded, question: Question) -> Iterator[Answer]:
    """Plans once and yields the plans; with a roadmap also the same plans with a chosen one that goes on, by one plan
    more each time, and at last arrives at the goal. Raises ValueError for settings and obstacles that cannot be."""
    planner = planner_of(loaded, question)
    frames: list[np.ndarray] = []
    levels: list[float] = []

    def observe(x_RHD: Tensor, t: Tensor) -> None:
        levels.append(float(t.max()))
        if levels == sorted(levels, reverse=True):  # plans that are sampled again begin with more noise
            frames.append(x_RHD.cpu().numpy())

    goal_BG = None
    if question.goal:
        goal_BG = torch.tensor([question.goal])
    with loaded.lock:
        start = time.perf_counter()
        plans = planner.sampler.sample(torch.tensor([question.obs]), goal_BG, [question.settings.seed], observe=observe)
        ms = 1000 * (time.perf_counter() - start)
    yield replace(answer_of(loaded, question, planner, plans), ms=ms, frames=frames)
    if goal_BG is None or planner.sampler.far is None:
        return
    growing = planner.sampler.growing(torch.tensor([question.obs]), goal_BG, [question.settings.seed])
    while True:
        with loaded.lock:
            ways = next(growing, None)
        if ways is None:
            return
        yield replace(answer_of(loaded, question, planner, plans.with_whole(ways)), ms=ms, frames=frames)


def answer_of(loaded: Loaded, question: Question, planner: Planner, plans: Plans) -> Answer:
    """The answer that holds these plans of a planner."""
    x_NHD = plans.x_BNHD[0]
    answer = Answer(question, loaded, x_NHD.cpu().numpy(), plans.arrival_step_BN[0].cpu().numpy(),
                    plans.ratio_BN[0].cpu().numpy(), int(plans.chosen_B[0]), 0.0)
    if question.goal:
        obs_O = x_NHD[0, 0, : loaded.run.data.obs_dim]
        answer = replace(answer, route=planner.sampler.route(obs_O, torch.tensor(question.goal)))
    if plans.value_BN is not None:
        answer = replace(answer, value_N=plans.value_BN[0].cpu().numpy())
    constraints = constraints_of(loaded, question)
    if constraints is not None:
        constraints = Constraints(constraints.spec.longer(x_NHD.shape[1]), constraints.constraints)
        answer = replace(answer, certificate=constraints.certificate(x_NHD))
    return answer
