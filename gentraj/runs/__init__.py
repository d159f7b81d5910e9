"""Runs: a planner, a policy or a world model that is trained into a folder and loaded from it."""

from .kinds.datasets import read_data
from .kinds.folder import RunFolder
from .kinds.loading import load
from .kinds.planner_run import PlannerRun, PlannerRunConfig
from .kinds.policy_run import PolicyRun, PolicyRunConfig
from .kinds.run import Component, DataFacts, Run, RunConfig, ahead_of, straight
from .kinds.world_run import WorldModelRun, WorldModelRunConfig
from .learn.training import train

__all__ = ["Component", "DataFacts", "PlannerRun", "PlannerRunConfig", "PolicyRun", "PolicyRunConfig",
           "Run", "RunConfig", "RunFolder", "WorldModelRun", "WorldModelRunConfig", "ahead_of", "load", "read_data",
           "straight", "train"]
