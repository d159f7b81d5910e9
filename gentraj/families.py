"""The families of generative models in one table, by the `kind` of their settings. A new family takes one line in it.

Students are models too, but no families to train: `gentraj distill` makes them from trained models.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from .config import Registry
from .diffusion import Diffusion, DiffusionConfig, FlowConfig, LatentDiffusion, LatentDiffusionConfig
from .distillation import STUDENTS, FewStep, FewStepConfig
from .gan import ConditionalGAN, GANConfig
from .models.gaussian import Gaussian, GaussianConfig

MODELS = Registry({
    "diffusion": (DiffusionConfig, Diffusion),
    "flow": (FlowConfig, Diffusion),
    "latent": (LatentDiffusionConfig, LatentDiffusion),
    "gan": (GANConfig, ConditionalGAN),
    "gaussian": (GaussianConfig, Gaussian),
    **STUDENTS,
})

if TYPE_CHECKING:
    ModelConfig = DiffusionConfig | FlowConfig | LatentDiffusionConfig | GANConfig | GaussianConfig | FewStepConfig
    Model = Diffusion | LatentDiffusion | ConditionalGAN | Gaussian | FewStep
else:  # unions of the table's classes, so that a new family takes one line there
    ModelConfig, Model = reduce(or_, MODELS.configs), reduce(or_, (model for _, model in MODELS.values()))

FAMILIES: dict[str, ModelConfig] = {name: config() for name, (config, _) in MODELS.items() if name not in STUDENTS}
"""The default settings of each family of generative models, by its name."""


def family(config: ModelConfig) -> str:
    """The name of the family that these settings belong to."""
    return MODELS.kind(config)
