"""The same plans, training steps and updates by `diffusers`, a checkout of Diffuser (github.com/jannerm/diffuser) and
d3rlpy; and what a case of `benchmarks.speed` is."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gentraj.data import Episodes, save_d3rlpy
from gentraj.trajectory import TrajectorySpec

CPU = torch.device("cpu")
Call = Callable[[], Any]  # does the work once
Value = Callable[[Tensor], Tensor]  # plans (R, H, D) -> (R,)
EMA = 0.005  # one minus the decay of the average of the weights
SCALE = 0.1  # of guidance
UPDATE_BATCH = 256  # transitions


class PeerMissing(Exception):
    """A peer cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Setup:
    """How all cases are measured."""

    backends: tuple[str, ...] = ()
    """Backends of gentraj.accelerate beside eager."""
    diffuser: Path | None = None
    """A checkout of Diffuser."""
    device: torch.device = CPU


@dataclass(frozen=True)
class Case:
    """The same work of gentraj and of its peers. Nothing is built before the case is measured."""

    title: str
    """The work, for a table."""
    peers: Mapping[str, Callable[[Setup], Call]]
    """Peers by their names; one that raises PeerMissing is left out."""
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


# diffusers ------------------------------------------------------------------------------------------------------------


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise PeerMissing("diffusers is not installed; pip install diffusers") from error
    return diffusers


def diffusers_unet(setting: Setting, device: torch.device) -> nn.Module:
    """The U-Net of Diffuser as `diffusers` has it."""
    n, dim = len(setting.multipliers), setting.spec.dim
    return _diffusers().UNet1DModel(
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
    kind = _diffusers().DDIMScheduler if few else _diffusers().DDPMScheduler
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
    network, scheduler = diffusers_unet(setting, setup.device), _diffusers().DDPMScheduler(setting.steps)
    x = torch.randn(batch, setting.spec.dim, setting.horizon, device=setup.device)

    def loss() -> Tensor:
        t, eps = torch.randint(0, setting.steps, (batch,), device=x.device), torch.randn_like(x)
        return F.mse_loss(network(scheduler.add_noise(x, eps, t), t).sample, eps)

    return training_step(network, loss)


# Diffuser -------------------------------------------------------------------------------------------------------------


def import_diffuser(path: Path) -> tuple[ModuleType, ModuleType]:
    """`diffuser.models` and `diffuser.sampling.functions` of a checkout.

    Its packages are not run, as they import simulators and renderers that models do not need. Raises PeerMissing where
    there is no such checkout.
    """
    if not (path / "diffuser" / "models").is_dir():
        raise PeerMissing(f"{path} has no diffuser/models; give --diffuser a checkout of github.com/jannerm/diffuser")
    for name in ("diffuser", "diffuser.utils", "diffuser.sampling"):
        package = sys.modules[name] = ModuleType(name)
        package.__path__ = [str(path.joinpath(*name.split(".")))]
    for part in ("arrays", "progress"):
        vars(sys.modules["diffuser.utils"]).update(vars(import_module(f"diffuser.utils.{part}")))
    return import_module("diffuser.models"), import_module("diffuser.sampling.functions")


def diffuser_model(setup: Setup, setting: Setting) -> tuple[Any, ModuleType]:
    """Its diffusion model and the module of its sampling functions."""
    if setup.diffuser is None:
        raise PeerMissing("--diffuser names no checkout")
    models, functions = import_diffuser(setup.diffuser)
    with contextlib.redirect_stdout(io.StringIO()):  # the network prints its channels
        network = models.TemporalUnet(setting.horizon, setting.spec.dim, setting.obs_dim, 32, setting.multipliers)
    made = models.GaussianDiffusion(network, setting.horizon, setting.obs_dim, setting.act_dim, setting.steps,
                                    loss_type="l2", clip_denoised=True)
    return made.to(setup.device), functions


def diffuser_plan(setup: Setup, setting: Setting, batch: int, value: Value | None = None) -> Call:
    """Its sampling loop; `value` is the guide of its guided step, which has one gradient."""
    model, functions = diffuser_model(setup, setting)
    how: dict[str, Any] = {"verbose": False}
    if value is not None:
        how |= {"sample_fn": functions.n_step_guided_p_sample, "n_guide_steps": 1, "scale": SCALE,
                "guide": SimpleNamespace(gradients=partial(_gradients, value))}
    start = torch.zeros(batch, setting.obs_dim, device=setup.device)
    return lambda: model.conditional_sample({0: start}, **how)


def _gradients(value: Value, x: Tensor, cond: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    value_R = value(x)
    return value_R.detach(), torch.autograd.grad(value_R.sum(), x)[0]


def diffuser_training(setup: Setup, setting: Setting, batch: int) -> Call:
    model, _ = diffuser_model(setup, setting)
    x = torch.randn(batch, setting.horizon, setting.spec.dim, device=setup.device)
    return training_step(model, lambda: model.loss(x, {0: x[:, 0, setting.act_dim :]})[0])


# d3rlpy ---------------------------------------------------------------------------------------------------------------


def replay_buffer(d3rlpy: Any, episodes: Episodes) -> Any:
    """The episodes as a replay buffer of d3rlpy, which is given as a module."""
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of last observations, which it never looks at
        path = save_d3rlpy(episodes, f"{folder}/data.h5")
        with path.open("rb") as file:
            return d3rlpy.dataset.ReplayBuffer.load(file, d3rlpy.dataset.InfiniteBuffer())


def d3rlpy_update(setup: Setup, kind: str, data: Callable[[], Episodes]) -> Call:
    """An update of its IQL or TD3+BC with 256 transitions, with the actor of TD3+BC updated in each as gentraj does."""
    try:
        d3rlpy: Any = import_module("d3rlpy")  # no dependency of gentraj, not even of its tests
    except ImportError as error:
        raise PeerMissing("d3rlpy is not installed; pip install d3rlpy") from error
    encoder = d3rlpy.models.VectorEncoderFactory([256, 256])
    shared: dict[str, Any] = {"batch_size": UPDATE_BATCH, "actor_encoder_factory": encoder,
                              "critic_encoder_factory": encoder}
    config = (d3rlpy.algos.IQLConfig(**shared, value_encoder_factory=encoder) if kind == "iql"
              else d3rlpy.algos.TD3PlusBCConfig(**shared, update_actor_interval=1))
    algorithm, dataset = config.create(device=str(setup.device)), replay_buffer(d3rlpy, data())
    algorithm.build_with_dataset(dataset)
    return lambda: algorithm.update(dataset.sample_transition_batch(UPDATE_BATCH))
