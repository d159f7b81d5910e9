"""What a step is made of: the windows it shares, the noise on them, the mean of a loss, and the energy score."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from contract import batch
from tiny_gan import CONTEXT, make, train
from torch import Tensor

from gentraj.gan.conditional_gan import LEAST_DISTANCE, energy_score
from gentraj.gan.objectives import mean_loss, value
from gentraj.models.conditional import Microbatch
from gentraj.networks.discriminator import Logits
from gentraj.randomness import generator
from gentraj.trajectory import Batch


def microbatch(rows: int = 6, horizon: int = 4, dim: int = 3) -> Microbatch:
    g = generator(1)
    x, known = torch.randn(rows, horizon, dim, generator=g), torch.rand(rows, horizon, dim, generator=g) < 0.3
    real = (torch.arange(horizon) < torch.randint(1, horizon + 1, (rows, 1), generator=g))[..., None].expand_as(x)
    return Microbatch(x * real, real, known & real, torch.randn(rows, 2, generator=g), torch.ones(1), g)


@pytest.mark.parametrize("rows", [2, 5, 6])
def test_twins_are_the_first_conditions_each_twice(rows: int) -> None:
    whole = microbatch(rows)
    twins, half = whole.twins(), (rows + 1) // 2
    for name in ("x0", "real", "known", "free", "context"):
        one, other = getattr(twins, name).chunk(2)
        assert torch.equal(one, other) and torch.equal(one, getattr(whole, name)[:half]), name
    z = twins.normal()
    assert not torch.equal(*z.chunk(2))
    assert replace(whole, context=None).twins().context is None


def test_the_critics_value_and_the_loss_are_means_over_real_rows() -> None:
    played = microbatch(2)
    real = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]], dtype=torch.bool)[..., None].expand(-1, -1, 3)
    played = replace(played, real=real)
    verdict = Logits(torch.tensor([10.0, 20.0]), torch.tensor([[1.0, 2, 6, 99], [4, 99, 99, 99]]))
    assert value(verdict, played).tolist() == [13, 24]
    zero = Logits(torch.zeros(2), torch.zeros(2, 4))
    assert mean_loss(lambda real, fake: real + 0 * fake, verdict, zero, played) == 15 + (1 + 2 + 6 + 4) / 4
    whole = Logits(verdict.whole_R, None)
    assert value(whole, played).tolist() == [10, 20] and mean_loss(lambda r, f: r, whole, whole, played) == 15


def normal_twins(rows: int, sample: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """Energy score and relative variety of `sample`s (of normal numbers) where the data are one normal number each."""
    g = generator(3)
    x = torch.randn(rows, 1, 1, generator=g)
    everything = torch.ones(rows, 1, 1, dtype=torch.bool)
    twins = Microbatch(x, everything, ~everything, None, torch.ones(1), g).twins()
    score, variety = energy_score(twins, sample(torch.randn(rows, 1, 1, generator=g)))
    return score.item(), variety.item()


def test_the_energy_score_of_the_datas_own_distribution_is_known_and_the_least() -> None:
    """For normal numbers E |X - Y| = 2 / sqrt(pi), and the score is half of it. Variety is 1 where all is right."""
    score, variety = normal_twins(40_000, lambda z: z)
    assert score == pytest.approx(1 / math.sqrt(math.pi), abs=0.02)
    assert variety == pytest.approx(1, abs=0.02)
    others: list[Callable[[Tensor], Tensor]] = [lambda z: z + 0.4, lambda z: 0.5 * z, lambda z: 1.7 * z, torch.sign]
    assert all(normal_twins(40_000, other)[0] > score + 0.01 for other in others)
    score, variety = normal_twins(40_000, torch.zeros_like)  # a generator that makes one thing of each condition
    assert score == pytest.approx(math.sqrt(2 / math.pi), abs=0.02)
    assert variety == pytest.approx(LEAST_DISTANCE / (score + LEAST_DISTANCE), rel=1e-3)


def test_the_energy_score_counts_by_its_weight_and_reaches_the_generator_only() -> None:
    models = {weight: make(CONTEXT, energy_score=weight) for weight in (0.0, 1.0)}
    data = batch()
    data = Batch(data.x_BHD, data.mask_BHD, torch.ones(16, 2))
    found = {weight: train(m, range(1), data) for weight, m in models.items()}
    assert found[0.0]["energy_score"] == found[1.0]["energy_score"] > 0
    for side, same in (("network", False), ("discriminator", True)):
        pairs = zip(*(getattr(m, side).parameters() for m in models.values()), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == same, side
