"""Measures plans and training steps beside the U-Net of `diffusers`, with the same channels, steps and threads.

    python -m benchmarks.speed --out benchmarks/results/speed.json
    python -m benchmarks.speed --cases plan/hopper/1 --backends openvino --rounds 20

Each round runs the peer and all variants of gentraj one after the other; the table has the median over the rounds of
the peer's time over the variant's (above 1, gentraj is faster), with the quartiles. Times are CPU times of the process,
in which a neighbour on the machine shows least. Networks are untrained: their weights do not change the time.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from diffusers import DDPMScheduler, UNet1DModel
from torch import Tensor, nn

import gentraj
from gentraj.diffusion import Diffusion, DiffusionConfig, Energy
from gentraj.networks import TemporalUNetConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.trajectory import Batch, Condition, TrajectorySpec


@dataclass(frozen=True)
class Setting:
    """The sizes of Diffuser's networks and plans (Janner et al. 2022, appendix C)."""

    obs_dim: int
    act_dim: int
    horizon: int
    multipliers: tuple[int, ...]
    steps: int

    @property
    def spec(self) -> TrajectorySpec:
        return TrajectorySpec(self.obs_dim, self.act_dim, self.horizon)


SETTINGS = {"hopper": Setting(11, 3, 32, (1, 2, 4, 8), 20), "maze": Setting(4, 2, 128, (1, 4, 8), 64)}
Variants = dict[str, Callable[[], Any]]  # the peer is the first


@dataclass(frozen=True)
class Options:
    """What is measured."""

    cases: tuple[str, ...] = ("plan/hopper/1", "plan/hopper/64", "plan/maze/1", "plan/maze/64", "guided/hopper/64",
                              "train/hopper/32", "train/maze/32")
    """Cases as WORK/SETTING/BATCH: work is plan, guided or train; settings are hopper and maze."""
    backends: tuple[str, ...] = ("openvino", "openvino-bf16")
    """Backends of gentraj.accelerate beside eager, for plans."""
    rounds: int = 7
    """Rounds of each case, after one that is not counted."""
    threads: int = 1
    """CPU threads."""
    out: Path | None = None
    """A JSON file for all times."""


def model_of(setting: Setting) -> Diffusion:
    config = DiffusionConfig(network=TemporalUNetConfig(32, setting.multipliers, 5, 0), path="vp-cosine",
                             levels=setting.steps, prediction="eps", sampler="ddpm", steps=setting.steps)
    return Diffusion(setting.spec, config, Normalizer.identity(setting.spec.dim))


def peer_of(setting: Setting) -> UNet1DModel:
    """The U-Net of Diffuser as `diffusers` has it."""
    n, dim = len(setting.multipliers), setting.spec.dim
    return UNet1DModel(in_channels=dim, out_channels=dim, extra_in_channels=0, time_embedding_type="positional",
                       use_timestep_embedding=True, flip_sin_to_cos=False, freq_shift=1, act_fn="mish",
                       block_out_channels=[32 * m for m in setting.multipliers],  # type: ignore[arg-type]
                       down_block_types=("DownResnetBlock1D",) * n, up_block_types=("UpResnetBlock1D",) * (n - 1),
                       mid_block_type="MidResTemporalBlock1D", out_block_type="OutConv1DBlock", layers_per_block=1,
                       downsample_each_block=False, norm_num_groups=8)


def peer_plan(peer: UNet1DModel, setting: Setting, batch: int, value: Callable[[Tensor], Tensor] | None = None
              ) -> Callable[[], Tensor]:
    """The sampling loop of `diffusers`, with the start held; `value` adds one gradient a step, as its RL pipeline."""
    scheduler, start = DDPMScheduler(setting.steps, beta_schedule="squaredcos_cap_v2"), torch.zeros(batch, 11)
    scheduler.set_timesteps(setting.steps)

    def plan() -> Tensor:
        x = torch.randn(batch, setting.spec.dim, setting.horizon)
        for t in scheduler.timesteps:
            x[:, : setting.obs_dim, 0] = start[:, : setting.obs_dim]
            with torch.no_grad():
                eps = peer(x, t.expand(batch)).sample  # type: ignore[union-attr]
                moved = scheduler.step(eps, int(t), x).prev_sample  # type: ignore[union-attr]
            if value is not None:
                with torch.enable_grad():
                    z = x.detach().requires_grad_()
                    gradient, = torch.autograd.grad(value(z.transpose(1, 2)).sum(), z)
                moved = moved + 0.1 * gradient
            x = moved
        return x

    return plan


def plans(setting: Setting, batch: int, backends: tuple[str, ...]) -> Variants:
    model, start = model_of(setting), torch.zeros(setting.obs_dim)
    condition = Condition.unknown(setting.spec, batch).with_obs(0, start)
    fast = {name: gentraj.accelerate(model, name) for name in backends}  # type: ignore[arg-type]
    ours = {name: lambda each=each: each.sample(condition) for name, each in ({"eager": model} | fast).items()}
    return {"diffusers": peer_plan(peer_of(setting).eval(), setting, batch)} | ours


def guided(setting: Setting, batch: int, backends: tuple[str, ...]) -> Variants:
    """Value guidance by the gradient of one network at the noisy plan, the same for both."""
    model, start = model_of(setting), torch.zeros(setting.obs_dim)
    condition = Condition.unknown(setting.spec, batch).with_obs(0, start)
    critic = model_of(setting).ema.module

    def value(x_BHD: Tensor, critic: nn.Module = critic) -> Tensor:
        known, mask = torch.zeros_like(x_BHD), torch.zeros_like(x_BHD, dtype=torch.bool)
        return critic(x_BHD, known, mask, torch.tensor([0.5])).mean((1, 2))

    def ours(backend: Any) -> Callable[[], Tensor]:
        fast = gentraj.accelerate(model, backend)
        noisy = Energy(partial(value, critic=gentraj.accelerate(critic, backend)), 0.1, at="noisy")
        return lambda: fast.sample(condition, guide=noisy)

    return {"diffusers": peer_plan(peer_of(setting).eval(), setting, batch, value),
            **{name: ours(name) for name in ("eager", *backends)},
            "eager, Energy by default": lambda: model.sample(condition, guide=Energy(value, 0.1))}


def train(setting: Setting, batch: int, backends: tuple[str, ...]) -> Variants:
    """A training step: the loss, its gradient, AdamW and the average of the weights."""
    x_BHD, model, peer = torch.randn(batch, setting.horizon, setting.spec.dim), model_of(setting), peer_of(setting)
    windows, optimizers = Batch(x_BHD, torch.ones_like(x_BHD, dtype=torch.bool)), model.optimizers()
    optimizer = torch.optim.Adam(peer.parameters(), 2e-4)
    average, scheduler = [p.detach().clone() for p in peer.parameters()], DDPMScheduler(setting.steps)
    x_BDH = x_BHD.transpose(1, 2).contiguous()

    def peer_step() -> None:
        t, eps = torch.randint(0, setting.steps, (batch,)), torch.randn_like(x_BDH)
        x_t = scheduler.add_noise(x_BDH, eps, t)  # type: ignore[arg-type]
        loss = F.mse_loss(peer(x_t, t).sample, eps)  # type: ignore[union-attr]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for kept, p in zip(average, peer.parameters(), strict=True):
                kept.mul_(0.995).add_(p, alpha=0.005)

    return {"diffusers": peer_step, "eager": lambda: model.update(windows, optimizers, generator(0))}


WORK = {"plan": plans, "guided": guided, "train": train}


def measure(variants: Variants, rounds: int) -> dict[str, list[float]]:
    """Seconds of CPU of each variant in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for i in range(rounds + 1):
        for name, run in variants.items():
            start = time.process_time()
            run()
            if i:
                seconds[name].append(time.process_time() - start)
    return seconds


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    machine = {"torch": torch.__version__, "cpu": platform.processor() or platform.machine(),
               "capability": torch.backends.cpu.get_cpu_capability(), "threads": options.threads}
    found: dict[str, Any] = {"machine": machine, "cases": {}}
    print(f"{'':20}{'':26}{'ms':>9}{'speed-up':>10}  quartiles")
    for case in options.cases:
        work, setting, batch = case.split("/")
        variants = WORK[work](SETTINGS[setting], int(batch), options.backends)
        seconds = found["cases"][case] = measure(variants, options.rounds)
        peer = np.array(seconds["diffusers"])
        for name, own in seconds.items():
            low, middle, high = np.percentile(peer / np.array(own), [25, 50, 75])
            print(f"{case:20}{name:26}{1000 * np.median(own):9.1f}{middle:10.2f}  {low:.2f}-{high:.2f}", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
