"""Diffusion models of trajectories. Adding one = one file and one line here."""

from .latent import LatentDiffusion, LatentDiffusionConfig
from .model import Diffusion
from .settings import DiffusionConfig

MODELS = {DiffusionConfig: Diffusion, LatentDiffusionConfig: LatentDiffusion}

__all__ = ["MODELS", "Diffusion", "DiffusionConfig", "LatentDiffusion", "LatentDiffusionConfig"]
