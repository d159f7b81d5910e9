"""`LatentDiffusion` as a `TrajectoryModel`: the contract of `Diffusion`, and what only a latent model has to show."""


import pytest
import torch
from contract import CONDITIONS, SPEC, batch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from gentraj.diffusion import DiffusionConfig
from gentraj.diffusion.guidance import ClassifierFree, Guided, NoisyValue
from gentraj.diffusion.latent import LatentDiffusion, LatentDiffusionConfig, VAEConfig, gaussian_kl
from gentraj.models.conditioning import ConditionMix
from gentraj.models.sampling import Denoise, Denoising, Plugin, SampledRows
from gentraj.networks import ResidualMLPConfig, TemporalUNetConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, Condition, TrajectorySpec

PRIOR = DiffusionConfig(TemporalUNetConfig(8, (1, 2)), clip=4.0, steps=3)
Learned = tuple[LatentDiffusion, list[dict[str, float]]]  # a model and the metrics of each of its updates
CONFIG = LatentDiffusionConfig(VAEConfig(latent=3, width=8), PRIOR)


def make(config: LatentDiffusionConfig = CONFIG, context: int = 0,
         conditioning: ConditionMix | None = None) -> LatentDiffusion:
    torch.manual_seed(0)
    normalizer = Normalizer(torch.arange(5.0), torch.arange(1.0, 6.0))
    return LatentDiffusion(SPEC, config, normalizer, Normalizer.identity(context) if context else None,
                           conditioning=conditioning)


def trained(steps: int, model: LatentDiffusion, data: Batch | None = None) -> list[dict[str, float]]:
    optimizers, data = model.optimizers(), batch() if data is None else data
    updates = (model.update(TrainingStep(data, optimizers, generator(step))) for step in range(steps))
    return [{name: value.item() for name, value in metrics.items()} for metrics in updates]


def levels() -> Batch:
    """Every entry of a trajectory is one number, of variance 1 in normalised units: all there is to learn."""
    a = torch.randn(64, 1, 1, generator=torch.Generator().manual_seed(0))
    x = torch.arange(5.0) + a / a.std() * torch.arange(1.0, 6.0)
    return Batch(x.expand(-1, 8, -1), torch.ones(64, 8, 5, dtype=torch.bool))


@pytest.fixture(scope="module")
def learned() -> Learned:
    network = ResidualMLPConfig(width=32, depth=1, frequencies=0)
    prior = DiffusionConfig(network, clip=4.0, learning_rate=3e-3, ema=0.95)
    model = make(LatentDiffusionConfig(VAEConfig(latent=1, width=16), prior), conditioning=ConditionMix(start=0,
                                                                                                        goal=0))
    return model, trained(100, model, levels())


def test_the_prior_does_not_train_the_vae_nor_the_vae_the_prior() -> None:
    """Otherwise the VAE would learn latents that are easy to predict and carry no information."""
    model = make()
    optimizers = model.optimizers()
    ours = {name: {id(p) for group in o.param_groups for p in group["params"]} for name, o in optimizers.items()}
    assert ours == {"vae": {id(p) for p in model.vae.parameters()},
                    "prior": {id(p) for p in model.prior.network.parameters()}}
    plain, scaled = make(), make()
    with torch.no_grad():
        for p in scaled.prior.network.parameters():
            p.mul_(2)
    for m in (plain, scaled):
        m.update(TrainingStep(batch(), m.optimizers(), generator(0)))
    assert all(torch.equal(a, b) for a, b in zip(plain.vae.parameters(), scaled.vae.parameters(), strict=True))


def test_a_trained_model_draws_what_it_was_trained_on(learned: Learned) -> None:
    model, x = learned[0], levels().x_BHD
    samples = model.sample(Condition.empty(SPEC), 200, seed=0)[0]
    scale = model.normalizer.scale_D
    assert ((samples.mean((0, 1)) - x.mean((0, 1))).abs() < 0.3 * scale).all()
    torch.testing.assert_close(samples.std((0, 1)) / scale, x.std((0, 1)) / scale, rtol=0.3, atol=0)
    assert (samples.std(1).mean(0) < 0.1 * scale).all()  # within a trajectory all is one number


def test_the_prior_sees_latents_of_variance_one(learned: Learned) -> None:
    model, data = learned[0], levels()
    obs_dim, normalizer = model.prior.spec.obs_dim, model.prior.normalizer
    z = normalizer.normalize(model.encode(data.x_BHD), range(obs_dim, normalizer.shift_D.numel()))
    assert abs(z.mean()) < 0.1 and 0.9 < z.std() < 1.1
    assert (normalizer.scale_D[:obs_dim] == 1).all() and (normalizer.shift_D[:obs_dim] == 0).all()


def test_the_kl_is_that_of_normal_distributions() -> None:
    mean, log_variance = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros(()), torch.ones(())))
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected)


def test_an_energy_is_asked_about_decoded_trajectories_and_is_followed(learned: Learned) -> None:
    model, condition, shapes = learned[0], Condition.empty(SPEC, 2), set()

    def guide(x: Tensor) -> Tensor:
        shapes.add(tuple(x.shape[1:]))
        return x[..., 0].mean(1)

    plain, pushed = model.sample(condition, 8, seed=0), model.sample(condition, 8, guide=guide, seed=0)
    assert shapes == {(8, 5)}
    assert (pushed[..., 0].mean(2) > plain[..., 0].mean(2) + 0.2).all()
    assert torch.equal(model.sample(condition, 8, guide=Guided(guide, scale=0.0), seed=0), plain)
    known = CONDITIONS["goal"](condition)
    assert torch.equal(model.sample(known, guide=guide, seed=0)[:, 0][known.mask_BHD], known.values_BHD[known.mask_BHD])


class Floor(Plugin):
    """No entry below 0."""

    def finish(self, x_RHD: Tensor, sampling: SampledRows) -> Tensor:
        assert x_RHD.shape == sampling.condition.values_BHD.shape
        return x_RHD.clamp(min=0)


def test_a_plugin_that_finishes_finishes_trajectories() -> None:
    model, condition = make(), Condition.empty(SPEC, 2)
    above = model.sample(condition, 3, guide=[Floor()], seed=0)
    assert torch.equal(above, model.sample(condition, 3, seed=0).clamp(min=0))


def test_classifier_free_guidance_is_that_of_the_prior() -> None:
    model, data = make(context=1), batch()
    trained(5, model, Batch(data.x_BHD, data.mask_BHD, torch.ones(16, 1)))
    condition = Condition.empty(SPEC, 2)
    there = Condition(SPEC, condition.values_BHD, condition.mask_BHD, torch.ones(2, 1))
    given, free = model.sample(there, seed=0), model.sample(condition, seed=0)
    assert torch.equal(model.sample(there, guide=ClassifierFree(1.0), seed=0), given)
    torch.testing.assert_close(model.sample(there, guide=ClassifierFree(0.0), seed=0), free)
    assert not torch.allclose(given, free)


class Halved(Plugin):
    def wrap(self, denoise: Denoise, sampling: Denoising) -> Denoise:
        return lambda x, t: denoise(x, t) / 2


@pytest.mark.parametrize("plugin", [NoisyValue(lambda x, noise_R: x.sum((1, 2)), 1.0), Halved()])
def test_a_plugin_that_changes_noisy_trajectories_is_refused_by_name(plugin: Plugin) -> None:
    with pytest.raises(ValueError, match=f"{type(plugin).__name__} changes the trajectory that is denoised, and"):
        make().sample(Condition.empty(SPEC), guide=plugin, seed=0)


@pytest.mark.parametrize(("horizon", "near"), [(10, "8 or 12"), (3, "use 4")])
def test_a_horizon_that_both_networks_cannot_halve_names_the_nearest_that_they_can(horizon: int, near: str) -> None:
    with pytest.raises(ValueError, match=f"horizon {horizon} cannot be halved 2 times; .*{near}"):
        LatentDiffusion(TrajectorySpec(3, 2, horizon), CONFIG, Normalizer.identity(5))
