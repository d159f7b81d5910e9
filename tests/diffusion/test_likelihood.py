"""log p against closed forms: exact denoisers, and a trained model of a linear system."""

from collections.abc import Callable, Sequence

import pytest
import torch
from oracle import DOUBLE, GAUSSIAN, MIXTURE, TO_NOISE, Mixture, gaussian, held, network, normals
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.diffusion.denoiser import PREDICTIONS, NoiseLevel
from gentraj.diffusion.likelihood import BLUR, PROBES, Divergence, ode_log_prob
from gentraj.diffusion.paths import PATHS, NoisePath
from gentraj.models.conditioning import ConditionMix
from gentraj.models.sampling import Denoise
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import RowNoise, generator
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, Condition, TrajectorySpec


def log_prob(denoise: Denoise, path: NoisePath, x: Tensor, unknown: Tensor, *, seeds: Sequence[int] = (),
             exact: bool | None = None, probes: int = PROBES, steps: int = 32, blur: float = BLUR) -> Tensor:
    return ode_log_prob(denoise, path, x, Divergence(unknown, RowNoise(seeds), exact, probes), steps=steps, blur=blur)
def distribution(target: Mixture) -> MixtureSameFamily:
    root = target.axes_KDD * target.variances_KD.sqrt()[:, None]
    return MixtureSameFamily(Categorical(target.weights_K), MultivariateNormal(target.means_KD, root @ root.mT))


def points(target: Mixture, number: int, seed: int = 0) -> Tensor:
    """Each in turn from one component."""
    k = torch.arange(number) % len(target.weights_K)
    z = normals(number, target.means_KD.shape[1], seed=seed)
    return target.means_KD[k] + ((z * target.variances_KD[k].sqrt())[:, None] @ target.axes_KDD[k].mT)[:, 0]


def flat(denoise: Denoise) -> Denoise:
    """A denoiser of vectors as one of trajectories."""
    return lambda x, t: denoise(x.flatten(1), t).view_as(x)


def everything(x_RHD: Tensor) -> Tensor:
    return torch.ones_like(x_RHD, dtype=torch.bool)


def check(target: Mixture, path: NoisePath, x_RD: Tensor, **options: object) -> None:
    x = x_RD.unflatten(1, (2, -1))
    found = log_prob(flat(target.denoiser(path)), path, x, everything(x), **options)  # type: ignore[arg-type]
    torch.testing.assert_close(found, distribution(target).log_prob(x_RD), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("name", TO_NOISE)
def test_an_exact_denoiser_gives_the_closed_form_on_every_path(name: str) -> None:
    check(MIXTURE, PATHS[name](), points(MIXTURE, 5), steps=32)


@pytest.mark.parametrize("name", ["vp-cosine", "vp-linear"])
def test_a_discrete_chain_is_followed_between_its_levels_too(name: str) -> None:
    check(GAUSSIAN, PATHS[name](20), points(GAUSSIAN, 4), steps=24)


def test_it_is_the_density_of_blurred_data() -> None:
    x = points(GAUSSIAN, 8)
    blurred = gaussian(GAUSSIAN.means_KD[0], GAUSSIAN.axes_KDD[0], GAUSSIAN.variances_KD[0] + 0.3**2)
    path = PATHS["flow"]()
    found = log_prob(flat(GAUSSIAN.denoiser(path)), path, x[:, None], everything(x[:, None]), blur=0.3, steps=24)
    torch.testing.assert_close(found, distribution(blurred).log_prob(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", TO_NOISE)
def test_the_density_of_any_denoiser_integrates_to_one(name: str) -> None:
    x, path = torch.linspace(-12, 12, 1001, dtype=DOUBLE)[:, None, None], PATHS[name]()

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        at = NoiseLevel(path, t)
        return PREDICTIONS["v"].x0(x, at.spread * network(x / at.spread), at)

    p = log_prob(denoise, path, x, everything(x), steps=32, blur=1e-2).exp()
    assert float(torch.trapezoid(p, x[:, 0, 0])) == pytest.approx(1, abs=1e-3)


def test_hutchinsons_estimator_is_right_on_average_and_exact_where_the_entries_do_not_interact() -> None:
    path, x = PATHS["flow"](), points(GAUSSIAN, 1000)[:, None]
    exact, found = (log_prob(flat(GAUSSIAN.denoiser(path)), path, x, everything(x), seeds=range(1000), exact=how,
                             probes=4, steps=16) for how in (True, False))
    assert float((found - exact).std()) > 0.5 and float(found.mean()) == pytest.approx(float(exact.mean()), rel=0.01)
    apart = gaussian(GAUSSIAN.means_KD[0], torch.eye(12, dtype=DOUBLE), GAUSSIAN.variances_KD[0])
    found = log_prob(flat(apart.denoiser(path)), path, x, everything(x), seeds=range(1000), exact=False, probes=1)
    torch.testing.assert_close(found, distribution(apart).log_prob(x[:, 0]), rtol=1e-3, atol=1e-3)


def given(target: Mixture, x_RD: Tensor, unknown_RD: Tensor) -> list[MultivariateNormal]:
    """Each row's distribution of the unknown entries under the known ones, of a Gaussian."""
    mean, covariance, laws = target.mean, target.covariance, []
    for x, u in zip(x_RD, unknown_RD, strict=True):
        gain = torch.linalg.solve(covariance[~u][:, ~u], covariance[~u][:, u])
        within = covariance[u][:, u] - covariance[u][:, ~u] @ gain
        laws.append(MultivariateNormal(mean[u] + (x - mean)[~u] @ gain, within))
    return laws


def log_given(laws: list[MultivariateNormal], x_RD: Tensor, unknown_RD: Tensor) -> Tensor:
    return torch.stack([law.log_prob(x[u]) for law, x, u in zip(laws, x_RD, unknown_RD, strict=True)])


def test_known_entries_give_the_conditional_density_row_by_row() -> None:
    path, x = PATHS["flow"](), points(GAUSSIAN, 4)
    unknown = torch.rand(4, 12, generator=torch.Generator().manual_seed(1)) < torch.linspace(0.1, 0.9, 4)[:, None]
    laws = given(GAUSSIAN, x, unknown)

    def denoise(noisy: Tensor, t: Tensor) -> Tensor:
        rows = []
        for row, u, law in zip(noisy.flatten(1), unknown, laws, strict=True):
            exact = gaussian(law.mean, *reversed(torch.linalg.eigh(law.covariance_matrix)))
            rows.append(row.masked_scatter(u, exact.denoiser(path)(row[u][None], t)[0]))
        return torch.stack(rows).view_as(noisy)

    x_RHD, unknown_RHD = x.view(4, 3, 4), unknown.view(4, 3, 4)
    found = log_prob(held(denoise, x_RHD, ~unknown_RHD), path, x_RHD, unknown_RHD, steps=32)
    truth = log_given(laws, x, unknown)
    torch.testing.assert_close(found, truth, rtol=0.01, atol=0.01)


# The model's method

SPEC = TrajectorySpec(obs_dim=2, act_dim=1, horizon=2)
NORMALIZER = Normalizer(torch.tensor([5.0, -2.0, 0.3]), torch.tensor([0.5, 3.0, 0.1]))


def make(normalizer: Normalizer = NORMALIZER, spec: TrajectorySpec = SPEC, **changes: object) -> Diffusion:
    torch.manual_seed(0)
    settings = {"network": ResidualMLPConfig(64, 2, 0), "path": "flow", "levels": None, "prediction": "v",
                "learning_rate": 2e-3, "ema": 0.995}
    config = DiffusionConfig(**{**settings, **changes})  # type: ignore[arg-type]
    return Diffusion(spec, config, normalizer, conditioning=ConditionMix(start=0, goal=0, observations=0.4),
                     batch_size=256)


def trajectories(number: int, spec: TrajectorySpec = SPEC) -> Tensor:
    return NORMALIZER.unnormalize(normals(number, spec.horizon, spec.dim).float())


def with_observations(x: Tensor) -> Condition:
    obs = SPEC.split(x)[0]
    return Condition.empty(SPEC, len(x)).with_obs(0, obs[:, 0]).with_obs(1, obs[:, 1])


@pytest.mark.parametrize("known", [False, True])
def test_units_change_it_by_the_logarithm_of_their_scale_over_the_unknown_entries(known: bool) -> None:
    x, scale, shift = trajectories(16), torch.tensor([10.0, 0.2, 3.0]), torch.tensor([1.0, 2.0, 3.0])
    other = Normalizer(scale * NORMALIZER.shift_D + shift, scale * NORMALIZER.scale_D)
    condition = with_observations if known else lambda x: Condition.empty(SPEC, len(x))
    before = make().log_prob(x, condition(x), steps=16)
    after = make(other).log_prob(scale * x + shift, condition(scale * x + shift), steps=16)
    counted = scale[2:] if known else scale
    torch.testing.assert_close(after, before - SPEC.horizon * counted.log().sum(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("exact", "count"), [(True, 1), (False, 15), (True, 33)])
def test_a_row_does_not_depend_on_the_rows_beside_it(exact: bool, count: int) -> None:
    model, x = make(), trajectories(50)
    options = {"exact": exact, "probes": 2, "steps": 8}
    many = model.log_prob(x, with_observations(x), seeds=list(range(50)), **options)
    few = model.log_prob(x[:count], with_observations(x[:count]), seeds=list(range(count)), **options)
    torch.testing.assert_close(few, many[:count], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("call", "message"), [
    (lambda model, x: model.log_prob(x[..., :2]), r"shape \(4, 2, 2\); this model and condition need \(4, 2, 3\)"),
    (lambda model, x: model.log_prob(x, seeds=[1, 2, 3]), "3 seeds were given for 4"),
    (lambda model, x: model.log_prob(x, steps=2.5), "2.5 steps of the ODE were given"),
    (lambda model, x: model.log_prob(x, exact=False, probes=0), "give at least 1 probe"),
    (lambda model, x: model.log_prob(x * torch.nan), "the trajectories are not finite in")])
def test_bad_input_is_named(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(make(), trajectories(4))


def linear_system() -> Mixture:
    """The joint distribution of (x, u, x', u') for x' = A x + B u + noise under u = K x + noise, at rest."""
    A, B, K = (torch.tensor(m, dtype=DOUBLE) for m in ([[0.9, 0.3], [-0.2, 0.8]], [[0.1], [0.5]], [[-0.4, -0.6]]))
    closed, noise_x = A + B @ K, torch.diag(torch.tensor([0.1, 0.15], dtype=DOUBLE) ** 2)
    noise_u, rest = torch.full((1, 1), 0.2**2, dtype=DOUBLE), torch.eye(2, dtype=DOUBLE)
    for _ in range(1000):
        rest = closed @ rest @ closed.T + B @ noise_u @ B.T + noise_x
    one, zero = torch.eye(2, dtype=DOUBLE), torch.zeros(2, 1, dtype=DOUBLE)
    # (x, u, x', u') from (x, noise of u, noise of x', noise of u')
    maps = torch.cat([torch.cat([one, zero, 0 * one, zero], 1), torch.cat([K, zero.T[:, :1] + 1, 0 * K, zero[:1]], 1),
                      torch.cat([closed, B, one, zero], 1), torch.cat([K @ closed, K @ B, K, zero[:1] + 1], 1)])
    units = torch.tensor([1.0, 3.0, 0.5] * 2, dtype=DOUBLE)
    covariance = units[:, None] * (maps @ torch.block_diag(rest, noise_u, noise_x, noise_u) @ maps.T) * units
    return gaussian(torch.tensor([5.0, -2.0, 0.3] * 2, dtype=DOUBLE), *reversed(torch.linalg.eigh(covariance)))


@pytest.mark.slow
def test_a_trained_model_of_a_linear_system_knows_its_density() -> None:
    system = linear_system()
    data = points(system, 20_000, seed=7).float().unflatten(1, (2, 3))
    model = make(Normalizer.fit("gaussian", [data.flatten(0, 1).numpy()]), clip=None)
    optimizers, real = model.optimizers(), torch.ones(256, 2, 3, dtype=torch.bool)
    for step in range(800):
        g = generator(0, step)
        model.update(TrainingStep(Batch(data[torch.randint(len(data), (256,), generator=g)], real), optimizers, g))
    x = points(system, 96, seed=8)
    unknown = torch.tensor([False, False, True] * 2).expand(96, 6)
    actions = log_given(given(system, x, unknown), x, unknown)
    x_RHD = x.float().unflatten(1, (2, 3))
    for condition, truth in ((None, distribution(system).log_prob(x)), (with_observations(x_RHD), actions)):
        found = model.log_prob(x_RHD, condition).double()
        assert float(found.mean()) == pytest.approx(float(truth.mean()), rel=0.05)
        assert float((found - truth).abs().mean()) < 0.2
