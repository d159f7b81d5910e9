"""Default settings for models of actions: the families of `gentraj.families` with small networks and few steps."""

from __future__ import annotations

from dataclasses import replace

from gentraj.diffusion import DiffusionConfig, FlowConfig
from gentraj.families import ModelConfig
from gentraj.gan import GANConfig
from gentraj.gan.discrimination import SideConfig
from gentraj.models.gaussian import GaussianConfig
from gentraj.networks import ResidualMLPConfig
from gentraj.networks.discriminator import DiscriminatorConfig

NETWORK = ResidualMLPConfig(width=128, depth=2, frequencies=0)  # Fourier features of states gain nothing
DISCRIMINATOR = DiscriminatorConfig(width=64, multipliers=(1,), kernel=1, frequencies=0, patches=False,
                                    minibatch_std=False)

DIFFUSION = DiffusionConfig(NETWORK, levels=None, clip=1.0, weight_decay=0.0, ema=0.995, steps=5)
FLOW = FlowConfig(NETWORK, prediction="velocity", clip=1.0, weight_decay=0.0, ema=0.995, steps=5)
GAN = GANConfig(NETWORK, DISCRIMINATOR, ema=0.995, best_of=1,
                generator_learning=SideConfig(learning_rate=1e-3),
                discriminator_learning=SideConfig(learning_rate=1e-3))
# A GAN that learns together with a critic. The discriminator takes part in one of eight updates: the energy score
# teaches the generator what to imitate, and the critic needs the time.
QUICK_GAN = replace(GAN, adversarial_interval=8, generator_learning=SideConfig(learning_rate=4e-3, betas=(0.9, 0.999)))
GAUSSIAN = GaussianConfig(NETWORK, weight_decay=0.0, ema=0.995)
# A nearly deterministic actor: its loss is the squared error over 2 spread^2, and its gradients are as large.
DETERMINISTIC = replace(GAUSSIAN, spread=0.1, max_grad_norm=100.0)

GENERATORS: dict[str, ModelConfig] = {"gaussian": GAUSSIAN, "diffusion": DIFFUSION, "flow": FLOW, "gan": GAN}
"""The settings of the generative model of a policy's actions, by the name of its family."""
