"""Swift, gentraj's own: one draw of a generator that knows the better actions of the data from the others.

V(s) is an expectile of what the data's own ways on from a state brought (Kostrikov et al. 2022, with the way that was
taken in place of Q). Each episode is judged by values that were learnt of others (cross-fitting, Chernozhukov et al.
2018): what a network knows by heart it is never surprised by. The generator copies all actions, each beside whether the
way that began with it brought more than V; told "more", and guided away from not being told, it does what led to more
(Frans et al. 2025, "Diffusion Guidance Is a Controllable Policy Improvement Operator", with an advantage of n steps).
There is no Q: no action is valued that the data lack, and no best of several is taken by values whose errors would
choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.diffusion.composition import ClassifierFree
from gentraj.training.optimization import adamw, apply_gradients
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, Condition, SamplingOptions

from .critic import ValueConfig, average, expectile, state_value
from .generators import DIFFUSION
from .policy import Policy, PolicyConfig, Scales, Transition


@dataclass(frozen=True)
class SwiftConfig(PolicyConfig):
    model: DiffusionConfig = field(default_factory=lambda: DIFFUSION)
    """The generator of actions."""
    context_dropout: float = 0.1
    """Share of the actions that the generator learns without being told whether they led to more: what guidance leads
    away from."""
    critic: ValueConfig = field(default_factory=lambda: ValueConfig(width=128, members=4))
    """Of V. Episodes are dealt to the members in turn; each judges its own and
    learns of the others'. One alone, or of a single episode, learns of what it judges."""
    expectile: float = 0.9
    """Of the data's ways on that a state is worth: 0.5 is their mean, 1 the best of them."""
    guidance: float = 1.5
    """How far it is guided to what led to more: 0 does what the data do, 1 what was better in them."""
    temperature: float = 0.0
    """Of its noise: 0 does the likeliest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, context_dropout=(0, 1), expectile=(0, 1), guidance=(0, 1e3), temperature=(0, 1e3))
        if self.guidance != 1 and not self.context_dropout:
            raise ValueError(f"SwiftConfig.guidance is {self.guidance}, away from what the generator does when told "
                             "nothing, which it never learns with a context_dropout of 0; set that to 0.1, say")


class Swift(Policy[Diffusion]):
    def __init__(self, obs_dim: int, act_dim: int, config: SwiftConfig, scales: Scales):
        super().__init__(obs_dim, act_dim, config, scales, config.critic.n_step)
        self.config, self.model = config, self.generator(config.model, 1, config.context_dropout)
        self.value = state_value(self, config.critic, config.critic.members)

    def optimizers(self) -> dict[str, Optimizer]:
        value = adamw(self.value, self.config.critic)["network"]
        return {"value": value, **self.model.optimizers()}

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        t = self.transition(batch, self.config.critic.discount)
        value_loss, advantage_B = self.value_loss(t)
        apply_gradients(value_loss, optimizers["value"], self.config.critic.max_grad_norm)
        better_B = advantage_B > 0  # all actions are copied, each beside whether it is better than usual
        windows = replace(self.windows(t), context_BC=torch.where(better_B, 1.0, -1.0)[:, None])
        actor = self.model.update(windows, optimizers, generator)
        return {"value_loss": value_loss.detach(), "better": better_B.float().mean()} | actor

    def value_loss(self, t: Transition) -> tuple[Tensor, Tensor]:
        """V(s) is an expectile of what the ways on brought; and the advantages (B,) of those that the data took."""
        with torch.no_grad():
            brought_EB = t.reward_B + t.discount_B * self.value(t.next_BS)
        error_EB = brought_EB - self.value(t.state_BS)
        judge_B = t.episode_B % len(error_EB)
        learns_EB = cross_fitting_mask(judge_B, len(error_EB))
        loss_EB = learns_EB * expectile(error_EB / self.value.unit, self.config.expectile)
        loss = average(loss_EB, t) / learns_EB.float().mean()
        return loss, error_EB.detach().gather(0, judge_B[None])[0]

    def condition(self, state_BS: Tensor) -> Condition:
        """The state, and that what led to more is asked for."""
        return replace(super().condition(state_BS), context_BC=state_BS.new_ones(len(state_BS), 1))

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        options = replace(options, temperature=self.config.temperature)
        x = self.model.sample(self.condition(state_BS), guide=ClassifierFree(self.config.guidance), seed=seeds,
                              options=options)[:, 0]
        return self.actions(x)


def cross_fitting_mask(judge_B: Tensor, members: int) -> Tensor:
    """(E, B) true where a member learns: of what another judges, and where a batch has no such thing, of all."""
    others_EB = torch.arange(members, device=judge_B.device)[:, None] != judge_B
    return others_EB | ~others_EB.any(1, keepdim=True)
