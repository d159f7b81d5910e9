"""The table of the kinds of runs: a planner, a policy or a world model, each with the class of its agent.

The settings of each kind know how to make such a run: `resolve` fills in what the data decide, `build` makes the
components that are trained, `agent` makes an agent of trained components, and `facts` describes them for tables.
"""

from __future__ import annotations

from gentraj.agents.mpc import MPC
from gentraj.agents.planning.planner import Planner
from gentraj.agents.policies.actor import Actor

from ..config import Registry
from .planner import PlannerRunConfig
from .policy import PolicyRunConfig
from .world import WorldModelRunConfig

AnyRunConfig = PlannerRunConfig | PolicyRunConfig | WorldModelRunConfig
"""The settings of a run of any kind."""

RUNS = Registry({
    "planner": (PlannerRunConfig, Planner),
    "policy": (PolicyRunConfig, Actor),
    "world-model": (WorldModelRunConfig, MPC),
})
