"""The temporal U-Net: shapes, horizons, and what its output depends on."""

import pytest
import torch

from gentraj.networks import NETWORKS, TemporalUNetConfig
from gentraj.networks.fourier import fourier, width

DIM = 5


def inputs(rows: int, horizon: int) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(rows, horizon, DIM, generator=g)
    return x, torch.zeros_like(x), torch.zeros(x.shape, dtype=torch.bool), torch.full((rows,), 0.5)


@pytest.mark.parametrize("config", NETWORKS)
@pytest.mark.parametrize("horizon", [4, 8, 20])
def test_a_network_keeps_the_shape(config: type, horizon: int) -> None:
    net = NETWORKS[config](DIM, horizon, 0, config())
    assert net(*inputs(3, horizon)).shape == (3, horizon, DIM)


@pytest.mark.parametrize("config", NETWORKS)
def test_one_noise_level_may_stand_for_all_rows(config: type) -> None:
    net = NETWORKS[config](DIM, 8, 0, config())
    x, known, mask, t = inputs(3, 8)
    torch.testing.assert_close(net(x, known, mask, t), net(x, known, mask, t[:1]))


@pytest.mark.parametrize("config", NETWORKS)
@pytest.mark.parametrize("changed", ["known", "mask", "t", "context"])
def test_every_input_reaches_the_output(config: type, changed: str) -> None:
    net = NETWORKS[config](DIM, 8, 2, config())
    values = dict(zip(("x", "known", "mask", "t"), inputs(2, 8), strict=True)) | {"context": torch.zeros(2, 2)}
    before = net(*values.values())
    values[changed] = ~values[changed] if values[changed].dtype == torch.bool else values[changed] + 0.3
    assert (net(*values.values()) - before).abs().max() > 1e-4


@pytest.mark.parametrize(("horizon", "near"), [(10, "8 or 12"), (3, "use 4"), (33, "32 or 36")])
def test_a_horizon_that_cannot_be_halved_names_the_nearest_that_can(horizon: int, near: str) -> None:
    config, net = next(iter(NETWORKS.items()))
    with pytest.raises(ValueError, match=f"horizon {horizon} cannot be halved 2 times; .*{near}"):
        net(DIM, horizon, 0, config())


def test_more_levels_need_a_horizon_that_halves_more_often() -> None:
    config, net = next(iter(NETWORKS.items()))
    with pytest.raises(ValueError, match="use 8 or 16"):
        net(DIM, 12, 0, config(width=8, multipliers=(1, 1, 1, 1)))


@pytest.mark.parametrize("wrong", [{"kernel": 4}, {"multipliers": ()}, {"width": 0}, {"frequencies": -1}])
def test_settings_that_make_no_network_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="TemporalUNetConfig"):
        TemporalUNetConfig(**wrong)  # type: ignore[arg-type]


def test_fourier_features_are_the_entries_and_their_octaves() -> None:
    z = torch.tensor([[0.25, -0.5]])
    features = fourier(z, 2)
    assert features.shape == (1, width(2, 2))
    a, b = torch.pi * z, 2 * torch.pi * z
    torch.testing.assert_close(features, torch.cat([z, a.sin(), b.sin(), a.cos(), b.cos()], -1))
    assert torch.equal(fourier(z, 0), z)
