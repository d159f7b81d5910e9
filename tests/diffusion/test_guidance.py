"""Guides: what they tilt a Gaussian to, what they leave alone, and what they refuse."""

from __future__ import annotations

import re

import pytest
import torch
from guided import COMBINATIONS, NORMALIZER, SIZE, SPEC, TARGET, Exact, exact, moments, off, quadratic, tiny
from oracle import DOUBLE, GAUSSIAN, TO_NOISE, Mixture, normals, rotation
from torch import Tensor, nn

from gentraj.agents.planning.plan_critic import PlanCritic, PlanCriticConfig
from gentraj.diffusion.guidance import ClassifierFree, Guided, NoisyValue, Tilt, denoising_plugins
from gentraj.diffusion.paths import PATHS
from gentraj.models.sampling import Checks, Preference
from gentraj.trajectory import Condition

TURN = rotation(SIZE, 7)
GOAL = torch.zeros(SIZE, dtype=DOUBLE)
GOAL[9:11] = 20  # the observation of the last row
PRECISIONS = {"full": TURN @ torch.logspace(-1, 1.5, SIZE, dtype=DOUBLE).diag() @ TURN.T, "goal": GOAL.diag()}


LINEAR = 0.5 * TARGET
LINEAR_MOVE = GAUSSIAN.covariance @ LINEAR  # of the mean of a Gaussian, whose covariance stays


def linear(x: Tensor) -> Tensor:
    return NORMALIZER.normalize(x).flatten(1) @ LINEAR


def tilted(precision: Tensor) -> tuple[Tensor, Tensor]:
    before = torch.linalg.inv(GAUSSIAN.covariance)
    after = torch.linalg.inv(before + precision)
    return after @ (before @ GAUSSIAN.mean + precision @ TARGET), after


@pytest.mark.parametrize(("path", "sampler", "grid", "steps"), COMBINATIONS)
def test_an_energy_that_is_quadratic_along_one_direction_tilts_a_gaussian_exactly(path: str, sampler: str, grid: str,
                                                                                  steps: int) -> None:
    precision = 20 * torch.outer(TURN[0], TURN[0])
    found = moments(exact(GAUSSIAN, path), [Guided(quadratic(precision), every=1)], sampler, grid, steps)
    assert off(found, *tilted(precision)) < 0.03


def test_a_linear_energy_tilts_a_gaussian_exactly() -> None:
    found = moments(exact(GAUSSIAN, "flow"), [Guided(linear)], "heun", "uniform", 40)
    assert off(found, GAUSSIAN.mean + LINEAR_MOVE, GAUSSIAN.covariance) < 0.03


@pytest.mark.parametrize("levels", [None, 20])
@pytest.mark.parametrize("path", TO_NOISE)
def test_a_linear_guide_moves_the_mean_by_what_is_exact_within_3_percent_in_five_steps(path: str,
                                                                                       levels: int | None) -> None:
    model = Exact(GAUSSIAN, PATHS[path](levels))
    plain, guided = (moments(model, guides, "ddim", "karras" if path in ("ve", "edm") else "uniform", 5)
                     for guides in ([], [Guided(linear)]))
    assert (guided[0] - plain[0] - LINEAR_MOVE).norm() < 0.03 * LINEAR_MOVE.norm()
    torch.testing.assert_close(guided[1], plain[1])


@pytest.mark.parametrize(("path", "levels"), [("flow", None), ("flow", 20), ("vp-cosine", 20), ("vp-linear", None)])
def test_a_step_without_signal_is_guided_nearly_as_far_as_its_limit(path: str, levels: int | None) -> None:
    """Its limit is that of the covariance of the data."""
    model, t = Exact(GAUSSIAN, PATHS[path](levels)), torch.ones(1, dtype=DOUBLE)
    sampling = model.sampling(Condition.empty(SPEC, 3))
    plain, x = sampling.unconditional(), normals(3, 4, 3)
    move = (Guided(linear).wrap(plain, sampling)(x, t) - plain(x, t)).flatten(1)
    assert ((move - LINEAR_MOVE).norm(dim=1) < 0.08 * LINEAR_MOVE.norm()).all()


def test_at_the_noisy_sample_the_gradient_adds_to_the_score() -> None:
    """x0' = x0 + scale sigma^2 / alpha * gradient of the value with respect to x, which it sees in its own scale."""
    model, t = exact(GAUSSIAN, "vp-cosine"), torch.tensor([0.6], dtype=DOUBLE)
    x, sampling = normals(5, 4, 3), model.sampling(Condition.empty(SPEC, 5))
    denoise, precision = sampling.unconditional(), PRECISIONS["full"]
    alpha, sigma = model.path.alpha(t), model.path.sigma(t)  # whose squares add up to 1

    def value(seen: Tensor, noise_R: Tensor) -> Tensor:
        torch.testing.assert_close(noise_R, sigma)
        return quadratic(precision)(seen)

    found = NoisyValue(value, 0.3).wrap(denoise, sampling)(x, t)
    gradient = alpha * ((TARGET - alpha * x.flatten(1)) @ precision).view_as(x)
    torch.testing.assert_close(found, denoise(x, t) + 0.3 * sigma**2 / alpha * gradient)


class Linear(nn.Module):
    """The values (1, R) of noisy plans that are linear in the plan, as data of mean 0 and variance 1 have them."""

    def forward(self, seen_RHD: Tensor, sigma_R: Tensor) -> Tensor:
        return (seen_RHD.flatten(1) @ TARGET)[None]


@pytest.mark.parametrize(("path", "sampler", "grid", "steps"), [
    ("vp-cosine", "ddim", "uniform", 4), ("edm", "heun", "karras", 20), ("flow", "ddim", "uniform", 4)])
def test_a_linear_value_of_noisy_plans_moves_their_mean_in_few_steps(path: str, sampler: str, grid: str,
                                                                     steps: int) -> None:
    """By scale * slope, where the data have mean 0 and variance 1: E[value | x_t] is that of what the critic sees."""
    one = torch.ones(1, SIZE, dtype=DOUBLE)
    normal = Mixture(one[:, 0], 0 * one, one.diag_embed(), one)
    critic = PlanCritic.blank(SPEC, PlanCriticConfig(inputs="plan", noise_fraction=0.5)).double()
    critic.plan = NORMALIZER
    critic.plan_network = Linear()  # type: ignore[assignment]
    mean, _ = moments(exact(normal, path), [critic.guide(0.5)], sampler, grid, steps)
    torch.testing.assert_close(mean, 0.5 * TARGET, rtol=0.01, atol=0.01)


def test_a_guide_is_asked_in_one_of_every_denoisings_and_where_the_gain_has_changed() -> None:
    model, asked = exact(GAUSSIAN, "flow"), list[int]()
    sampling = model.sampling(Condition.empty(SPEC, 3))

    def guide(x: Tensor) -> Tensor:
        asked.append(len(found))
        return x.square().sum((1, 2))

    found, denoise = list[Tensor](), Guided(guide, every=3).wrap(sampling.unconditional(), sampling)
    for t in (0.5, 0.5, 0.5, 0.5, 0.2, 0.2, 0.2, 0.2, 0.5):
        found.append(denoise(normals(3, 4, 3), torch.tensor([t])))
    assert {*asked} == {0, 3, 4, 7, 8}
    assert all(torch.equal(found[i], found[0]) for i in (1, 2, 3, 8))


@pytest.mark.parametrize(("path", "sampler", "grid", "steps", "stiff"), [
    ("vp-cosine", "ddim", "uniform", 20, 1), ("vp-cosine", "ddim", "uniform", 5, 10),
    ("flow", "euler", "uniform", 7, 10), ("edm", "dpmpp-2m", "karras", 4, 1)])
def test_repeated_moves_tilt_as_much_as_one_in_every_step(path: str, sampler: str, grid: str, steps: int,
                                                          stiff: float) -> None:
    """Also in few steps and towards a goal that holds tightly, where a move of a larger sigma would go too far."""
    precision = stiff * PRECISIONS["goal"]
    found = [off(moments(exact(GAUSSIAN, path), [Guided(quadratic(precision), every=every)], sampler, grid, steps),
                 *tilted(precision)) for every in (2, 1)]
    assert found[0] == pytest.approx(found[1], abs=0.02)


def test_known_entries_do_not_move_and_the_energy_sees_them_as_they_are() -> None:
    seen, model = [], exact(GAUSSIAN, "vp-cosine")
    condition = Condition.empty(SPEC, 3).with_obs(0, torch.tensor([4.0, 5.0]))
    sampling = model.sampling(condition)

    def guide(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return -x.square().sum((1, 2))

    mask, values = condition.mask_BHD, NORMALIZER.normalize(condition.values_BHD)
    for plugin in (Guided(guide), NoisyValue(lambda x, noise_R: guide(x), 1.0)):
        x0 = plugin.wrap(sampling.unconditional(), sampling)(normals(3, 4, 3), torch.tensor([0.5]))
        assert torch.equal(x0[mask].float(), values[mask])
    for x in seen:
        torch.testing.assert_close(x[:, 0, :2].float(), torch.tensor([4.0, 5.0]).expand(3, 2))


def test_an_energy_guides_in_its_interval_only() -> None:
    model = exact(GAUSSIAN, "vp-cosine")
    sampling = model.sampling(Condition.empty(SPEC, 3))
    plain = sampling.unconditional()
    guide = Guided(lambda x: x.sum((1, 2)), interval=(0.2, 0.6)).wrap(plain, sampling)
    x, t = normals(3, 4, 3), torch.tensor([0.1, 0.5, 0.7], dtype=DOUBLE)
    for at, inside in zip(t.split(1), (False, True, False), strict=True):
        assert torch.equal(guide(x, at), plain(x, at)) != inside


def test_scale_zero_is_bit_equal_to_no_guide() -> None:
    model, condition = tiny(), Condition.empty(SPEC, 2).with_obs(0, torch.ones(2))
    plain = model.sample(condition, 3, seed=0)
    assert torch.equal(model.sample(condition, 3, guide=Guided(lambda x: x.sum((1, 2)), scale=0), seed=0), plain)
    assert not torch.equal(model.sample(condition, 3, guide=lambda x: x.sum((1, 2)), seed=0), plain)


def failing(x: Tensor) -> Tensor:
    raise KeyError("no such goal")


BAD = {
    "a number a step": (lambda x: x.sum(-1), r"returned shape \(1, 4\)"), "no tensor": (lambda x: 3.0, "returned 3.0"),
    "infinite": (lambda x: x.sum((1, 2)) / 0, "score is not finite"),
    "infinite slope": (lambda x: (0 * x).abs().sqrt().sum((1, 2)), "gradient is not finite"),
    "cut": (lambda x: x.detach().sum((1, 2)), "has no gradient"),
    "raises": (failing, "the guide raised KeyError: 'no such goal'"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_guide_is_refused_in_one_line(kind: str) -> None:
    guide, message = BAD[kind]
    with pytest.raises(ValueError, match=message) as caught:
        tiny().sample(Condition.empty(SPEC), guide=Guided(guide), seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"interval": (0.6, 0.2)}, {"scale": float("nan")}, {"every": 0}])
def test_impossible_settings_are_refused(settings: dict) -> None:
    (name, value), = settings.items()
    with pytest.raises(ValueError, match=f"{name}.*{re.escape(str(value))}"):
        Guided(lambda x: x.sum((1, 2)), **settings)


@pytest.mark.parametrize("bend", [-2.0, 0.0, 3.0])
def test_an_explicit_step_is_shortened_where_the_energy_bends_down_and_only_there(bend: float) -> None:
    """For Sigma = 0.5 and a concave quadratic guide it ends at the maximum of guide(z) - |z - x0|^2 / (2 Sigma)."""
    z, slope = normals(3, 4, 3), normals(3, 4, 3, seed=1)
    tilt = Tilt(lambda y: (slope * y + bend / 2 * y**2).sum((1, 2)), z, Checks())
    step = 0.5 * (slope + bend * z)
    torch.testing.assert_close(tilt.bounded(0.5 * tilt.gradient), step / (1 + 0.5 * max(-bend, 0)))


def test_what_is_no_guide_is_refused() -> None:
    with pytest.raises(TypeError, match="a guide is 'up'; a function"):
        denoising_plugins(["up"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="ClassifierFree replaces what the model denoises; put it first"):
        denoising_plugins([Guided(lambda x: x.sum((1, 2))), ClassifierFree(2.0)])


def test_a_preference_guides_as_the_energy_that_it_holds() -> None:
    """So that one guide serves a model that denoises and one that chooses."""
    plugin, = denoising_plugins(Preference(lambda x: x.sum((1, 2))))
    assert isinstance(plugin, Guided) and plugin.scale == 1
