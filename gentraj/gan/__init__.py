"""Conditional generative adversarial networks of trajectories."""

from .model import ConditionalGAN
from .settings import GANConfig

__all__ = ["ConditionalGAN", "GANConfig"]
