"""The training loop, the optimiser step, checkpoints and the log."""

from .loop import Callbacks, RunStore, Trainer, TrainingConfig, TrainingData, TrainingStopped
from .optimization import LearningConfig, adamw, apply_gradients

__all__ = ["Callbacks", "LearningConfig", "RunStore", "Trainer", "TrainingConfig", "TrainingData", "TrainingStopped",
           "adamw", "apply_gradients"]
