"""Runs: a planner, a policy or a world model that is trained into a folder and loaded from it."""

from .folder import Run, build, load, load_episodes, make_missing, read_config, resolve, train
from .kinds import AnyRunConfig, Component, DataFacts, PlannerRunConfig, PolicyRunConfig, WorldModelRunConfig

__all__ = ["AnyRunConfig", "Component", "DataFacts", "PlannerRunConfig", "PolicyRunConfig", "Run",
           "WorldModelRunConfig", "build", "load", "load_episodes", "make_missing", "read_config", "resolve", "train"]
