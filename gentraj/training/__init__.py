"""The training loop, the training step, checkpoints and the log."""

from .loop import RunStore, Trainer, TrainingConfig, TrainingData, TrainingStopped
from .optimization import LearningConfig, adamw
from .step import TrainingStep, Trial

__all__ = ["LearningConfig", "RunStore", "Trainer", "TrainingConfig", "TrainingData", "TrainingStep", "TrainingStopped",
           "Trial", "adamw"]
