"""Conditional generative adversarial networks of trajectories."""

from .conditional_gan import ConditionalGAN, GANConfig

__all__ = ["ConditionalGAN", "GANConfig"]
