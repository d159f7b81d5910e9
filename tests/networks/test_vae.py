"""The temporal VAE: shapes, what its latents and its output depend on, and that it reconstructs."""

import pytest
import torch

from gentraj.diffusion.latent import TemporalVAE, VAEConfig

DIM, HORIZON = 3, 8


def make(**changes: int) -> TemporalVAE:
    torch.manual_seed(0)
    return TemporalVAE(DIM, HORIZON, VAEConfig(**{"latent": 2, "width": 16, **changes}))


def inputs(rows: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, HORIZON, DIM, generator=torch.Generator().manual_seed(0))
    return x, torch.ones_like(x, dtype=torch.bool)


@pytest.mark.parametrize(("halvings", "rows"), [(0, 8), (1, 4), (2, 2), (3, 1)])
def test_latents_have_fewer_rows_of_the_width_that_was_asked_for(halvings: int, rows: int) -> None:
    vae, (x, real) = make(halvings=halvings), inputs()
    mean, log_variance = vae.encode(x, real)
    assert mean.shape == log_variance.shape == (4, rows, 2)
    assert vae.decode(mean, x, real).shape == x.shape


def test_entries_that_are_not_real_are_not_seen_but_that_they_are_missing_is() -> None:
    vae, (x, real) = make(), inputs()
    part = real.clone()
    part[:, 5:] = False
    hidden = vae.encode(torch.where(part, x, 100.0), part)[0]
    assert torch.equal(hidden, vae.encode(x, part)[0])
    assert not torch.allclose(hidden, vae.encode(x * part, real)[0])


@pytest.mark.parametrize("changed", ["latents", "known", "mask"])
def test_the_decoder_listens_to_all_that_it_is_given(changed: str) -> None:
    vae, (x, mask) = make(), inputs()
    given = {"latents": torch.zeros(4, 4, 2), "known": x * 0, "mask": ~mask}
    before = vae.decode(*given.values())
    given[changed] = ~given[changed] if changed == "mask" else given[changed] + 0.5
    assert (vae.decode(*given.values()) - before).abs().amax((1, 2)).min() > 1e-4
