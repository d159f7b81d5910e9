from .judge.evaluation import Acting, Scores, evaluate
from .judge.measures import measure_run
from .kinds.datasets import read_data
from .kinds.folder import RunFolder
from .kinds.loading import load
from .kinds.planner_run import PlannerRun, PlannerRunConfig
from .kinds.policy_run import PolicyRun, PolicyRunConfig
from .kinds.run import Component, DataFacts, Run, RunConfig, ahead_of, straight
from .kinds.world_run import WorldModelRun, WorldModelRunConfig
from .learn.training import train
from .show.export import save_program
from .show.hub import push_to_hub, save_pretrained
from .show.report import make_report
from .show.sampling import Samples, sample_run

__all__ = [
    "Acting", "Component", "DataFacts", "PlannerRun", "PlannerRunConfig", "PolicyRun", "PolicyRunConfig", "Run",
    "RunConfig", "RunFolder", "Samples", "Scores", "WorldModelRun", "WorldModelRunConfig", "ahead_of", "evaluate",
    "load", "make_report", "measure_run", "push_to_hub", "read_data", "sample_run", "save_pretrained", "save_program",
    "straight", "train",
]
