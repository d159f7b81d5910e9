"""Families of generators: the literal table of them, by the kind that settings say. Adding one is one line in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from .config import Kinds
from .diffusion import Diffusion, DiffusionConfig, FlowConfig, LatentDiffusion, LatentDiffusionConfig
from .gan import ConditionalGAN, GANConfig
from .models.gaussian import Gaussian, GaussianConfig

MODELS = Kinds({
    "diffusion": (DiffusionConfig, Diffusion),
    "flow": (FlowConfig, Diffusion),
    "latent": (LatentDiffusionConfig, LatentDiffusion),
    "gan": (GANConfig, ConditionalGAN),
    "gaussian": (GaussianConfig, Gaussian),
})

if TYPE_CHECKING:
    ModelConfig = DiffusionConfig | FlowConfig | LatentDiffusionConfig | GANConfig | GaussianConfig
    Model = Diffusion | LatentDiffusion | ConditionalGAN | Gaussian
else:  # what the table holds, so that a newcomer is one line there
    ModelConfig, Model = Union[MODELS.configs], Union[tuple(model for _, model in MODELS.values())]  # noqa: UP007

FAMILIES: dict[str, ModelConfig] = {name: config() for name, (config, _) in MODELS.items()}


def family(config: ModelConfig) -> str:
    """The name of the family that these settings are of."""
    return next(name for name, (known, _) in MODELS.items() if known is type(config))
