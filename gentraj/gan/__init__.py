"""Conditional generative adversarial networks of trajectories."""

from .model import ConditionalGAN, GANConfig

__all__ = ["ConditionalGAN", "GANConfig"]
