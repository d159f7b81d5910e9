"""The temporal U-Net: horizons, settings, its attention, and how it embeds the noise level."""

import pytest
import torch

from gentraj.networks import TemporalUNet, TemporalUNetConfig
from gentraj.networks.embedding import SinusoidalEmbedding, fourier, width

DIM = 5


@pytest.mark.parametrize(("horizon", "near"), [(10, "8 or 12"), (3, "use 4"), (33, "32 or 36")])
def test_a_horizon_that_cannot_be_halved_names_the_nearest_that_can(horizon: int, near: str) -> None:
    with pytest.raises(ValueError, match=f"horizon {horizon} cannot be halved 2 times; .*{near}"):
        TemporalUNet(DIM, horizon, 0, TemporalUNetConfig())


def test_attention_is_added_at_the_coarsest_level() -> None:
    plain = TemporalUNet(DIM, 8, 0, TemporalUNetConfig(width=8))
    net = TemporalUNet(DIM, 8, 0, TemporalUNetConfig(width=8, attention=True))
    x = torch.randn(2, 8, DIM, generator=torch.Generator().manual_seed(0))
    rest = torch.zeros_like(x), torch.zeros(x.shape, dtype=torch.bool), torch.full((2,), 0.5)
    net.load_state_dict(plain.state_dict(), strict=False)
    assert (net(x, *rest) - plain(x, *rest)).abs().max() > 1e-4
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith("attention.attention.out"):
                parameter.zero_()
    torch.testing.assert_close(net(x, *rest), plain(x, *rest))


@pytest.mark.parametrize("levels", [20, 1000])
def test_the_embedding_can_be_that_of_integer_levels(levels: int) -> None:
    n = torch.arange(levels)
    embedded = SinusoidalEmbedding(32, levels, -1)((n + 1) / levels)
    torch.testing.assert_close(embedded, SinusoidalEmbedding(32, 1, 0)(n), rtol=0, atol=1e-4)


def test_fourier_features_are_the_entries_and_their_octaves() -> None:
    z = torch.tensor([[0.25, -0.5]])
    features = fourier(z, 2)
    assert features.shape == (1, width(2, 2))
    a, b = torch.pi * z, 2 * torch.pi * z
    torch.testing.assert_close(features, torch.cat([z, a.sin(), b.sin(), a.cos(), b.cos()], -1))
    assert torch.equal(fourier(z, 0), z)
