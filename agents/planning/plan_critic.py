"""The critic of plans: it estimates the rewards along a plan and the value of the state in which the plan ends."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Interval
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import Fraction, settings
from gentraj.data import ContextConfig, Episodes
from gentraj.data.windows import CONTEXTS, repeat_last
from gentraj.device import constant, to_device_together
from gentraj.diffusion.guidance import Guided, NoisyValue
from gentraj.models.sampling import Plugin
from gentraj.networks import ValueEnsemble
from gentraj.networks.dit import Block
from gentraj.networks.embedding import SinusoidalEmbedding
from gentraj.normalize import Normalizer, NormalizerName
from gentraj.training.optimization import LearningConfig, MovingAverage, adamw
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, TrajectorySpec

from ..policies.critic import expectile, steps_to_go

RETURNS_SAMPLED = 100_000  # observations from which the statistics of returns are computed


@settings
class PlanCriticConfig(LearningConfig):
    """The settings of `PlanCritic`."""

    network: Literal["perceptron", "transformer"] = "perceptron"
    """A perceptron on the whole plan, or a transformer with attention between the timesteps of the plan."""
    inputs: Literal["actions", "plan"] = "actions"
    """What the critic sees of a plan with actions: the first observation and the actions, or the whole plan. The later
    observations are only what the model predicts for these actions, and a critic that sees them prefers plans with
    optimistic predictions. Plans without actions are always seen whole."""
    width: PositiveInt = 256
    """Units of each hidden layer, or features of the transformer."""
    depth: PositiveInt = 2
    """Number of hidden layers, or of blocks of the transformer."""
    heads: PositiveInt = 4
    """Attention heads of the transformer; their number must divide the width."""
    members: PositiveInt = 2
    """Number of networks in each ensemble; the value of a plan is the minimum over them."""
    discount: Fraction = 0.99
    """Discount per environment step."""
    expectile: Annotated[float, Interval(ge=0.5, le=0.9)] = 0.7
    """Expectile of the returns from a state that V(s) estimates: 0.5 is their mean, 0.9 nearly their maximum."""
    n_step: PositiveInt = 32
    """Timesteps of the windows that the critic learns from, at least those of a plan. Rewards are summed over them, and
    the return is bootstrapped after them; with many timesteps it is close to a Monte-Carlo return."""
    noise_fraction: Fraction = 0.0
    """Fraction of the plans that are noised in training. Above 0, guidance uses the value of the noisy plan; at 0 it
    uses that of the denoised plan."""
    normalizer: NormalizerName = "gaussian"
    """How plans are normalised. With noised plans it has to be the model's normaliser, which a run sets."""
    tau: Fraction = 0.01
    """Rate at which the target network, which gives the bootstrapped values, follows the network of V(s)."""
    batch_size: PositiveInt = 256
    """Number of windows in a batch."""
    weight_decay: Fraction = 0.0
    max_grad_norm: PositiveFloat = 10.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"PlanCriticConfig has width {self.width} and {self.heads} heads; give a width that is a "
                             "multiple of the number of heads")


class PlanPerceptron(ValueEnsemble):
    """The values (E, R) of plans z (R, H, D + G), each timestep with the goal, with noise sigma (R,), by perceptrons on
    the flattened plan."""

    def __init__(self, spec: TrajectorySpec, config: PlanCriticConfig, goal_dim: int):
        inputs = spec.horizon * (spec.dim + goal_dim) + 1
        super().__init__([inputs, *[config.width] * config.depth, 1], config.members)

    def forward(self, z_RHD: Tensor, sigma_R: Tensor) -> Tensor:
        return super().forward(torch.cat([z_RHD.flatten(1), sigma_R[:, None]], -1))


class PlanTransformer(nn.Module):
    """The values (E, R) of plans z (R, H, D + G) with noise sigma (R,), by a transformer over timesteps.

    Diffusion Veteran values plans by attention (Lu et al. 2025); the blocks are those of the DiT. The members of the
    ensemble share the transformer, and each has its own perceptron on the mean over the timesteps.
    """

    position_HW: Tensor

    def __init__(self, spec: TrajectorySpec, config: PlanCriticConfig, goal_dim: int):
        super().__init__()
        width = config.width
        position_HW = SinusoidalEmbedding(width, scale=1.0)(torch.arange(spec.horizon))
        self.register_buffer("position_HW", position_HW, persistent=False)
        self.tokens = nn.Linear(spec.dim + goal_dim, width)
        self.noise = nn.Sequential(SinusoidalEmbedding(width), nn.Linear(width, width), nn.SiLU())
        self.blocks: Any = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.members = ValueEnsemble([width, width, 1], config.members)

    def forward(self, z_RHD: Tensor, sigma_R: Tensor) -> Tensor:
        h_RHW, noise_R1W = self.tokens(z_RHD) + self.position_HW, self.noise(sigma_R)[:, None]
        for block in self.blocks:
            h_RHW = block(h_RHW, block.modulation(noise_R1W))
        return self.members(h_RHW.mean(1))


NETWORKS = {"perceptron": PlanPerceptron, "transformer": PlanTransformer}


class PlanCritic(nn.Module):
    """Estimates f(plan) and V(state), in units of the root mean square of the rewards.

    Plans are in environment units, with the layout `plan_spec`. f learns the expected return of a plan by least squares
    (Janner et al. 2022, section 3.2), and V an expectile of the same returns, so that a plan is valued as if the better
    trajectories of the data followed it (Kostrikov et al. 2022, equation 5). Both learn values that `returns`, fitted
    to the discounted returns of the data, normalises. With `goal_dims`, the entries of an observation that a goal gives
    values for, both depend on the goal too, and learn from goals in hindsight, with rewards of environment steps.
    """

    def __init__(self, spec: TrajectorySpec, config: PlanCriticConfig, plan: Normalizer, reward: Normalizer,
                 returns: Normalizer, goal_dims: tuple[int, ...] = ()):
        super().__init__()
        self.config, self.plan_spec = config, spec
        self.batch_size = config.batch_size
        self.spec = spec.longer(config.n_step)
        self.plan, self.reward = plan, reward
        self.returns, self.goal_dims = returns, goal_dims
        self.plan_network = NETWORKS[config.network](spec, config, len(goal_dims))
        inputs = spec.obs_dim + len(goal_dims)
        self.state_network = ValueEnsemble([inputs, *[config.width] * config.depth, 1], config.members)
        self.target = MovingAverage(self.state_network, 1 - config.tau)

    @classmethod
    def blank(cls, spec: TrajectorySpec, config: PlanCriticConfig, goal_dims: tuple[int, ...] = ()) -> PlanCritic:
        """Builds the critic of plans of `spec` with identity normalisers, to load saved statistics and weights into."""
        return cls(spec, config, Normalizer.identity(spec.dim), Normalizer.identity(1), Normalizer.identity(1),
                   goal_dims)

    @classmethod
    def fit(cls, episodes: Episodes, spec: TrajectorySpec, config: PlanCriticConfig,
            goal_dims: tuple[int, ...] = ()) -> PlanCritic:
        """Builds the critic of plans of `spec` with the statistics of these episodes."""
        arrays = [episodes.obs]
        if spec.act_dim:
            arrays.append(episodes.act)
        plan = Normalizer.fit(config.normalizer, arrays)
        if goal_dims:  # values lie between -1 / (1 - discount) and 0
            middle = torch.tensor([0.5 / (1 - config.discount)])
            return cls(spec, config, plan, Normalizer.identity(1), Normalizer(-middle, middle), goal_dims)
        size = float(np.sqrt(np.square(episodes.reward, dtype=np.float64).mean())) or 1.0
        to_go = CONTEXTS["return"](episodes, ContextConfig(("return",), config.discount))
        some = np.unique(np.linspace(0, len(episodes.obs) - 1, RETURNS_SAMPLED).astype(np.int64))
        return cls(spec, config, plan, Normalizer(torch.zeros(1), torch.full((1,), size)),
                   Normalizer.fit("gaussian", [to_go(some, some) / size]))

    def optimizers(self) -> dict[str, Optimizer]:
        return {"network": adamw(nn.ModuleList([self.plan_network, self.state_network]), self.config)}

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        """Trains f and V for one step towards `targets`; returns metrics, scalars. Raises `NonFinite` before it."""
        batch = step.batch
        target_B = self.returns.normalize(self.targets(batch))
        z_BHD, sigma_B = self._noised(self.plan.normalize(repeat_last(batch, self.plan_spec.horizon)), step.generator)
        plan_loss = ((self.plan_network(self._seen(z_BHD, batch.goal_BG), sigma_B) - target_B) ** 2).mean()
        v_EB = self.state_network(self._state(batch.x_BHD[:, 0], batch.goal_BG))
        state_loss = expectile(target_B - v_EB, self.config.expectile).mean()
        step.descend(plan_loss + state_loss, "network", self.config.max_grad_norm)
        step.follow(self.target, self.state_network)
        return {"loss": plan_loss.detach(), "state_loss": state_loss.detach()}

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """(B,) n-step returns: the sum over h < m of discount^t_h r_h, plus discount^t_m V(s_m).

        m is the last real timestep of a window, and t_h the environment step of timestep h. The value V(s_m) is left
        out where an episode terminated, and kept where a time limit or the window truncated it. Raises ValueError for
        a batch without rewards and terminations, and for windows of another layout than the critic's.
        """
        self.spec.check_windows(batch.x_BHD.shape)
        if batch.reward_BH is None or batch.terminal_BH is None:
            raise ValueError("a critic learns from rewards and terminations, which this batch lacks; take a batch of "
                             "Windows")
        real_BH, reward_BH = batch.mask_BHD[..., 0], batch.reward_BH
        h_H, m_B = torch.arange(self.spec.horizon, device=real_BH.device), real_BH.sum(1) - 1
        ended_B = batch.terminal_BH.any(1)
        counts_BH = (h_H < m_B[:, None]) | ended_B[:, None]  # an end between two timesteps lies after the last real one
        discount_H = self.config.discount ** constant(self.spec.times, reward_BH.device, reward_BH.dtype)
        earned_B = (self.reward.normalize(reward_BH) * discount_H * counts_BH).sum(1)
        last_BD = batch.x_BHD[torch.arange(len(m_B), device=m_B.device), m_B]
        after_B = self.returns.unnormalize(self.target(self._state(last_BD, batch.goal_BG)).mean(0))
        return earned_B + discount_H[m_B] * after_B * ~ended_B

    def forward(self, x_RHD: Tensor, goal_RG: Tensor | None = None) -> Tensor:
        """(R,) values of plans, differentiable with respect to the plans, of each for its goal if it has learnt from
        goals."""
        if not self.goal_dims:
            goal_RG = None
        return self.returns.unnormalize(self.relative(x_RHD, goal_RG=goal_RG))

    @torch.no_grad()
    def steps_to_go(self, obs_BO: Tensor, goal_BG: Tensor) -> Tensor:
        """(B,) the environment steps from observations to goals, by V of goals in hindsight."""
        value_EB = self.state_network(self._state(obs_BO, goal_BG))
        return steps_to_go(self.returns.unnormalize(value_EB.mean(0)), self.config.discount)

    def relative(self, x_RHD: Tensor, sigma_R: Tensor | None = None, goal_RG: Tensor | None = None) -> Tensor:
        """(R,) values of plans, the minima over the members, as standard deviations of the data's returns above their
        mean; differentiable.

        With `sigma_R`, `x_RHD` are noisy plans as the networks see them (`_noised`), except for the entries that the
        condition knows.
        """
        if sigma_R is None:
            sigma_R = x_RHD.new_zeros(1)
        z_RHD = self._seen(self.plan.normalize(x_RHD), goal_RG)
        return self.plan_network(z_RHD, sigma_R.expand(len(z_RHD))).amin(0)

    def guide(self, scale: float) -> Plugin:
        """A plug-in with which a model samples from p(plan) exp(scale * value).

        Values are in standard deviations of the data's returns. The value is taken as linear in the plan (Chung et
        al. 2023, equation 10), as the curvature of a network means little; a step is shortened where the value at its
        end rises by less than its slope says.
        """
        if self.config.noise_fraction:
            return NoisyValue(self.relative, scale)
        return Guided(self.relative, scale)

    def _seen(self, z_RHD: Tensor, goal_RG: Tensor | None) -> Tensor:
        """The plans with 0 in place of what the network does not see, and the goal in each timestep."""
        if self.config.inputs == "actions" and self.spec.act_dim:
            h_H, d_D = (torch.arange(n, device=z_RHD.device) for n in z_RHD.shape[1:])
            z_RHD = z_RHD * ((h_H[:, None] == 0) | (d_D >= self.spec.obs_dim))
        if goal_RG is None:
            return z_RHD
        return torch.cat([z_RHD, self._goal(goal_RG)[:, None].expand(-1, z_RHD.shape[1], -1)], -1)

    def _state(self, x_BD: Tensor, goal_BG: Tensor | None) -> Tensor:
        state_BO = self.plan.normalize(x_BD[:, : self.spec.obs_dim], range(self.spec.obs_dim))
        return state_BO if goal_BG is None else torch.cat([state_BO, self._goal(goal_BG)], -1)

    def _goal(self, goal_BG: Tensor) -> Tensor:
        return self.plan.normalize(goal_BG, self.goal_dims)

    def _noised(self, z_BHD: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The plans, some of them noised, and their noise levels sigma (B,), 0 where clean.

        A noisy plan is s (s plan + sigma noise) with s = sqrt(1 - sigma^2): what is expected of a plan in data of mean
        0 and variance 1. Without the first s, guidance would divide the networks' slope by the signal s, and where
        plans are nearly noise alone, small errors of it would move them by many deviations. The first observation stays
        clean, as a planner conditions on it.
        """
        if not self.config.noise_fraction:
            return z_BHD, z_BHD.new_zeros(len(z_BHD))
        share_B, angle_B = torch.rand(len(z_BHD), 2, generator=generator).T
        sigma_B = (share_B < self.config.noise_fraction) * (angle_B * torch.pi / 2).sin()
        eps = torch.randn(z_BHD.shape, generator=generator)
        sigma_B, eps = (x.to(z_BHD.dtype) for x in to_device_together([sigma_B, eps], z_BHD.device))
        sigma_B11 = sigma_B[:, None, None]
        signal_B11 = (1 - sigma_B11**2).sqrt()
        noisy = signal_B11 * (signal_B11 * z_BHD + sigma_B11 * eps)
        noisy[:, 0, : self.spec.obs_dim] = z_BHD[:, 0, : self.spec.obs_dim]
        return noisy, sigma_B
