"""What a run is: a planner, a policy or a world model, trained into a folder and loaded from it."""

from .folder import Run, build, load, load_episodes, make_missing, read_config, resolve, train
from .kinds import AnyRunConfig, Component, DataFacts, PolicyRunConfig, RunConfig, WorldModelRunConfig

__all__ = ["AnyRunConfig", "Component", "DataFacts", "PolicyRunConfig", "Run", "RunConfig", "WorldModelRunConfig",
           "build", "load", "load_episodes", "make_missing", "read_config", "resolve", "train"]
