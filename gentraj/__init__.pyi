from .acceleration import accelerate
from .data import Episodes, Windows, load_episodes
from .experiments.compare import compare
from .runs.judge.evaluation import Acting, Scores, evaluate
from .runs.judge.world_evaluation import evaluate_world_model
from .runs.kinds.loading import load
from .runs.kinds.presets import PRESETS
from .runs.learn.augmentation import AugmentConfig, augment
from .runs.learn.finetuning import FinetuneConfig, finetune
from .runs.learn.training import train
from .runs.show.hub import from_pretrained
from .runs.show.report import make_report
from .trajectory import Condition, SamplingOptions, TrajectorySpec

__all__ = [
    "PRESETS", "Acting", "AugmentConfig", "Condition", "Episodes", "FinetuneConfig", "SamplingOptions", "Scores",
    "TrajectorySpec", "Windows", "accelerate", "augment", "compare", "evaluate", "evaluate_world_model",
    "finetune", "from_pretrained", "load", "load_episodes", "make_report", "train",
]
