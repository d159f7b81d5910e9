"""What the tests of the GAN share: a tiny model, windows of data, and some steps of training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from contract import SPEC

from gentraj.gan import ConditionalGAN, GANConfig
from gentraj.gan.objectives import REGULARISERS
from gentraj.networks import ResidualMLPConfig
from gentraj.networks.discriminator import DiscriminatorConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.training.state import module_tensors, optimizer_tensors, restore_module, restore_optimizer
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch

CONTEXT = Normalizer(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5]))
JUDGE = DiscriminatorConfig(width=8, multipliers=(1, 2), kernel=3, frequencies=1)
VARIANTS: dict[str, dict[str, Any]] = {  # ways of training that keep a state, or draw more random numbers
    "rare game": {"adversarial_interval": 3},
    "all of it": {"discriminator": replace(JUDGE, spectral_norm=True), "discriminator_steps": 2,
                  "objective": "hinge", "penalties": dict.fromkeys(REGULARISERS, 0.5)},
}


def make(context: Normalizer | None = None, *, moved: bool = False, **changes: Any) -> ConditionalGAN:
    """`moved` moves all weights a little, as training does: a DiT starts at zero whatever its noise."""
    torch.manual_seed(0)
    own = {key: changes.pop(key) for key in ("conditioning", "context_dropout", "batch_size") if key in changes}
    config = GANConfig(**{"network": ResidualMLPConfig(16, 1, 1), "discriminator": JUDGE, **changes})
    model = ConditionalGAN(SPEC, config, Normalizer(torch.arange(5.0), torch.arange(1.0, 6.0)), context, **own)
    if moved:
        with torch.no_grad():
            for own, averaged in zip(model.network.parameters(), model.ema.module.parameters(), strict=True):
                averaged.copy_(own.add_(0.1 * torch.randn(own.shape)))
    return model


def train(model: ConditionalGAN, steps: range, data: Batch, optimizers: dict | None = None) -> dict[str, torch.Tensor]:
    """The metrics of the last step."""
    optimizers, metrics = model.optimizers() if optimizers is None else optimizers, {}
    for step in steps:
        metrics = model.update(TrainingStep(data, optimizers, generator(step)))
    return metrics


def continued(model: ConditionalGAN, optimizers: dict, fresh: ConditionalGAN) -> dict:
    """Loads the saved state of a training into the `fresh` model and returns its optimisers."""
    restore_module(fresh, {k: v.clone() for k, v in module_tensors(model).items()})
    resumed = fresh.optimizers()
    for name, optimizer in resumed.items():
        restore_optimizer(optimizer, {k: v.clone() for k, v in optimizer_tensors(optimizers[name]).items()})
    return resumed


def same_state(a: ConditionalGAN, b: ConditionalGAN) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
