"""What policies share that act by one call of a network, their student: of a flow, or without a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.networks import NetworkConfig
from gentraj.randomness import RowNoise
from gentraj.training.optimization import LearningConfig, MovingAverage, adamw
from gentraj.trajectory import DEFAULT_OPTIONS, SamplingOptions

from .critic import Critic, CriticConfig
from .generators import NETWORK
from .policy import ModelT, Policy, PolicyConfig, Scales, Transition


@dataclass(frozen=True, kw_only=True)
class OneStepConfig(LearningConfig):
    """Settings of a student that learns from the data, and not from a generative model."""

    network: NetworkConfig = field(default_factory=lambda: NETWORK)
    """The network from noise to actions."""
    ema: float = 0.995
    """Decay of the exponential moving average of the weights, with which the policy acts."""
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, ema=(0, 1))


class OneStep(Policy[ModelT]):
    """Base class of policies that act by one call of a network, the student, from noise to a chunk of actions.

    A subclass sets `student` and `student_ema`, the average of its weights, by which it acts.
    """

    student: nn.Module
    student_ema: MovingAverage
    calls = 0

    @property
    def network_calls(self) -> int:
        return self.calls

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        return "one call of the student"

    @property
    def temperature(self) -> float:
        """The scale of the noise that it acts from; most subclasses have a setting for it."""
        return 1.0

    @property
    def noise_dim(self) -> int:
        """How many standard normal numbers a chunk of actions is made from."""
        return self.chunk * self.spec.act_dim

    def latent(self, normal_BZ: Tensor) -> Tensor:
        """(B, K, A) the student's noise, made from standard normal numbers (B, `noise_dim`)."""
        return normal_BZ.unflatten(1, (self.chunk, -1))

    def noise(self, t: Transition, generator: torch.Generator, number: int = 1) -> Tensor:
        """(B * number, K, A) noise for the actions of each transition, one transition after the other."""
        normal_BX = torch.randn(len(t.state_BS), number * self.noise_dim, generator=generator)
        return self.latent(normal_BX.to(t.state_BS.device).reshape(-1, self.noise_dim))

    def one_step(self, student: nn.Module, state_BS: Tensor, z_BKA: Tensor, t_B: Tensor | None = None) -> Tensor:
        """(B, K * A) chunks of actions that the student makes from noise in one call, at the times `t_B`, all 1 by
        default."""
        x, known = self.join(state_BS, z_BKA), self.state_mask.expand(len(state_BS), self.chunk, -1)
        t_B = z_BKA.new_ones(1) if t_B is None else t_B
        return student(x, x * known, known, t_B)[..., self.state_dim :].flatten(1)

    def act_once(self, options: SamplingOptions) -> None:
        """Counts a call of the student. Raises ValueError for options of a sampler, which it does not have."""
        options.refuse("this policy acts by one call of its student, which has no sampler, grid or eta")
        self.calls += 1

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        self.act_once(options)
        z_BKA = self.noise_to_act(seeds, options)
        return self.one_step(self.student_ema, state_BS, z_BKA).view_as(z_BKA).clamp(-1, 1)

    def noise_to_act(self, seeds: Sequence[int], options: SamplingOptions) -> Tensor:
        """(B, K, A) the noise of decisions, one for each seed, at the temperature of the policy and the options."""
        z_BKA = self.latent(RowNoise(seeds, self.device).normal(self.noise_dim))
        return options.temperature * self.temperature * z_BKA


class DistilledFlow(OneStep[Diffusion]):
    """Base class of a flow of actions and its student, which has the flow's network, and maximises Q(s, a)."""

    def __init__(self, obs_dim: int, act_dim: int, config: PolicyConfig, scales: Scales, model: DiffusionConfig,
                 critic: CriticConfig):
        super().__init__(obs_dim, act_dim, config, scales, critic.n_step)
        self.model = self.build_model(model)
        self.critic = Critic.of(self, critic)
        self.student = deepcopy(self.model.network)
        self.student_ema = MovingAverage(self.student, model.ema)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"critic": self.critic.optimizer(), "student": adamw(self.student, self.model.config),
                **self.model.optimizers()}

    def distillation_loss(self, t: Transition, z_BKA: Tensor, alpha: float, generator: torch.Generator | None = None, *,
                          divided: bool = True) -> tuple[Tensor, Tensor]:
        """The loss of the student (Park et al. 2025, equation 8), and its squared distance to the flow's actions from
        the same noise. `generator` and `divided` are those of `Critic.relative`."""
        flow_BKD = self.model.transport(self.join(torch.zeros_like(t.state_BS), z_BKA),
                                        self.condition(t.state_BS, finite=True))
        chunk_BX = self.one_step(self.student, t.state_BS, z_BKA)
        distance = ((chunk_BX - self.actions(flow_BKD).flatten(1)) ** 2 * t.weights()[:, None]).mean()
        value_B = self.critic.relative(t.state_BS, chunk_BX.clamp(-1, 1), generator, divided=divided)
        return alpha * distance - (value_B * t.weights()).mean(), distance
