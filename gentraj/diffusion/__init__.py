"""Diffusion models of trajectories, and the plug-ins that shape their samples: guidance and constraints."""

from .diffusion_model import Diffusion, DiffusionConfig, FlowConfig
from .guidance import ClassifierFree, Constrained, Guided, Infeasible, NoisyValue
from .latent import LatentDiffusion, LatentDiffusionConfig

__all__ = ["ClassifierFree", "Constrained", "Diffusion", "DiffusionConfig", "FlowConfig", "Guided",
           "Infeasible", "LatentDiffusion", "LatentDiffusionConfig", "NoisyValue"]
