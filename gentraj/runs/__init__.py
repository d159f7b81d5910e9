"""Runs: a planner, a policy or a world model that is trained into a folder and loaded from it."""

from .folder import RunFolder
from .loading import load
from .planner import PlannerRun, PlannerRunConfig
from .policy import PolicyRun, PolicyRunConfig
from .run import Component, DataFacts, Run, RunConfig, ahead_of, straight
from .training import read_data, train
from .world import WorldModelRun, WorldModelRunConfig

__all__ = ["Component", "DataFacts", "PlannerRun", "PlannerRunConfig", "PolicyRun", "PolicyRunConfig",
           "Run", "RunConfig", "RunFolder", "WorldModelRun", "WorldModelRunConfig", "ahead_of", "load", "read_data",
           "straight", "train"]
