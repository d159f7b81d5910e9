"""A generative model as the actor: its own loss pulls it towards the data, such as the discriminator of a GAN.

    pull = the model's own loss of the data's actions,   L_pi = pull - eta E[Q(s, a)] / E|Q(s, a)|,   a ~ pi(. | s)

This is equation 3 of Diffusion-QL (Wang et al. 2023, arXiv 2208.06193) for a model that samples in one call, through
which the gradient of the value passes.
"""

from __future__ import annotations

from dataclasses import field, replace

from gentraj.config import settings
from gentraj.families import GAN, ModelConfig
from gentraj.gan.discrimination import SideConfig

from .actor_critic import ActorCriticConfig, ModelActor
from .policy import POLICIES, PRESETS

# The discriminator takes part in one of eight updates: the energy score teaches the generator what to imitate, and the
# critic, which learns with it, needs the time.
QUICK_GAN = replace(GAN, adversarial_interval=8, generator_learning=SideConfig(learning_rate=4e-3, betas=(0.9, 0.999)))


@settings
class ModelCriticConfig(ActorCriticConfig):
    """The settings of a `ModelActor`."""

    model: ModelConfig = field(default_factory=lambda: QUICK_GAN)
    """The generative model of actions, which is the actor."""


POLICIES["model-critic"] = ModelCriticConfig, ModelActor
PRESETS["gan-critic"] = ("a conditional GAN of actions that maximises its value while it clones the data",
                         ModelCriticConfig(eta=0.2, candidates=8, temperature=0.5))
