"""What every family of `FAMILIES` does beside the contract of `gentraj.testing.check_model`: a newcomer is tested by
its line there."""

from dataclasses import dataclass, replace

import pytest
import torch
from contract import CONDITIONS, SPEC
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gentraj.config import from_json, to_json
from gentraj.diffusion.guidance import Guided
from gentraj.families import FAMILIES, MODELS, Model, ModelConfig, family
from gentraj.gan import GANConfig
from gentraj.networks import NETWORKS, ResidualMLPConfig
from gentraj.networks.embedding import MIN_ROWS
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.training.state import module_tensors, optimizer_tensors, restore_module, restore_optimizer
from gentraj.training.step import TrainingStep
from gentraj.trajectory import (
    Batch,
    Condition,
    Guide,
    SupportsLogProb,
)

CONTEXT = Normalizer(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5]))
every_family = pytest.mark.parametrize("name", FAMILIES)


@dataclass(frozen=True)
class Settings:
    model: ModelConfig


def make(name: str, context: Normalizer | None = None, network: type | None = None) -> Model:
    torch.manual_seed(0)
    config = FAMILIES[name] if network is None else FAMILIES[name].with_network(network())
    return MODELS.made_of(config)(SPEC, config, Normalizer(torch.arange(5.0), torch.arange(1.0, 6.0)), context)


def tiny(name: str) -> Model:
    """A small one whose averaged weights are those of the last step; a GAN's discriminator without batch statistics."""
    config = FAMILIES[name].with_network(ResidualMLPConfig(16, 1, 1))
    if isinstance(config, GANConfig):
        judge = replace(config.discriminator, width=8, minibatch_std=False)
        config = replace(config, discriminator=judge, penalties={})
    torch.manual_seed(0)
    model = MODELS.made_of(config)(SPEC, config, Normalizer(torch.arange(5.0), torch.arange(1.0, 6.0)))
    for module in model.modules():
        if isinstance(module, AveragedModel):
            module.multi_avg_fn = get_ema_multi_avg_fn(0.0)
    return model


def batch(context: torch.Tensor | None = None) -> Batch:
    x = torch.randn(16, 8, 5, generator=generator(0)) * torch.arange(1.0, 6.0)
    return Batch(x, torch.ones(16, 8, 5, dtype=torch.bool), context)


def test_the_families_with_a_density() -> None:
    assert {name for name in FAMILIES if isinstance(make(name), SupportsLogProb)} == {"diffusion", "flow", "gaussian"}


@every_family
def test_an_energy_is_shown_whole_trajectories_and_shapes_them(name: str) -> None:
    model, condition, shapes = make(name), CONDITIONS["start"](Condition.empty(SPEC)), set()

    def left(x: torch.Tensor) -> torch.Tensor:
        shapes.add(tuple(x.shape))
        return -x[..., 0].mean(1)

    plain, guided = model.sample(condition, MIN_ROWS, seed=0), model.sample(condition, MIN_ROWS, guide=left, seed=0)
    assert shapes and all(rows % MIN_ROWS == 0 and (horizon, dim) == (8, 5) for rows, horizon, dim in shapes)
    assert not torch.equal(guided, plain)
    assert torch.equal(guided[:, :, 0, :3], plain[:, :, 0, :3])
    assert torch.equal(model.sample(condition, MIN_ROWS, guide=Guided(left, scale=0.0), seed=0), plain)


@every_family
def test_a_guide_of_the_training_raises_the_mean_score_of_samples(name: str) -> None:
    """Beside the fit to the data, which alone has no reason to. The score is of trajectories in environment units."""
    start, models, seen = CONDITIONS["start"](Condition.empty(SPEC)), [], []

    def score(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[1:])
        return 5 * x[:, 1:, 1].mean(1)

    for guide in (None, score):
        models.append(tiny(name))
        optimizers = models[-1].optimizers()
        for step in range(40):
            metrics = models[-1].update(TrainingStep(batch(), optimizers, generator(step)), guide=guide)
            assert all(torch.isfinite(value) and not value.requires_grad for value in metrics.values())
    alone, guided = (score(model.sample(start, 64, seed=0)[0]) for model in models)
    assert set(seen) == {(8, 5)} and guided.mean() - alone.mean() > alone.std() / 2


@every_family
def test_a_resumed_training_gives_the_same_bits(name: str) -> None:
    straight, first, second = make(name), make(name), make(name)

    def train(model: Model, steps: range, optimizers: dict[str, Optimizer]) -> None:
        for step in steps:
            model.update(TrainingStep(batch(), optimizers, generator(step)))

    train(straight, range(4), straight.optimizers())
    optimizers = first.optimizers()
    train(first, range(2), optimizers)
    restore_module(second, {k: v.clone() for k, v in module_tensors(first).items()})
    resumed = second.optimizers()
    for key, optimizer in resumed.items():
        restore_optimizer(optimizer, {k: v.clone() for k, v in optimizer_tensors(optimizers[key]).items()})
    train(second, range(2, 4), resumed)
    assert all(map(torch.equal, module_tensors(straight).values(), module_tensors(second).values()))


@every_family
def test_a_training_in_bfloat16_is_near_that_in_float32(name: str) -> None:
    found = []
    for in_bfloat16 in (False, True):
        model = make(name)
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
            found.append(model.update(TrainingStep(batch(), model.optimizers(), generator(0))))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    losses = [key for key in found[0] if "loss" in key or key == "energy_score"]
    assert losses
    for key in losses:
        torch.testing.assert_close(found[1][key].float(), found[0][key], rtol=0.05, atol=0.05)


@every_family
def test_what_is_not_known_of_a_condition_is_not_looked_at(name: str) -> None:
    model, condition = make(name), CONDITIONS["start"](Condition.empty(SPEC, 2))
    wild = Condition(SPEC, torch.where(condition.mask_BHD, condition.values_BHD, torch.nan), condition.mask_BHD)
    x = model.sample(condition, seed=0)
    assert torch.equal(model.sample(wild, seed=0), x)
    assert torch.equal(model.ood_score(x[:, 0], wild, [0, 1]), model.ood_score(x[:, 0], condition, [0, 1]))


# Not "latent": its autoencoder, a way of writing windows down, learns from all of them alike, and so its latents move.
# Its prior is a `Diffusion`.
@pytest.mark.parametrize("guide", [None, lambda x: x[:, 1:, 1].mean(1)])
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "latent"])
def test_windows_of_weight_zero_teach_nothing(name: str, guide: Guide | None) -> None:
    """What they hold changes no bit of the networks, whatever a guide thinks of it. A GAN promises it without batch
    statistics in its discriminator and without penalties, which are those of all data; what it knows of the game's
    health counts all windows."""
    data, zero = batch(), torch.tensor([2.0, 0.0]).repeat(8)
    other = torch.where(zero[:, None, None] == 0, 10 * data.x_BHD.flip(0) + 3, data.x_BHD)

    def taught(x: torch.Tensor, weight_B: torch.Tensor | None) -> list[torch.Tensor]:
        model = tiny(name)
        optimizers = model.optimizers()
        for step in range(2):
            weighted = replace(data, x_BHD=x, weight_B=weight_B)
            model.update(TrainingStep(weighted, optimizers, generator(step)), guide=guide)
        return list(model.parameters())

    assert all(map(torch.equal, taught(data.x_BHD, zero), taught(other, zero)))
    assert not all(map(torch.equal, taught(data.x_BHD, None), taught(other, None)))


@every_family
def test_settings_come_back_from_json_as_what_they_are(name: str) -> None:
    """A run's file holds any of them, and their kind distinguishes them."""
    settings = Settings(FAMILIES[name])
    assert from_json(Settings, to_json(settings)) == settings
    assert family(settings.model) == name


@every_family
@pytest.mark.parametrize("network", NETWORKS.configs)
def test_the_network_is_changed_alike_in_every_family(name: str, network: type) -> None:
    config = FAMILIES[name].with_network(network())
    assert isinstance(config.network, network) and family(config) == name
    assert torch.isfinite(make(name, network=network).sample(Condition.empty(SPEC), 2, seed=0)).all()
