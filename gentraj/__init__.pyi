from .acceleration import accelerate
from .data import Episodes, Windows, load_episodes
from .experiments.compare import CompareConfig, compare, compare_families
from .runs.augmentation import AugmentConfig, augment
from .runs.evaluation import evaluate_and_save, evaluate_run
from .runs.export import export_run
from .runs.finetuning import FinetuneConfig, finetune
from .runs.hub import from_pretrained, push_to_hub, save_pretrained
from .runs.loading import load
from .runs.measures import measure_run
from .runs.presets import PRESETS
from .runs.report import make_report
from .runs.sampling import sample_run
from .runs.training import train
from .runs.world_evaluation import evaluate_world_model
from .trajectory import Condition, SamplingOptions, TrajectorySpec

__all__ = [
    "PRESETS", "AugmentConfig", "CompareConfig", "Condition", "Episodes", "FinetuneConfig", "SamplingOptions",
    "TrajectorySpec", "Windows", "accelerate", "augment", "compare", "compare_families", "evaluate_and_save",
    "evaluate_run", "evaluate_world_model", "export_run", "finetune", "from_pretrained", "load", "load_episodes",
    "make_report", "measure_run", "push_to_hub", "sample_run", "save_pretrained", "train",
]
