"""The same plans and training steps by `diffusers`, and what a case of `benchmarks.speed` is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gentraj.trajectory import TrajectorySpec

CPU = torch.device("cpu")
Call = Callable[[], Any]  # does the work once
Value = Callable[[Tensor], Tensor]  # plans (R, H, D) -> (R,)
EMA = 0.005  # one minus the decay of the average of the weights
SCALE = 0.1  # of guidance
UPDATE_BATCH = 256  # transitions


@dataclass(frozen=True)
class Setup:
    """How all cases are measured."""

    backends: tuple[str, ...] = ()
    """Backends of gentraj.accelerate beside eager."""
    device: torch.device = CPU


@dataclass(frozen=True)
class Case:
    """The same work of gentraj and of its peers. Nothing is built before the case is measured."""

    title: str
    """The work, for a table."""
    peers: Mapping[str, Callable[[Setup], Call]]
    """Peers by their names."""
    ours: Callable[[Setup], Mapping[str, Call]]
    """The variants of gentraj by the names of their backends, eager first."""


@dataclass(frozen=True)
class Setting:
    """The sizes of a U-Net of Diffuser and of its plans (Janner et al. 2022, appendix C)."""

    obs_dim: int
    act_dim: int
    horizon: int
    multipliers: tuple[int, ...]
    steps: int
    """Noise levels, each of which is a sampling step of DDPM."""
    few: int
    """Sampling steps of DDIM."""

    @property
    def spec(self) -> TrajectorySpec:
        return TrajectorySpec(self.obs_dim, self.act_dim, self.horizon)


def training_step(network: nn.Module, loss: Callable[[], Tensor]) -> Call:
    """Loss, gradient, Adam and the moving average of the weights, as peers train."""
    optimizer, average = torch.optim.Adam(network.parameters(), 2e-4), [p.clone() for p in network.parameters()]

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        with torch.no_grad():
            for kept, p in zip(average, network.parameters(), strict=True):
                kept.mul_(1 - EMA).add_(p, alpha=EMA)

    return step


def diffusers_unet(setting: Setting, device: torch.device) -> nn.Module:
    """The U-Net of Diffuser as `diffusers` has it."""
    n, dim = len(setting.multipliers), setting.spec.dim
    return diffusers.UNet1DModel(
        in_channels=dim, out_channels=dim, extra_in_channels=0, time_embedding_type="positional",
        use_timestep_embedding=True, flip_sin_to_cos=False, freq_shift=1, act_fn="mish",
        block_out_channels=[32 * m for m in setting.multipliers], down_block_types=("DownResnetBlock1D",) * n,
        up_block_types=("UpResnetBlock1D",) * (n - 1), mid_block_type="MidResTemporalBlock1D",
        out_block_type="OutConv1DBlock", layers_per_block=1, downsample_each_block=False, norm_num_groups=8).to(device)


def diffusers_plan(setup: Setup, setting: Setting, batch: int, value: Value | None = None, *,
                   few: bool = False) -> Call:
    """Its sampling loop with the first observation held, by DDIM or DDPM; `value` adds one gradient a step, as its RL
    pipeline does."""
    network, device = diffusers_unet(setting, setup.device).eval(), setup.device
    kind = diffusers.DDIMScheduler if few else diffusers.DDPMScheduler
    scheduler = kind(setting.steps, beta_schedule="squaredcos_cap_v2")
    start = torch.zeros(batch, setting.obs_dim, device=device)
    scheduler.set_timesteps(setting.few if few else setting.steps, device)

    def plan() -> Tensor:
        x = torch.randn(batch, setting.spec.dim, setting.horizon, device=device)
        for t in scheduler.timesteps:
            x[:, : setting.obs_dim, 0] = start
            with torch.no_grad():
                moved = scheduler.step(network(x, t.expand(batch)).sample, int(t), x).prev_sample
            if value is not None:
                with torch.enable_grad():
                    z = x.detach().requires_grad_()
                    gradient, = torch.autograd.grad(value(z.transpose(1, 2)).sum(), z)
                moved = moved + SCALE * gradient
            x = moved
        return x

    return plan


def diffusers_training(setup: Setup, setting: Setting, batch: int) -> Call:
    network, scheduler = diffusers_unet(setting, setup.device), diffusers.DDPMScheduler(setting.steps)
    x = torch.randn(batch, setting.spec.dim, setting.horizon, device=setup.device)

    def loss() -> Tensor:
        t, eps = torch.randint(0, setting.steps, (batch,), device=x.device), torch.randn_like(x)
        return F.mse_loss(network(scheduler.add_noise(x, eps, t), t).sample, eps)

    return training_step(network, loss)
