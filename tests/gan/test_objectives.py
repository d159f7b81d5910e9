"""What every objective must obey, and what the papers say of each: values, directions, saturation, equilibria."""

import math
from dataclasses import replace

import pytest
import torch
from contract import batch
from hypothesis import given
from hypothesis import strategies as st
from tiny_gan import make, train
from torch import Tensor

from gentraj.gan.objectives import OBJECTIVES, Loss

every_objective = pytest.mark.parametrize("name", OBJECTIVES)
RANGE = {"least-squares": (0.0, 1.0)}  # of the logits, between the targets: beyond them it pulls back
AT_REST = {"least-squares": 0.5}  # the best critic of equal distributions; 0 for the others
logits = st.floats(-30, 30, width=32)


def gradients(loss: Loss, real: float, fake: float) -> tuple[float, float]:
    """Returns the gradients with respect to the logits of data and of samples; 0 if the loss does not depend on one."""
    c = torch.tensor([real, fake], dtype=torch.float64, requires_grad=True)
    g, = torch.autograd.grad(loss(c[0], c[1]), c)
    return float(g[0]), float(g[1])


def expected(loss: Loss, c_real: Tensor, c_fake: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """E over independent pairs of data and samples, whose critic's values have the probabilities p and q."""
    pairs = torch.broadcast_tensors(c_real[:, None], c_fake[None, :])
    return (p[:, None] * q[None, :] * loss(*pairs)).sum()


@every_objective
@given(real=logits, fake=logits)
def test_samples_go_up_and_the_critic_parts_them_from_data(name: str, real: float, fake: float) -> None:
    objective, (low, high) = OBJECTIVES[name], RANGE.get(name, (-30.0, 30.0))
    real, fake = (min(max(c, low), high) for c in (real, fake))
    assert gradients(objective.generator, real, fake)[1] <= 0
    of_real, of_fake = gradients(objective.discriminator, real, fake)
    assert of_real <= 0 <= of_fake


@every_objective
def test_equal_distributions_are_an_equilibrium(name: str) -> None:
    """The constant critic is then at rest. A generator is too, since what it climbs is flat."""
    c = AT_REST.get(name, 0.0)
    of_real, of_fake = gradients(OBJECTIVES[name].discriminator, c, c)
    assert of_real + of_fake == pytest.approx(0, abs=1e-12)


@every_objective
@given(values=st.lists(logits, min_size=2, max_size=6))
def test_no_critic_tells_equal_distributions_apart(name: str, values: list[float]) -> None:
    loss, rest = OBJECTIVES[name].discriminator, torch.tensor(AT_REST.get(name, 0.0), dtype=torch.float64)
    c = torch.tensor(values, dtype=torch.float64)
    p = torch.full_like(c, 1 / len(c))
    assert expected(loss, c, c, p, p) >= loss(rest, rest) - 1e-9


@pytest.mark.parametrize("apart", [0.0, 0.5, 3.0])
def test_the_best_critic_of_minimax_is_the_log_ratio_and_its_value_the_divergence(apart: float) -> None:
    """D* = p / (p + q) and V = 2 JSD(p, q) - log 4 (Goodfellow et al. 2014, proposition 1 and theorem 1)."""
    x = torch.linspace(-9, 9 + apart, 400, dtype=torch.float64)
    p, q = torch.softmax(-(x**2) / 2, 0), torch.softmax(-((x - apart) ** 2) / 4, 0)
    loss, best, mean = OBJECTIVES["minimax"].discriminator, (p / q).log(), (p + q) / 2
    divergence = ((p * (p / mean).log()).sum() + (q * (q / mean).log()).sum()) / 2
    least = expected(loss, best, best, p, q)
    assert -least.item() == pytest.approx(2 * divergence.item() - math.log(4), abs=1e-9)
    for other in (best + 0.1, best * 1.1, best + 0.1 * x.sin(), torch.zeros_like(x) + 0.01):
        assert expected(loss, other, other, p, q) > least


def test_minimax_and_non_saturating_have_one_equilibrium_and_saturate_at_opposite_ends() -> None:
    """Goodfellow et al. 2014, section 3: early, when samples are recognised, only the second one has a gradient."""
    minimax, other = OBJECTIVES["minimax"], OBJECTIVES["non-saturating"]
    at = {c: [gradients(o.generator, 0.0, c)[1] for o in (minimax, other)] for c in (-20.0, 0.0, 20.0)}
    assert at[0.0] == pytest.approx([-0.5, -0.5])
    assert at[-20.0] == pytest.approx([0, -1], abs=1e-6) and at[20.0] == pytest.approx([-1, 0], abs=1e-6)
    assert gradients(minimax.discriminator, 0.3, 0.7) == gradients(other.discriminator, 0.3, 0.7)


@given(real=logits, fake=logits, shift=logits)
def test_relativistic_depends_on_differences_only(real: float, fake: float, shift: float) -> None:
    real, fake, shift = (torch.tensor(c, dtype=torch.float64) for c in (real, fake, shift))
    for loss in (OBJECTIVES["relativistic"].discriminator, OBJECTIVES["relativistic"].generator):
        torch.testing.assert_close(loss(real + shift, fake + shift), loss(real, fake))


def test_the_two_sides_of_relativistic_are_mirror_images() -> None:
    """Huang et al. 2024, equations 1 and 2: what one side gains by a pair the other one would by its mirror image."""
    real, fake = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    objective = OBJECTIVES["relativistic"]
    torch.testing.assert_close(objective.discriminator(real, fake), objective.generator(fake, real))


def test_hinge_and_least_squares_are_content_beyond_and_at_their_targets() -> None:
    hinge, squares = OBJECTIVES["hinge"].discriminator, OBJECTIVES["least-squares"]
    assert gradients(hinge, 1.5, -1.5) == (0, 0) and hinge(torch.tensor(1.5), torch.tensor(-1.5)) == 0
    assert gradients(squares.discriminator, 1.0, 0.0) == (0, 0) and gradients(squares.generator, 0.3, 1.0)[1] == 0


def test_weights_are_clipped_after_each_step_of_an_objective_that_says_so() -> None:
    model, limit = make(objective="wasserstein-clip"), 0.003
    model.objective = replace(model.objective, weight_clip=limit)
    train(model, range(2), batch())
    assert all(p.abs().max() <= limit for p in model.discriminator.parameters())
    assert any(p.abs().max() > limit for p in model.network.parameters())
