"""The discriminator: what reaches its logits and what must not, and its parts against their definitions."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_networks import CONTEXT, DIM, inputs
from torch import Tensor, nn

from gentraj.networks import TemporalUNetConfig
from gentraj.networks.discriminator import (
    Convolution,
    Discriminator,
    DiscriminatorConfig,
    minibatch_std,
)

HORIZON = 16
SMALL = {"width": 8, "multipliers": (1, 2), "kernel": 3}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {}, "one level": SMALL | {"multipliers": (2,)}, "no patches": SMALL | {"patches": False},
    "no spread": SMALL | {"minibatch_std": False, "frequencies": 0}, "spectral": SMALL | {"spectral_norm": True},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def make(horizon: int = HORIZON, context_dim: int = CONTEXT, **changes: Any) -> Discriminator:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return Discriminator(DIM, horizon, context_dim, DiscriminatorConfig(**changes))


def logits(net: Discriminator, values: dict[str, Tensor]) -> list[Tensor]:
    """(R,) of wholes, and (R, H) of patches if there are any."""
    return [logit for logit in net(*values.values()) if logit is not None]


@every_variant
@pytest.mark.parametrize("changed", ["x", "known", "mask", "t", "context"])
def test_every_input_reaches_every_logit(variant: str, changed: str) -> None:
    net, values = make(**VARIANTS[variant]), inputs(3, HORIZON)
    before = logits(net, values)
    values[changed] = ~values[changed] if values[changed].dtype == torch.bool else values[changed] + 0.3
    for now, then in zip(logits(net, values), before, strict=True):
        assert ((now - then).abs() > 1e-6).all()


@every_variant
def test_the_gradient_at_the_input_can_be_trained_on(variant: str) -> None:
    """R1 of every logit reaches every weight that a logit is made of by more than a sum."""
    net, values = make(**VARIANTS[variant]), inputs(3, HORIZON)
    values["x"].requires_grad_()
    total = sum(logit.sum() for logit in logits(net, values))
    slope, = torch.autograd.grad(total, values["x"], create_graph=True)  # type: ignore[arg-type]
    slope.square().sum().backward()
    grads = {name: p.grad for name, p in net.named_parameters() if p.ndim > 1 and p.grad is not None}
    assert all(torch.isfinite(g).all() for g in grads.values())
    reached = {name.split(".")[0] for name, g in grads.items() if g.any()}
    assert reached >= {"first", "blocks", "gather", "psi", "project"}


@every_variant
def test_only_the_spread_of_the_batch_makes_a_logit_depend_on_other_rows(variant: str) -> None:
    net, values = make(**VARIANTS[variant]), inputs(3, HORIZON)
    before = logits(net, values)
    values["x"] = torch.cat([values["x"][:2], values["x"][2:] + 3])
    after = logits(net, values)
    same = [torch.allclose(a[:2], b[:2], atol=1e-6) for a, b in zip(after, before, strict=True)]
    assert same[0] == (not net.config.minibatch_std) and all(same[1:])
    assert all(not torch.allclose(a[2:], b[2:]) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_patch_is_what_three_convolutions_see_and_the_whole_is_everything(kernel: int) -> None:
    net, values = make(width=8, kernel=kernel), inputs(2, HORIZON)
    before = net(*values.values())
    values["x"] = values["x"].clone()
    values["x"][:, 8] += 1
    after, reach = net(*values.values()), 3 * (kernel // 2)
    changed = ((after.patch_RH - before.patch_RH).abs() > 1e-6).all(0)
    assert changed.nonzero()[:, 0].tolist() == list(range(8 - reach, min(8 + reach, HORIZON - 1) + 1))
    assert ((after.whole_R - before.whole_R).abs() > 1e-6).all()


def test_the_whole_logit_is_a_projection() -> None:
    """psi(phi) + <phi, V y>: linear in V, and without V only psi is left (Miyato & Koyama 2018, equation 3)."""
    net, values = make(**SMALL), inputs(3, HORIZON)
    weight = net.project.weight.data.clone()
    found = {}
    for scale in (0.0, 1.0, 3.0):
        net.project.weight.data = scale * weight
        found[scale] = net(*values.values()).whole_R
    torch.testing.assert_close(found[3.0] - found[0.0], 3 * (found[1.0] - found[0.0]))
    assert ((found[1.0] - found[0.0]).abs() > 1e-5).all()
    net.project.weight.data.zero_()
    net.psi.weight.data.zero_()
    torch.testing.assert_close(net(*values.values()).whole_R, net.psi.bias.expand(3))


def test_the_spread_of_a_batch_is_the_mean_of_the_standard_deviations() -> None:
    h = torch.randn(6, 4, 7, generator=torch.Generator().manual_seed(0))
    expected = h.std(0, correction=0).mean()
    torch.testing.assert_close(minibatch_std(h), expected.expand(6, 1, 7))
    torch.testing.assert_close(minibatch_std(3 * h + 5), (3 * expected).expand(6, 1, 7))


def test_spectral_normalisation_is_of_every_layer_and_exact_at_once() -> None:
    net = make(**SMALL, spectral_norm=True)
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv1d)]
    for layer in layers:
        assert torch.linalg.svdvals(layer.weight.flatten(1))[0].item() == pytest.approx(1, abs=1e-5)
    assert len(layers) == sum(p.ndim > 1 for p in net.parameters())


@pytest.mark.parametrize("wrong", [{"width": -1}, {"kernel": 4}, {"multipliers": ()}, {"frequencies": 99}])
@pytest.mark.parametrize("config", [DiscriminatorConfig, TemporalUNetConfig])
def test_settings_that_make_no_network_are_refused_by_name(config: type, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        config(**wrong)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("horizon", [1, 2])
def test_one_timestep_is_convolved_as_many_are(kernel: int, horizon: int) -> None:
    """Values, gradients, and what gradient penalties need: gradients of gradients."""
    ours, h = Convolution(3, 4, kernel), inputs(2, horizon)["x"][..., :3].transpose(1, 2).requires_grad_()
    found = []
    for y in (ours(h), F.conv1d(h, ours.weight, ours.bias, padding=kernel // 2)):
        slope = torch.autograd.grad(y.square().sum(), h, create_graph=True)[0]
        assert ours.bias is not None
        found.append([y, slope, *torch.autograd.grad(slope.square().sum(), [h, ours.weight, ours.bias])])
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other)
