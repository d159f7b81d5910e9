"""The families of generative models in one table, by the `kind` of their settings; others may be registered elsewhere.

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
from .gan.objectives import SideConfig
from .models.conditional import GeneratorConfig
from .models.gaussian import Gaussian, GaussianConfig
from .models.mip import MIP, MIPConfig
from .networks import ResidualMLPConfig
from .networks.discriminator import DiscriminatorConfig

MODELS = Registry({
    "diffusion": (DiffusionConfig, Diffusion),
    "flow": (FlowConfig, Diffusion),
    "latent": (LatentDiffusionConfig, LatentDiffusion),
    "gan": (GANConfig, ConditionalGAN),
    "gaussian": (GaussianConfig, Gaussian),
    "mip": (MIPConfig, MIP),
    **STUDENTS,
})

if TYPE_CHECKING:
    ModelConfig = (DiffusionConfig | FlowConfig | LatentDiffusionConfig | GANConfig | GaussianConfig | MIPConfig
                   | FewStepConfig)
    Model = Diffusion | LatentDiffusion | ConditionalGAN | Gaussian | MIP | FewStep
else:  # settings are those of any class that is registered, here or elsewhere
    ModelConfig, Model = GeneratorConfig, reduce(or_, (model for _, model in MODELS.values()))

FAMILIES: dict[str, ModelConfig] = {name: config() for name, (config, _) in MODELS.items() if name not in STUDENTS}
"""The default settings of each family of generative models, by its name."""
# Plans score no less where the two sides play in every second update only, which takes a third less time.
FAMILIES["gan"] = GANConfig(adversarial_interval=2)

# Models of a policy's actions have small networks and few steps. Fourier features of states gain nothing.
ACTION_NETWORK = ResidualMLPConfig(width=128, depth=2, frequencies=0)
GAUSSIAN = GaussianConfig(ACTION_NETWORK, weight_decay=0.0, ema=0.995)
REGRESSION = MIPConfig(ACTION_NETWORK, weight_decay=0.0, ema=0.995)
DIFFUSION = DiffusionConfig(ACTION_NETWORK, levels=None, clip=1.0, weight_decay=0.0, ema=0.995, steps=5)
FLOW = FlowConfig(ACTION_NETWORK, prediction="velocity", clip=1.0, weight_decay=0.0, ema=0.995, steps=5)
GAN = GANConfig(
    ACTION_NETWORK,
    DiscriminatorConfig(width=64, multipliers=(1,), kernel=1, frequencies=0, patches=False, minibatch_std=False),
    ema=0.995, best_of=1, generator_learning=SideConfig(learning_rate=1e-3),
    discriminator_learning=SideConfig(learning_rate=1e-3))

ACTION_MODELS: dict[str, ModelConfig] = {
    "gaussian": GAUSSIAN, "mip": REGRESSION, "diffusion": DIFFUSION, "flow": FLOW, "gan": GAN}
"""The settings of each family for models of a policy's actions and of the next state of a world."""


def family(config: ModelConfig) -> str:
    """The name of the family that these settings belong to."""
    return MODELS.kind(config)
