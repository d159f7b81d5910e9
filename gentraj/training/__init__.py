"""The training loop, one optimiser step, checkpoints and what keeps them whole."""

from .loop import TrainingConfig, TrainingStopped, train

__all__ = ["TrainingConfig", "TrainingStopped", "train"]
