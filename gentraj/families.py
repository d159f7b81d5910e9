"""Families of generators, each by its name and its default settings. Adding one is one line in each dict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from .config import differences, to_json
from .diffusion import Diffusion, DiffusionConfig, LatentDiffusion, LatentDiffusionConfig
from .gan import ConditionalGAN, GANConfig
from .models.gaussian import Gaussian, GaussianConfig

MODELS = {
    DiffusionConfig: Diffusion,
    LatentDiffusionConfig: LatentDiffusion,
    GANConfig: ConditionalGAN,
    GaussianConfig: Gaussian,
}

if TYPE_CHECKING:
    ModelConfig = DiffusionConfig | LatentDiffusionConfig | GANConfig | GaussianConfig
    Model = Diffusion | LatentDiffusion | ConditionalGAN | Gaussian
else:  # what the dict holds, so that a newcomer is one line there
    ModelConfig, Model = Union[tuple(MODELS)], Union[tuple(MODELS.values())]  # noqa: UP007

FAMILIES: dict[str, ModelConfig] = {
    "diffusion": DiffusionConfig(),
    "flow": DiffusionConfig(path="flow", levels=None, sampler="euler"),
    "latent": LatentDiffusionConfig(),
    "gan": GANConfig(),
    "gaussian": GaussianConfig(),
}


def family(config: ModelConfig) -> str:
    """The name of the family whose settings are likest."""
    same = {name: default for name, default in FAMILIES.items() if type(default) is type(config)}
    return min(same, key=lambda name: len(list(differences(to_json(same[name]), to_json(config)))))
