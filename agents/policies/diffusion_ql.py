"""Diffusion-QL: a diffusion model of actions that is trained to imitate the data and to maximise Q(s, a).

    L_Q(theta) = E[(r + gamma Q'(s', a') - Q(s, a))^2],   a' ~ pi(. | s'), the best of `backup` for each Q'      (2)
    L_pi(phi)  = L_d(phi) - eta E[Q(s, a)] / E|Q(s, a)|,  a ~ pi(. | s), L_d the denoising loss                  (3)

Q' is the target network. Wang et al. 2023, "Diffusion Policies as an Expressive Policy Class for Offline Reinforcement
Learning" (arXiv 2208.06193). With the gradient through one denoising step in place of the chain: Kang et al. 2023,
"Efficient Diffusion Policies for Offline Reinforcement Learning" (arXiv 2305.20081).
"""

from __future__ import annotations

from dataclasses import field, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import settings
from gentraj.diffusion import DiffusionConfig
from gentraj.families import DIFFUSION

from .actor_critic import ActorCriticConfig, ModelActor
from .policy import POLICIES, PRESETS
from .transition import Transition


@settings
class DiffusionQLConfig(ActorCriticConfig):
    """The settings of `DiffusionQL`. Raises ValueError for a setting outside its range."""

    model: DiffusionConfig = field(default_factory=lambda: replace(DIFFUSION, steps=2))
    """The diffusion model of actions, or a flow."""
    gradient: Literal["step", "chain"] = "step"
    """Actions whose value the model maximises: those that it denoises in one step from a random noise level (Kang et
    al. 2023), or those that it samples, with the gradient through all steps (Wang et al. 2023)."""


class DiffusionQL(ModelActor[DiffusionQLConfig]):
    """A diffusion model of actions that imitates the data and maximises Q(s, a)."""

    def best_next(self, state_BS: Tensor, act_BNKA: Tensor) -> Tensor:
        """All next actions, of which each member of the critic counts its own best."""
        return act_BNKA

    def update_actor(self, t: Transition, optimizers: dict[str, Optimizer],
                     generator: torch.Generator) -> dict[str, Tensor]:
        """One optimiser step on equation 3. Returns metrics."""
        guide = partial(self.window_value, generator=generator)
        return self.model.update(t, optimizers, generator, guide=guide, chain=self.config.gradient == "chain")


POLICIES["diffusion-ql"] = DiffusionQLConfig, DiffusionQL
PRESETS["diffusion-ql"] = ("a diffusion policy that maximises its value while it clones the data",
                           DiffusionQLConfig(eta=0.2, candidates=8))
