"""Diffusion models of trajectories."""

from .model import Diffusion, DiffusionConfig

__all__ = ["Diffusion", "DiffusionConfig"]
