"""Diffusion-QL: a generative model of actions that is trained to imitate the data and to maximise Q(s, a).

    L_Q(theta) = E[(r + gamma Q'(s', a') - Q(s, a))^2],   a' ~ pi(. | s'), the best of `backup` for each Q'      (2)
    L_pi(phi)  = L_d(phi) - eta E[Q(s, a)] / E|Q(s, a)|,  a ~ pi(. | s), L_d the model's own loss of the data    (3)

Q' is the target network. Wang et al. 2023, "Diffusion Policies as an Expressive Policy Class for Offline Reinforcement
Learning" (arXiv 2208.06193). With the gradient through one denoising step in place of the chain: Kang et al. 2023,
"Efficient Diffusion Policies for Offline Reinforcement Learning" (arXiv 2305.20081). A model that samples in one call,
such as a GAN with its discriminator, takes the place of the diffusion model as it is.
"""

from __future__ import annotations

from dataclasses import field, replace
from functools import partial
from typing import Literal

from torch import Tensor

from gentraj.config import settings
from gentraj.diffusion import DiffusionConfig
from gentraj.families import DIFFUSION, GAN, ModelConfig
from gentraj.gan.objectives import SideConfig
from gentraj.training.step import TrainingStep

from .actor_critic import ActorCriticConfig, ModelActor
from .policy import POLICIES, PRESETS, Transition

# The discriminator takes part in one of eight updates: the energy score teaches the generator what to imitate, and the
# critic, which learns with it, needs the time.
QUICK_GAN = replace(GAN, adversarial_interval=8, generator_learning=SideConfig(learning_rate=4e-3, betas=(0.9, 0.999)))


@settings
class DiffusionQLConfig(ActorCriticConfig):
    """The settings of `DiffusionQL`. Raises ValueError for a setting outside its range."""

    model: ModelConfig = field(default_factory=lambda: replace(DIFFUSION, steps=2))
    """The generative model of actions."""
    gradient: Literal["step", "chain"] = "step"
    """Actions whose value a diffusion model maximises: those that it denoises in one step from a random noise level
    (Kang et al. 2023), or those that it samples, with the gradient through all steps (Wang et al. 2023)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gradient == "chain" and not isinstance(self.model, DiffusionConfig):
            raise ValueError("DiffusionQLConfig.gradient is 'chain', which needs a diffusion model; leave it out")


class DiffusionQL(ModelActor[DiffusionQLConfig]):
    """A generative model of actions that imitates the data and maximises Q(s, a)."""

    def best_next(self, state_BS: Tensor, act_BNKA: Tensor) -> Tensor:
        """All next actions, of which each member of the critic counts its own best."""
        return act_BNKA

    def update_actor(self, t: Transition, step: TrainingStep) -> dict[str, Tensor]:
        """One optimiser step on equation 3. Returns metrics."""
        if self.config.gradient == "step":
            return super().update_actor(t, step)
        guide = partial(self.window_value, step=step)
        return self.model.update(t, step, guide=guide, chain=True)


POLICIES["diffusion-ql"] = DiffusionQLConfig, DiffusionQL
PRESETS["diffusion-ql"] = ("a diffusion policy that maximises its value while it clones the data",
                           DiffusionQLConfig(eta=0.2, candidates=8))
PRESETS["gan-critic"] = ("a conditional GAN of actions that maximises its value while it clones the data",
                         DiffusionQLConfig(model=QUICK_GAN, eta=0.2, candidates=8, temperature=0.5))
