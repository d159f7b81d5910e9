"""What a run is made of, a planner's models, a policy or a world model: settings that know how to make it.

`resolve` fills in what the data decide, `build` makes the parts that are trained, `agent` lets trained parts act, and
`facts` tells of them.
"""

from __future__ import annotations

from agents.arrival import Arrival
from agents.inverse_dynamics import InverseDynamics
from agents.plan_critic import PlanCritic
from agents.policy import Policy

from .data_facts import DataFacts
from .models import Model
from .planner_run import FINER, RunConfig
from .policy_run import PolicyRunConfig
from .world_model import WorldModel
from .world_run import WorldModelRunConfig

__all__ = ["FINER", "AnyRunConfig", "DataFacts", "Part", "PolicyRunConfig", "RunConfig", "WorldModelRunConfig"]

Part = Model | InverseDynamics | Arrival | PlanCritic | Policy | WorldModel
AnyRunConfig = RunConfig | PolicyRunConfig | WorldModelRunConfig
