"""Penalties against their closed forms, and what spectral normalisation and the gradient penalty reach by training."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gentraj.gan.objectives import JITTER, REGULARISERS, Critic, Game
from gentraj.randomness import generator

every_regulariser = pytest.mark.parametrize("name", REGULARISERS)
ROWS, SHAPE = 6, (4, 3)
G = torch.Generator().manual_seed(0)
W = torch.randn(SHAPE, generator=G)
FREE = torch.rand(ROWS, *SHAPE, generator=G) < 0.7
LINEAR: dict[str, Callable[[Tensor], Tensor]] = {  # of the critic <w, x>, by the squared length of w's free entries
    "r1": lambda square: square / 2,
    "r2": lambda square: square / 2,
    "gradient-penalty": lambda square: (square.sqrt() - 1) ** 2,
    "zero-centred": lambda square: square,
}


def linear(w: Tensor) -> Critic:
    return lambda x: (w * x).sum((1, 2))


def game(critic: Critic, free: Tensor = FREE, fake: Tensor | None = None) -> Game:
    x, g = torch.randn(2, *free.shape, generator=generator(1))
    x, g = x.requires_grad_(), (g if fake is None else fake.clone()).requires_grad_()
    return Game(critic, x, g, critic(x), critic(g), free, generator(2))


@pytest.mark.parametrize("name", LINEAR)
def test_the_penalty_of_a_linear_critic_is_a_function_of_its_slope(name: str) -> None:
    square = (W.square() * FREE).sum((1, 2))
    torch.testing.assert_close(REGULARISERS[name](game(linear(W))), LINEAR[name](square))


def test_the_consistency_of_a_linear_critic_is_the_square_of_a_normal_number() -> None:
    """c(x) - c(x + noise) = -<w, noise>: JITTER^2 |w|^2 times chi-squared of one degree: mean 1, variance 2, P(< 1)."""
    free = FREE[:1].expand(20_000, -1, -1)
    scaled = REGULARISERS["consistency"](game(linear(W), free)) / (JITTER**2 * (W.square() * FREE[0]).sum())
    found = torch.stack([scaled.mean(), scaled.var(), (scaled < 1).float().mean()])
    torch.testing.assert_close(found, torch.tensor([1, 2, 0.6827]), rtol=0.1, atol=0)


@pytest.mark.parametrize(("name", "at"), [("r1", "real"), ("r2", "fake")])
def test_the_slope_of_a_quadratic_critic_is_taken_where_the_paper_takes_it(name: str, at: str) -> None:
    played = game(lambda x: x.square().sum((1, 2)) / 2)
    square = (getattr(played, at).square() * FREE).sum((1, 2))
    torch.testing.assert_close(REGULARISERS[name](played), square / 2)


def test_interpolates_are_uniform_between_a_sample_and_its_datum() -> None:
    played = game(linear(W), FREE[:1].expand(5000, -1, -1))
    x, real, fake = played.interpolates(), played.real, played.fake
    u = ((x - fake) / (real - fake)).median(-1).values.median(-1).values
    torch.testing.assert_close(x, fake + u[:, None, None] * (real - fake), rtol=1e-3, atol=1e-3)
    assert u.min() >= 0 and u.max() <= 1
    torch.testing.assert_close(u.quantile(torch.tensor([0.25, 0.5, 0.75])), torch.tensor([0.25, 0.5, 0.75]), atol=0.03,
                               rtol=0)


@every_regulariser
def test_only_entries_that_are_free_count(name: str) -> None:
    """A critic that differs in what is known or padded only has the same penalty."""
    free = FREE[:1].expand(ROWS, -1, -1)
    changed = torch.where(FREE[0], W, 100.0)
    penalties = [REGULARISERS[name](game(linear(w), free)) for w in (W, changed)]
    torch.testing.assert_close(*penalties, rtol=1e-3, atol=1e-3)


@every_regulariser
def test_a_penalty_can_be_trained_on(name: str) -> None:
    """Its derivative by the critic's parameters is that of finite differences: the gradient in it is differentiable."""
    theta = W.clone().requires_grad_()

    def penalty(theta: Tensor) -> Tensor:
        return REGULARISERS[name](game(lambda x: (torch.tanh(theta * x) + theta**2 * x).sum((1, 2)))).mean()

    found, = torch.autograd.grad(penalty(theta), theta)
    step = 1e-2 * torch.randn(SHAPE, generator=generator(3))
    with torch.no_grad():
        moved = [theta + step, theta - step]
    difference = (penalty(moved[0]) - penalty(moved[1])) / 2
    assert found.abs().max() > 1e-3
    torch.testing.assert_close((found * step).sum(), difference, rtol=0.02, atol=1e-5)
