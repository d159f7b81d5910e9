"""Diffusion models of trajectories."""

from .latent import LatentDiffusion, LatentDiffusionConfig
from .model import Diffusion
from .settings import DiffusionConfig

__all__ = ["Diffusion", "DiffusionConfig", "LatentDiffusion", "LatentDiffusionConfig"]
