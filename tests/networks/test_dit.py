"""The transformer: attention as defined, zero when untrained, and rows that know where they are."""

import torch

from gentraj.networks import DiT, DiTConfig
from gentraj.networks.embedding import SelfAttention

DIM, HORIZON = 3, 7
CONFIG = DiTConfig(width=16, depth=2, heads=4, frequencies=1)


def inputs() -> tuple[torch.Tensor, ...]:
    x = torch.randn(4, HORIZON, DIM, generator=torch.Generator().manual_seed(0))
    return x, torch.zeros_like(x), torch.zeros(x.shape, dtype=torch.bool), torch.full((4,), 0.5)


def test_attention_is_softmax_of_scaled_products() -> None:
    layer, h = SelfAttention(8, 2), torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    q, k, v = (part.view(3, 5, 2, 4) for part in layer.qkv(h).split(8, -1))
    weight = (torch.einsum("rind,rjnd->rnij", q, k) / 2).softmax(-1)
    torch.testing.assert_close(layer(h), layer.out(torch.einsum("rnij,rjnd->rind", weight, v).flatten(2)))


def test_untrained_it_predicts_zero_and_learns_from_the_first_step() -> None:
    """adaLN-zero: all blocks are the identity and the last layer is zero."""
    net = DiT(DIM, HORIZON, 0, CONFIG)
    out = net(*inputs())
    assert not out.any()
    (out - 1).square().sum().backward()
    assert net.out.weight.grad is not None and net.out.weight.grad.any()


def test_a_row_knows_where_it_is() -> None:
    """Without positions, attention could not tell one order of the rows from another."""
    net, (x, *rest) = DiT(DIM, HORIZON, 0, CONFIG), inputs()
    with torch.no_grad():
        net.out.weight.normal_(generator=torch.Generator().manual_seed(0))
    assert (net(x.flip(1), *rest) - net(x, *rest).flip(1)).abs().max() > 1e-2
    net.position_HW.zero_()
    torch.testing.assert_close(net(x.flip(1), *rest), net(x, *rest).flip(1))
