"""The training loop, one optimiser step, checkpoints and what keeps them whole."""

from .loop import TrainingConfig, TrainingStopped, train
from .optimization import adamw, apply_gradients

__all__ = ["TrainingConfig", "TrainingStopped", "adamw", "apply_gradients", "train"]
