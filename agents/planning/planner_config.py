"""The settings of a planner."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Interval
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from gentraj.config import Fraction, settings


@settings
class PlannerConfig:
    """How a `Planner` plans and acts. Raises ValueError for a setting outside its range."""

    arrival: Literal["earliest", "fixed"] = "earliest"
    """When a plan is to arrive at the goal: at the earliest trusted timestep, or always at the last one."""
    replan: PositiveInt = 12
    """Environment steps between two plans. A goal that moves by more than hold_radius is planned for at once."""
    steps: PositiveInt = 5
    """Sampling steps of each plan."""
    arrival_thresholds: tuple[Annotated[float, Interval(gt=0, le=1)], ...] = (0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
    """Fractions in (0, 1]. For each, the planner tries the earliest arrival that is at least this fraction as probable
    as the most probable one. Without any, it tries every second timestep."""
    candidates: PositiveInt = 1
    """Plans that are sampled for each arrival, or in all where there is no goal."""
    shifted: bool = False
    """Add what is left of the previous plan, completed by the model, to the candidates; it wins ties. The model should
    have been trained with prefixes (--conditioning.prefix)."""
    history: NonNegativeInt = 0
    """Timesteps before the present that the model is conditioned on. They belong to its horizon, so that it plans fewer
    timesteps ahead. The model must have been trained with prefixes (--conditioning.prefix)."""
    select: Literal["trust", "value"] = "trust"
    """Which of the trusted plans is taken: with trust the one that arrives first, with value the one with the highest
    value under the critic (Lu et al. 2025). If no plan is trusted, the most trusted one is taken."""
    guidance: Literal["none", "value", "classifier-free"] = "none"
    """What guides the sampling of plans: the critic's value, or the context by classifier-free guidance."""
    scale: float = 1.0
    """Scale of the guidance. With value guidance, plans become exp(scale * value) times as likely, where values are in
    standard deviations of the returns in the data. With classifier-free guidance, 1 is the conditional model, and more
    amplifies the context."""
    trust: Fraction = 0.98
    """Quantile of the out-of-distribution scores of data below which a plan is trusted."""
    temperature: NonNegativeFloat = 1.0
    """Scale of the noise that a plan is sampled from."""
    actions: Literal["inverse", "joint", "track"] = "inverse"
    """Where actions come from: the inverse dynamics, the plan itself (joint), whose actions are 0 after its arrival, or
    a PD controller that tracks the plan's positions (goal_dims) and velocities (rest_dims), as Diffuser acts in
    mazes."""
    lookahead: PositiveInt = 12
    """Environment steps that the inverse dynamics or the PD controller look ahead along the plan."""
    context: tuple[float, ...] = ()
    """Context that the model is conditioned on; empty for a model without one. By default, a model conditioned on
    returns is given a high return of its data."""
    target_return: Literal["fixed", "value"] = "fixed"
    """The return that a model conditioned on returns is given: with fixed it is the context in every state, with value
    the critic's estimate V(s) of what good trajectories of the data return from the present state."""
    goal_dims: tuple[int, ...] = ()
    """Indices of the observation entries that a goal consists of; none means all."""
    rest_dims: tuple[int, ...] = ()
    """Indices of the observation entries that are 0 at rest (velocities), for holding the goal after the arrival."""
    hold_radius: NonNegativeFloat = 0.0
    """Distance to the goal, in environment units, within which the planner holds the goal instead of planning. It
    should be at most the distance that counts as success, as the goal is held along a straight line, even round a
    corner."""
