"""`PlannerConfig`: how a planner plans, what it needs for that, and how its guidance shapes plans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gentraj.config import require
from gentraj.diffusion.composition import ClassifierFree
from gentraj.models.plugin import Preference
from gentraj.models.sampling import Guidance, as_plugins
from gentraj.trajectory import TrajectorySpec

from .inverse_dynamics import InverseDynamics
from .plan_critic import PlanCritic
from .refine import check_levels
from .trust import Trust


@dataclass(frozen=True)
class PlannerConfig:
    arrival: Literal["earliest", "fixed"] = "earliest"
    """Arrive at the earliest trusted row, or always at the last one."""
    replan: int = 12
    """Environment steps between two plans."""
    steps: int = 5
    """Sampling steps of a plan."""
    shares: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
    """Candidates: one arrival per share of the likeliest arrival's probability. None means every second row."""
    candidates: int = 1
    """Plans that are drawn for each arrival, or where there is no goal."""
    shifted: bool = False
    """What is left of the previous plan, completed by the model, is one more candidate, and is kept among equals. A
    model is good at that if it was trained with prefixes (mix.prefix)."""
    history: int = 0
    """Rows before the present that are remembered: the model knows them, and plans by so many fewer. It must have been
    trained with prefixes (mix.prefix)."""
    select: Literal["trust", "value"] = "trust"
    """Of the trusted plans take the one that arrives first, or the one that the critic values most (Lu et al. 2025).
    Where nothing is trusted it is the most trusted."""
    guidance: Literal["none", "value", "classifier-free"] = "none"
    """What shapes plans while they are generated: the critic's value, or the context exaggerated."""
    scale: float = 1.0
    """Of the guidance. Value: plans are exp(scale * value) times as likely, values counted in standard deviations of
    the data's; classifier-free: 1 is the plain context, more exaggerates it."""
    trust: float = 0.98
    """Quantile of the data's error below which a plan is trusted."""
    temperature: float = 1.0
    """Scale of the noise a plan starts from."""
    actions: Literal["inverse", "joint", "track"] = "inverse"
    """Actions from inverse dynamics, from the plan itself, or those of a PD controller that tracks the plan: what is
    missing to its positions (goal_dims) and to its velocities (rest_dims), as Diffuser acts in mazes."""
    look: int = 12
    """Environment steps that the inverse dynamics, or the PD controller, looks ahead on the plan."""
    context: tuple[float, ...] = ()
    """What the model is told beside the trajectory; none for a model without context. A model that was told returns
    aims at a good one of its data's by default."""
    goal_dims: tuple[int, ...] = ()
    """Entries of the observation that a goal speaks about."""
    rest_dims: tuple[int, ...] = ()
    """Entries that are 0 at rest (velocities), used to hold the goal after the arrival."""
    hold_radius: float = 0.0
    """Distance to the goal (environment units) within which it is held instead of planned for.

    At most the distance that counts as success: a plan, not a straight line, is the way round a corner."""

    @property
    def ahead(self) -> int:
        """Environment steps that are carried out, or looked at, of a plan."""
        return self.replan - 1 + (1 if self.actions == "joint" else self.look)

    def __post_init__(self) -> None:
        require(self, replan=(1, 1e6), steps=(1, 1e6), trust=(0, 1), temperature=(0, math.inf), look=(1, 1e6),
                hold_radius=(0, math.inf), candidates=(1, 1e6), scale=(-1e6, 1e6), history=(0, 1e6))
        if not all(0 < share <= 1 for share in self.shares):
            raise ValueError(f"PlannerConfig.shares are {self.shares}; fractions above 0 and up to 1 are expected")


def guidance_of(config: PlannerConfig, critic: PlanCritic | None, guide: Guidance) -> Guidance:
    """The user's guide and the config's guidance."""
    if config.guidance == "value" and critic is not None:
        return [*as_plugins(guide, Preference), critic.guide(config.scale)]
    if config.guidance == "classifier-free":
        return [ClassifierFree(config.scale), *as_plugins(guide, Preference)]
    return guide


def check(config: PlannerConfig, levels: Sequence[TrajectorySpec], act_dim: int, trust: Trust | None,
          inverse: InverseDynamics | None, critic: PlanCritic | None) -> None:
    """Raises ValueError for settings that need a part which is not there, and for parts that do not fit each other.

    `levels` are the plans' own and the finer ones, `act_dim` is the width of the action space.
    """
    spec = levels[0]
    if config.actions == "track" and not len(config.goal_dims) == len(config.rest_dims) == act_dim:
        raise ValueError(f"actions='track' needs a position and a velocity for each of {act_dim} actions; goal_dims "
                         f"are {config.goal_dims} and rest_dims {config.rest_dims}")
    if config.actions == "joint" and not levels[-1].act_dim:
        raise ValueError("actions='joint' needs a model of observations and actions; this one has no actions")
    if config.actions == "inverse" and inverse is None:
        raise ValueError("actions='inverse' needs inverse dynamics; train with --dynamics, or set actions='joint'")
    if config.actions == "inverse" and inverse is not None and config.look > inverse.config.look:
        raise ValueError(f"look is {config.look}; the inverse dynamics were trained to look {inverse.config.look} "
                         "steps ahead, give at most that")
    if config.arrival == "earliest" and trust is None:
        raise ValueError("arrival='earliest' needs a trust score; give one or set arrival='fixed'")
    for name in ("select", "guidance"):
        if getattr(config, name) == "value" and critic is None:
            raise ValueError(f"{name}='value' needs a critic of plans; train one, or set another {name}")
    if critic is not None and critic.plan_spec != spec:
        raise ValueError(f"the critic values plans of {critic.plan_spec}; the model's are of {spec}")
    if config.guidance == "classifier-free" and not config.context:
        raise ValueError("guidance='classifier-free' needs a context to exaggerate, such as the return to aim at; set "
                         "context")
    if config.history:
        spec.require_even("history")
    ahead = max(config.ahead - (config.actions == "joint"), 1)
    if config.history and ahead > (left := (spec.horizon - 1 - config.history) * spec.stride):
        raise ValueError(f"history is {config.history} of {spec.horizon} rows, which leaves {left} environment steps "
                         f"to plan, and replan and look call for {ahead}; give less of one of them")
    check_levels(levels)
    _check_candidates(config, spec)


def _check_candidates(config: PlannerConfig, spec: TrajectorySpec) -> None:
    several = "shifted=True" if config.shifted else f"candidates={config.candidates}"
    chosen = config.select == "value" or config.arrival == "earliest"
    if (config.shifted or config.candidates > 1) and not chosen:
        raise ValueError(f"{several} needs something to choose by; set select='value' or arrival='earliest'")
    if config.shifted:
        spec.require_even("shifted=True")
    longest = (spec.horizon - config.history - 2) * spec.stride
    if config.shifted and config.replan > longest:
        raise ValueError(f"shifted=True needs something left of a plan; replan is {config.replan}, at most {longest} "
                         f"is expected for a horizon of {spec.horizon} rows and a history of {config.history}")
