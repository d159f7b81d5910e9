"""Runs: a planner, a policy or a world model that is trained into a folder and loaded from it."""

from .folder import Run, build, load, read_config, read_data, train
from .kinds import AnyRunConfig
from .planner import PlannerRunConfig
from .policy import PolicyRunConfig
from .settings import Component, DataFacts
from .world import WorldModelRunConfig

__all__ = ["AnyRunConfig", "Component", "DataFacts", "PlannerRunConfig", "PolicyRunConfig", "Run",
           "WorldModelRunConfig", "build", "load", "read_config", "read_data", "train"]
