"""A plan as a function of a question: `plan_for(loaded, question)` is the same whenever it is asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.planner_config import PlannerConfig
from gentraj.agents.planning.sampler import Plans

from ..constraints import FULL_BUDGETS, Blocks, Certificate, Circle, Constraints
from ..constraints.kinds import Constraint
from ..diffusion import Constrained
from ..runs.planner import PlannerRun, as_planner
from .loading import Loaded

BUDGETS = FULL_BUDGETS[:2]  # a hand that drags does not wait for the last of the infeasible plans
MARGIN = 0.05  # how far plans keep off the walls where there are obstacles
# What the sliders reach to, unless the run's own settings are higher.
MOST_CANDIDATES = 16
MOST_SCALE = 10.0
MOST_TEMPERATURE = 2.0
MOST_SEED = 99


@dataclass(frozen=True)
class Settings:
    """The settings of a planner that the studio changes."""

    steps: int
    candidates: int
    scale: float
    """Scale of the guidance; 0 is none."""
    temperature: float
    seed: int = 0

    @classmethod
    def of(cls, loaded: Loaded) -> Settings:
        """The run's own settings; those that it does not have are neutral."""
        if not isinstance(loaded.run, PlannerRun):
            return cls(1, 1, 0.0, 1.0)
        own = loaded.run.planning
        settings = cls(min(own.steps, loaded.most_steps), own.candidates, own.scale, own.temperature)
        if own.guidance == "none":
            return replace(settings, scale=0.0)
        return settings

    def config(self, loaded: Loaded) -> PlannerConfig:
        """The settings as those of a planner."""
        config = replace(as_planner(loaded.run).planning, steps=self.steps, candidates=self.candidates,
                         temperature=self.temperature, guidance="none")
        if self.scale and loaded.guidance is not None:
            return replace(config, guidance=loaded.guidance, scale=self.scale)
        return config


def ranges(loaded: Loaded) -> dict[str, tuple[float, float]]:
    """The settings of a run that can be changed, each with its lowest and its highest value."""
    own = Settings.of(loaded)
    found: dict[str, tuple[float, float]] = {}
    if loaded.most_steps > loaded.least_steps:
        found["steps"] = loaded.least_steps, loaded.most_steps
    if loaded.several:
        found["candidates"] = 1, max(MOST_CANDIDATES, own.candidates)
    if loaded.guidance is not None:
        found["scale"] = min(0.0, own.scale), max(MOST_SCALE, own.scale)
    if loaded.kind == "planner":
        found["temperature"] = 0.0, max(MOST_TEMPERATURE, own.temperature)
    found["seed"] = 0, MOST_SEED
    return found


@dataclass(frozen=True)
class Disc:
    """An obstacle that plans keep out of."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Question:
    """Everything that a plan depends on beside its run."""

    obs: tuple[float, ...]
    """The observation (O,) that plans start from."""
    goal: tuple[float, ...]
    """The goal (G,); empty for a run without goals."""
    settings: Settings
    discs: tuple[Disc, ...] = ()
    """Obstacles. Where there are some, plans keep out of the walls too."""

    @property
    def obs_BO(self) -> Tensor:
        return torch.tensor([self.obs])

    @property
    def goal_BG(self) -> Tensor | None:
        return torch.tensor([self.goal]) if self.goal else None


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
    value_N: np.ndarray | None = None
    """The values of the plans, where the run has a critic."""
    frames: Sequence[np.ndarray] = ()
    """The denoising: (N, H, D) after each step of the first sampling of all plans."""
    certificate: Certificate | None = None
    """The largest violations of each plan, where there are obstacles."""

    @property
    def gaps(self) -> np.ndarray:
        """(H - 1,) the environment steps from each timestep to the next."""
        if self.loaded.kind == "policy":
            return np.ones(self.x_NHD.shape[1] - 1)
        return np.array(self.loaded.run.model.spec.gaps[:-1])

    def unfinished(self, frame: int | None) -> np.ndarray | None:
        """(N, H, D) the plans in a frame of the denoising; None for the finished ones, which come after the last."""
        if frame is None or frame >= len(self.frames):
            return None
        return self.frames[frame]

    def places(self, n: int) -> np.ndarray:
        """(H', 2) the places of plan n up to its arrival."""
        return self.x_NHD[n, : int(self.arrival_step_N[n]) + 1][:, list(self.loaded.dims)]

    @cached_property
    def crossing(self) -> np.ndarray:
        """(H' - 1,) whether the chosen plan, as it is drawn between two timesteps, crosses a wall or an obstacle, as
        constraints hold at timesteps only."""
        places_H2 = self.places(self.chosen)
        crossing = np.zeros(len(places_H2) - 1, bool)
        if self.loaded.maze is not None:
            crossing |= cross_boxes(places_H2, *self.loaded.maze.wall_boxes())
        for disc in self.question.discs:
            crossing |= cross_disc(places_H2, np.array([disc.x, disc.y]), disc.radius)
        return crossing


def constraints_of(loaded: Loaded, question: Question) -> Constraints | None:
    """The obstacles of a question and the walls as constraints; None without obstacles."""
    if not question.discs:
        return None
    found: list[Constraint] = [Circle((disc.x, disc.y), disc.radius, loaded.dims) for disc in question.discs]
    if loaded.maze is not None:
        found.append(Blocks(*loaded.maze.wall_boxes(), dims=loaded.dims, margin=MARGIN))
    return Constraints(loaded.run.model.spec, found)


def planner_of(loaded: Loaded, question: Question) -> Planner:
    """A planner with the settings and obstacles of a question. It shares the parts of the run's own planner.

    Raises ValueError for settings that the run cannot have, such as obstacles for a plan that finer models fill in.
    """
    base = loaded.planner
    config = question.settings.config(loaded)
    constraints = constraints_of(loaded, question)
    guide = None
    if constraints is not None:
        guide = Constrained(constraints, strict=False, budgets=BUDGETS, attempts=1)
    return Planner(replace(base.sampler, config=config, guide=guide), replace(base.tracker, config=config))


def plan_for(loaded: Loaded, question: Question) -> Answer:
    """Plans once. Raises ValueError for settings and obstacles that cannot be."""
    planner = planner_of(loaded, question)
    frames: list[np.ndarray] = []
    levels: list[float] = []

    def observe(x_RHD: Tensor, t: Tensor) -> None:
        levels.append(float(t.max()))
        if levels == sorted(levels, reverse=True):  # plans that are sampled again begin with more noise
            frames.append(x_RHD.cpu().numpy())

    with loaded.lock:
        start = time.perf_counter()
        plans = planner.sampler.sample(question.obs_BO, question.goal_BG, [question.settings.seed], observe=observe)
        ms = 1000 * (time.perf_counter() - start)
    return answer_of(loaded, question, plans, ms, frames)


def answer_of(loaded: Loaded, question: Question, plans: Plans, ms: float, frames: Sequence[np.ndarray] = (),
              ) -> Answer:
    """The answer that holds these plans, with the frames of their denoising."""
    x_NHD = plans.x_BNHD[0]
    answer = Answer(question, loaded, x_NHD.cpu().numpy(), plans.arrival_step_BN[0].cpu().numpy(),
                    plans.ratio_BN[0].cpu().numpy(), int(plans.chosen_B[0]), ms, frames=frames)
    if plans.value_BN is not None:
        answer = replace(answer, value_N=plans.value_BN[0].cpu().numpy())
    constraints = constraints_of(loaded, question)
    if constraints is not None:
        answer = replace(answer, certificate=constraints.certificate(x_NHD))
    return answer


def cross_boxes(places_H2: np.ndarray, low_W2: np.ndarray, high_W2: np.ndarray) -> np.ndarray:
    """(H - 1,) whether the straight line from each place to the next one enters any of the open boxes.

    Bounds may be infinite.
    """
    start_S12, step_S12 = places_H2[:-1, None].astype(float), np.diff(places_H2.astype(float), axis=0)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):  # a line along a border is NaN, and enters nothing
        ends_2SW2 = np.stack([(low_W2 - start_S12) / step_S12, (high_W2 - start_S12) / step_S12])
    enters_SW, leaves_SW = ends_2SW2.min(0).max(-1), ends_2SW2.max(0).min(-1)  # as parts of the line
    return (np.maximum(enters_SW, 0) < np.minimum(leaves_SW, 1)).any(1)


def cross_disc(places_H2: np.ndarray, centre_2: np.ndarray, radius: float) -> np.ndarray:
    """(H - 1,) whether the straight line from each place to the next one enters the open disc."""
    start_S2, step_S2 = places_H2[:-1] - centre_2, np.diff(places_H2, axis=0)
    part_S = -(start_S2 * step_S2).sum(1) / np.maximum((step_S2**2).sum(1), 1e-12)
    nearest_S2 = start_S2 + np.clip(part_S, 0, 1)[:, None] * step_S2
    return np.linalg.norm(nearest_S2, axis=1) < radius


def check_place(place: Sequence[float] | np.ndarray, count: int = 2) -> np.ndarray:
    """Returns a place of `count` coordinates as an array (count,) of floats. Raises ValueError for anything else."""
    found = np.asarray(place, float)
    if found.shape != (count,) or not np.isfinite(found).all():
        raise ValueError(f"the place is {place}; {count} finite numbers are expected")
    return found


def described(answer: Answer) -> str:
    """The newest plans in words."""
    if answer.loaded.kind == "policy":
        return f"The policy plans nothing; these are its next {answer.x_NHD.shape[1] - 1} steps."
    count = len(answer.ratio_N)
    words = [f"{count} plans, of a run without a measure of trust."]
    if answer.ratio_N.any():
        trusted = int((answer.ratio_N <= 1).sum())
        words = [f"{trusted} of {count} plans trusted (ratio of the chosen one: {answer.ratio_N[answer.chosen]:.2f})."]
    if answer.value_N is not None:
        words.append(f"Its value: {answer.value_N[answer.chosen]:.2f}.")
    if answer.certificate is not None:
        worst = float(answer.certificate.worst[answer.chosen])
        if worst <= 1e-6:
            words.append("Certificate: it keeps out of all obstacles and walls at its timesteps.")
        else:
            words.append(f"Certificate: **violated by {worst:.3g}**.")
    crossing = int(answer.crossing.sum())
    if crossing:
        words.append(f"Parts of it between timesteps that cross a wall or an obstacle: **{crossing} of "
                     f"{len(answer.crossing)}** (red).")
    return " ".join(words)
