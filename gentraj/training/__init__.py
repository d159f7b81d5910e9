"""The training loop, the optimiser step, checkpoints and the log."""

from .loop import TrainingConfig, TrainingStopped, train
from .optimization import LearningConfig, adamw, apply_gradients

__all__ = ["LearningConfig", "TrainingConfig", "TrainingStopped", "adamw", "apply_gradients", "train"]
