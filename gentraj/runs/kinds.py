"""What a run is made of, a planner's models, a policy or a world model: settings that know how to make it.

`RUNS` holds them by their kind, each with what acts. `resolve` fills in what the data decide, `build` makes the parts
that are trained, `agent` lets trained parts act, and `facts` tells of them.
"""

from __future__ import annotations

from agents.mpc import MPC
from agents.planning.planner import Planner
from agents.policies.actor import Actor

from ..config import Kinds
from .planner import FINER, PlannerRunConfig
from .policy import PolicyRunConfig
from .settings import Component, DataFacts
from .world import WorldModelRunConfig

__all__ = ["FINER", "RUNS", "AnyRunConfig", "Component", "DataFacts", "PlannerRunConfig", "PolicyRunConfig",
           "WorldModelRunConfig"]

AnyRunConfig = PlannerRunConfig | PolicyRunConfig | WorldModelRunConfig

RUNS = Kinds({
    "planner": (PlannerRunConfig, Planner),
    "policy": (PolicyRunConfig, Actor),
    "world-model": (WorldModelRunConfig, MPC),
})
