"""Swift: CFGRL with n-step advantages and cross-fitted critics.

A diffusion model imitates all actions of the data, each conditioned on whether its advantage is positive, and is
sampled with classifier-free guidance towards positive advantages (CFGRL: Frans et al. 2025, "Diffusion Guidance Is a
Controllable Policy Improvement Operator", arXiv 2505.23458). Ours are the advantages:

    A(s, a)  = r + gamma^n V_-(s') - V_-(s)        with the n-step return r of the data
    L_V(psi) = E[L_2^tau(r + gamma^n V(s') - V(s))],   L_2^tau(u) = |tau - 1(u < 0)| u^2
    L_pi     = the denoising loss of p(a | s, c),      c = 1 if A(s, a) > 0, else -1, and none at random
    a        ~ the denoiser D(a | s) + w (D(a | s, c = 1) - D(a | s))

V is an expectile (Kostrikov et al. 2022) of n-step returns, with no Q: actions that the data lack are never valued, and
no action is selected by values whose errors would favour it. V_- is a member of an ensemble that did not learn from the
episode (cross-fitting: Chernozhukov et al. 2018), as a network that has memorised the returns of an episode finds no
advantages there.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import Fraction, settings
from gentraj.diffusion import DiffusionConfig
from gentraj.diffusion.composition import ClassifierFree
from gentraj.families import DIFFUSION
from gentraj.randomness import Seeds
from gentraj.training.optimization import adamw
from gentraj.training.step import TrainingStep
from gentraj.trajectory import DEFAULT_OPTIONS, SamplingOptions

from .critic import ValueConfig, expectile, state_value
from .policy import POLICIES, PRESETS, Policy, PolicyConfig, Transition
from .scales import StateActionScales


@settings
class SwiftConfig(PolicyConfig):
    """The settings of `Swift`. Raises ValueError for a setting outside its range."""

    model: DiffusionConfig = field(default_factory=lambda: DIFFUSION)
    """The generative model of actions."""
    critic: ValueConfig = field(default_factory=lambda: ValueConfig(width=128, members=4))
    """The ensemble of V(s). Each member computes the advantages of its share of the episodes and learns from the other
    episodes; where there are no others, it learns from its own."""
    context_dropout: Fraction = 0.1
    """Fraction of the actions that the model learns without the context, as classifier-free guidance needs."""
    expectile: Fraction = 0.9
    """Expectile of the n-step returns from a state that V(s) estimates: 0.5 is their mean, 1 their maximum."""
    guidance: NonNegativeFloat = 1.5
    """Scale of classifier-free guidance towards actions with a positive advantage: 0 imitates all actions of the data,
    1 those with a positive advantage, and more amplifies the difference."""
    temperature: NonNegativeFloat = 0.0
    """Scale of the noise that an action is sampled from, multiplied by the temperature of the sampling options. At 0
    the same state always gives the same action."""

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "guidance", "temperature")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guidance != 1 and not self.context_dropout:
            raise ValueError(f"SwiftConfig.guidance is {self.guidance}, which needs an unconditional prediction that "
                             "the model never learns with a context_dropout of 0; set that to 0.1, for example")


class Swift(Policy[SwiftConfig]):
    """A diffusion model of actions that is guided towards positive n-step advantages."""

    def __init__(self, config: SwiftConfig, scales: StateActionScales):
        super().__init__(config, scales, config.critic.n_step)
        self.model = self.build_model(config.model, 1, config.context_dropout)
        self.value = state_value(self, config.critic, config.critic.members)

    def optimizers(self) -> dict[str, Optimizer]:
        return super().optimizers() | {"value": adamw(self.value, self.config.critic)}

    def value_loss(self, t: Transition) -> tuple[Tensor, Tensor]:
        """The loss of V(s), an expectile of the n-step returns, and the advantages (B,) of the data's actions."""
        with torch.no_grad():
            return_EB = t.reward_B + t.discount_B * self.value(t.next_BS)
        error_EB = return_EB - self.value(t.state_BS)
        member_B = t.episode_B % len(error_EB)
        learns_EB = cross_fitting_mask(member_B, len(error_EB))
        loss_EB = learns_EB * expectile(error_EB / self.value.unit, self.config.expectile)
        loss = t.average(loss_EB) / t.processes.mean(learns_EB.float().mean())
        return loss, error_EB.detach().gather(0, member_B[None])[0]

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        t = self.transition(step.batch, self.config.critic.discount, step.processes)
        value_loss, advantage_B = self.value_loss(t)
        step.descend(value_loss, "value", self.config.critic.max_grad_norm)
        held_out = t.average(expectile(advantage_B / self.value.unit, self.config.expectile)[None])
        better_B = advantage_B > 0
        context_B1 = torch.where(better_B, 1.0, -1.0)[:, None]
        actor = self.model.update(t, step, context_BC=context_B1)
        return {"value_loss": value_loss.detach(), "value_loss_held_out": held_out,
                "better": better_B.float().mean()} | actor

    def sample_actions(self, state_BS: Tensor, seeds: Seeds,
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        options = replace(options, temperature=options.temperature * self.config.temperature)
        return self.model.sample(state_BS, seeds, options, guide=ClassifierFree(self.config.guidance))[:, 0]


def cross_fitting_mask(member_B: Tensor, members: int) -> Tensor:
    """(E, B) true where a member of the ensemble learns from a transition.

    A member learns from the transitions whose advantages others compute (`member_B`), or, if a batch has none of these,
    from all.
    """
    others_EB = torch.arange(members, device=member_B.device)[:, None] != member_B
    return others_EB | ~others_EB.any(1, keepdim=True)


POLICIES["swift"] = SwiftConfig, Swift
PRESETS["swift"] = ("ours, CFGRL with n-step advantages and cross-fitted critics: a diffusion model of the data's "
                    "actions, guided towards those with higher returns", SwiftConfig())
