"""Swift: CFGRL with n-step advantages and cross-fitted critics.

A diffusion model imitates all actions of the data, each conditioned on a label that is more often 1 the higher its
advantage, and is sampled with classifier-free guidance towards this label (CFGRL: Frans et al. 2025, "Diffusion
Guidance Is a Controllable Policy Improvement Operator", arXiv 2505.23458, with the sign of the advantage). Ours are the
advantages and the labels:

    A(s, a)  = r + gamma^n V_-(s') - V_-(s)        with the n-step return r of the data
    L_V(psi) = E[L_2^tau(r + gamma^n V(s') - V(s))],   L_2^tau(u) = |tau - 1(u < 0)| u^2
    L_pi     = the denoising loss of p(a | s, c),      c = 1 with the chance 1/2 + A(s, a) / 4D, else -1, none at random
    a        ~ the denoiser D(a | s) + w (D(a | s, c = 1) - D(a | s)), so about p(a | s) (1/2 + E[A | s, a] / 4D)^w

D is the root mean square of A. As the chance is linear in the return, only the mean return of an action counts, not its
luck: the sign of A would prefer a gamble that often wins a little, or, with tau above 1/2, one that seldom wins much.
V is the mean (tau = 1/2) or an expectile (Kostrikov et al. 2022) of n-step returns, with no Q: actions that the data
lack are never valued, and no action is selected by values whose errors would favour it. V_- is a member of an ensemble
that did not learn from the episode (cross-fitting: Chernozhukov et al. 2018), as a network that has memorised the
returns of an episode finds no advantages there.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import Fraction, settings
from gentraj.device import to_device
from gentraj.diffusion import DiffusionConfig
from gentraj.diffusion.guidance import ClassifierFree
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
    expectile: Fraction = 0.5
    """Expectile of the n-step returns from a state that V(s) estimates: 0.5 is their mean, 1 their maximum. Above 0.5,
    states of which much luck is known are overrated."""
    labels: Literal["chance", "sign"] = "chance"
    """Which actions of the data are labelled better: chance: each with a chance that is linear in its advantage, so
    that luck is averaged; sign: those with a positive advantage. With the sign and an expectile of 0.9, a gamble that
    seldom wins much is preferred to a safe action that is worth more; use them only where nothing is left to luck."""
    guidance: NonNegativeFloat = 3.0
    """Scale of classifier-free guidance towards higher returns: 0 imitates all actions of the data, and more prefers
    those with a high advantage, in proportion to (1/2 + A / 4D)^guidance, where D is the root mean square of the
    advantages A."""
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
    """A diffusion model of actions that is guided towards high n-step advantages."""

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
        loss = t.average(loss_EB) / learns_EB.float().mean()
        return loss, error_EB.detach().gather(0, member_B[None])[0]

    def better(self, advantage_B: Tensor, t: Transition, step: TrainingStep) -> Tensor:
        """(B,) true for the actions that are labelled better."""
        if self.config.labels == "sign":
            return advantage_B > 0
        size = (advantage_B**2 * t.weight_B).mean().sqrt().clamp(min=1e-6)
        draw_B = to_device(torch.rand(len(advantage_B), generator=step.generator), advantage_B.device)
        return draw_B < 0.5 + advantage_B / (4 * size)

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        t = self.transition(step.batch, self.config.critic.discount)
        value_loss, advantage_B = self.value_loss(t)
        step.descend(value_loss, "value", self.config.critic.max_grad_norm)
        held_out = t.average(expectile(advantage_B / self.value.unit, self.config.expectile)[None])
        better_B = self.better(advantage_B, t, step)
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
