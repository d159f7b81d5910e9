"""Diffusion models of trajectories, and the plug-ins that shape their samples: guidance, composition, constraints."""

from .composition import ClassifierFree, Contexts, Product
from .diffusion_model import Diffusion, DiffusionConfig, FlowConfig
from .guidance import Constrained, Guided, Infeasible, NearestData
from .latent import LatentDiffusion, LatentDiffusionConfig

__all__ = ["ClassifierFree", "Constrained", "Contexts", "Diffusion", "DiffusionConfig", "FlowConfig", "Guided",
           "Infeasible", "LatentDiffusion", "LatentDiffusionConfig", "NearestData", "Product"]
